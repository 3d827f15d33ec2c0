"""The precedence table: every row, every pair of neighbours, every class of last resort, and which override wins."""

from __future__ import annotations

from itertools import combinations, pairwise, permutations
from typing import Any

import pytest

from policies.frame import frames
from policies.standing import FULL, KEEP, LADDER, NONE, RAMP, RELIEF, RULES, Facts, effective, stand
from policies.topology import Override, Policy
from policies.world import Effective, SiteState
from tests.unit.policy_world import one_service, with_failback

IN_HARD = Effective("ov-1", "in", hard=True)
IN_SOFT = Effective("ov-1", "in", hard=False)
OUT_SOFT = Effective("ov-2", "out", hard=False)
OUT_HARD = Effective("ov-2", "out", hard=True)


def facts(override: Effective | None = None, **more: Any) -> Facts:
    """A site that is up and ready, unless said otherwise; keywords of Facts and of SiteState."""
    mine = {key: more.pop(key) for key in ("replies", "carries", "stale", "lag_s", "policy") if key in more}
    state = SiteState(**{"verdict": "up", "phase": "ready", **more})
    defaults = {"replies": state.verdict == "up", "carries": False, "stale": False, "lag_s": 0.0, "policy": Policy()}
    return Facts(state=state, override=override, tally="3/3", **{**defaults, **mine})


# Facts to which a rule applies, as little else as possible.
ALONE: dict[str, dict[str, Any]] = {
    "pinned": {"override": IN_HARD},
    "out": {"override": OUT_SOFT},
    "failed": {"verdict": "down", "phase": "failed"},
    "unknown": {"verdict": "unknown", "phase": "new"},
    "data": {"stale": True, "lag_s": 9.0},
    "held": {"held": True},
    "soak": {"phase": "soak", "left_s": 20.0},
    "ramp": {"phase": "ramp", "left_s": 20.0},
    "ready": {},
}

# Each pair of neighbours on one site: facts to which both apply.
NEIGHBOURS: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("out", "failed"): [{**ALONE["out"], **ALONE["failed"]}],
    ("unknown", "data"): [{**ALONE["unknown"], **ALONE["data"]}],
    ("data", "held"): [{**ALONE["data"], **ALONE["held"]}],
    ("held", "soak"): [{**ALONE["held"], **ALONE["soak"]}],
    ("ramp", "ready"): [ALONE["ramp"]],
}
# A site has one override that won, one verdict and one phase: these pairs exclude each other by construction.
EXCLUSIVE = {("pinned", "out"), ("failed", "unknown"), ("soak", "ramp")}


def test_every_row_has_its_facts_and_is_chosen_by_them() -> None:
    assert [rule.name for rule in RULES] == list(ALONE)
    for name, given in ALONE.items():
        assert stand(facts(**given)).rule == name


@pytest.mark.parametrize("pair", list(pairwise(RULES)), ids=lambda pair: pair[0].name)
def test_of_neighbours_the_higher_wins(pair: tuple[Any, Any]) -> None:
    higher, lower = pair
    names = (higher.name, lower.name)
    assert (names in NEIGHBOURS) != (names in EXCLUSIVE), "a new row needs its facts here"
    for given in NEIGHBOURS.get(names, ()):
        both = facts(**given)
        assert higher.applies(both) and lower.applies(both)
        assert stand(both).rule == higher.name


def test_of_any_two_rules_that_can_meet_the_higher_wins() -> None:
    met = set()
    for higher, lower in combinations(ALONE, 2):
        both = facts(**{**ALONE[lower], **ALONE[higher]})
        applying = [rule.name for rule in RULES if rule.applies(both)]
        if lower in applying and higher in applying:
            assert stand(both).rule == higher
            met.add((higher, lower))
    assert {("pinned", "failed"), ("pinned", "unknown"), ("pinned", "held"), ("out", "held"), ("failed", "data")} <= met
    assert set(NEIGHBOURS) <= met


def test_exactly_the_exclusive_pairs_exclude_each_other() -> None:
    """What the rules look at is one field each: an override's verb, the verdict, the phase."""
    by_name = {rule.name: rule for rule in RULES}
    for override in (None, IN_HARD, IN_SOFT, OUT_SOFT, OUT_HARD):
        for verdict in ("up", "down", "unknown"):
            for phase in ("new", "failed", "soak", "ramp", "ready"):
                f = facts(override, verdict=verdict, phase=phase)
                for higher, lower in EXCLUSIVE:
                    assert not (by_name[higher].applies(f) and by_name[lower].applies(f))


def test_what_each_row_may_take() -> None:
    takes = {name: stand(facts(**given)).take for name, given in ALONE.items()}
    assert takes == {
        "pinned": FULL,
        "out": NONE,
        "failed": NONE,
        "unknown": KEEP,
        "data": KEEP,
        "held": KEEP,
        "soak": RELIEF,
        "ramp": RAMP,
        "ready": FULL,
    }


def test_every_standing_says_why() -> None:
    for given in ALONE.values():
        assert stand(facts(**given)).reason.strip()
    assert "soaking, 20s left" in stand(facts(**ALONE["soak"])).reason
    waits = facts(phase="soak", left_s=0.0, policy=with_failback(mode="manual"))
    assert "waits for failoverctl failback" in stand(waits).reason
    assert "lag is unknown" in stand(facts(stale=True, lag_s=None)).reason
    assert "lag is 9.0s" in stand(facts(stale=True, lag_s=9.0)).reason


def test_pinned_into_a_stale_copy_only_with_that_guard_named() -> None:
    stale = {"stale": True, "lag_s": 9.0}
    assert stand(facts(IN_HARD, **stale)).rule == "data"
    assert stand(facts(Effective("ov-1", "in", True, ("data",)), **stale)).rule == "pinned"
    assert stand(facts(Effective("ov-1", "in", True, ("capacity",)), **stale)).rule == "data"
    assert stand(facts(IN_HARD, carries=True, **stale)).rule == "pinned", "what it carries it keeps"


def test_failback_is_not_a_pin() -> None:
    for given in (ALONE["failed"], ALONE["held"], ALONE["soak"], ALONE["ramp"]):
        assert stand(facts(IN_SOFT, **given)).rule == stand(facts(**given)).rule


def test_classes_of_last_resort() -> None:
    assert LADDER == ("drained", "flapping", "replies", "held", "drained held", "last served")

    def ladder(override: Effective | None = None, **more: Any) -> str:
        return stand(facts(override, **more)).ladder

    assert ladder(OUT_SOFT) == "drained"
    assert ladder(OUT_SOFT, held=True) == "drained held"
    assert ladder(OUT_SOFT, verdict="down", phase="failed", replies=True) == "replies"
    assert ladder(OUT_SOFT, verdict="down", phase="failed") == ""
    assert ladder(OUT_SOFT, verdict="unknown", phase="new", replies=True) == "replies"
    assert ladder(verdict="down", phase="failed", replies=True) == "replies"
    assert ladder(verdict="down", phase="failed") == ""
    assert ladder(verdict="unknown", phase="new", replies=True) == "replies"
    assert ladder(verdict="unknown", phase="new") == ""
    assert ladder(held=True) == "held"
    assert ladder(phase="soak", left_s=9.0, flaps=True) == "flapping"
    assert ladder(phase="soak", left_s=9.0) == "", "takes overflow long before the last resort"
    assert ladder() == ""


def test_hard_out_is_never_a_last_resort() -> None:
    for given in ALONE.values():
        hard = facts(**{**given, "override": OUT_HARD, "replies": True})
        assert (stand(hard).rule, stand(hard).take, stand(hard).ladder) == ("out", NONE, "")


def test_a_stale_copy_is_never_a_last_resort() -> None:
    for given in ALONE.values():
        for override in (None, OUT_SOFT):
            stale = facts(**{**given, "override": override, "stale": True, "lag_s": None, "replies": True})
            assert stand(stale).ladder == ""


def test_flapping_sites_do_not_take_overflow() -> None:
    assert stand(facts(phase="soak", left_s=9.0, flaps=True)).take == NONE
    ramping = stand(facts(phase="ramp", step=1, flaps=True))
    assert (ramping.take, ramping.cap_percent, ramping.flaps) == (RAMP, 50, True)


def test_ramp_stands_at_its_step() -> None:
    assert [stand(facts(phase="ramp", step=step)).cap_percent for step in (0, 1, 2, 3)] == [10, 50, 100, 100]


# --- which override wins ----------------------------------------------------------------------------------------


def override(id_: str, verb: str, hard: bool = False, mine: bool = False, order: int = 1) -> Override:
    services = ("www",) if mine else ()
    return Override(id_, verb, hard, "drain", ("a",), services, "ana", "firmware", "", order, None)


# Strongest first: the service's before those for all, then out before in, then hard before soft, then the newest.
STRONGEST_FIRST = (
    override("own out hard new", "out", True, True, 9),
    override("own out hard old", "out", True, True, 1),
    override("own out soft", "out", False, True, 10),
    override("own in hard", "in", True, True, 11),
    override("own in soft", "in", False, True, 12),
    override("all out hard", "out", True, False, 13),
    override("all out soft new", "out", False, False, 15),
    override("all out soft old", "out", False, False, 14),
    override("all in hard", "in", True, False, 16),
    override("all in soft", "in", False, False, 17),
)


def test_first_one_override_wins() -> None:
    frame = frames(one_service())["www"]
    for stronger, weaker in combinations(STRONGEST_FIRST, 2):
        for both in permutations((stronger, weaker)):
            chosen, freeze = effective(both, frame)
            assert (chosen["a"].id, freeze) == (stronger.id, "")
    chosen, _ = effective(tuple(reversed(STRONGEST_FIRST)), frame)
    assert list(chosen) == ["a"] and chosen["a"].why == 'drain by ana: "firmware"'


def test_overrides_of_other_services_and_sites_do_not_count() -> None:
    frame = frames(one_service())["www"]
    other = Override("ov-1", "out", True, "pin", ("a",), ("mail",), "ana", "r", "", 1, None)
    elsewhere = Override("ov-2", "out", True, "pin", ("w", "z"), (), "ana", "r", "", 2, None)
    frozen = Override("ov-3", "freeze", False, "freeze", (), ("mail",), "ana", "r", "", 3, None)
    assert effective((other, elsewhere, frozen), frame) == ({}, "")


def test_freeze_beside_others() -> None:
    frame = frames(one_service())["www"]
    for_all = Override("ov-1", "freeze", False, "freeze", (), (), "ana", "r", "", 1, None)
    own = Override("ov-2", "freeze", False, "freeze", (), ("www",), "ana", "r", "", 2, None)
    drain = override("ov-3", "out")
    assert effective((for_all, own, drain), frame)[1] == "ov-2"
    chosen, freeze = effective((for_all, drain), frame)
    assert (chosen["a"].id, freeze) == ("ov-3", "ov-1")
