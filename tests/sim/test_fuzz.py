"""Random cases: accepted, alike for equal seeds, judged, shrunk, written so that they can be repeated, and stopped."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from chaos import fuzz as fuzzing
from chaos.cases import changed_config, random_config
from chaos.checkers import CHECKERS
from chaos.fuzz import Case, Outcome, Progress, case_seed, examine, fuzz, fuzz_case, play, write
from chaos.history import History
from chaos.mishaps import KINDS, random_faults
from chaos.reading import read_scenario
from chaos.report import Invariant
from chaos.scenario import VERBS, Fault, Scenario
from chaos.shrink import shrink
from chaos.worlds.sim import SimWorld
from chaos.writing import worded
from controlplane.config import read_config
from controlplane.dns.table import Table
from controlplane.drivers import Actual, Change, Result
from policies.standing import FULL, Facts, Standing, stand
from tests.sim.mutations.swap import everywhere
from tests.unit.histories import scenario

SOME = [case_seed(7, number) for number in range(40)]


def test_equal_seeds_give_equal_cases() -> None:
    assert fuzz_case(11) == fuzz_case(11)
    assert fuzz_case(11) != fuzz_case(12)
    assert len(set(SOME)) == len(SOME)


def test_cases_are_scenarios_that_can_be_read_and_played(tmp_path: Path) -> None:
    for seed in SOME[:15]:
        case = fuzz_case(seed)
        read = read_scenario(write(case, tmp_path))
        assert read.scenario is not None, read.problems
        given = replace(case.scenario, file=read.scenario.file)
        bare = replace(read.scenario, faults=tuple(replace(f, line=0, column=0) for f in read.scenario.faults))
        assert replace(bare, expect=given.expect) == given
        assert SimWorld().check(read.scenario) == []


def test_all_that_is_promised_to_be_tried_is_tried() -> None:
    """3 to 7 sites, up to two witnesses, backups, one to six services and more, in 120 configurations."""
    configs = [random_config(random.Random(n))[0] for n in range(120)]
    witnesses = {sum(site.role == "witness" for site in config.sites.values()) for config in configs}
    assert {len(config.sites) for config in configs} == {3, 4, 5, 6, 7}
    assert witnesses == {0, 1, 2}
    assert any(site.role == "backup" for config in configs for site in config.sites.values())
    assert {len(config.services) for config in configs} >= {1, 2, 3, 6}
    assert {spec.steering.mode for config in configs for spec in config.services.values()} == {
        "priority",
        "nearest",
        "weighted",
    }
    assert any(spec.policy.failback.mode == "manual" for config in configs for spec in config.services.values())
    assert {driver.driver for config in configs for driver in config.dns} == {"rfc2136", "embedded"}
    assert any(config.pools for config in configs)
    for n in range(20):
        rng = random.Random(n)
        config, document, _ = random_config(rng)
        other, _, text = changed_config(rng, document)
        assert read_config(text).config == other
        assert other.cluster == config.cluster


def test_every_verb_that_the_simulator_knows_is_tried() -> None:
    """But a lag: no kind of check that ships measures one."""
    rng = random.Random(1)
    config = random_config(rng)[0]
    tried = {f.verb for _ in range(150) for f in random_faults(rng, config, ("changed-1.yaml",), 240.0)}
    assert tried == SimWorld.verbs - {"lag"}
    assert len(KINDS) >= len(tried)


def test_faults_end_before_the_phase_does_and_operators_clear_up() -> None:
    for seed in SOME:
        told = fuzz_case(seed).scenario
        breaking = [fault for fault in told.faults if VERBS[fault.verb].heals]
        last = told.faults[-1]
        assert all(fault.for_s is not None for fault in breaking)
        assert last.verb == "operator"
        assert last.at_s == told.healed_s
        assert told.duration_s > told.healed_s


# ---- what fails is found, and shrunk

CULPRITS = ("stop", "pause")


def planted(told: Scenario, history: History) -> Invariant:
    """Fails where these two are both in the list."""
    there = {fault.verb for fault in told.faults}
    wrong = () if not there.issuperset(CULPRITS) else ("at 30.0s both were there",)
    return Invariant("never_empty", not wrong, 1, wrong)


CONFIG = """
version: 1
cluster: small
sites: {site-a: {capacity: 1000}, site-b: {capacity: 1000}, site-c: {role: witness}}
store: {members: [site-a, site-b, site-c]}
policy: {hold: 0s, failback: {soak: 0s, ramp: [100], step: 0s}}
services:
  www:
    endpoints: {site-a: 198.51.0.10, site-b: 198.51.1.10}
    demand: 100
    checks: [{http: {port: 80}}]
    dns: {name: www.example.org, ttl: 5s}
drivers:
  dns:
    - {driver: rfc2136, site: site-b, address: 198.18.0.53, zones: [example.org], tsig: {name: k, key: {env: K}}}
"""


def small(*faults: Fault) -> Case:
    config = read_config(CONFIG).config
    assert config is not None
    told = scenario(*faults, expect=fuzz_case(1).scenario.expect, cfg=config, config_text=CONFIG)
    return Case(3, worded(fuzzing.lasting(told)))


def shown(case: Case, folder: Path) -> list[str]:
    """The faults that are left of it, by verb."""
    found = examine(case, play(case), folder)
    assert found.before == len(case.scenario.faults)
    read = read_scenario(Path(found.file))
    assert read.scenario is not None, read.problems
    assert found.command == f"failoverctl drill run {found.file} --world sim --seed {case.seed}"
    again = play(replace(case, scenario=read.scenario))
    assert found.checker in again.failures
    return [" ".join((fault.verb, *fault.argv[:1])) for fault in read.scenario.faults]


def test_what_fails_is_shrunk_to_what_is_to_blame(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(CHECKERS, "never_empty", planted)
    case = small(
        Fault(verb="kill", at_s=5.0, for_s=4.0, node="leader"),
        Fault(verb="store_compact", at_s=6.0),
        Fault(verb="stop", at_s=8.0, for_s=16.0, service="www", site="site-a", how="refuse"),
        Fault(verb="lie", at_s=9.0, for_s=5.0, node="site-a", says="up"),
        Fault(verb="pause", at_s=12.0, for_s=4.0, node="site-b"),
        Fault(verb="store_down", at_s=13.0, for_s=2.0),
        Fault(verb="dns_api_down", at_s=15.0, for_s=2.0, site="site-b"),
    )
    assert play(case).failures == {"never_empty": ("at 30.0s both were there",)}
    assert shown(case, tmp_path) == ["stop", "pause"]
    read = read_scenario(tmp_path / "dark" / "scenario.yaml")
    assert read.scenario is not None
    assert [fault.for_s for fault in read.scenario.faults] == [1.0, 1.0]
    assert read.scenario.duration_s == 35.0  # nothing after it went wrong matters


def test_a_planted_bug_is_found_and_shrunk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A name server that does not heed fences, and an update that arrives long after a newer one."""

    def unfenced(table: Table, change: Change) -> tuple[Result, str]:
        table.edit(change.desired.name, Actual(change.fence, change.desired.ttl_s, change.desired.answers))
        return Result.DONE, ""

    why = ("--reason", "test", "--no-wait")
    case = small(
        Fault(verb="lie", at_s=5.0, for_s=10.0, node="site-b", says="up"),
        Fault(verb="delay", at_s=20.0, for_s=2.0, message="dns_update", by_s=20.0),
        Fault(verb="operator", at_s=20.5, argv=("drain", "site-a", *why)),
        Fault(verb="store_compact", at_s=25.0),
        Fault(verb="operator", at_s=30.0, argv=("undrain", "site-a", *why)),
        Fault(verb="kill", at_s=60.0, for_s=5.0, node="site-c"),
    )
    assert play(case).failures == {}
    monkeypatch.setattr(Table, "apply", unfenced)
    assert "fenced" in play(case).failures
    assert shown(case, tmp_path) == ["delay", "operator drain", "operator undrain"]


def test_a_failover_that_never_comes_is_found() -> None:
    """The planted bug: whoever is down stands as one who is up."""
    case = small(Fault(verb="power_off", at_s=5.0, for_s=240.0, site="site-a"))
    seen = play(case)
    assert seen.failures == {}
    assert (seen.looked.failovers, seen.looked.exempt) == (1, 0)
    assert seen.looked.checked["bounded"] == 4

    def heedless(stand: Callable[[Facts], Standing]) -> Callable[[Facts], Standing]:
        return lambda facts: s if (s := stand(facts)).rule != "failed" else Standing("ready", "up for all I care", FULL)

    with everywhere(stand, heedless) as reached:
        failures = play(case).failures
    assert reached.times
    assert "www never left site-a" in failures["bounded"][0]


# ---- shrinking alone


def test_shrinking_keeps_what_fails_and_counts_its_tries() -> None:
    faults = tuple(Fault(verb="store_down", at_s=10.0 * n, for_s=8.0) for n in range(1, 9))
    tried: list[Scenario] = []

    def fails(told: Scenario) -> bool:
        tried.append(told)
        return {20.0, 70.0} <= {fault.at_s for fault in told.faults}

    small = shrink(scenario(*faults), fails, fuzzing.lasting, None)
    assert [(fault.at_s, fault.for_s) for fault in small.faults] == [(20.0, 1.0), (70.0, 1.0)]
    assert small.duration_s == small.healed_s + 200.0 + fuzzing.TAIL_S
    tried.clear()
    shrink(scenario(*faults), fails, fuzzing.lasting, None, tries=3)
    assert len(tried) == 3


def test_what_comes_after_it_went_wrong_is_left_out() -> None:
    faults = tuple(Fault(verb="store_down", at_s=10.0 * n, for_s=8.0) for n in range(1, 9))
    small = shrink(scenario(*faults), lambda told: any(f.at_s == 20.0 for f in told.faults), fuzzing.lasting, 22.0)
    assert [(fault.at_s, fault.for_s) for fault in small.faults] == [(20.0, 1.8)]  # half of 7 s, and half of that
    assert small.duration_s == 27.0
    assert small.expect == ()


# ---- a run


def test_a_run_says_what_was_played(tmp_path: Path) -> None:
    told: list[Progress] = []
    report = fuzz(0.2, 7, 1, told.append, tmp_path)
    assert report.passed, report.found
    assert not report.stopped
    assert report.hours >= 0.2
    assert [progress.cases for progress in told] == list(range(1, report.cases + 1))
    assert told[-1].hours == report.hours


@pytest.mark.timeout(180)
def test_processes_of_their_own_play_the_same_cases(tmp_path: Path) -> None:
    alone = fuzz(0.4, 9, 1, lambda progress: None, tmp_path)
    both = fuzz(0.4, 9, 2, lambda progress: None, tmp_path)
    assert (both.cases, both.hours, both.found) == (alone.cases, alone.hours, alone.found)


def _interrupted(folder: str, said: object) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def tell(progress: Progress) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    report = fuzz(100.0, 7, 2, tell, Path(folder))
    said.send((report.stopped, report.cases, report.passed))  # type: ignore[attr-defined]


def test_ctrl_c_while_a_case_is_shrunk_tells_how_far_that_came(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(CHECKERS, "never_empty", lambda told, history: Invariant("never_empty", False, 1, ("at 9.0s",)))
    times: list[Case] = []

    def playing(case: Case) -> Outcome:
        times.append(case)
        if len(times) == 4:
            raise KeyboardInterrupt
        return play(case)

    monkeypatch.setattr(fuzzing, "play", playing)
    report = fuzz(100.0, 7, 1, lambda progress: None, tmp_path)
    assert report.stopped
    assert [found.checker for found in report.found] == ["never_empty"]
    assert len(report.found[0].faults) <= report.found[0].before
    assert Path(report.found[0].file).is_file()


def test_a_process_that_never_answers_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fuzzing, "PATIENCE_S", 0.0)

    def enough(progress: Progress) -> None:
        raise KeyboardInterrupt

    report = fuzz(100.0, 7, 2, enough, tmp_path)
    assert [(found.checker, found.violations) for found in report.found] == [
        ("crash", ("its process was killed, or needs more than 0 minutes",))
    ]


@pytest.mark.timeout(180)
def test_ctrl_c_ends_it_and_says_what_was_played(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_interrupted, args=(str(tmp_path), there))
    process.start()
    stopped, cases, passed = here.recv()
    process.join(30)
    assert (stopped, cases, passed) == (True, 1, True)
    assert process.exitcode == 0
