"""How soon, how often and to where traffic moves: hold_time, capacity, no_flap."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from chaos.history import (
    History,
)
from policies.world import SiteState
from tests.unit.checking import fails, look
from tests.unit.histories import (
    ALL_DOWN,
    FAILED,
    SITES,
    back,
    begun,
    config,
    failed_over,
    scenario,
)

GOOD = back().history()
STATES = {site: SiteState(verdict="up", rule="ready", phase="ready") for site in SITES}


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


def test_what_rounding_leaves_at_each_site_is_no_room() -> None:
    """Two sites with 2.9 % and 2.7 % to spare each: together more than may be, but no percent fits in."""
    cfg = config(demand=1000.0, capacity=500.0)
    tale = begun(cfg)
    tale.commit(65.2, {"site-b": 50, "site-c": 50}, FAILED, ALL_DOWN, rule="failed", shortfall=100.0)
    tale.commit(205.0, None, {"site-a": "soak"})
    tale.commit(206.0, {"site-a": 15, "site-b": 42, "site-c": 43}, {"site-a": "soak"})
    assert look("hold_time", tale.history(), scenario(cfg=cfg)).passed
    tale.commit(207.0, {"site-a": 25, "site-b": 32, "site-c": 43}, {"site-a": "soak"})
    fails("hold_time", tale.history(), "gives site-a 25 %", scenario(cfg=cfg))


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


def test_a_shortfall_is_as_large_as_what_has_no_room() -> None:
    cfg = config(demand=1000.0)  # 900 usable at each
    for said, passes in ((100.0, True), (50.0, False), (1.0, False)):
        tale = begun(cfg)
        tale.commit(10.0, {"site-b": 100}, {"site-a": "failed", "site-c": "failed"}, rule="failed", shortfall=said)
        history = replace(tale.history(), records=tuple(r for r in tale.history().records if r.at > 0))
        found = look("capacity", history, scenario(cfg=cfg))
        assert found.passed is passes
        assert passes or found.violations[0].endswith(
            f"sends 100 of 1000 of www where there is no room, and says {said:g}"
        )


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


# ---- no_flap


def test_no_flap() -> None:
    assert look("no_flap", GOOD, replace(scenario(), most_moves=4)).passed
    fails("no_flap", GOOD, "d-6 is move 4 of www within an hour; 3 are the most", replace(scenario(), most_moves=3))
    tale = begun()
    for n in range(6):  # twice an hour
        tale.commit(1900.0 * n, {SITES[(n + 1) % 2]: 100}, optional=True)
    assert look("no_flap", tale.history(12000.0), replace(scenario(), most_moves=2)).passed
