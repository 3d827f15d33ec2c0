"""Histories that naive rules get wrong."""

from __future__ import annotations

import pytest

from policies.topology import Config, Site, Steering
from tests.unit.policy_world import (
    HTTP,
    TCP,
    UPLINK,
    World,
    make_config,
    make_service,
    one_service,
    standby,
    with_failback,
)

MINUTE = 60.0


def started(config: Config) -> World:
    world = World(config)
    world.lag = dict.fromkeys(config.sites, 0.0)
    world.run(1)
    return world


def test_the_edge_of_the_site_with_all_traffic_dies_while_its_own_vantage_still_says_up() -> None:
    world = started(one_service())
    for vantage in ("b", "c", "w"):
        world.lies[vantage, "a"] = "down"  # seen from outside; a's own vantage still sees it well
    step = world.decide()
    assert step.new_generation and world.shares() == {"b": 100}
    assert not world.said("governor"), "the own vantage has no vote, so nobody dissents"
    (left,) = [e for e in step.events if e.kind == "move" and e.site == "a"]
    assert left.forced and left.rule == "failed" and "0/3" in left.reason


def test_the_edge_dies_and_only_one_other_vantage_is_left_to_see_it() -> None:
    """The own vantage votes now, and says UP: no quorum, so nothing moves on one witness."""
    world = started(one_service({"a": 1000.0, "b": 1000.0}))
    world.silent.add("b")
    world.lies["w", "a"] = "down"
    world.run(MINUTE)
    assert (world.rule("a"), world.shares()) == ("held", {"a": 100})


def test_one_vantage_is_stuck_on_up_while_a_site_dies() -> None:
    """A quorum moves the traffic although one dissents; because all of it would move, it waits three seconds."""
    world = started(one_service())
    world.dark("a")
    world.lies["w", "a"] = "up"
    step = world.decide()
    assert [event.rule for event in step.refused] == ["governor"] and step.wake_in_s == 3
    assert world.shares() == {"a": 100} and world.rule("a") == "failed"
    world.now += 2.9
    assert not world.decide().new_generation
    world.now += 0.1
    step = world.decide()
    assert step.new_generation and world.shares() == {"b": 100}
    assert world.desired["www"].wait_left_s == 0 and not step.refused


def test_below_the_governors_share_a_dissenting_vantage_does_not_delay() -> None:
    service = make_service("abc", {"world": 300.0}, 0)
    elsewhere = make_service("bc", {"world": 300.0}, 1)
    world = started(make_config({"a": 1000.0, "b": 1000.0, "c": 1000.0, "w": 0.0}, {"www": service, "x": elsewhere}))
    world.dark("a")
    world.lies["w", "a"] = "up"
    world.decide()
    assert world.shares() == {"b": 100}


def test_soak_runs_only_while_somebody_knows_that_the_site_is_up() -> None:
    """The verdict is silent for ten minutes: that is not ten minutes of being up."""
    world = started(one_service())
    world.dark("a")
    world.run(10)
    world.heal("a")
    world.run(MINUTE)
    assert (world.phase("a"), world.left_s("a")) == ("soak", 240)
    world.silent |= {"b", "c", "w"}
    world.run(10 * MINUTE)
    assert (world.phase("a"), world.left_s("a"), world.rule("a")) == ("soak", 240, "held")
    world.silent.clear()
    world.run(239)
    assert world.phase("a") == "soak"
    world.run(2)
    assert world.phase("a") == "ramp"


def test_everything_is_down_and_then_the_site_with_the_traffic_goes_dark_while_others_answer() -> None:
    world = started(one_service())
    world.sites = dict.fromkeys("abc", "error")  # a bad release: every site replies 503
    world.run(10)
    assert world.shares() == {"a": 100}, "no site is better: present shares are kept"
    assert (world.rule("a"), world.desired["www"].tier) == ("failed", "replies")
    generation = world.generation()
    world.run(10 * MINUTE)
    assert world.generation() == generation
    world.dark("a")
    world.run(10)
    assert world.share("a") == 0 and set(world.shares()) <= {"b", "c"}, "where something still replies"
    world.sites |= {"b": "down", "c": "down"}  # their vantages live, and see that nothing replies any more
    shares = world.shares()
    world.run(10 * MINUTE)
    assert world.shares() == shares, "never empty: what was served last"
    assert world.desired["www"].tier == "last served"


def test_two_sites_drained_and_the_third_fails() -> None:
    world = started(one_service(steering=Steering(order=("c", "a", "b"))))
    world.drain("a", "b")
    world.run(MINUTE)
    assert world.shares() == {"c": 100}
    world.dark("c")
    world.run(10)
    assert world.desired["www"].tier == "drained" and "c" not in world.shares()
    assert world.rule("a") == "out", "drained it stays; that it serves is an alarm"
    assert [event.kind for event in world.said("last_resort")] == ["alarm"]
    world.heal("c")
    world.run(30 * MINUTE)
    assert world.shares() == {"c": 100} and world.desired["www"].tier == ""


def test_two_sites_pinned_out_and_the_third_fails() -> None:
    """Hard means hard, but never empty outranks every override."""
    world = started(one_service(steering=Steering(order=("c", "a", "b"))))
    world.override("out", "a", "b", hard=True)
    world.run(MINUTE)
    world.dark("c")
    world.run(10)
    assert world.shares() == {"c": 100} and world.desired["www"].tier == "last served"
    world.override("out", "c", hard=True)
    world.run(10)
    assert world.shares() == {"c": 100} and world.said("hard_out_ignored")


def test_a_drain_expires_in_the_middle_of_an_outage() -> None:
    world = started(one_service())
    world.drain("b", for_s=5 * MINUTE)
    world.run(MINUTE)
    world.dark("a")
    world.run(10)
    assert world.shares() == {"c": 100}
    world.dark("c")
    world.run(10)
    assert world.shares() == {"b": 100} and world.desired["www"].tier == "drained"
    world.run(5 * MINUTE)
    assert (world.rule("b"), world.phase("b"), world.shares()) == ("ready", "ready", {"b": 100})
    assert world.desired["www"].tier == "", "it carries already: no ramp, and no last resort any more"


def test_a_drain_expires_while_its_site_is_down() -> None:
    world = started(one_service())
    world.drain("a", for_s=5 * MINUTE)
    world.run(MINUTE)
    world.dark("a")
    world.run(10 * MINUTE)
    assert (world.rule("a"), world.shares()) == ("failed", {"b": 100})
    world.heal("a")
    world.run(2 * MINUTE)
    assert world.rule("a") == "soak", "it was left: it soaks before it ramps"


@pytest.mark.parametrize("held_back", [False, True])
def test_a_ramp_step_falls_due_in_the_moment_in_which_another_site_fails(held_back: bool) -> None:
    """The forced move goes at once, in full; the step is an optional one and may wait."""
    world = started(one_service())
    world.dark("a")
    world.run(10)
    world.heal("a")
    world.run(5 * MINUTE)
    assert world.shares() == {"a": 10, "b": 90}
    world.now += world.left_s("a") - (0.5 if held_back else 0.0)
    world.dark("b")
    step = world.decide()
    assert "b" not in world.shares(), "in the same moment"
    assert world.share("a") >= 10 and sum(world.shares().values()) == 100
    left = [event for event in step.events if event.kind == "move" and event.site == "b"]
    if held_back:
        assert world.shares() == {"a": 10, "c": 90} and left[0].forced
    else:
        assert world.shares() == {"a": 50, "c": 50}, "the step was due, and no hold time ran"
    world.run(5 * MINUTE)
    assert world.shares() == {"a": 100}


def test_a_standbys_lag_grows_because_its_source_is_dead() -> None:
    """What was lost with the source cannot grow: the standby may enter. Its lag stands still while a is DOWN."""
    world = started(one_service({"a": 1000.0, "b": 1000.0}, data=standby(rpo_s=5.0)))
    world.lag["b"] = 0.4
    world.run(5)
    world.dark("a")
    world.lag["b"] = 9.0  # as a naive probe would say, some seconds later
    world.decide()
    assert world.shares() == {"b": 100} and world.rule("b") == "ready"
    world.lag["b"] = 900.0
    world.run(15 * MINUTE)
    assert world.rule("b") == "ready" and world.shares() == {"b": 100}


def test_a_standby_that_lagged_before_its_source_died_may_not_enter() -> None:
    world = started(one_service({"a": 1000.0, "b": 1000.0}, data=standby(rpo_s=5.0)))
    world.lag["b"] = 30.0
    world.run(5)
    assert world.rule("b") == "data"
    world.dark("a")
    world.lag["b"] = 0.0
    world.run(10)
    assert world.rule("b") == "data" and world.shares() == {"a": 100}, "writes are worth more than a bad answer"
    world.override("in", "b", hard=True)
    world.run(10)
    assert world.shares() == {"a": 100}, "a pin does not name the guard"
    world.override("in", "b", hard=True, accepts=("data",))
    world.run(10)
    assert world.shares() == {"b": 100} and world.rule("b") == "pinned"


def test_an_unknown_lag_is_a_lag() -> None:
    config = one_service({"a": 1000.0, "b": 1000.0}, data=standby())
    world = World(config)
    world.lag = {"b": None}
    world.run(1)
    assert (world.rule("a"), world.rule("b")) == ("ready", "data")


def test_a_service_that_fails_every_25_seconds_while_the_others_are_too_small() -> None:
    """It must not swing: after its second failure it flaps and gets no overflow until it held for a whole soak."""
    world = started(one_service({"a": 1000.0, "b": 200.0, "c": 200.0}, 700.0))
    moves = 0
    for _ in range(20):
        before = world.generation()
        world.sites["a"] = "down"
        world.tick(5)
        world.sites.clear()
        world.tick(20)
        moves += world.generation() - before
    assert moves <= 4, "away, back as overflow, away; then it stays away"
    assert set(world.shares()) == {"b", "c"} and world.desired["www"].sites["a"].flaps
    shortfall = world.desired["www"].shortfall
    assert shortfall == pytest.approx(700 - 360, abs=8), "said aloud"
    world.run(2 * 3600.0)
    assert world.share("a") == 100 and world.desired["www"].shortfall == 0


def test_a_sites_own_check_counts_for_all_its_services() -> None:
    services = {f"w{i}": make_service("ab", {"world": 100.0}, i) for i in range(2)}
    sites = {"a": Site(capacity=1000, checks=(UPLINK,)), "b": 1000.0, "w": 0.0}
    world = started(make_config(sites, services))
    world.targets["a/tcp:179"] = "down"
    world.decide()
    assert world.shares("w0") == world.shares("w1") == {"b": 100}
    world.targets["a/tcp:179"] = "unknown"
    world.run(10)
    assert world.rule("a", "w0") == "failed", "a held DOWN counts as DOWN"


def test_at_least_one_of_two_checks() -> None:
    world = started(one_service(checks=(HTTP, TCP), at_least=1))
    world.targets["a/tcp:443"] = "down"
    world.run(10)
    assert world.rule("a") == "ready"
    world.targets["a/http:80"] = "down"
    world.run(10)
    assert world.rule("a") == "failed"
    strict = started(one_service(checks=(HTTP, TCP)))
    strict.targets["a/tcp:443"] = "down"
    strict.run(10)
    assert strict.rule("a") == "failed"


def test_each_failover_doubles_the_soak_and_a_quiet_day_forgets() -> None:
    world = started(one_service())
    soaks: list[float] = []
    for _ in range(6):
        world.dark("a")
        world.run(10)
        world.heal("a")
        world.decide()
        soaks.append(world.left_s("a") / MINUTE)
        world.run(70 * MINUTE)
        assert world.share("a") == 100
    assert soaks == [5, 10, 20, 40, 60, 60]
    world.run(25 * 3600.0)
    assert world.desired["www"].sites["a"].failovers == 0


def test_manual_failback_waits_for_the_operator() -> None:
    world = started(one_service(policy=with_failback(mode="manual")))
    world.dark("a")
    world.run(10)
    world.heal("a")
    world.run(3600)
    assert (world.rule("a"), world.phase("a"), world.shares()) == ("soak", "soak", {"b": 100})
    world.override("in", "a", for_s=600)
    world.run(30)
    assert world.shares() == {"a": 10, "b": 90}
    world.run(3600)
    assert world.shares() == {"a": 100}
