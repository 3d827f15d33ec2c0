"""Each checker passes a good history, and fails for each rule that it knows when a history breaks it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from chaos.checkers import CHECKERS
from chaos.history import (
    Answered,
    Asked,
    Committed,
    Edited,
    Faulted,
    History,
    Led,
    Operated,
    Pooled,
    Probed,
    Rewound,
    Served,
    Wrote,
)
from chaos.report import Invariant
from chaos.scenario import Fault, Scenario
from chaos.sights import needed
from policies.topology import Pools
from policies.world import Answer, Event, SiteState
from tests.unit.histories import (
    ALL_DOWN,
    DARK,
    FAILED,
    SITES,
    VANTAGES,
    added,
    back,
    begun,
    changed,
    config,
    dark,
    decided,
    failed_over,
    scenario,
    served,
    target,
)

GOOD = back().history()
EDIT = Fault(verb="edit_zone", at_s=400.0, site="site-b", service="www", other="site-c", how="foreign")
STATES = {site: SiteState(verdict="up", rule="ready", phase="ready") for site in SITES}
Twist = Callable[[History], History]


def look(name: str, history: History, told: Scenario | None = None) -> Invariant:
    return CHECKERS[name](told or scenario(), history)


def fails(name: str, history: History, word: str, told: Scenario | None = None) -> None:
    found = look(name, history, told)
    assert not found.passed
    assert any(word in violation for violation in found.violations), found.violations


@pytest.mark.parametrize("name", CHECKERS)
def test_a_good_history_passes_and_says_how_much_was_looked_at(name: str) -> None:
    found = look(name, GOOD)
    assert found.passed, found.violations
    assert found.checked > 0
    assert found.name == name


@pytest.mark.parametrize("name", CHECKERS)
def test_nothing_to_look_at_is_a_failure(name: str) -> None:
    fails(name, replace(GOOD, records=(), duration_s=100.0), "nothing to look at")


# ---- fenced


@pytest.mark.parametrize(
    ("twist", "word"),
    [
        (lambda h: changed(h, Committed, 65.2, lambda r: replace(r, holder_token=9)), "while site-b with token 9 held"),
        (lambda h: changed(h, Committed, 65.2, lambda r: replace(r, holder="", holder_token=0)), "while nobody held"),
        (lambda h: decided(h, 65.2, desired_generation=1), "made generation 1, though 1 was there"),
        (lambda h: decided(h, 205.0, desired_generation=3), "made no new generation, and yet went from 2 to 3"),
        (lambda h: decided(h, 65.2, input=GOOD_INPUT), "was decided from generation 0, while 1 stood"),
        (lambda h: changed(h, Wrote, 65.4, lambda r: replace(r, generation=0)), "wrote generation 0 over generation 1"),
        (lambda h: changed(h, Wrote, 65.4, lambda r: replace(r, held_generation=5)), "over generation 5"),
        (
            lambda h: added(h, replace(wrote(h, 65.4), at=70.0, op="d-9-zz.x", held_generation=2, held_op="d-2-n2.y")),
            "of d-9-zz over the same generation of d-2-n2",
        ),
        (lambda h: added(h, replace(wrote(h, 65.4), at=70.0, op="d-9-zz.x")), "over the same generation of d-2-n2"),
        (
            lambda h: changed(h, Wrote, 65.4, lambda r: replace(r, held_generation=1, held_op="manual-ana")),
            "over a fence that was put there by hand",
        ),
        (
            lambda h: added(h, Edited(at=64.0, server="site-b", service="www", manual=True)),
            "over a fence that was put there by hand",
        ),
        (
            lambda h: changed(h, Answered, 65.4, lambda r: replace(r, at=65.4, generation=0)),
            "shows generation 0 after 2",
        ),
        (
            lambda h: changed(h, Wrote, 65.4, lambda r: replace(r, result="fenced")),
            "changed by an update of site-b it had refused",
        ),
    ],
)
def test_fenced(twist: Twist, word: str) -> None:
    fails("fenced", twist(GOOD), word)


GOOD_INPUT = next(r for r in GOOD.records if isinstance(r, Committed)).decision.input


def wrote(history: History, at: float) -> Wrote:
    return next(r for r in history.records if isinstance(r, Wrote) and r.at == at)


def test_fenced_knows_a_foreign_fence_by_the_fault_and_lets_it_be_adopted() -> None:
    told = scenario(DARK, EDIT)
    edited = added(GOOD, Edited(at=400.0, server="site-b", service="www", manual=False))
    later = replace(wrote(GOOD, 327.2), at=410.0, server="site-b", generation=5)
    taken = added(edited, later)
    fails("fenced", taken, "over a foreign fence that nobody has adopted", told)
    adopted = added(taken, Operated(at=405.0, index=2, argv=("adopt", "c2"), code=0, said=""))
    assert look("fenced", adopted, told).passed
    refused = added(taken, Operated(at=405.0, index=2, argv=("adopt", "c2"), code=1, said="refused"))
    fails("fenced", refused, "over a foreign fence", told)


def test_fenced_lets_generations_go_back_only_with_the_store() -> None:
    tale = begun()
    first = tale.desired
    tale.commit(10.0, {"site-b": 100}, optional=True)
    tale.desired = first
    tale.commit(40.0, {"site-c": 100}, optional=True)
    history = tale.history()
    fails("fenced", history, "decided from generation 1, while 2 stood in the store")
    assert look("fenced", added(history, Rewound(at=30.0, to=0.0))).passed


def test_fenced_knows_a_backup_that_is_older_than_another_restoration() -> None:
    """Restored to 0 s, and then to 20 s: a store's backups do not go away with what it was."""
    tale = begun()
    first = tale.desired
    tale.commit(10.0, {"site-b": 100}, optional=True)
    second = tale.desired
    tale.tell(Rewound(at=30.0, to=0.0))
    tale.desired = first
    tale.commit(40.0, {"site-c": 100}, optional=True)
    tale.tell(Rewound(at=50.0, to=20.0))
    tale.desired = second
    tale.commit(60.0, {"site-c": 100}, optional=True)
    assert look("fenced", tale.history()).passed


# ---- never_empty


@pytest.mark.parametrize(
    ("twist", "word"),
    [
        (lambda h: decided(h, 65.2, desired_shares={"world": {"site-b": 90}}), "gives world 90 % in all"),
        (lambda h: decided(h, 65.2, desired_shares={}), "gives world 0 % in all"),
        (lambda h: decided(h, 65.2, desired_answers=()), "has no answer for world"),
        (lambda h: changed(h, Answered, 65.4, lambda r: replace(r, sites=())), "site-b has no answer any more for www"),
    ],
)
def test_never_empty(twist: Twist, word: str) -> None:
    fails("never_empty", twist(GOOD), word)


def test_a_server_that_cannot_be_reached_has_not_answered_nothing() -> None:
    silent = changed(GOOD, Answered, 65.4, lambda r: replace(r, sites=(), reachable=False))
    assert look("never_empty", silent).passed


# ---- quorum_backed


def turned_down(votes: dict[str, str], vantages: tuple[str, ...] = ("cloud", "site-b", "site-c")) -> History:
    """The failover on these votes, with the raw probes of these vantages failing."""
    tale = begun()
    tale.tell(Faulted(at=60.0, index=0, began=True, text="power_off site-a"))
    tale.probes(61.5, "site-a", False, vantages, last=59.8)
    tale.commit(65.2, {"site-b": 100}, FAILED, {"site-a": votes}, rule="failed")
    return tale.history()


@pytest.mark.parametrize(
    ("votes", "vantages", "word"),
    [
        ({"site-b": "down"}, VANTAGES, "1 of 3 voters"),  # one witness
        ({"site-a": "down", "site-b": "down", "site-c": "silent"}, VANTAGES, "1 of 2 voters"),  # its own vote
        ({"site-b": "silent", "site-c": "silent", "cloud": "down"}, VANTAGES, "on 1 of 2 voters"),
        ({"site-b": "blind", "site-c": "blind", "cloud": "down"}, VANTAGES, "on 1 of 2 voters"),  # blind ones
        (ALL_DOWN["site-a"], ("site-b",), "failed for site-b, 2 are needed"),  # votes, but no probes that failed
        (ALL_DOWN["site-a"], (), "failed for nobody, 2 are needed"),
    ],
)
def test_quorum_backed(votes: dict[str, str], vantages: tuple[str, ...], word: str) -> None:
    fails("quorum_backed", turned_down(votes, vantages), word)


def test_a_quorum_of_those_that_can_vote_is_enough() -> None:
    votes = {"site-a": "silent", "site-b": "down", "site-c": "silent", "cloud": "down"}
    assert look("quorum_backed", turned_down(votes, ("site-b", "cloud"))).passed
    assert look("quorum_backed", turned_down(ALL_DOWN["site-a"])).passed


def test_min_vantages_is_how_many_must_vote_not_how_many_must_agree() -> None:
    assert [needed(600, 3, voters) for voters in (2, 3, 4, 5)] == [3, 2, 3, 3]
    assert [needed(1000, 2, voters) for voters in (1, 2, 3)] == [2, 2, 3]


def test_the_probes_must_have_failed_lately() -> None:
    tale = begun()
    tale.probes(10.0, "site-a", False, last=9.0)
    tale.probes(12.0, "site-a", True, last=11.0)
    tale.commit(65.2, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    fails("quorum_backed", tale.history(), "failed for nobody")


def test_who_sees_nothing_of_any_site_is_no_witness() -> None:
    tale = dark()
    for site in ("site-b", "site-c"):
        tale.probes(61.6, site, False, ("cloud", "site-b"), last=59.9)
    tale.commit(65.2, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    fails("quorum_backed", tale.history(), "failed for site-c, 2 are needed")


def test_who_was_dead_all_the_while_is_no_witness() -> None:
    dead = [Fault(verb="kill", at_s=20.0, for_s=500.0, node=node) for node in ("cloud", "site-b")]
    tale = begun()
    tale.probes(15.0, "site-a", False, ("cloud", "site-b"), last=14.0)
    for index, fault in enumerate(dead):
        tale.tell(Faulted(at=20.0, index=index, began=True, text=fault.verb))
    tale.probes(61.5, "site-a", False, ("site-c",), last=59.8)
    tale.commit(65.2, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    fails("quorum_backed", tale.history(), "failed for site-c, 2 are needed", scenario(*dead))


def test_who_was_started_anew_does_not_stand_still() -> None:
    off = Fault(verb="power_off", at_s=10.0, for_s=30.0, site="site-b")
    still = Fault(verb="pause", at_s=20.0, for_s=100.0, node="site-b")
    for faults, passes in (((DARK, still), False), ((DARK, off, still), True)):
        tale = begun()
        for index, fault in enumerate(faults):
            tale.tell(Faulted(at=fault.at_s, index=index, began=True, text=fault.verb))
            tale.tell(Faulted(at=fault.ends_s or 0.0, index=index, began=False, text=fault.verb))
        tale.probes(61.5, "site-a", False, ("cloud", "site-b"), last=59.8)
        tale.commit(65.2, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
        assert look("quorum_backed", tale.history(), scenario(*faults)).passed is passes


def test_traffic_leaves_by_rule_failed_only_who_is_down() -> None:
    tale = dark()
    tale.commit(65.2, {"site-b": 100}, {}, ALL_DOWN, rule="failed")
    fails("quorum_backed", tale.history(), "from site-a, whose verdict was up")


def test_without_raw_probes_the_votes_are_counted() -> None:
    bare = [record for record in turned_down(ALL_DOWN["site-a"]).records if not isinstance(record, Probed)]
    assert look("quorum_backed", replace(GOOD, records=tuple(bare))).passed
    alone = [record for record in turned_down({"site-b": "down"}).records if not isinstance(record, Probed)]
    fails("quorum_backed", replace(GOOD, records=tuple(alone)), "1 of 3 voters")


# ---- hold_time


def test_two_optional_moves_within_hold() -> None:
    tale = begun()
    tale.commit(10.0, {"site-b": 100}, optional=True)
    tale.commit(39.0, {"site-c": 100}, optional=True)
    fails("hold_time", tale.history(), "moves www 29.0s after d-2 did")
    tale = begun()
    tale.commit(10.0, {"site-b": 100}, optional=True)
    tale.commit(12.0, {"site-c": 100})
    tale.commit(40.1, {"site-a": 100}, optional=True)
    assert look("hold_time", tale.history()).passed


def returning(*moves: tuple[float, int, str], rules: str = "soak", failures: int = 1) -> History:
    """site-a comes back at 205 s after so many failovers, and has so many percent at these times by these rules."""
    tale = failed_over()
    for n in range(failures - 1):
        tale.commit(70.0 + 4 * n, {"site-a": 100}, {"site-a": "pinned"}, optional=True)
        tale.commit(72.0 + 4 * n, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    tale.commit(205.0, None, {"site-a": rules})
    for at, percent, rule in moves:
        rest = {"site-b": 100 - percent} if percent < 100 else {}
        tale.commit(at, {"site-a": percent, **rest}, {"site-a": rule}, optional=True)
    return tale.history()


@pytest.mark.parametrize(
    ("moves", "failures", "word"),
    [
        ([(250.0, 10, "ramp")], 1, "gives site-a 10 % of www in world 45.0s after it was back"),
        ([(250.0, 100, "ready")], 1, "gives site-a 100 %"),
        ([(266.0, 50, "ramp")], 1, "gives site-a 50 %"),  # the ramp begins with 10 %
        ([(266.0, 10, "ramp"), (297.0, 100, "ready")], 1, "gives site-a 100 %"),  # a step left out
        ([(266.0, 10, "ramp")], 2, "soak 120s"),  # the second failover doubles the soak
        ([(320.0, 10, "ramp")], 3, "soak 240s"),
    ],
)
def test_soak_and_ramp(moves: list[tuple[float, int, str]], failures: int, word: str) -> None:
    fails("hold_time", returning(*moves, failures=failures), word)


@pytest.mark.parametrize(
    "moves", [[(265.5, 10, "ramp"), (296.0, 50, "ramp"), (327.0, 100, "ready")], [(230.0, 100, "pinned")], []]
)
def test_what_soak_and_ramp_allow(moves: list[tuple[float, int, str]]) -> None:
    found = look("hold_time", returning(*moves))
    assert found.passed, found.violations


def test_a_soaking_site_may_help_where_the_others_have_no_room() -> None:
    """500 of demand, and site-b and site-c can take 270 each of 300."""
    cfg = config(demand=560.0, capacity=300.0)
    tale = begun(cfg)
    tale.commit(65.2, {"site-b": 50, "site-c": 50}, FAILED, ALL_DOWN, rule="failed")
    tale.commit(205.0, None, {"site-a": "soak"})
    tale.commit(210.0, {"site-a": 4, "site-b": 48, "site-c": 48}, {"site-a": "soak"})
    assert look("hold_time", tale.history(), scenario(cfg=cfg)).passed
    tale.commit(215.0, {"site-a": 20, "site-b": 40, "site-c": 40}, {"site-a": "soak"})
    fails("hold_time", tale.history(), "gives site-a 20 %", scenario(cfg=cfg))


def test_the_end_of_a_drain_enters_at_the_ramp() -> None:
    for percent, passes in ((100, False), (10, True)):
        tale = begun()
        tale.commit(10.0, {"site-b": 100}, {"site-a": "out"}, rule="out")
        tale.commit(50.0, {"site-a": percent, "site-b": 100 - percent}, {"site-a": "ramp"}, optional=True)
        assert look("hold_time", tale.history()).passed is passes


def test_a_new_site_soaks_too() -> None:
    tale = begun()
    states = {**STATES, "site-c": SiteState(verdict="unknown", rule="unknown")}
    tale.commit(5.0, None, sites=states)
    tale.commit(10.0, None, {"site-c": "soak"})
    tale.commit(20.0, {"site-a": 50, "site-c": 50}, optional=True)
    fails("hold_time", tale.history(), "10.0s after it was back (it is new")


# ---- capacity


def test_capacity() -> None:
    cfg = config(demand=1000.0, capacity=1000.0)  # 900 usable
    for shares, word in (
        ({"site-b": 100}, "sends 100 of 1000 of www where there is no room, and does not say so"),
        ({"site-b": 95, "site-c": 5}, "an optional move of www, gives site-b 50 more than its room"),
    ):
        tale = begun(cfg)
        tale.commit(10.0, shares, optional=True)
        fails("capacity", tale.history(), word, scenario(cfg=cfg))
    tale = begun(cfg)
    tale.commit(10.0, {"site-b": 90, "site-c": 10}, optional=True)
    history = replace(tale.history(), records=tuple(r for r in tale.history().records if r.at > 0))
    assert look("capacity", history, scenario(cfg=cfg)).passed


def test_a_forced_move_too_uses_the_room_there_is() -> None:
    cfg = config(demand=1000.0)
    tale = begun(cfg)
    tale.commit(10.0, {"site-b": 100}, FAILED, rule="failed", shortfall=100.0)
    fails("capacity", tale.history(), "a forced move", scenario(cfg=cfg))
    tale = begun(cfg)
    rules = {"site-a": "failed", "site-c": "failed"}
    tale.commit(10.0, {"site-b": 100}, rules, rule="failed", shortfall=100.0)
    history = replace(tale.history(), records=tuple(r for r in tale.history().records if r.at > 0))
    assert look("capacity", history, scenario(cfg=cfg)).passed


# ---- converged


@pytest.mark.parametrize(
    ("twist", "word"),
    [
        (lambda h: changed(h, Answered, 327.2, lambda r: replace(r, generation=4)), "with generation 4, not 5"),
        (lambda h: changed(h, Answered, 327.2, lambda r: replace(r, generation=None, sites=("site-b",))), "[site-b]"),
        (lambda h: changed(h, Answered, 327.2, lambda r: replace(r, at=450.0)), "site-a answers www with generation 4"),
        (lambda h: changed(h, Committed, 327.0, lambda r: replace(r, at=450.0)), "d-6 still moves www"),
        (lambda h: replace(h, duration_s=390.0), "the scenario ends at 390s"),
        (
            lambda h: added(h, Pooled(at=330.0, site="site-b", service="www", weights={"site-a": 0, "site-b": 1})),
            "the pool at site-b gives www to [site-b], not [site-a]",
        ),
    ],
)
def test_converged(twist: Twist, word: str) -> None:
    cfg = config()
    pooled = replace(cfg.services["www"], pools=Pools("bk", {site: (site,) for site in SITES}))
    fails("converged", twist(GOOD), word, scenario(cfg=replace(cfg, services={"www": pooled})))


def test_a_pool_that_is_not_configured_is_not_looked_at() -> None:
    pool = Pooled(at=330.0, site="site-b", service="www", weights={"site-a": 0, "site-b": 1})
    assert look("converged", added(GOOD, pool)).passed


def test_what_cannot_be_reached_or_was_fixed_by_hand_does_not_count() -> None:
    stale = changed(GOOD, Answered, 327.2, lambda r: replace(r, generation=4))
    unreachable = added(stale, replace(answer(GOOD, 327.2), at=350.0, reachable=False))
    assert look("converged", unreachable).passed
    by_hand = added(stale, Edited(at=350.0, server="site-a", service="www", manual=True))
    assert look("converged", by_hand).passed
    repaired = added(by_hand, replace(wrote(GOOD, 327.2), at=360.0))
    fails("converged", repaired, "site-a answers www with generation 4")


def answer(history: History, at: float) -> Answered:
    return next(r for r in history.records if isinstance(r, Answered) and r.at == at)


def test_without_a_word_of_the_scenario_the_allowance_is_the_longest_way_back() -> None:
    quiet = scenario(expect=())
    quiet = replace(quiet, expect=())
    # 200 s healed; soak 60, three steps of 30 (hold is longer than a step), hold 30, TTL 20, and a minute.
    assert look("converged", GOOD, quiet).passed
    fails("converged", replace(GOOD, duration_s=455.0), "(460s)", quiet)


# ---- no_flap


def test_no_flap() -> None:
    assert look("no_flap", GOOD, replace(scenario(), most_moves=4)).passed
    fails("no_flap", GOOD, "d-6 is move 4 of www within an hour; 3 are the most", replace(scenario(), most_moves=3))
    tale = begun()
    for n in range(6):  # twice an hour
        tale.commit(1900.0 * n, {SITES[(n + 1) % 2]: 100}, optional=True)
    assert look("no_flap", tale.history(12000.0), replace(scenario(), most_moves=2)).passed


# ---- audited


@pytest.mark.parametrize(
    ("twist", "word"),
    [
        (lambda h: decided(h, 65.2, events=()), "made generation 2 and does not say why"),
        (lambda h: decided(h, 65.2, events=(Event("move", "site-a", "failed", "", True),)), "without a reason"),
        (
            lambda h: decided(h, 65.2, events=(Event("move", "site-a", "failed", "down", True),)),
            "moves www at site-b from 0 to 100 % of world, unsaid",
        ),
        (lambda h: changed(h, Committed, 65.2, lambda r: None), "which nobody had decided"),
        (
            lambda h: changed(h, Wrote, 65.4, lambda r: replace(r, op="d-99-ab.1")),
            "(d-99-ab), which nobody had decided",
        ),
        (lambda h: changed(h, Wrote, 65.4, lambda r: None), "nobody wrote that there"),
        (lambda h: changed(h, Answered, 65.4, lambda r: replace(r, sites=("site-c",))), "no decision says so"),
        (lambda h: changed(h, Answered, 65.4, lambda r: replace(r, generation=9)), "generation 9: no decision says so"),
        (lambda h: added(h, replace(answer(h, 65.4), at=90.0, sites=("site-c",), generation=None)), "no decision says"),
    ],
)
def test_audited(twist: Twist, word: str) -> None:
    fails("audited", twist(GOOD), word)


def test_an_edit_by_hand_is_excepted() -> None:
    stray = replace(answer(GOOD, 65.4), at=90.0, sites=("site-c",))
    fails("audited", added(GOOD, stray), "no decision says so")
    edited = added(GOOD, Edited(at=90.0, server="site-b", service="www", manual=False), stray)
    assert look("audited", edited).passed


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


def test_a_service_whose_site_was_down_before_is_outside() -> None:
    tale = dark()
    tale.commit(65.2, None, FAILED, ALL_DOWN)
    tale.commit(150.0, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    found = look("bounded", tale.history())
    assert found.notes == (
        "www left site-a at 150.0s: not judged, the site was down before, and nothing else could take its traffic",
    )


def test_an_address_family_that_no_other_site_has_is_outside() -> None:
    tale = dark()
    decision = tale.commit(65.2, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
    kept = (*decision.desired.answers, Answer("world", "AAAA", "2001:db8::10", "site-a", 100))
    found = look("bounded", decided(tale.history(), 65.2, desired_answers=kept))
    assert found.notes == (
        "www left site-a at 65.2s: not judged, some of its addresses are still served: no other site has that family",
    )


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


def test_violations_are_told_up_to_a_number() -> None:
    tale = begun()
    for n in range(60):
        tale.commit(float(n + 1), {SITES[(n + 1) % 2]: 100}, optional=True)
    found = look("hold_time", tale.history())
    assert len(found.violations) == 51
    assert found.violations[-1] == "and 9 more"


def test_leaders_may_overlap_in_their_own_eyes() -> None:
    """Stealing is always safe: it is the commits that count."""
    both = added(GOOD, Led(at=64.0, node="site-c", leading=True, why="no beat"))
    assert look("fenced", both).passed
    assert isinstance(both.records[-1], Asked | Served)


def test_the_target_of_the_helpers_is_the_product_s() -> None:
    assert target("site-b") == "www@site-b/http:8080/198.51.100.10"
