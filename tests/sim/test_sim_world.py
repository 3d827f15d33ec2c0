"""The simulator as a world: verbs, what is recorded, and that equal seeds give equal histories."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec.structs import replace

from chaos.history import (
    Answered,
    AnyRecord,
    Asked,
    Committed,
    Configured,
    Edited,
    Faulted,
    History,
    Led,
    Operated,
    Pooled,
    Probed,
    Record,
    Rewound,
    Served,
    Wrote,
)
from chaos.scenario import VERBS, Fault, Resolvers, Scenario
from chaos.worlds.sim import SimWorld
from chaos.worlds.world import Refused
from policies.topology import Config, PoolDriver, Pools, Quorum
from tests.sim.setting import SITES, WITNESS, config

ROOT = Path(__file__).parents[2]
R = TypeVar("R", bound=Record)
QUICK = config(soak_s=20.0, step_s=10.0, hold_s=5.0)


def scenario(*faults: Fault, cfg: Config = QUICK, duration_s: float = 60.0, transfer_s: float = 0.0) -> Scenario:
    return Scenario(
        name="story",
        about="",
        config=cfg,
        config_text="",
        duration_s=duration_s,
        faults=faults,
        expect=(),
        resolvers=Resolvers(stretch=1, stale=1),
        transfer_s=transfer_s,
        file="story.yaml",
    )


def play(*faults: Fault, cfg: Config = QUICK, duration_s: float = 60.0, seed: int = 1) -> History:
    return SimWorld().play(scenario(*faults, cfg=cfg, duration_s=duration_s), seed, lambda record: None)


def pooled(cfg: Config) -> Config:
    www = cfg.services["www"]
    pools = Pools("bk_www", {site: (f"{site}-1", f"{site}-2") for site in SITES})
    driver = PoolDriver("haproxy", "haproxy", SITES, '{"socket":"/run/haproxy.sock"}')
    return replace(cfg, services={"www": replace(www, pools=pools)}, pools=(driver,))


def of(history: History, kind: type[R], since: float = 0.0) -> list[R]:
    return [record for record in history.records if isinstance(record, kind) and record.at >= since]


EVERYTHING = (
    Fault(verb="lie", at_s=1.0, for_s=4.0, node="site-c", says="nothing"),
    Fault(verb="flaky", at_s=2.0, for_s=30.0, service="www", site="site-c", rate=0.5),
    Fault(verb="loss", at_s=3.0, for_s=20.0, one="site-b", other="*", rate=0.2),
    Fault(verb="loss", at_s=4.0, for_s=20.0, message="reply", rate=0.3),
    Fault(verb="delay", at_s=5.0, for_s=10.0, message="watch", node="site-b", by_s=0.4),
    Fault(verb="slow", at_s=6.0, for_s=20.0, one="site-a", other="site-c", by_s=0.2),
    Fault(verb="store_down", at_s=10.0, for_s=3.0),
    Fault(verb="power_off", at_s=15.0, for_s=20.0, site="site-a"),
    Fault(verb="kill", at_s=20.0, for_s=5.0, node="leader"),
    Fault(verb="pause", at_s=27.0, for_s=5.0, node="store_leader"),
    Fault(verb="operator", at_s=38.0, argv=("drain", "site-c", "--reason", "test", "--no-wait")),
    Fault(verb="edit_zone", at_s=45.0, service="www", site="site-b", other="site-c", how="none"),
    Fault(verb="restart", at_s=47.0, for_s=2.0, node="leader"),
)


# --- equal seeds ----------------------------------------------------------------------------------------------


def everything() -> History:
    """To be played by other processes too."""
    return play(*EVERYTHING, cfg=pooled(QUICK))


def test_equal_seeds_give_equal_histories_in_every_process() -> None:
    code = "from tests.sim.test_sim_world import everything\nprint(everything().sha256)"
    found = {everything().sha256}
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert done.stderr == "", "it leaves nothing behind"
        found.add(done.stdout.strip())
    assert len(found) == 1


def test_another_seed_is_another_history() -> None:
    fault = Fault(verb="stop", at_s=1.0, service="www", site="site-a", how="refuse")
    assert play(fault, duration_s=10.0, seed=1).sha256 != play(fault, duration_s=10.0, seed=2).sha256


# --- what is recorded -----------------------------------------------------------------------------------------


def test_everything_is_recorded_in_the_order_of_time_and_told_as_it_happens() -> None:
    told: list[AnyRecord] = []
    history = SimWorld().play(scenario(*EVERYTHING, cfg=pooled(QUICK)), 1, told.append)
    assert tuple(told) == history.records
    assert [record.at for record in told] == sorted(record.at for record in told)
    assert told[0].at < 0 and told[-1].at == 60.0
    kinds = {type(record) for record in told}
    assert kinds == {Faulted, Led, Committed, Probed, Wrote, Edited, Answered, Served, Asked, Pooled, Operated}
    began = [record for record in told if isinstance(record, Faulted) and record.began]
    assert [record.index for record in began] == list(range(len(EVERYTHING)))
    assert began[8].text.startswith("kill (") and began[9].text.startswith("pause ("), "who it was"
    (operated,) = [record for record in told if isinstance(record, Operated)]
    assert (operated.index, operated.code, operated.argv[:2]) == (10, 0, ("drain", "site-c"))


def test_before_time_0_all_is_well_and_after_it_a_quiet_minute_says_nothing() -> None:
    history = play()
    assert {type(record) for record in history.records if record.at >= 0} == {Served, Asked}
    assert history.records[0].at < -5.0
    asked = [record for record in history.records if isinstance(record, Asked)]
    assert len(asked) == 3 and all(record.requests >= 60 and not record.failed for record in asked)


def test_a_probe_tells_when_the_last_one_before_it_passed() -> None:
    history = play(Fault(verb="stop", at_s=10.0, service="www", site="site-a", how="error"), duration_s=30.0)
    turned = [record for record in history.records if isinstance(record, Probed) and record.at > 0]
    assert {record.vantage for record in turned} == {*SITES, WITNESS}
    for record in turned:
        assert (record.site, record.service, record.passed, record.answered) == ("site-a", "www", False, True)
        assert record.reason == "status 500" and 10.0 <= record.at < 11.2
        assert record.before_at is not None and record.at - 1.3 < record.before_at < 10.0 + 0.1


def test_a_commit_tells_who_held_the_leader_key() -> None:
    history = play(Fault(verb="cut", at_s=5.0, one="site-a", other="*"), duration_s=30.0)
    commits = [record for record in history.records if isinstance(record, Committed)]
    assert commits and all((c.holder, c.holder_token) == (c.decision.node, c.decision.token) for c in commits)


def test_answers_are_recorded_as_clients_of_a_region_get_them() -> None:
    history = play(Fault(verb="cut", at_s=5.0, for_s=20.0, one="site-a", other="*"), duration_s=40.0)
    answers = [record for record in history.records if isinstance(record, Answered) and record.at >= 0]
    dark = [(a.at, a.reachable, a.sites) for a in answers if a.server == "site-a"]
    assert dark[0] == (5.0, False, ()) and dark[1] == (25.0, True, ("site-a",)) and dark[2][2] == ("site-b",)
    assert all(a.sites == ("site-b",) and a.generation == 2 for a in answers if a.server != "site-a")


# --- verbs ----------------------------------------------------------------------------------------------------


def test_it_has_every_verb_but_one() -> None:
    assert SimWorld.verbs == VERBS.keys() - {"bandwidth"}


def served(history: History, at: float) -> set[tuple[str, str]]:
    """(site, error) of the clients whose resolver keeps to TTLs, at that time."""
    last: dict[str, tuple[str, str]] = {}
    for record in history.records:
        if isinstance(record, Served) and record.resolver == "keeps" and record.at <= at:
            last[record.client] = (record.site, record.error)
    return set(last.values())


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(verb="stop", at_s=5.0, service="www", site="site-a", how="refuse"), "refused"),
        (Fault(verb="stop", at_s=5.0, service="www", site="site-a", how="hang"), "timeout"),
        (Fault(verb="stop", at_s=5.0, service="www", site="site-a", how="error"), "status 500"),
        (Fault(verb="reset", at_s=5.0, service="www", site="site-a"), "reset"),
        (Fault(verb="slow", at_s=5.0, service="www", site="site-a", by_s=2.0), "timeout"),
        (Fault(verb="flaky", at_s=5.0, service="www", site="site-a", rate=1.0), "status 500"),
        (Fault(verb="cut", at_s=5.0, one="site-a", other="*"), "timeout"),
        (Fault(verb="power_off", at_s=5.0, site="site-a"), "timeout"),
        (Fault(verb="slow", at_s=5.0, one="site-a", other="*", by_s=3.0), "timeout"),
    ],
    ids=lambda value: value.verb if isinstance(value, Fault) else value,
)
def test_what_clients_meet_and_that_traffic_leaves(fault: Fault, error: str) -> None:
    history = play(fault, duration_s=50.0)
    assert served(history, 4.9) == {("site-a", "")}
    assert served(history, 6.1) == {("site-a", error)}
    assert served(history, 50.0) == {("site-b", "")}


@pytest.mark.parametrize("says", ["up", "down", "nothing", "stuck"])
def test_one_vantage_that_lies_moves_nothing(says: str) -> None:
    history = play(Fault(verb="lie", at_s=5.0, for_s=30.0, node="site-b", says=says), duration_s=50.0)
    assert not [record for record in of(history, Committed) if record.decision.new_generation]
    assert {record.vantage for record in of(history, Probed)} == (set() if says in ("up", "stuck") else {"site-b"})


def test_a_configuration_and_a_restored_store_are_told(tmp_path: Path) -> None:
    """A drain that the backup does not know."""
    history = play(
        Fault(verb="operator", at_s=12.0, argv=("drain", "site-a", "--reason", "test", "--no-wait")),
        Fault(verb="store_rewind", at_s=20.0, by_s=10.0),
        Fault(verb="store_compact", at_s=25.0),
    )
    assert [(record.at, record.to) for record in of(history, Rewound)] == [(20.0, 10.0)]
    assert not of(history, Configured)
    assert served(history, 60.0) == {("site-b", "")}, "what is served is taken over"


def test_updates_that_a_name_server_refuses_are_told() -> None:
    down = Fault(verb="dns_api_down", at_s=1.0, for_s=40.0, site="site-c")
    history = play(down, Fault(verb="stop", at_s=5.0, service="www", site="site-a", how="refuse"))
    wrote = [record for record in of(history, Wrote) if record.server == "site-c"]
    assert {record.result for record in wrote if record.at < 41.0} == {"terminal"}
    assert [record.result for record in wrote if record.at >= 41.0] == ["ok"]


@pytest.mark.parametrize(
    ("fence", "put_right"), [("keep", True), ("none", True), ("manual", False), ("foreign", False)]
)
def test_a_zone_edited_by_hand(fence: str, put_right: bool) -> None:
    history = play(Fault(verb="edit_zone", at_s=5.0, service="www", site="site-b", other="site-c", how=fence))
    (edited,) = of(history, Edited)
    assert (edited.server, edited.service, edited.manual) == ("site-b", "www", fence == "manual")
    answers = [record.sites for record in of(history, Answered) if record.server == "site-b"]
    assert answers == ([("site-c",), ("site-a",)] if put_right else [("site-c",)])


def test_an_update_that_is_held_back_comes_late_and_is_fenced() -> None:
    history = play(
        Fault(verb="delay", at_s=1.0, for_s=10.0, message="dns_update", node="site-a", by_s=20.0),
        Fault(verb="stop", at_s=5.0, service="www", site="site-a", how="refuse"),
    )
    wrote = [record for record in of(history, Wrote) if record.server == "site-a"]
    assert (wrote[0].writer, wrote[0].result) == ("site-b", "ok"), "the deputy"
    late = [record for record in wrote if record.writer == "site-a"]
    assert late and all(record.at > 25.0 and record.result == "fenced" for record in late)


def test_faults_that_last_end_with_the_scenario() -> None:
    history = play(Fault(verb="cut", at_s=5.0, one="site-a", other="*"), duration_s=20.0)
    assert [(record.at, record.began) for record in of(history, Faulted)] == [(5.0, True), (20.0, False)]


# --- refused --------------------------------------------------------------------------------------------------


def refused(*faults: Fault, cfg: Config = QUICK) -> Sequence[str]:
    with pytest.raises(Refused) as raised:
        SimWorld().play(scenario(*faults, cfg=cfg), 1, lambda record: None)
    return raised.value.problems


def test_what_it_cannot_do_is_refused_before_anything_is_broken() -> None:
    slow = Fault(verb="bandwidth", at_s=1.0, service="www", site="site-a", rate=10.0, line=7, column=5)
    word = Fault(verb="operator", at_s=1.0, argv=("drian", "site-a"), line=8, column=5)
    one, two = refused(slow, word)
    assert one.startswith('story.yaml:7:5: the simulator cannot do "bandwidth"')
    assert two.startswith("story.yaml:8:5: ") and "drian" in two
    (server,) = refused(Fault(verb="dns_api_down", at_s=1.0, site=WITNESS, line=9, column=3))
    assert server.startswith("story.yaml:9:3: witness has no name server")


def test_name_servers_at_one_address_are_refused() -> None:
    one, two, three = QUICK.dns
    (problem,) = refused(cfg=replace(QUICK, dns=(one, two, replace(three, options=one.options))))
    assert "dns-site-a and dns-site-c are both at 192.0.2.53:53" in problem


def test_a_cluster_that_never_gets_well_is_refused_with_the_reason() -> None:
    policy = replace(QUICK.policy, quorum=Quorum(min_vantages=9))
    www = replace(QUICK.services["www"], policy=policy)
    problems = refused(cfg=replace(QUICK, policy=policy, services={"www": www}))
    assert any("www" in problem for problem in problems)


def test_interrupted_it_leaves_nothing_behind() -> None:
    def say(record: AnyRecord) -> None:
        if isinstance(record, Committed) and record.at > 0:
            raise KeyboardInterrupt

    drain = Fault(verb="operator", at_s=5.0, argv=("drain", "site-a", "--reason", "test"))
    with pytest.raises(KeyboardInterrupt):
        SimWorld().play(scenario(drain), 1, say)
    assert [thread.name for thread in threading.enumerate() if thread.name == "failoverctl"] == []
    assert play(drain).sha256 == play(drain).sha256, "and the next one plays"
