"""A scenario and a history -> a report; what is measured of failovers and outages."""

from __future__ import annotations

from msgspec.structs import replace

from chaos.history import Asked, Faulted, Probed, Served
from chaos.judge import judge
from chaos.measure import failovers, outages, runs
from chaos.scenario import Condition, Expect, Fault
from tests.unit.histories import (
    ALL_DOWN,
    DARK,
    FAILED,
    added,
    back,
    begun,
    dark,
    decided,
    scenario,
    served,
)

GOOD = back().history()
SAID = (
    Expect(kind="by", from_s=90.0, conditions=(Condition("answer", "www", ("site-b",)),), text="by 90s answer"),
    Expect(kind="outage", outages={"www": 60.0}),
    Expect(kind="always", checkers=("fenced", "never_empty")),
    Expect(kind="always", checkers=("never_empty", "bounded")),
    Expect(kind="after_heal", from_s=200.0, conditions=(Condition("converged"),)),
)


def test_a_drill_that_passed() -> None:
    report = judge(scenario(expect=SAID), GOOD)
    assert report.passed
    assert [one.text for one in report.expectations][:2] == ["by 90s answer", "outage www <= 60s"]
    assert [one.name for one in report.invariants] == ["fenced", "never_empty", "bounded"]
    assert report.history_sha256 == GOOD.sha256
    assert (report.faults, report.left, report.seed, report.world) == (1, (), 1, "sim")
    assert len(report.failovers) == 1
    assert len(report.outages) == 1


def test_it_fails_with_an_expectation_an_invariant_or_a_fault_that_stays() -> None:
    assert not judge(scenario(expect=[Expect(kind="outage", outages={"www": 1.0})]), GOOD).passed
    empty = decided(GOOD, 65.2, desired_answers=())
    report = judge(scenario(expect=SAID), empty)
    assert [one.name for one in report.invariants if not one.passed] == ["never_empty"]
    assert not report.passed
    stuck = added(GOOD, Faulted(at=590.0, index=0, began=False, text="power_off site-a", left="toxic cut-1 at site-a"))
    report = judge(scenario(expect=SAID), stuck)
    assert not judge(scenario(expect=SAID), replace(GOOD, stopped="Ctrl-C")).passed
    assert report.left == ("power_off site-a: toxic cut-1 at site-a",)
    assert not report.passed


def test_what_expects_nothing_has_not_passed() -> None:
    assert not judge(scenario(expect=[Expect(kind="always")]), GOOD).passed


def test_a_fault_that_never_began_has_shown_nothing() -> None:
    never = Fault(verb="store_down", at_s=300.0, for_s=5.0, text="store_down")
    report = judge(scenario(DARK, never, expect=SAID), GOOD)
    assert not report.passed
    assert [one.text for one in report.expectations if not one.passed] == ["store_down at 300s begins"]
    assert judge(scenario(DARK, never, expect=SAID), replace(GOOD, stopped="Ctrl-C")).expectations[-1].passed


def test_the_phases_of_a_failover() -> None:
    (one,) = failovers(scenario(), GOOD)
    assert (one.service, one.left, one.at_s, one.fault_at_s) == ("www", "site-a", 65.2, 60.0)
    assert one.detect_s == 5.4  # from 59.8, the last probe that passed
    assert one.decide_s is None  # no record tells when the last report was there
    assert (one.apply_s, one.ttl_s, one.outage_s) == (0.2, 19.1, 24.0)
    assert one.worst_case_s == 32.401
    assert one.bounds["detect_s"] == 8.6


def test_detection_counts_from_the_latest_of_the_voters_that_made_the_quorum() -> None:
    """Two of three suffice: the third, later one had no part in it."""
    tale = begun()
    tale.tell(Faulted(at=60.0, index=0, began=True, text="power_off site-a"))
    for vantage, last in (("cloud", 59.2), ("site-b", 59.9), ("site-c", 59.6)):
        tale.probes(61.5, "site-a", False, (vantage,), last=last)
    tale.commit(65.2, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    (one,) = failovers(scenario(), tale.history())
    assert one.detect_s == 5.6  # site-c's: with it there were two


def test_what_is_not_known_is_none() -> None:
    (one,) = failovers(scenario(), replace(GOOD, records=tuple(r for r in GOOD.records if not isinstance(r, Probed))))
    assert one.detect_s == 5.2  # from the fault
    (one,) = failovers(scenario(), replace(GOOD, records=tuple(r for r in GOOD.records if not isinstance(r, Served))))
    assert (one.ttl_s, one.outage_s) == (None, None)
    tale = dark()
    tale.commit(65.2, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    (one,) = failovers(scenario(), tale.history(70.0))
    assert (one.apply_s, one.ttl_s) == (None, None)  # the history ends before


def test_a_server_that_never_takes_it_is_waited_for_to_the_end() -> None:
    tale = dark()
    tale.commit(65.2, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    tale.apply(65.4, ("site-b",))
    (one,) = failovers(scenario(), tale.history(600.0))
    assert one.apply_s == 534.8


def test_a_site_that_was_down_long_before_it_was_left_was_not_detected_then() -> None:
    tale = dark()  # nobody takes anything
    tale.commit(65.2, None, {"site-a": "failed", "site-b": "soak", "site-c": "soak"}, ALL_DOWN)
    tale.commit(150.0, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    (one,) = failovers(scenario(), tale.history())
    assert one.detect_s is None
    tale = dark()  # but where others had room, it was
    tale.commit(65.2, None, FAILED, ALL_DOWN)
    tale.commit(150.0, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    (one,) = failovers(scenario(), tale.history())
    assert one.detect_s == 90.2
    tale = dark()  # and what the governor held back, too
    tale.commit(65.2, None, FAILED, ALL_DOWN, refused="governor", wait_left_s=3.0)
    tale.commit(68.2, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    (one,) = failovers(scenario(), tale.history())
    assert one.detect_s == 8.4


def test_moves_for_other_reasons_are_no_failovers() -> None:
    tale = begun()
    tale.commit(65.2, {"site-b": 100}, {"site-a": "out"}, rule="out")
    assert failovers(scenario(), tale.history()) == ()


def test_the_fault_that_was_its_cause() -> None:
    api = Fault(verb="stop", at_s=62.0, for_s=50.0, service="api", site="site-a")
    cut = Fault(verb="cut", at_s=61.0, for_s=50.0, one="site-b", other="*")
    tale = dark()
    for index, fault in ((1, cut), (2, api)):
        tale.tell(Faulted(at=fault.at_s, index=index, began=True, text=fault.verb))
    tale.commit(65.2, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    (one,) = failovers(scenario(DARK, cut, api), tale.history())
    assert one.fault_at_s == 60.0  # neither another site's cut nor another service's stop
    (one,) = failovers(scenario(DARK, replace(cut, other="site-a"), api), tale.history())
    assert one.fault_at_s == 60.0  # nor what comes on top of it


def test_a_fault_that_was_there_before_is_the_cause_where_nothing_came_after_the_last_pass() -> None:
    """A flaky service passes now and then; what broke it for good is what came after."""
    flaky = Fault(verb="flaky", at_s=30.0, for_s=200.0, service="www", site="site-a", rate=0.5)
    tale = dark()
    tale.tell(Faulted(at=30.0, index=1, began=True, text="flaky"))
    tale.commit(65.2, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    (one,) = failovers(scenario(DARK, flaky), tale.history())
    assert one.fault_at_s == 60.0
    (one,) = failovers(scenario(replace(DARK, site="site-c"), flaky), tale.history())
    assert one.fault_at_s == 30.0


def test_runs_of_failures() -> None:
    tale = begun()
    tale.tell(served(-1.0, "site-a", "refused"), served(3.0, "site-a"))  # what was before the start does not count
    tale.tell(served(10.0, "site-a", "timeout"), served(11.0, "site-b", "refused"), served(14.0, "site-b"))
    tale.tell(served(590.0, "site-b", "timeout"))
    history = tale.history()
    assert [(run.from_s, run.to_s, run.sites) for run in runs(history)] == [
        (0.0, 3.0, {"site-a"}),
        (10.0, 14.0, {"site-a", "site-b"}),
        (590.0, float("inf"), {"site-b"}),
    ]
    (one,) = outages(history)
    assert (one.longest_s, one.began_s) == (10.0, 590.0)


def test_outages_by_service_region_and_kind_of_resolver() -> None:
    history = added(
        GOOD,
        served(60.5, "site-a", "timeout", client="c2", resolver="stale"),
        served(130.0, "site-b", client="c2", resolver="stale"),
        served(-5.0, "site-a", client="c3", region="rest"),
        Asked(at=600.0, client="c2", service="www", region="world", requests=600, failed=70),
        Asked(at=600.0, client="c3", service="www", region="rest", requests=600, failed=0),
    )
    told = {(one.region, one.resolver): (one.requests, one.failed, one.longest_s) for one in outages(history)}
    assert told == {
        ("rest", "keeps"): (600, 0, 0.0),
        ("world", "keeps"): (600, 24, 24.0),
        ("world", "stale"): (600, 70, 69.5),
    }
