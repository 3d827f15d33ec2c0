"""bounded: failovers that take too long, that are outside the bound, and that never come."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from chaos.history import (
    Faulted,
    History,
    Probed,
)
from chaos.scenario import Fault
from policies.topology import Check, Governor, ProbePolicy
from policies.world import Answer, SiteState
from tests.unit.checking import fails, look
from tests.unit.histories import (
    ADDRESS,
    ALL_DOWN,
    DARK,
    FAILED,
    SITES,
    added,
    back,
    config,
    dark,
    decided,
    scenario,
    served,
)

GOOD = back().history()
# Both of the others are up, and take nothing: they soak.
STATES = {site: SiteState(verdict="up", rule="soak", phase="soak") for site in SITES}


# ---- bounded


def test_the_phases_are_measured() -> None:
    found = look("bounded", GOOD)
    assert found.passed
    assert found.checked == 4  # detect and decide, apply, TTL, the whole
    assert found.notes == ()


def failover(commit_s: float = 65.2, apply_s: float = 0.2, through_s: float = 84.5, *faults: Fault) -> History:
    tale = dark()
    for index, fault in enumerate(faults, start=1):
        tale.tell(Faulted(at=fault.at_s, index=index, began=True, text=fault.verb))
        if fault.for_s is not None:
            tale.tell(Faulted(at=fault.at_s + fault.for_s, index=index, began=False, text=fault.verb))
    tale.commit(commit_s, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    tale.apply(commit_s + apply_s, ("site-b", "site-c"))
    tale.tell(served(through_s, "site-b"))
    return tale.history()


@pytest.mark.parametrize(
    ("history", "word"),
    [
        (failover(69.1), "detecting and deciding took 9.3s of at most 9.2s"),  # 8.6 + 0.5 + 0.101 from 59.8
        (failover(apply_s=2.3), "applying took 2.3s of at most 2.2s"),
        (failover(through_s=89.5), "the TTL took 24.1s of at most 23.8s"),  # 1.8 s for site-a's name server
        (failover(through_s=94.0), "the whole outage took 33.5s of at most 33.4s"),
    ],
)
def test_bounded(history: History, word: str) -> None:
    fails("bounded", history, word)


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Fault(verb="store_down", at_s=62.0, for_s=30.0), "a second fault: store_down at 62s"),
        (Fault(verb="store_down", at_s=10.0, for_s=30.0), "a second fault: store_down at 10s"),
        (Fault(verb="cut", at_s=61.0, for_s=90.0, one="site-b", other="site-c"), "a second fault: cut at 61s"),
        (Fault(verb="kill", at_s=61.0, for_s=90.0, node="site-c"), "a second fault: kill at 61s"),
        (Fault(verb="stop", at_s=61.0, for_s=90.0, service="www", site="site-b"), "a second fault: stop at 61s"),
    ],
)
def test_what_is_outside_the_bound_is_named(fault: Fault, why: str) -> None:
    found = look("bounded", failover(90.0, 0.2, 120.0, fault), scenario(DARK, fault))
    assert found.notes == (f"www left site-a at 90.0s: not judged, {why}",)
    assert found.checked == 0
    assert not found.passed


@pytest.mark.parametrize(
    "fault",
    [
        Fault(verb="kill", at_s=60.5, for_s=90.0, node="leader"),  # dies with the site
        Fault(verb="kill", at_s=60.0, for_s=90.0, node="store_leader"),
        Fault(verb="stop", at_s=10.0, for_s=500.0, service="api", site="site-b"),  # another service
        Fault(verb="stop", at_s=10.0, for_s=500.0, service="www", site="site-c"),  # no traffic goes there
        Fault(verb="store_down", at_s=1.0, for_s=10.0),  # long over
        Fault(verb="store_down", at_s=300.0, for_s=10.0),
    ],
)
def test_what_is_within_the_bound_is_judged(fault: Fault) -> None:
    told = scenario(DARK, fault)
    assert look("bounded", failover(65.2, 0.2, 84.5, fault), told).passed
    fails("bounded", failover(72.0, 0.2, 84.5, fault), "detecting and deciding", told)


def test_a_leader_that_dies_later_adds_one_takeover() -> None:
    fault = Fault(verb="pause", at_s=64.0, for_s=25.0, node="leader")
    told = scenario(DARK, fault)
    assert look("bounded", failover(72.0, 0.2, 84.5, fault), told).passed
    fails("bounded", failover(75.0, 0.2, 84.5, fault), "took 15.2s of at most 14.2s", told)


def late(rules: dict[str, str], **more: object) -> History:
    """Called down at once, and left a minute and a half later; how the sites stood meanwhile."""
    tale = dark()
    tale.commit(65.2, None, rules, ALL_DOWN, **more)
    tale.commit(150.0, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    return tale.history()


def test_a_failover_for_which_there_was_no_room_before_is_outside() -> None:
    """Nobody was open; or what is done there was frozen by somebody."""
    for history in (
        late({site: "failed" if site == "site-a" else "soak" for site in SITES}),
        late(FAILED, overrides=("o-1",)),
    ):
        assert look("bounded", history).notes == (
            "www left site-a at 150.0s: not judged, the site was down before, and nothing else could take its traffic",
        )


def test_a_leader_that_calls_a_site_down_and_moves_much_later_is_too_late() -> None:
    fails("bounded", late(FAILED), "detecting and deciding took 90.2s of at most 9.2s")


def never_left(until_s: float = 540.0, **more: object) -> History:
    """site-a is dark for eight minutes, and nobody moves anything."""
    tale = dark()
    tale.commit(65.2, None, FAILED, ALL_DOWN, **more)
    tale.tell(Faulted(at=until_s, index=0, began=False, text="power_off site-a"), tale.answer(until_s, "site-a"))
    tale.tell(served(until_s + 1.0, "site-a"))
    return tale.history()


LONG = replace(DARK, for_s=480.0)


def test_a_failover_that_never_came() -> None:
    text = "www never left site-a, where its clients in world fail from 60.5s on for want of a failover"
    fails("bounded", never_left(), f"at 95.2s {text}, though others have room", scenario(LONG))
    found = look("bounded", never_left(), scenario(LONG))
    assert found.checked == 1
    # A leader that does not even see it.
    unseen = replace(never_left(), records=tuple(r for r in never_left().records if r.at != 65.2))
    fails("bounded", unseen, text, scenario(LONG))


@pytest.mark.parametrize(
    ("history", "faults"),
    [
        (never_left(85.0), (replace(DARK, for_s=25.0),)),  # it came back in time
        (never_left(overrides=("o-1",)), (LONG,)),  # an operator wants it so
        (never_left(sites={**STATES, "site-a": SiteState(verdict="down", rule="failed", phase="failed")}), (LONG,)),
        (never_left(), (LONG, Fault(verb="store_down", at_s=62.0, for_s=300.0))),
        (never_left(), (replace(LONG, verb="cut", site="", one="site-a", other="clients"),)),  # vantages see nothing
        (never_left(), (replace(LONG, verb="flaky", service="www", rate=0.5),)),
    ],
)
def test_what_nobody_had_to_move(history: History, faults: tuple[Fault, ...]) -> None:
    also = [Faulted(at=fault.at_s, index=n, began=True, text="") for n, fault in enumerate(faults) if n]
    found = look("bounded", added(history, *also), scenario(*faults))
    assert not any("never left" in said for said in found.violations), found.violations


def test_an_address_family_that_no_other_site_has_is_outside() -> None:
    tale = dark()
    decision = tale.commit(65.2, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    kept = (*decision.desired.answers, Answer("world", "AAAA", "2001:db8::10", "site-a", 100))
    found = look("bounded", decided(tale.history(), 65.2, desired_answers=kept))
    assert found.notes == (
        "www left site-a at 65.2s: not judged, some of its addresses are still served: no other site has that family",
    )


def test_an_address_that_others_have_too_excuses_nothing() -> None:
    """The dead address stays in the answers, and clients fail for a minute and a half more."""
    tale = dark()
    decision = tale.commit(65.2, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    tale.apply(65.4, ("site-b", "site-c"))
    tale.tell(served(184.5, "site-b"))
    kept = (*decision.desired.answers, Answer("world", "A", ADDRESS["site-a"], "site-a", 100))
    fails("bounded", decided(tale.history(), 65.2, desired_answers=kept), "the whole outage took 124.0s")


def test_a_network_that_loses_or_delays_is_outside() -> None:
    for fault in (
        Fault(verb="loss", at_s=60.0, for_s=300.0, one="site-a", other="*", rate=0.5, text="loss 50% site-a"),
        Fault(verb="slow", at_s=60.0, for_s=300.0, one="site-b", other="site-a", by_s=3.0, text="slow site-a"),
    ):
        found = look("bounded", failover(), scenario(fault))
        assert found.notes == (
            f"www left site-a at 65.2s: not judged, {fault.text} hits the control plane's own messages as well",
        )


def test_of_a_fault_that_lets_some_through_only_the_phases_with_a_beginning_are_judged() -> None:
    flaky = Fault(verb="flaky", at_s=60.0, for_s=300.0, service="www", site="site-a", rate=0.9)
    assert look("bounded", failover(through_s=200.0), scenario(flaky)).checked == 2
    fails("bounded", failover(80.0), "detecting and deciding", scenario(flaky))


def test_without_raw_probes_it_is_measured_from_the_fault() -> None:
    bare = tuple(record for record in failover(69.0).records if not isinstance(record, Probed))
    assert look("bounded", replace(GOOD, records=bare)).passed
    late = tuple(record for record in failover(69.3).records if not isinstance(record, Probed))
    fails("bounded", replace(GOOD, records=late), "detecting and deciding took 9.3s")


def test_a_new_leader_s_time_counts_from_the_fault() -> None:
    """Fast probes know before anybody leads: the last one passed 0.2 s before the site died at 60 s, and a new leader
    has 5 s from then (found by fuzz, case 1998489949)."""
    fast = config()
    checks = (Check("http", "http:8080", "{}", ProbePolicy(interval_s=0.5, fast_interval_s=0.1, timeout_s=0.5)),)
    fast = replace(fast, services={name: replace(spec, checks=checks) for name, spec in fast.services.items()})
    fast = replace(fast, policy=replace(fast.policy, governor=Governor(share=1.0)))
    for commit_s, passed in ((65.05, True), (65.15, False)):
        tale = dark(fast)
        tale.commit(commit_s, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
        tale.apply(commit_s + 0.2, ("site-b", "site-c"))
        tale.tell(served(80.0, "site-b"))
        assert look("bounded", tale.history(), scenario(cfg=fast)).passed is passed
