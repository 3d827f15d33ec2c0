"""Where the load would settle: the full plan, without a cluster."""

from __future__ import annotations

from msgspec.structs import replace

from controlplane.api.predict import settle_now
from policies.frame import frames
from policies.topology import Dns, Site
from policies.whatif import Left, agreement, settle
from tests.unit.policy_world import World, make_config, make_service, one_service

ACME = one_service({"a": 1000.0, "b": 800.0, "c": 200.0}, {"eu-west": 400.0, "eu-north": 300.0})


def test_as_it_is() -> None:
    result = settle(ACME)
    assert result.services["www"].shares == {"eu-west": {"a": 100}, "eu-north": {"a": 100}}
    assert result.services["www"].standing == {"a": "ready", "b": "ready", "c": "ready"}
    assert (result.sites["a"].load, result.sites["a"].usable, result.sites["a"].capacity) == (700, 900, 1000)
    assert "w" not in result.sites, "a witness carries nothing"


def test_one_site_lost() -> None:
    result = settle(ACME, lost=["a"])
    assert result.services["www"].shares == {"eu-west": {"b": 100}, "eu-north": {"b": 100}}
    assert result.services["www"].standing["a"] == "failed" and result.services["www"].shortfall == 0
    assert result.sites["b"].load == 700 and result.sites["a"].usable == 0
    assert (result.voters.left, result.voters.needed, result.store) == (3, 2, None)


def test_two_sites_lost_leaves_a_shortfall() -> None:
    result = settle(ACME, lost=["a", "b"])
    assert result.services["www"].shares["eu-west"] == {"c": 100}
    assert result.services["www"].shortfall == 520 and result.sites["c"].load == 700


def test_all_lost_leaves_what_was_served_last() -> None:
    result = settle(ACME, lost=["a", "b", "c"])
    www = result.services["www"]
    assert www.tier == "last served" and www.shares["eu-west"] == {"a": 100} and www.shortfall == 700


def test_a_drain_is_no_loss() -> None:
    result = settle(ACME, drained=["a"])
    assert result.services["www"].standing["a"] == "out" and result.sites["a"].usable == 900
    everything = settle(ACME, drained=["a", "b", "c"]).services["www"]
    assert everything.tier == "drained" and everything.shortfall == 0


def test_more_demand() -> None:
    result = settle(ACME, demand_factor=1.3)
    assert sum(site.load for site in result.sites.values()) == 910
    assert result.services["www"].shortfall == 0, "910 does not fit into 900: the rest goes on to b"
    assert result.sites["b"].load > 0


def test_services_of_higher_priority_are_placed_first() -> None:
    sites = {"a": Site(capacity=1000.0), "b": Site(capacity=1000.0)}
    services = {
        "low": make_service("ab", {"world": 500.0}, 1, dns=Dns("low.example.org")),
        "high": make_service("ab", {"world": 800.0}, 2, dns=Dns("high.example.org"), priority=10),
    }
    result = settle(make_config(sites, services))
    assert result.services["high"].shares["world"] == {"a": 100}
    assert result.services["low"].shares["world"] == {"a": 20, "b": 80}


def test_the_store_needs_its_majority() -> None:
    config = replace(ACME, store_members=("a", "b", "w"))
    left = settle(config, lost=["a", "b"]).store
    assert left is not None and (left.left, left.needed, left.of) == (1, 2, 3)


def test_what_has_to_agree_needs_no_placing() -> None:
    assert agreement(ACME, ["a"]) == (Left(3, 2, 4), None)
    assert agreement(replace(ACME, store_members=("a", "b", "w")), ["a", "b"])[1] == Left(1, 2, 3)


def test_a_vantage_that_says_nothing_is_no_voter() -> None:
    assert agreement(ACME, ["a"], mute=["a", "b"])[0] == Left(2, 2, 4)


def test_from_where_things_stand_dead_sites_have_no_room() -> None:
    world = World(ACME)
    world.decide()
    world.dark("a", "b")
    world.decide()
    slices = {name: world.slice(frame) for name, frame in frames(world.config).items()}
    doc = settle_now(world.config, slices, ["c"], [], 1.0, mute=("a", "b"))
    www = doc["services"]["www"]
    assert www["tier"] and www["shortfall"] == 700
    assert {name: site.usable for name, site in doc["sites"].items()} == {"a": 0, "b": 0, "c": 0}
    assert doc["then"] is None, "there is nothing more to lose"
    assert doc["voters"] == {"left": 1, "needed": 2, "of": 4}
    doc = settle_now(world.config, slices, [], [], 1.0, mute=("a", "b"))
    assert doc["services"]["www"]["shortfall"] == 520 and doc["sites"]["c"].usable == 180
