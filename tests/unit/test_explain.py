"""The reason tree: which rule won, on whose evidence, and what the guards say."""

from __future__ import annotations

from msgspec.structs import replace

from policies.explain import Explanation, explain
from policies.frame import frames
from policies.topology import Policy
from tests.unit.policy_world import World, one_service


def told(world: World, reasons: dict[str, str] | None = None) -> Explanation:
    (frame,) = frames(world.config).values()
    return explain(frame, replace(world.slice(frame), reasons=reasons or {}), world.carried())


def test_before_anything_was_decided() -> None:
    said = told(World(one_service()))
    assert said.decision is None and said.generation is None
    assert [g.ok for g in said.guards] == [False]


def test_the_rule_and_the_verdict_of_each_site() -> None:
    world = World(one_service())
    world.decide()
    world.dark("a")
    world.decide()
    said = told(world)
    assert {site: (why.rule, why.verdict) for site, why in said.sites.items()} == {
        "a": ("failed", "down"),
        "b": ("ready", "up"),
        "c": ("ready", "up"),
    }
    assert said.sites["b"].load == 600 and said.sites["a"].load == 0
    assert said.shares == {"world": {"b": 100}}
    assert all(g.ok for g in said.guards), said.guards


def test_evidence_says_who_votes() -> None:
    world = World(one_service())
    world.decide()
    world.silent.add("c")
    world.blind.add("b")
    (target,) = {e.target for e in told(world).sites["a"].evidence}
    evidence = {e.vantage: e for e in told(world, {f"w/{target}": "status 503"}).sites["a"].evidence}
    assert evidence["w"].votes and evidence["w"].reason == "status 503"
    assert not evidence["b"].votes, "it is blind"
    assert not evidence["c"].fresh and evidence["c"].reason == "silent"
    assert evidence["a"].own and evidence["a"].votes, "only one other votes: its own vantage may"


def test_a_sites_own_vantage_has_no_vote_while_enough_others_do() -> None:
    world = World(one_service())
    world.decide()
    own = next(e for e in told(world).sites["a"].evidence if e.own)
    assert own.fresh and not own.votes


def test_what_would_be_better_and_why_it_waits() -> None:
    world = World(one_service(policy=Policy(hold_s=120.0)))
    world.decide()
    drain = world.drain("a")
    world.decide()
    world.lift(drain)
    world.decide()
    world.run(61)
    assert world.share("a") == 10, "the ramp's first step was an optional move, and the next may not follow yet"
    assert [text.partition(":")[0] for text in told(world).refused] == ["hold"]


def test_a_shortfall_fails_the_capacity_guard() -> None:
    world = World(one_service({"a": 1000.0, "b": 300.0}, 600.0))
    world.decide()
    world.dark("a")
    world.decide()
    said = told(world)
    assert said.shortfall == 330
    assert {g.name: g.ok for g in said.guards} == {"never_empty": True, "min_sites": True, "capacity": False}


def test_a_decision_is_told_as_it_came_out() -> None:
    """The slice holds what was before; what was decided on it is another thing."""
    world = World(one_service({"a": 1000.0, "b": 300.0}, 600.0))
    world.decide()
    world.dark("a")
    (frame,) = frames(world.config).values()
    slice_, carried = world.slice(frame), world.carried()
    before = explain(frame, slice_, carried)
    assert before.sites["a"].load == 600 and before.shortfall == 0
    world.decide()
    decided = world.desired["www"]
    said = explain(frame, slice_, carried, decided)
    assert (said.sites["a"].load, said.sites["b"].load, said.shortfall) == (0, 600, 330)
    assert said.generation == decided.generation and said.shares == decided.shares
    assert {g.name: g.ok for g in said.guards} == {"never_empty": True, "min_sites": True, "capacity": False}
    assert said.sites["a"].rule == "failed" and said.sites["a"].phase == decided.sites["a"].phase
