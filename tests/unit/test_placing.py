"""Placing by example: steering modes, capacity, what is left over, last resorts, whole shares, rendered answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from policies.frame import Frame, frames, usable
from policies.placing import Plan, Shares, load, moved, overload, place, render
from policies.standing import FULL, KEEP, LADDER, NONE, RAMP, RELIEF, Standing
from policies.topology import Config, Location, Region, Site, Steering
from tests.unit.policy_world import make_config, make_service, one_service

READY = Standing("ready", "up", FULL)
SOAK = Standing("soak", "soaking", RELIEF)
HELD = Standing("held", "no quorum", KEEP, "held")
DOWN = Standing("failed", "down", NONE)


def ramp(percent: int, flaps: bool = False) -> Standing:
    return Standing("ramp", "ramping", RAMP, "flapping" if flaps else "", percent, flaps)


def last(tier: str) -> Standing:
    """A site that serves only as this class of last resort."""
    return Standing("out", "whatever", NONE, tier)


def planned(
    config: Config, standings: Mapping[str, Standing] | None = None, cur: Shares | None = None, sticky: bool = False
) -> Plan:
    """Sites are `ready` unless said otherwise."""
    frame = frames(config)["www"]
    given = {site: (standings or {}).get(site, READY) for site in frame.sites}
    return place(frame, usable(config), given, cur or {r: {} for r in frame.regions}, sticky)


def world(plan: Plan) -> dict[str, int]:
    return plan.shares["world"]


def test_priority_fills_in_order_up_to_what_is_usable() -> None:
    config = one_service({"a": 500.0, "b": 500.0, "c": 500.0}, 900.0)
    assert world(planned(config)) == {"a": 50, "b": 50}, "450 of 500 each"
    ordered = one_service({"a": 500.0, "b": 500.0, "c": 500.0}, 600.0, steering=Steering(order=("c", "a", "b")))
    assert world(planned(ordered)) == {"c": 75, "a": 25}


def test_weighted_asks_all_at_once_and_fills_up() -> None:
    steering = Steering(mode="weighted", weights={"a": 3, "b": 1, "c": 0})
    config = one_service({"a": 1000.0, "b": 1000.0, "c": 1000.0}, 400.0, steering=steering)
    assert world(planned(config)) == {"a": 75, "b": 25}
    full = one_service({"a": 200.0, "b": 1000.0, "c": 1000.0}, 900.0, steering=steering)
    assert world(planned(full)) == {"a": 20, "b": 80}, "what a has no room for goes to b"
    assert world(planned(full, {"a": DOWN, "b": DOWN})) == {"c": 100}, "no weight, but it is there"


def test_weighted_backups_with_and_without_weight() -> None:
    steering = Steering(mode="weighted", weights={"a": 1, "c": 1})
    sites = {"a": 1000.0, "b": Site(capacity=1000, role="backup"), "c": Site(capacity=1000, role="backup")}
    config = make_config(sites, {"www": make_service("abc", {"world": 1200.0}, steering=steering)})
    assert world(planned(config, {"a": DOWN})) == {"b": 25, "c": 75}, "who weighs nothing comes when c is full"


def test_nearest_is_decided_for_each_region() -> None:
    paris, amsterdam, madrid = Location(48.86, 2.35), Location(52.37, 4.90), Location(40.42, -3.70)
    sites = {
        "a": Site(capacity=1000, location=paris),
        "b": Site(capacity=1000, location=amsterdam),
        "c": Site(capacity=1000, role="backup", location=madrid),
    }
    service = make_service("abc", {"nl": 100.0, "es": 100.0, "rest": 100.0}, steering=Steering(mode="nearest"))
    config = make_config(sites, {"www": service})
    regions = {"nl": Region(location=amsterdam), "es": Region(location=madrid), "rest": Region(default=True)}
    config = Config("test", 60, config.sites, regions, config.services, config.policy)
    plan = planned(config)
    assert plan.shares == {"nl": {"b": 100}, "es": {"a": 100}, "rest": {"a": 100}}, "a backup comes after all others"
    assert planned(config, {"a": DOWN, "b": DOWN}).shares["es"] == {"c": 100}


def test_a_site_that_is_asked_for_more_than_it_has_grants_in_proportion() -> None:
    config = one_service({"a": 400.0, "b": 1000.0}, {"r0": 300.0, "r1": 150.0})
    assert planned(config).shares == {"r0": {"a": 80, "b": 20}, "r1": {"a": 80, "b": 20}}, "360 of 450 asked"


def test_a_region_without_demand_is_placed_like_a_vanishing_one() -> None:
    config = one_service({"a": 1000.0, "b": 1000.0}, {"busy": 600.0, "quiet": 0.0})
    assert planned(config).shares == {"busy": {"a": 100}, "quiet": {"a": 100}}
    assert planned(config, {"a": DOWN}).shares["quiet"] == {"b": 100}
    nothing = one_service({"a": 1000.0, "b": 1000.0}, 0.0)
    assert world(planned(nothing)) == {"a": 100}


def test_a_ramp_is_a_percentage_of_each_region() -> None:
    config = one_service({"a": 1000.0, "b": 1000.0}, {"r0": 400.0, "r1": 20.0})
    assert planned(config, {"a": ramp(10)}).shares == {"r0": {"a": 10, "b": 90}, "r1": {"a": 10, "b": 90}}
    carries = {"r0": {"a": 70, "b": 30}, "r1": {"b": 100}}
    plan = planned(config, {"a": ramp(10)}, carries)
    assert plan.shares == {"r0": {"a": 70, "b": 30}, "r1": {"a": 10, "b": 90}}, "never less than it carries"


def test_who_soaks_or_ramps_carries_what_would_overload_the_others() -> None:
    config = one_service({"a": 1000.0, "b": 500.0}, 600.0)
    assert world(planned(config, {"a": SOAK})) == {"a": 25, "b": 75}
    assert world(planned(config, {"a": ramp(10)})) == {"a": 25, "b": 75}
    assert world(planned(config, {"a": ramp(10, flaps=True), "b": READY})) == {"a": 10 + 10, "b": 80}, "spread"
    assert world(planned(config, {"a": SOAK, "b": DOWN})) == {"a": 100}, "in full"


def test_what_has_no_room_is_spread_by_usable_capacity() -> None:
    config = one_service({"a": 100.0, "b": 300.0}, 800.0)
    plan = planned(config)
    assert world(plan) == {"a": 25, "b": 75} and plan.tier == ""
    frame = frames(config)["www"]
    assert overload(frame, usable(config), plan.shares) == pytest.approx(800 - 360)
    none_left = place(frame, {"a": 0.0, "b": -50.0}, {"a": READY, "b": READY}, {"world": {}}, False)
    assert world(none_left) == {"a": 25, "b": 75}, "by capacity, if none is left"


def test_held_keeps_what_it_has_and_gets_no_more() -> None:
    config = one_service({"a": 1000.0, "b": 1000.0}, 600.0)
    for sticky in (True, False):
        assert world(planned(config, {"a": HELD}, {"world": {"a": 40, "b": 60}}, sticky)) == {"a": 40, "b": 60}
        assert world(planned(config, {"a": HELD, "b": DOWN}, {"world": {"b": 100}}, sticky)) == {"a": 100}


def test_who_is_held_bears_its_part_of_an_overload_as_before() -> None:
    """A vantage that dissents must not halve what a site has, only because it is too much for all of them."""
    config = one_service({"a": 100.0, "b": 300.0, "c": 300.0}, 2000.0)
    cur = {"world": {"a": 14, "b": 43, "c": 43}}
    assert planned(config).shares == cur
    for sticky in (True, False):
        assert planned(config, {"b": HELD}, cur, sticky).shares == cur
        assert planned(config, {"b": HELD, "c": HELD}, cur, sticky).shares == cur
    assert world(planned(config, {"b": HELD}, {"world": {"a": 50, "b": 10, "c": 40}})) == {"a": 23, "b": 10, "c": 67}
    assert world(planned(config, {"b": HELD, "a": DOWN, "c": DOWN}, cur)) == {"b": 100}, "a last resort, as before"


def test_the_forced_plan_moves_only_what_must_move() -> None:
    config = one_service({"a": 1000.0, "b": 1000.0, "c": 1000.0}, 600.0)
    cur = {"world": {"b": 30, "c": 70}}
    assert world(planned(config, cur=cur, sticky=True)) == {"b": 30, "c": 70}
    assert world(planned(config, cur=cur)) == {"a": 100}
    assert world(planned(config, {"b": DOWN}, cur, sticky=True)) == {"a": 30, "c": 70}


@pytest.mark.parametrize("position", range(len(LADDER) - 1))
def test_of_the_last_resorts_the_first_class_that_has_a_site_serves(position: int) -> None:
    config = one_service({"a": 1000.0, "b": 1000.0, "c": 1000.0}, 600.0)
    higher = LADDER[position]
    for lower in LADDER[position + 1 : -1]:
        plan = planned(config, {"a": last(lower), "b": last(higher), "c": DOWN}, {"world": {"c": 100}}, sticky=True)
        assert (world(plan), plan.tier) == ({"b": 100}, higher)
    serves = planned(config, {"a": DOWN, "b": last(higher), "c": DOWN}, {"world": {"c": 100}}, sticky=True)
    assert (world(serves), serves.tier) == ({"b": 100}, higher), "before what was served last"


def test_last_of_all_what_was_served_last() -> None:
    config = one_service({"a": 1000.0, "b": 1000.0}, 600.0)
    plan = planned(config, {"a": DOWN, "b": DOWN}, {"world": {"a": 20, "b": 80}}, sticky=True)
    assert (world(plan), plan.tier) == ({"a": 20, "b": 80}, "last served")
    assert world(planned(config, {"a": DOWN, "b": DOWN})) == {}, "nothing ever was"


def test_within_a_class_of_last_resort_present_shares_are_kept() -> None:
    config = one_service({"a": 1000.0, "b": 1000.0, "c": 1000.0}, 600.0)
    standings = {site: last("replies") for site in "ab"} | {"c": DOWN}
    plan = planned(config, standings, {"world": {"b": 60, "c": 40}}, sticky=True)
    assert world(plan) == {"a": 40, "b": 60}


def test_any_site_that_may_take_more_comes_before_every_last_resort() -> None:
    config = one_service({"a": 100.0, "b": 1000.0}, 600.0)
    for standing in (READY, SOAK, ramp(10), ramp(10, flaps=True)):
        plan = planned(config, {"a": standing, "b": last("drained")})
        assert (world(plan), plan.tier) == ({"a": 100}, ""), "overloaded, and said so"


def test_remainders_go_to_who_has_room_else_by_size() -> None:
    config = one_service({"a": 100.0, "b": 1000.0}, 135.0)
    assert world(planned(config)) == {"a": 66, "b": 34}, "66.7: a has no room for one percent more"
    thirds = one_service({"a": 30.0, "b": 30.0, "c": 30.0}, 300.0)
    assert world(planned(thirds)) == {"a": 34, "b": 33, "c": 33}, "nobody has room: the preferred one"


def test_a_rounding_remainder_is_one_percent_at_most() -> None:
    """Three regions, each with 0.67 % at b: b must not get the percent that a ramping site may not take."""
    config = one_service({"a": 1000.0, "b": 10.0, "c": 1000.0}, {"r0": 450.0, "r1": 450.0, "r2": 450.0})
    plan = planned(config, {"a": ramp(10), "c": ramp(10)})
    assert all(shares.get("b", 0) <= 1 and sum(shares.values()) == 100 for shares in plan.shares.values()), plan


def test_present_shares_that_are_a_rounding_of_the_plan_stay() -> None:
    thirds = one_service({"a": 30.0, "b": 30.0, "c": 30.0}, 300.0)
    for cur in ({"a": 33, "b": 34, "c": 33}, {"a": 33, "b": 33, "c": 34}):
        assert world(planned(thirds, cur={"world": cur})) == cur, "a percent is not worth a move"
    assert world(planned(thirds, cur={"world": {"a": 32, "b": 34, "c": 34}})) == {"a": 34, "b": 33, "c": 33}
    first_percent = one_service({"a": 1000.0, "b": 1000.0}, 100.0)
    assert world(planned(first_percent, {"a": ramp(1)}, {"world": {"b": 100}})) == {"a": 1, "b": 99}


def test_overflow_does_not_drift_from_who_soaks_to_who_ramps() -> None:
    """What a ramping site carries is what it may keep: were the rest always shared, it would creep upwards."""
    steering = Steering(mode="weighted", weights={"a": 1, "b": 1, "c": 1})
    config = one_service({"a": 1000.0, "b": 1000.0, "c": 1000.0}, 600.0, steering=steering)
    standings = {"a": DOWN, "b": ramp(10), "c": SOAK}
    once = planned(config, standings, {"world": {"c": 100}})
    assert planned(config, standings, once.shares) == once == planned(config, standings, once.shares, sticky=True)


def test_loads_and_moves() -> None:
    frame = frames(one_service({"a": 100.0, "b": 100.0}, {"r0": 200.0, "r1": 50.0}))["www"]
    before: Shares = {"r0": {"a": 100}, "r1": {"a": 50, "b": 50}}
    after: Shares = {"r0": {"a": 60, "b": 40}, "r1": {"b": 100}}
    assert load(frame, before) == {"a": 225, "b": 25}
    assert moved(frame, before, after) == 80 + 25 == moved(frame, after, before)
    assert overload(frame, {"a": 90.0, "b": -5.0}, before) == 135 + 25


# --- rendered answers -------------------------------------------------------------------------------------------


def rendered(addresses: dict[str, tuple[str, ...]], shares: dict[str, int], **standings: Standing) -> list[Any]:
    config = one_service(dict.fromkeys(addresses, 1000.0), endpoints=addresses)
    frame: Frame = frames(config)["www"]
    given = {site: standings.get(site, READY) for site in addresses}
    answers = render(frame, {"world": shares}, given, addresses, None, still=False)
    return [(answer.address, answer.weight) for answer in answers]


def test_answers_are_the_shares() -> None:
    addresses = {"a": ("10.0.0.1",), "b": ("10.0.0.2",)}
    assert rendered(addresses, {"a": 70, "b": 30}) == [("10.0.0.1", 70), ("10.0.0.2", 30)]
    assert rendered(addresses, {"b": 100}) == [("10.0.0.2", 100)]


def test_two_addresses_do_not_double_a_sites_weight() -> None:
    addresses = {"a": ("10.0.0.1", "10.0.0.3"), "b": ("10.0.0.2",)}
    assert rendered(addresses, {"a": 50, "b": 50}) == [("10.0.0.1", 50), ("10.0.0.3", 50), ("10.0.0.2", 100)]


def test_each_family_is_renormalised_over_the_sites_that_have_it() -> None:
    addresses = {"a": ("10.0.0.1",), "b": ("10.0.0.2", "2001:db8::2"), "c": ("2001:db8::3",)}
    assert rendered(addresses, {"a": 80, "b": 15, "c": 5}) == [
        ("10.0.0.1", 80),
        ("10.0.0.2", 15),
        ("2001:db8::2", 15),
        ("2001:db8::3", 5),
    ]


def test_a_family_that_no_site_with_a_share_has_is_served_by_the_best_that_has_it() -> None:
    addresses = {"a": ("10.0.0.1",), "b": ("2001:db8::2",), "c": ("2001:db8::3",)}
    assert rendered(addresses, {"a": 100})[1:] == [("2001:db8::2", 100)], "of equals the preferred"
    for better, worse in (
        (READY, ramp(10)),
        (ramp(10), SOAK),
        (SOAK, last("drained")),
        (last("drained"), last("replies")),
        (last("replies"), HELD),
        (HELD, DOWN),
    ):
        assert rendered(addresses, {"a": 100}, b=worse, c=better)[1:] == [("2001:db8::3", 100)]
