"""Each checker passes a good history, and fails for each rule that it knows when a history breaks it."""

from __future__ import annotations

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
    Probed,
    Rewound,
    Served,
    Wrote,
)
from chaos.scenario import Fault
from chaos.sights import needed
from tests.unit.checking import Twist, fails, look, wrote
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
    scenario,
    target,
)

GOOD = back().history()
EDIT = Fault(verb="edit_zone", at_s=400.0, site="site-b", service="www", other="site-c", how="foreign")


@pytest.mark.parametrize("name", CHECKERS)
def test_a_good_history_passes_and_says_how_much_was_looked_at(name: str) -> None:
    found = look(name, GOOD)
    assert found.passed, found.violations
    assert found.checked > 0
    assert found.name == name


@pytest.mark.parametrize("name", CHECKERS)
def test_nothing_to_look_at_is_a_failure(name: str) -> None:
    fails(name, replace(GOOD, records=(), duration_s=100.0), "nothing to look at")


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


def test_fenced_knows_that_what_is_adopted_has_to_be_there() -> None:
    """Nothing foreign was there when it was adopted; what came later nobody has adopted."""
    told = scenario(DARK, EDIT)
    edited = added(GOOD, Edited(at=400.0, server="site-b", service="www", manual=False))
    taken = added(edited, replace(wrote(GOOD, 327.2), at=410.0, server="site-b", generation=5))
    early = added(taken, Operated(at=390.0, index=2, argv=("adopt", "--all"), code=0, said=""))
    fails("fenced", early, "over a foreign fence that nobody has adopted", told)


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


def test_what_an_embedded_server_forgot_before_a_restoration_is_not_overwritten() -> None:
    """It dies, and the store is restored to before its last generation: it is written what the store says. A server
    that keeps its fences, or one whose store was not restored, is not."""
    cfg = config()
    inside = replace(cfg, dns=tuple(replace(d, driver="embedded", options="{}") for d in cfg.dns))
    for each, to, passes in ((inside, 0.0, True), (inside, None, False), (cfg, 0.0, False)):
        tale = begun(each)
        first = tale.desired
        tale.commit(10.0, {"site-b": 100}, optional=True)
        tale.apply(11.0)
        tale.desired = first
        again = tale.write(40.0, "site-b")
        history = added(tale.history(), again, replace(tale.answer(40.0, "site-b"), at=40.0))
        found = look("fenced", history if to is None else added(history, Rewound(at=30.0, to=to)))
        assert found.passed is passes, found.violations


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


def test_the_votes_of_the_dead_count_no_longer_than_they_are_fresh() -> None:
    """They saw it fail, and died: for 3 s, and as long as a commit may take, that is a vote."""
    for died_s, passes in ((62.5, True), (53.0, False)):
        dead = Fault(verb="kill", at_s=died_s, for_s=500.0, node="cloud")
        tale = begun()
        tale.probes(45.0, "site-a", False, ("cloud", "site-b"), last=44.0)
        tale.tell(Faulted(at=died_s, index=0, began=True, text="kill cloud"))
        tale.commit(65.2, {"site-b": 100}, FAILED, ALL_DOWN, rule="failed")
        assert look("quorum_backed", tale.history(), scenario(dead)).passed is passes


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


def test_doubt_alone_moves_nothing() -> None:
    tale = begun()
    tale.commit(10.0, {"site-a": 50, "site-b": 50}, optional=True)
    tale.commit(80.0, {"site-a": 75, "site-b": 25}, {"site-b": "held"}, optional=True)
    fails("quorum_backed", tale.history(), "from site-b for nothing but that it has no quorum any more")
    tale = begun()
    tale.commit(10.0, {"site-a": 50, "site-b": 50}, optional=True)
    tale.commit(80.0, {"site-a": 75, "site-b": 25}, {"site-b": "held", "site-c": "out"}, optional=True)
    assert look("quorum_backed", tale.history()).passed


def test_without_raw_probes_the_votes_are_counted() -> None:
    bare = [record for record in turned_down(ALL_DOWN["site-a"]).records if not isinstance(record, Probed)]
    assert look("quorum_backed", replace(GOOD, records=tuple(bare))).passed
    alone = [record for record in turned_down({"site-b": "down"}).records if not isinstance(record, Probed)]
    fails("quorum_backed", replace(GOOD, records=tuple(alone)), "1 of 3 voters")
