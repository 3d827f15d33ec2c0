"""Drills against real toxiproxy servers: what they break, that it heals whoever dies, what keeps one from starting."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.history import Answered, Asked, Committed, Configured, Faulted, Led, Operated, Served
from chaos.report import Report
from chaos.worlds.staging import StagingWorld, halt
from chaos.worlds.staging.journal import Ended, Journal, Making, journals
from chaos.worlds.staging.toxiproxy import Toxic, Toxiproxy
from chaos.worlds.world import Refused
from tests.real.failoverd_world import until
from tests.real.staging_world import CLUSTER, Runner, Staging

pytestmark = pytest.mark.timeout(150)  # real processes, on a machine that may be busy

CUT = 'faults: [{at: 1s, cut: [site-a, "*"], for: 6s}]\n'
LONG_CUT = 'faults: [{at: 0s, cut: [site-a, "*"]}]\nexpect: [{always: [never_empty]}]\n'


@pytest.fixture(scope="module")
def staging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staging]:
    found = Staging(tmp_path_factory.mktemp("staging"))
    try:
        yield found.start()
    finally:
        found.close()


@pytest.fixture
def well(staging: Staging) -> Staging:
    """Before each drill: nothing of the last one is left, and traffic is back where it belongs."""
    staging.wait_until_well()
    return staging


def last_journal(staging: Staging) -> Journal:
    return journals(staging.state)[-1]


def wrong(report: Report) -> list[object]:
    """What keeps it from having passed."""
    failed = [each for each in (*report.expectations, *report.invariants) if not each.passed]
    return [*failed, *report.left, report.stopped]


def test_a_site_is_cut_off_and_comes_back(well: Staging) -> None:
    expect = (
        "expect:\n"
        "  - {by: 7s, answer: {www: [site-b]}}\n"
        "  - {outage: {www: 9s}}\n"
        "  - {always: [fenced, never_empty, quorum_backed, audited]}\n"
        "  - {after_heal: 8s, converged: true}\n"
    )
    drilled = well.drill(well.scenario("cut", CUT + expect, duration="16s"))
    report, history = drilled.report, drilled.history
    assert report.passed, wrong(report)
    assert report.left == () and history.stopped == "" and report.world == "staging"
    kinds = {type(record) for record in history.records}
    assert kinds >= {Answered, Asked, Committed, Configured, Faulted, Led, Served}
    assert [record.began for record in history.records if isinstance(record, Faulted)] == [True, False]
    moves = [r for r in history.records if isinstance(r, Committed) and r.at > 0 and r.decision.new_generation]
    assert moves and all((r.holder, r.holder_token) == (r.decision.node, r.decision.token) for r in moves)
    assert {r.site for r in history.records if isinstance(r, Served) and not r.error} == {"site-a", "site-b"}
    assert well.healed()
    assert [type(entry).__name__ for entry in last_journal(well).entries()] == ["Begun", "Making", "Healed", "Ended"]


def test_every_other_verb_does_what_it_says_and_an_operator_takes_part(well: Staging) -> None:
    faults = (
        "faults:\n"
        "  - {at: 0s, slow: {service: www, site: site-c, by: 300ms}, for: 2s}\n"
        "  - {at: 0s, bandwidth: {service: www, site: site-c, rate: 100}, for: 2s}\n"
        "  - {at: 1s, stop: {service: www, site: site-c, how: refuse}, for: 3s}\n"
        '  - {at: 1s, cut: [site-c, "*"], for: 1s}\n'
        "  - {at: 1s, reset: {service: www, site: site-b}, for: 1s}\n"
        '  - {at: 1s, loss: {between: [site-b, "*"], rate: 50%}, for: 1s}\n'
        "  - {at: 1s, operator: 'drain site-c --reason drill --yes --no-wait'}\n"
    )
    try:
        drilled = well.drill(well.scenario("others", faults + "expect: [{always: [never_empty]}]\n", duration="6s"))
    finally:
        undrained = well.ctl("undrain", "site-c", "--yes")
    assert undrained.returncode == 0, "the drill leaves what an operator did in force, and says so"
    assert [invariant.passed for invariant in drilled.report.invariants] == [True]
    assert (
        not drilled.report.passed
        and len(drilled.report.left) == 1
        and "(drain site-c) in force" in drilled.report.left[0]
    )
    toxics = {
        fault.index: [(toxic.type, toxic.toxicity) for deed in fault.deeds for toxic in deed.toxics]
        for fault in last_journal(well).entries()
        if isinstance(fault, Making)
    }
    assert toxics == {
        0: [("latency", 1.0)],
        1: [("bandwidth", 1.0)],
        2: [("noop", 1.0)],
        3: [("timeout", 1.0), ("timeout", 1.0)],
        4: [("reset_peer", 1.0)],
        5: [("timeout", 0.5)],
    }
    operated = [record for record in drilled.history.records if isinstance(record, Operated)]
    assert [record.code for record in operated] == [0] and "site-c" in operated[0].said, operated
    assert well.healed()


def test_kill_9_of_the_runner_and_the_switch_heals(well: Staging) -> None:
    runner = Runner(well, well.scenario_file("killed", LONG_CUT, duration="10m"))
    try:
        runner.wait_for_fault()
        assert not well.healed()
        os.kill(runner.process.pid, signal.SIGKILL)
        until("the switch to heal", well.healed, within_s=20)
        until("the journal's end", lambda: last_journal(well).healed())
    finally:
        runner.end()
    ended = last_journal(well).entries()[-1]
    assert isinstance(ended, Ended) and (ended.by, ended.why) == ("switch", "the runner of the drill died")
    assert halt(state_dir=well.state).healed == (), "there is nothing left to heal"
    well.wait_until_well()


def test_a_runner_that_stands_still_is_given_up_and_learns_of_it(well: Staging) -> None:
    runner = Runner(well, well.scenario_file("frozen", LONG_CUT, duration="10m"))
    try:
        runner.wait_for_fault()
        os.kill(runner.process.pid, signal.SIGSTOP)
        until("the switch to heal", well.healed, within_s=30)
        os.kill(runner.process.pid, signal.SIGCONT)
        assert runner.stopped() == "the dead-man's switch ended, or gave this process up"
    finally:
        runner.end()


def test_without_its_switch_a_runner_heals_and_stops(well: Staging) -> None:
    runner = Runner(well, well.scenario_file("alone", LONG_CUT, duration="10m"))
    try:
        runner.wait_for_fault()
        children = Path(f"/proc/{runner.process.pid}/task/{runner.process.pid}/children").read_text().split()
        assert len(children) == 1, "the switch is the only child of the runner"
        os.kill(int(children[0]), signal.SIGKILL)
        assert runner.stopped() == "the dead-man's switch ended, or gave this process up"
    finally:
        runner.end()
    assert well.healed()
    ended = last_journal(well).entries()[-1]
    assert isinstance(ended, Ended) and (ended.by, ended.left) == ("drill", ())


def test_halt_ends_a_drill_heals_and_says_what_is_left(well: Staging) -> None:
    runner = Runner(well, well.scenario_file("halted", LONG_CUT, duration="10m"))
    try:
        runner.wait_for_fault()
        with pytest.raises(Refused, match="runs already"):
            well.world().play(well.scenario("second", LONG_CUT), 0, lambda record: None)
        said: list[str] = []
        halted = halt(well.file, state_dir=well.state, say=said.append)
        assert halted.stopped == (f"real (pid {runner.process.pid})",) and halted.left == ()
        assert runner.stopped() == "halted"
    finally:
        runner.end()
    assert well.healed() and said
    again = well.ctl("drill", "halt", "--json")
    assert again.returncode == 0 and json.loads(again.stdout) == {"ok": True, "stopped": [], "healed": [], "left": []}


def test_ctrl_c_heals_before_it_ends(well: Staging) -> None:
    runner = Runner(well, well.scenario_file("interrupted", LONG_CUT, duration="10m"))
    try:
        runner.wait_for_fault()
        os.kill(runner.process.pid, signal.SIGINT)
        assert runner.process.wait(30) == 130, runner.log.read_text()
        assert well.healed()
    finally:
        runner.end()
    assert last_journal(well).healed()


def test_a_toxiproxy_that_hangs_is_left_and_keeps_nobody_from_healing_the_others(well: Staging) -> None:
    hung = well.toxiproxies["site-b"]
    faults = 'faults: [{at: 0s, cut: [site-b, "*"]}, {at: 0s, cut: [site-c, "*"]}]\nexpect: [{always: [never_empty]}]\n'
    runner = Runner(well, well.scenario_file("hung", faults, duration="10m"))
    try:
        until("both cuts", lambda: sum(bool(proxy.toxics) for proxy in well.proxies().values()) == 2)
        hung.process.freeze()
        os.kill(runner.process.pid, signal.SIGKILL)
        halted = well.ctl("drill", "halt", "--json")
        assert halted.returncode == 1
        left = json.loads(halted.stdout)["left"]
        assert len(left) == 1 and left[0].startswith(f"toxiproxy {hung.url} does not answer: time-out; when it is back")
        assert not Toxiproxy(well.toxiproxies["site-c"].url).proxies()["www-site-c"].toxics
        with pytest.raises(Refused, match="an earlier drill was not healed to its end"):
            well.world().play(well.scenario("second", LONG_CUT), 0, lambda record: None)
    finally:
        hung.process.thaw()
        runner.end()
    until("the switch, which tries again, to heal it", well.healed, within_s=30)
    until("the journal's end", lambda: last_journal(well).healed())


def test_halt_finds_what_an_unknown_runner_left_by_looking(well: Staging, tmp_path: Path) -> None:
    toxiproxy = Toxiproxy(well.toxiproxies["site-c"].url)
    toxiproxy.add("www-site-c", Toxic("drill-0-off", "noop"))
    toxiproxy.enable("www-site-c", False)
    toxiproxy.add("www-site-c", Toxic("somebody", "latency", attributes={"latency": 1, "jitter": 0}))
    try:
        halted = halt(well.file, state_dir=tmp_path)
        assert len(halted.healed) == 1 and halted.left == ()
        proxy = toxiproxy.proxies()["www-site-c"]
        assert proxy.enabled and [toxic.name for toxic in proxy.toxics] == ["somebody"], "what is not ours stays"
    finally:
        toxiproxy.remove("www-site-c", "somebody")


def test_client_errors_beyond_what_the_scenario_allows_end_it(well: Staging) -> None:
    faults = "faults:\n" + "".join(
        f"  - {{at: 0s, stop: {{service: www, site: {site}, how: hang}}}}\n" for site in well.toxiproxies
    )
    drilled = well.drill(well.scenario("worse", faults + "expect: [{outage: {www: 3s}}]\n", duration="10m"))
    assert (
        drilled.history.stopped.startswith("client errors ") and "3 s that www may be away" in drilled.history.stopped
    )
    assert drilled.history.duration_s < 60
    assert well.healed() and drilled.report.left == ()


def refused(staging: Staging, world: StagingWorld) -> str:
    heard: list[object] = []
    with pytest.raises(Refused) as error:
        world.play(staging.scenario("never", LONG_CUT), 0, heard.append)
    assert heard == [], "nothing was broken"
    return str(error.value)


def test_preflight_tells_every_problem_of_the_proxies_at_once(well: Staging, tmp_path: Path) -> None:
    a, b, c = (Toxiproxy(well.toxiproxies[site].url) for site in ("site-a", "site-b", "site-c"))
    file = tmp_path / "other.staging.yaml"
    text = well.file.read_text()
    file.write_text(text.replace("www: www-site-a", "www: www-elsewhere"))
    b.enable("www-site-b", False)
    c.add("www-site-c", Toxic("somebody", "latency", attributes={"latency": 1, "jitter": 0}))
    try:
        said = refused(well, StagingWorld(file, yes_on=CLUSTER, state_dir=tmp_path / "state"))
    finally:
        b.enable("www-site-b", True)
        c.remove("www-site-c", "somebody")
    assert f'toxiproxy {a.url} has no proxy "www-elsewhere"; there are www-site-a' in said
    assert f'proxy "www-site-b" at {b.url} is disabled; enable it' in said
    assert f'proxy "www-site-c" at {c.url} has toxics that somebody left: somebody; remove them' in said


def test_preflight_of_a_toxiproxy_that_is_not_there(well: Staging, tmp_path: Path) -> None:
    url = well.toxiproxies["site-a"].url
    for place, why in (("http://127.0.0.1:1", "connection refused"), (well.nodes["site-a"].url, "version")):
        file = tmp_path / "gone.staging.yaml"
        file.write_text(well.file.read_text().replace(url, place))
        said = refused(well, StagingWorld(file, yes_on=CLUSTER, state_dir=tmp_path / "state"))
        assert f"toxiproxy {place}" in said and why in said, said


def test_preflight_of_the_wrong_cluster(well: Staging, tmp_path: Path) -> None:
    said = refused(well, StagingWorld(well.file, yes_on="production", state_dir=tmp_path))
    assert f'--yes-on production: {well.file} is of cluster "real"' in said
    file = tmp_path / "other.staging.yaml"
    file.write_text(well.file.read_text().replace("cluster: real", "cluster: other"))
    said = refused(well, StagingWorld(file, yes_on="other", state_dir=tmp_path))
    assert f'the API is of cluster "real", {file} of "other"' in said
    shown: list[str] = []

    def mistyped(plan: str) -> str:
        shown.append(plan)
        return "rael"

    said = refused(well, StagingWorld(well.file, confirm=mistyped, state_dir=tmp_path))
    assert 'the cluster\'s name is "real", and "rael" was typed; nothing was broken' in said
    assert "at 0 s: cut" in shown[0] and "www-site-a" in shown[0]
    said = refused(well, StagingWorld(well.file, state_dir=tmp_path))
    assert "it was not typed" in said


def test_preflight_of_a_cluster_that_is_not_well(well: Staging, tmp_path: Path) -> None:
    drained = well.ctl("drain", "site-c", "--reason", "a test", "--yes", "--no-wait")
    assert drained.returncode == 0, drained.stdout + drained.stderr
    file = tmp_path / "other.staging.yaml"
    text = well.file.read_text().replace("{www: www-site-c}", "{www: www-site-c, shop: shop-c}")
    file.write_text(text.replace(f":{well.web_port}/", ":1/"))
    try:
        said = refused(well, StagingWorld(file, yes_on=CLUSTER, state_dir=tmp_path))
    finally:
        assert well.ctl("undrain", "site-c", "--yes").returncode == 0
    assert "(drain site-c) is in force; end it first" in said
    assert "service www at site-c is out" in said
    assert "(rev 1) has no service shop, which" in said
    assert "client www/world cannot get" in said and "ConnectionRefusedError" in said


def test_preflight_of_a_control_plane_that_is_away(well: Staging, tmp_path: Path) -> None:
    file = tmp_path / "other.staging.yaml"
    lines = [
        "api: [http://127.0.0.1:1]" if line.startswith("api:") else line for line in well.file.read_text().splitlines()
    ]
    file.write_text("\n".join(lines))
    assert "the control plane does not answer" in refused(well, StagingWorld(file, yes_on=CLUSTER, state_dir=tmp_path))
