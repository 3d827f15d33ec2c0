"""What a newcomer found by breaking one site after the other: the last one that lives must not lose its traffic."""

from __future__ import annotations

from policies.topology import Failback, Policy
from probes.target import Health, Observation
from tests.unit.policy_world import World, one_service

ACME = {"a": 1000.0, "b": 800.0, "c": 200.0}


def alone(replies: bool) -> World:
    """Only c is left, serving everything, far over its capacity, and its own vantage is the only one."""
    world = World(one_service(ACME, 700.0))
    world.decide()
    for site in ("b", "a"):
        world.dark(site)
        if replies:
            world.sites[site] = "error"
        world.run(10)
    assert world.shares() == {"c": 100}
    world.silent.add("w")
    return world


def test_an_overloaded_site_that_is_held_is_not_relieved_by_dead_ones() -> None:
    for replies in (False, True):
        world = alone(replies)
        world.run(120)
        assert world.rule("c") == "held" and world.shares() == {"c": 100}, replies
        assert world.desired["www"].tier == "" and world.desired["www"].shortfall == 520


def test_a_drain_of_the_last_site_that_is_held_moves_nothing_onto_sites_that_do_not_reply() -> None:
    world = alone(replies=False)
    world.run(10)
    world.drain("c")
    world.run(60)
    assert world.shares() == {"c": 100}


def test_sites_that_are_held_keep_what_they_have() -> None:
    world = World(one_service({"a": 500.0, "b": 500.0}, 900.0, policy=Policy(failback=Failback(soak_s=0.0))))
    world.decide()
    assert world.shares() == {"a": 50, "b": 50}
    world.silent |= {"w", "a"}  # one voter is left: no quorum
    world.run(10)
    assert world.rule("a") == world.rule("b") == "held"
    assert world.shares() == {"a": 50, "b": 50}


def test_a_refusal_is_no_reply() -> None:
    def seen(reason: str, answered: bool) -> bool:
        return Observation("t", Health.DOWN, reason, answered).replies

    assert seen("status 503", True) and not seen("refused", True) and not seen("timeout connect", False)


def test_a_freeze_says_what_it_holds_back() -> None:
    world = World(one_service(ACME, 700.0))
    world.decide()
    world.freeze()
    world.decide()
    world.dark("a")
    step = world.decide()
    assert world.shares() == {"a": 100}
    assert [event.rule for event in step.refused] == ["freeze"] and world.desired["www"].refused == "freeze"
