"""Histories that broke earlier rules, each told once (the list at the end of the decision's procedure)."""

from __future__ import annotations

from itertools import pairwise

import pytest
from msgspec.structs import replace

from policies.placing import Shares
from policies.topology import Config, Policy, Steering
from policies.world import Ahead
from tests.unit.policy_world import HTTP, TCP, World, make_config, make_service, one_service, with_failback

MINUTE = 60.0


def started(config: Config) -> World:
    world = World(config)
    world.run(1)
    return world


def doubted(world: World, site: str, word: str = "down") -> None:
    """All vantages but the witness see the site like this: a quorum with one voter who dissents."""
    for vantage in world.vantages:
        if vantage not in (site, "w"):
            world.lies[vantage, site] = word


def changes(seen: list[Shares]) -> int:
    return sum(1 for before, after in pairwise(seen) if before != after)


def test_five_sites_two_dead_and_too_little_room() -> None:
    """Spreading the rest anew each time moved traffic for ever."""
    capacities = {"a": 300.0, "b": 300.0, "c": 250.0, "d": 210.0, "e": 190.0}
    world = started(one_service(capacities, {"r0": 400.0, "r1": 300.0, "r2": 250.0}))
    world.dark("a", "b")
    world.run(10)
    generation = world.generation()
    assert world.desired["www"].shortfall == pytest.approx(950 - 0.9 * 650, abs=10)
    world.tick(300)
    assert world.generation() == generation, "nothing moves any more"
    loads = world.loads()
    assert all(loads[site] >= 0.9 * capacities[site] for site in ("c", "d", "e")), "all three are full"


def test_down_for_two_seconds_while_the_governor_waits_then_up() -> None:
    """The site must not enter soak with all the traffic on it."""
    world = started(one_service())
    doubted(world, "a")
    world.decide()
    assert world.desired["www"].refused == "governor" and world.share("a") == 100
    assert world.rule("a") == "failed"
    world.tick(2, every=0.5)
    assert world.share("a") == 100, "three seconds are not over"
    world.lies.clear()
    world.decide()
    assert (world.rule("a"), world.phase("a"), world.share("a")) == ("ready", "ready", 100)
    assert world.desired["www"].wait_left_s == 0
    world.run(600)
    assert world.generation() == 1, "no client ever noticed"


def test_a_blip_of_a_vantage_during_a_ramp_does_not_take_traffic_back() -> None:
    world = started(one_service())
    world.dark("a")
    world.run(10)
    world.heal("a")
    world.run(5 * MINUTE + 90)
    assert (world.phase("a"), world.share("a")) == ("ramp", 50)
    left_s = world.left_s("a")
    world.silent |= {"b", "c", "w"}  # only a's own vantage is left: no quorum on anything
    world.tick(3)
    assert (world.rule("a"), world.phase("a"), world.share("a")) == ("held", "ramp", 50)
    world.silent.clear()
    world.decide()
    assert (world.rule("a"), world.phase("a"), world.share("a")) == ("ramp", "ramp", 50)
    assert left_s <= world.left_s("a") <= MINUTE, "held stops the clock; a doubtful minute does not count"
    world.run(MINUTE)
    assert world.share("a") == 100


@pytest.mark.parametrize("stop", ["drain", "freeze", "rewound"])
def test_a_ramp_does_not_run_while_drained_or_frozen(stop: str) -> None:
    """Else 100 % would arrive at once afterwards."""
    world = started(one_service())
    world.dark("a")
    world.run(10)
    world.heal("a")
    world.run(5 * MINUTE + 30)
    assert world.share("a") == 10
    id_ = world.drain("a") if stop == "drain" else world.freeze() if stop == "freeze" else ""
    world.rewound = stop == "rewound"
    world.run(30 * MINUTE)
    assert world.share("a") == (0 if stop == "drain" else 10)
    assert world.phase("a") == "ramp"
    if id_:
        world.lift(id_)
    world.rewound = False
    seen = world.tick(4 * MINUTE)
    steps = list(dict.fromkeys(shares["world"].get("a", 0) for shares in seen))
    assert steps == [10, 50, 100], "from step 0 on, one after the other"
    assert [shares["world"].get("a", 0) for shares in seen].count(10) >= 59


def test_forty_small_services_ramp_together() -> None:
    """A ramp by capacity is no ramp at all: each would fit into the first step."""
    services = {f"w{i:02}": make_service("abc", {"world": 10.0}, i) for i in range(40)}
    world = World(make_config({"a": 1000.0, "b": 1000.0, "c": 1000.0, "w": 0.0}, services))
    world.run(1)
    assert world.loads()["a"] == pytest.approx(400)
    world.dark("a")
    world.run(10)
    world.heal("a")
    world.run(5 * MINUTE + 30)
    assert world.loads()["a"] == pytest.approx(40), "ten percent of each"
    world.run(MINUTE)
    assert world.loads()["a"] == pytest.approx(200)


def test_a_drain_under_a_freeze_that_began_when_no_site_was_ready() -> None:
    """The new drain makes one forced plan, onto a site that soaks; then all stands still again."""
    world = started(one_service())
    world.dark("a", "b", "c")
    world.run(10)
    world.sites["a"] = "error"  # something answers at a: all traffic stays or goes there
    world.run(10)
    world.heal("a", "b", "c")
    world.run(10)
    carrying = next(iter(world.shares()))
    others = [site for site in "abc" if site != carrying]
    world.sites[carrying] = "down"
    world.run(10)
    world.sites.clear()
    world.run(5)
    (carrying,) = world.shares()
    world.freeze()
    world.run(MINUTE)
    assert all(world.phase(site) in ("soak", "ready") for site in others)
    world.drain(carrying)
    world.decide()
    assert carrying not in world.shares(), "drained, although frozen"
    generation = world.generation()
    world.run(60 * MINUTE)
    assert world.generation() == generation, "and nothing else moves"


def test_a_drain_while_another_site_is_down_for_ever_ends() -> None:
    world = started(one_service())
    world.dark("c")
    world.run(10)
    drain = world.drain("a", for_s=10 * MINUTE)
    world.run(MINUTE)
    assert (world.share("a"), world.share("b")) == (0, 100)
    world.run(9.5 * MINUTE)
    assert (world.phase("a"), world.share("a")) == ("ramp", 10)
    assert drain not in world.desired["www"].overrides
    world.run(2 * MINUTE)
    assert (world.rule("a"), world.share("a"), world.rule("c")) == ("ready", 100, "failed")


def test_two_sites_held_and_the_third_drained() -> None:
    """Nobody knows whether the two are alive; the drained one is UP: it goes on serving, as an alarm."""
    world = started(one_service(steering=Steering(order=("c", "a", "b"))))
    world.lies = {(vantage, site): "unknown" for vantage in "abc" for site in "ab"}  # only the witness sees them
    world.decide()
    world.drain("c")
    world.decide()
    assert (world.rule("a"), world.rule("b"), world.rule("c")) == ("held", "held", "out")
    assert world.share("c") == 100, "a drain that is UP comes before held sites"
    assert world.desired["www"].tier == "drained"
    assert world.said("last_resort")
    world.lies.clear()
    world.run(10)
    assert world.share("a") == 100, "once somebody is known to be up, the drain is done"


def test_a_site_that_fails_again_in_its_soak_while_the_others_are_240_units_short() -> None:
    """Overflow sent to a flapping site would swing for ever."""
    world = started(one_service({"a": 1000.0, "b": 500.0, "c": 500.0}, 1140.0))
    world.dark("a")
    world.run(10)
    assert world.desired["www"].shortfall == pytest.approx(240, abs=12)
    world.heal("a")
    world.decide()
    assert world.phase("a") == "soak"
    assert world.share("a") * 11.4 == pytest.approx(240, abs=12), "it carries what would overload the others"
    world.run(MINUTE)
    world.dark("a")
    world.run(10)
    assert world.share("a") == 0
    world.heal("a")
    seen = world.tick(4 * MINUTE)
    assert world.desired["www"].sites["a"].flaps and world.phase("a") == "soak"
    assert changes(seen) == 0 and world.share("a") == 0, "flapping: left out of that"
    world.run(3 * MINUTE)
    assert not world.desired["www"].sites["a"].flaps
    assert world.share("a") > 0, "one base soak later it is trusted with overflow again"


def test_new_checks_for_all_sites_applied_during_a_failover() -> None:
    """For some seconds nothing has a verdict: nothing moves, and the dead site is left once there is one."""
    world = started(one_service())
    world.dark("a")
    service = world.config.services["www"]
    world.config = replace(world.config, revision=2, services={"www": replace(service, checks=(TCP,))})
    for site in "abc":
        world.targets[f"{site}/tcp:443"] = "unknown"
    world.decide()
    assert {world.rule(site) for site in "abc"} == {"unknown"}
    assert world.share("a") == 100, "keeps the share that it has"
    world.tick(4)
    assert world.share("a") == 100
    world.targets.clear()
    world.decide()
    assert (world.rule("a"), world.share("b")) == ("failed", 100)


def test_an_additional_check_has_no_say_before_it_has_a_verdict() -> None:
    world = started(one_service())
    world.dark("a")
    service = world.config.services["www"]
    world.config = replace(world.config, revision=2, services={"www": replace(service, checks=(HTTP, TCP))})
    for site in "abc":
        world.targets[f"{site}/tcp:443"] = "unknown"
    world.decide()
    assert (world.rule("a"), world.rule("b"), world.share("b")) == ("failed", "ready", 100)


def test_a_leader_that_stalls_for_two_seconds_in_the_moment_of_detection() -> None:
    """What it then sees is late, not different: one decision, and the governor's wait is not counted twice."""
    world = started(one_service())
    doubted(world, "a")
    world.decide()
    assert world.desired["www"].wait_left_s == 3
    world.now += 1.9
    step = world.decide()
    assert step.desired is None and step.wake_in_s == pytest.approx(1.1)
    world.now += 1.1
    assert world.decide().new_generation and world.share("a") == 0
    plain = started(one_service())
    plain.dark("a")
    plain.now += 1.9
    plain.decide()
    assert plain.shares() == world.shares() and plain.generation() == 2


def test_a_store_restored_to_the_generation_before_that_is_issued_again() -> None:
    """Generation 2 was served, the store knows 1 and made another 2: what is served is taken over as 3."""
    world = started(one_service())
    restored = world.desired["www"]
    world.dark("a")
    world.run(10)
    assert world.generation() == 2 and world.share("b") == 100
    served = world.desired["www"].shares
    world.desired["www"] = replace(restored, generation=2, shares={"world": {"c": 100}})
    world.heal("a")
    world.rewound = True
    world.ahead["www"] = Ahead(2, served)
    world.decide()
    assert world.generation() == 3 and world.share("b") == 100, "as it is served"
    assert world.said("rewound")
    world.run(30 * MINUTE)  # the old report of generation 2 is still there: it was taken over already
    assert world.generation() == 3
    world.rewound = False
    world.ahead.clear()
    world.run(30 * MINUTE)
    assert world.share("a") == 100, "optional moves go on after unfreeze"


def test_defaults_of_the_histories_are_those_of_the_policy() -> None:
    assert (Policy().hold_s, Policy().freshness_s, with_failback().failback.soak_s) == (60.0, 3.0, 5 * MINUTE)
