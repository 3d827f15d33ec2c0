"""Freeze, restored stores, changed configurations, several services, the governor: one history each."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from policies.topology import Config, Governor, Policy, Region, Site
from policies.world import Ahead
from tests.unit.policy_world import UPLINK, World, families, make_config, make_service, one_service

MINUTE = 60.0


def started(config: Config) -> World:
    world = World(config)
    world.run(1)
    return world


def apply(world: World, **changes: object) -> None:
    """Another revision of the only service."""
    service = replace(world.config.services["www"], **changes)
    world.config = replace(world.config, services={"www": service}, revision=world.config.revision + 1)


def readdressed(world: World, **addresses: tuple[str, ...]) -> None:
    apply(world, endpoints={**world.config.services["www"].endpoints, **addresses})


# --- freeze -----------------------------------------------------------------------------------------------------


def test_under_a_freeze_verdicts_go_on_and_shares_stand_still() -> None:
    world = started(one_service())
    world.freeze(for_s=20 * MINUTE)
    world.run(10)
    world.dark("a")
    world.run(10 * MINUTE)
    assert (world.rule("a"), world.shares(), world.generation()) == ("failed", {"a": 100}, 1)
    world.run(11 * MINUTE)
    assert world.shares() == {"b": 100}, "what lost its right is placed when the freeze ends"


def test_a_new_pin_under_a_freeze_makes_one_forced_plan() -> None:
    world = started(one_service())
    world.dark("a")
    world.run(10)
    world.freeze()
    world.run(10)
    world.override("in", "c", hard=True)
    world.run(10)
    assert world.shares() == {"b": 100}, "nobody who carries lost the right to"
    world.override("out", "b", hard=True)
    world.run(10)
    assert world.shares() == {"c": 100}
    world.heal("a")
    generation = world.generation()
    world.run(2 * 3600.0)
    assert world.generation() == generation and world.phase("a") == "ramp", "soak runs, the ramp waits"


def test_the_end_of_a_drain_under_a_freeze_moves_nothing() -> None:
    world = started(one_service())
    drain = world.drain("a")
    world.run(MINUTE)
    freeze = world.freeze()
    world.run(MINUTE)
    world.lift(drain)
    world.run(30 * MINUTE)
    assert world.shares() == {"b": 100}
    world.lift(freeze)
    assert world.tick(1)[-1] == {"world": {"a": 10, "b": 90}}, "and then it ramps, from its first step on"


def test_a_freeze_keeps_the_address_that_is_served() -> None:
    world = started(one_service())
    world.freeze()
    readdressed(world, a=("10.0.9.9",))
    world.run(MINUTE)
    assert world.desired["www"].sites["a"].addresses == ("10.0.0.97",)


# --- restored stores --------------------------------------------------------------------------------------------


def test_ahead_takes_over_what_is_served_now() -> None:
    world = started(one_service())
    world.ahead["www"] = Ahead(41, {"world": {"c": 100}})
    world.rewound = True
    step = world.decide()
    assert (world.generation(), world.shares()) == (42, {"c": 100})
    assert {event.kind for event in step.events if event.rule == "rewound"} == {"alarm"}
    world.run(3600.0)
    assert world.shares() == {"c": 100} and world.desired["www"].refused == "rewound"
    world.dark("c")
    world.run(10)
    assert world.shares() == {"a": 100}, "forced moves go on"
    world.heal("c")
    world.rewound = False
    world.run(3600.0)
    assert world.desired["www"].refused == ""


def test_ahead_before_the_first_decision() -> None:
    """The store lost the service's desired; the fences know what is served."""
    world = World(one_service())
    world.ahead["www"] = Ahead(7, {"world": {"b": 60, "c": 40}})
    world.rewound = True
    world.run(1)
    assert (world.generation(), world.shares()) == (8, {"b": 60, "c": 40})


def test_ahead_names_a_site_that_nobody_knows() -> None:
    world = started(one_service())
    world.ahead["www"] = Ahead(7, {"world": {"gone": 60, "c": 40}})
    world.rewound = True
    world.decide()
    assert world.shares() == {"c": 100}


# --- another configuration --------------------------------------------------------------------------------------


def test_a_changed_address_is_served_once_it_is_up() -> None:
    world = started(one_service())
    world.targets["10.0.9.9"] = "unknown"
    readdressed(world, a=("10.0.9.9",))
    world.decide()
    assert world.desired["www"].sites["a"].addresses == ("10.0.0.97",)
    assert (world.rule("a"), world.shares()) == ("ready", {"a": 100})
    world.targets["10.0.9.9"] = "up"
    step = world.decide()
    assert world.desired["www"].answers[0].address == "10.0.9.9" and step.new_generation
    assert any("serves 10.0.9.9 now" in event.reason for event in step.events)
    assert (world.phase("a"), world.shares()) == ("ready", {"a": 100})


def test_a_wrong_address_is_never_served() -> None:
    world = started(one_service())
    world.targets["10.0.9.9"] = "down"
    readdressed(world, a=("10.0.9.9",))
    world.run(3600.0)
    assert {answer.address for answer in world.desired["www"].answers} == {"10.0.0.97"}
    assert world.rule("a") == "ready", "judged by what is served"
    world.targets["10.0.0.97"] = "down"
    world.run(10)
    assert world.shares() == {"b": 100}
    readdressed(world, a=("10.0.8.8",))
    world.run(3600.0)
    assert world.shares() == {"a": 100} and world.desired["www"].answers[0].address == "10.0.8.8"


def test_a_site_that_is_removed_while_it_carries() -> None:
    """It is drained: its traffic leaves for sites that are UP, then it is forgotten."""
    world = started(one_service({"a": 1000.0, "b": 1000.0}))
    world.dark("b")
    world.run(10)
    endpoints = dict(world.config.services["www"].endpoints)
    del endpoints["a"]
    apply(world, endpoints=endpoints)
    world.run(MINUTE)
    assert world.shares() == {"a": 100}, "not before its successor was seen UP"
    assert (world.rule("a"), world.desired["www"].tier) == ("out", "drained")
    world.heal("b")
    world.run(30 * MINUTE)
    assert world.shares() == {"b": 100} and set(world.desired["www"].sites) == {"b"}


def test_the_last_ipv6_address_is_not_taken_away_before_its_successor_is_up() -> None:
    endpoints = {"a": ("10.0.0.1",), "b": ("10.0.0.2", "2001:db8::b"), "c": ("10.0.0.3",)}
    world = started(one_service(endpoints=endpoints))
    assert families(world.desired["www"])["AAAA"] == {"b"} and world.shares() == {"a": 100}
    world.targets["2001:db8::c"] = "unknown"
    apply(world, endpoints={"a": ("10.0.0.1",), "c": ("10.0.0.3", "2001:db8::c")})
    world.run(MINUTE)
    assert [answer.address for answer in world.desired["www"].answers if answer.rtype == "AAAA"] == ["2001:db8::b"]
    world.targets.clear()
    world.run(MINUTE)
    assert [answer.address for answer in world.desired["www"].answers if answer.rtype == "AAAA"] == ["2001:db8::c"]
    assert set(world.desired["www"].sites) == {"a", "c"}


def test_an_address_family_moves_with_a_story_and_not_for_a_blip() -> None:
    endpoints = {"a": ("10.0.0.1",), "b": ("10.0.0.2", "2001:db8::b"), "c": ("10.0.0.3", "2001:db8::c")}
    world = started(one_service(endpoints=endpoints))

    def serves() -> list[str]:
        return [answer.site for answer in world.desired["www"].answers if answer.rtype == "AAAA"]

    world.lies = {(vantage, "b"): "unknown" for vantage in ("a", "c", "w")}
    world.run(10)
    assert world.rule("b") == "held" and serves() == ["b"], "who is held keeps what it has"
    world.lies.clear()
    freeze = world.freeze()
    world.dark("b")
    world.run(10)
    assert serves() == ["b"], "frozen"
    world.lift(freeze)
    step = world.decide()
    assert serves() == ["c"] and world.shares() == {"a": 100}
    assert {(e.site, e.kind) for e in step.events if "AAAA in world" in e.reason} == {("b", "move"), ("c", "move")}
    world.heal("b")
    generation = world.generation()
    world.run(3600.0)
    assert serves() == ["c"] and world.generation() == generation, "of equals, the one that serves"


def test_a_new_region_is_served_as_the_default_one_was() -> None:
    world = started(one_service(demand={"eu": 300.0}))
    world.dark("a")
    world.run(10)
    service = replace(world.config.services["www"], demand={"eu": 300.0, "us": 100.0})
    world.config = replace(
        world.config, regions={"eu": Region(default=True), "us": Region()}, services={"www": service}, revision=2
    )
    world.decide()
    assert world.desired["www"].shares == {"eu": {"b": 100}, "us": {"b": 100}}
    service = replace(service, demand={"us": 400.0})
    world.config = replace(world.config, regions={"us": Region(default=True)}, services={"www": service}, revision=3)
    step = world.decide()
    assert world.desired["www"].shares == {"us": {"b": 100}}
    assert [event.reason for event in step.events if event.kind == "move"] == ["no longer serves A in eu; up 2/2"]


def test_a_new_site_enters_by_soak_and_ramp() -> None:
    world = started(one_service({"b": 1000.0, "c": 1000.0}))
    config = one_service({"a": 1000.0, "b": 1000.0, "c": 1000.0})
    world.config, world.vantages = replace(config, revision=2), tuple(sorted(config.sites))
    world.targets["10.0.0.97"] = "unknown"
    world.run(10)
    assert (world.rule("a"), world.shares()) == ("unknown", {"b": 100})
    world.targets.clear()
    world.run(10)
    assert (world.rule("a"), world.left_s("a")) == ("soak", 290)
    world.run(5 * MINUTE)
    assert world.shares() == {"a": 10, "b": 90}
    world.run(2 * MINUTE)
    assert world.shares() == {"a": 100}


def test_another_ttl_is_another_generation_with_a_story() -> None:
    world = started(one_service())
    dns = world.config.services["www"].dns
    assert dns is not None
    apply(world, dns=replace(dns, ttl_s=30))
    step = world.decide()
    assert world.generation() == 2 and world.desired["www"].ttl_s == 30
    assert [event.rule for event in step.events] == ["configuration"]


def test_a_service_without_dns_has_shares_and_no_answers() -> None:
    world = started(one_service(dns=None))
    assert world.desired["www"].answers == () and world.shares() == {"a": 100}
    world.dark("a")
    world.run(10)
    assert world.shares() == {"b": 100} and world.generation() == 2


# --- several services -------------------------------------------------------------------------------------------


def test_room_is_given_by_priority_then_by_name() -> None:
    services = {
        "zeta": make_service("ab", {"world": 500.0}, 1, priority=10),
        "beta": make_service("ab", {"world": 300.0}, 2),
        "alpha": make_service("ab", {"world": 300.0}, 3),
    }
    world = started(make_config({"a": 1000.0, "b": 1000.0, "w": 0.0}, services))
    assert world.shares("zeta") == {"a": 100} and world.shares("alpha") == {"a": 100}
    assert world.shares("beta") == {"a": 33, "b": 67}, "100 of 900 are left at a"
    world.dark("b")
    world.run(10)
    assert world.shares("beta") == {"a": 100}
    assert world.desired["beta"].shortfall == pytest.approx(200)
    assert world.desired["zeta"].shortfall == world.desired["alpha"].shortfall == 0


def test_room_is_what_is_served_not_what_was_planned() -> None:
    """The first service waits for its hold time at b: the second must not be given that room twice."""
    services = {
        "first": make_service("ab", {"world": 800.0}, 1, priority=1),
        "second": make_service("ab", {"world": 800.0}, 2),
    }
    world = started(make_config({"a": 1000.0, "b": 1000.0, "w": 0.0}, services))
    assert world.shares("first") == {"a": 100}
    world.drain("a", services=("first",), for_s=30)
    world.tick(10)
    for _ in range(300):
        world.tick(1)
        loads = world.loads()
        assert loads["a"] + loads["b"] == pytest.approx(1600)
        assert max(loads.values()) <= 908, "never over what is usable, but for rounding"
    assert world.shares("first") == {"a": 100}


# --- the governor -----------------------------------------------------------------------------------------------


def test_the_governor_counts_what_was_moved_over_all_services() -> None:
    services = {f"w{i}": make_service("abc", {"world": 100.0}, i) for i in range(10)}
    world = started(make_config({"a": 2000.0, "b": 2000.0, "c": 2000.0, "w": 0.0}, services))
    world.dark("a")
    world.lies["w", "a"] = "up"
    world.decide()
    left = [name for name in services if world.share("a", service=name) == 0]
    assert len(left) == 7, "seventy percent go at once"
    assert world.moved == 700 and world.window_ends == world.now + 60
    world.run(2.5)
    assert sum(world.share("a", service=name) for name in services) == 300
    world.run(0.5)
    assert sum(world.share("a", service=name) for name in services) == 0


def test_a_drain_is_not_governed() -> None:
    world = started(one_service())
    world.lies["w", "a"] = "down"
    world.drain("a")
    assert world.decide().new_generation and world.shares() == {"b": 100} and not world.said("governor")


def test_the_governor_can_be_switched_off() -> None:
    world = started(one_service(policy=Policy(governor=Governor(share=1.0))))
    world.dark("a")
    world.lies["w", "a"] = "up"
    world.decide()
    assert world.shares() == {"b": 100}


def test_a_removed_site_is_judged_by_its_own_checks_too() -> None:
    config = make_config(
        {"a": Site(capacity=1000, checks=(UPLINK,)), "b": 1000.0, "w": 0.0, "x": 0.0},
        {"www": make_service("ab", {"world": 100.0})},
    )
    world = started(config)
    world.dark("b")
    world.run(10)
    apply(world, endpoints={"b": world.config.services["www"].endpoints["b"]})
    world.run(10)
    assert world.shares() == {"a": 100} and world.desired["www"].tier == "drained"
    world.targets["a/tcp:179"] = "down"
    world.run(10)
    assert world.desired["www"].tier in ("replies", "last served")
