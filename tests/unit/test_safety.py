"""Preflight: what an operator's action would do, and every guard that it would break, all at once."""

from __future__ import annotations

from collections.abc import Collection

from msgspec.structs import replace

from policies.frame import frames, usable
from policies.safety import Finding, Preflight, preflight
from policies.topology import Guards, Override, Policy
from tests.unit.policy_world import World, one_service, standby, with_failback


def settled(world: World) -> World:
    world.decide()
    return world


def override(verb: str, *sites: str, hard: bool = False, order: int = 99, services: tuple[str, ...] = ()) -> Override:
    return Override("ov-99", verb, hard, "drain", sites, services, "ana", "test", "", order, None)


def ask(world: World, *new: Override, drop: Collection[str] = (), accepts: Collection[str] = ()) -> Preflight:
    """The preflight of adding `new` to, and taking `drop` from, what is in force."""
    these = frames(world.config)
    now = [o for o, _ in world.overrides.values()]
    changed = [o for o in now if o.id not in drop] + list(new)
    slices = {name: world.slice(frame) for name, frame in these.items()}
    return preflight(these, slices, usable(world.config), now, changed, world.config.policy.guards, accepts)


def finding(result: Preflight, guard: str) -> Finding:
    (found,) = [f for f in result.findings if f.guard == guard]
    return found


def test_a_drain_that_fits_shows_only_what_changes() -> None:
    result = ask(settled(World(one_service())), override("out", "a"))
    assert not result.refused and not result.typed
    (move,) = result.plan
    assert (move.service, move.region, move.before, move.after, move.generation) == (
        "www",
        "world",
        {"a": 100},
        {"b": 100},
        2,
    )


def test_the_plan_is_the_deed() -> None:
    world = settled(World(one_service()))
    planned = ask(world, override("out", "a")).plan[0]
    world.drain("a")
    world.decide()
    assert world.shares() == planned.after and world.generation() == planned.generation


def test_a_drain_of_a_site_that_carries_nothing_moves_nothing() -> None:
    result = ask(settled(World(one_service())), override("out", "c"))
    assert not result.refused and result.plan == ()


def test_capacity_refuses_until_it_is_accepted_by_name() -> None:
    world = settled(World(one_service({"a": 1000.0, "b": 300.0}, 600.0)))
    refused = finding(ask(world, override("out", "a")), "capacity")
    assert (refused.level, refused.value, refused.limit, refused.flag) == ("refused", 330.0, 0, "--accept capacity")
    accepted = ask(world, override("out", "a"), accepts=["capacity"])
    assert not accepted.refused and finding(accepted, "capacity").level == "warning"


def test_min_sites_refuses() -> None:
    policy = Policy(guards=Guards(min_sites=2))
    world = settled(World(one_service({"a": 1000.0, "b": 1000.0}, policy=policy)))
    found = finding(ask(world, override("out", "b")), "min_sites")
    assert (found.level, found.value, found.limit) == ("refused", 1, 2)


def test_a_guard_that_is_below_its_limit_anyway_does_not_refuse_what_makes_it_no_worse() -> None:
    policy = Policy(guards=Guards(min_sites=3))
    world = settled(World(one_service({"a": 1000.0, "b": 1000.0}, policy=policy)))
    world.dark("b")
    world.decide()
    assert not ask(world, override("out", "b")).refused, "a site that is down is no loss"


def test_all_refusals_at_once() -> None:
    policy = Policy(guards=Guards(min_sites=2))
    world = settled(World(one_service({"a": 1000.0, "b": 300.0}, 600.0, policy=policy)))
    result = ask(world, override("out", "a"))
    assert {f.guard for f in result.findings if f.level == "refused"} == {"min_sites", "capacity"}


def test_the_last_site_cannot_be_drained_whatever_is_accepted() -> None:
    world = settled(World(one_service({"a": 1000.0, "b": 1000.0})))
    world.dark("b")
    world.decide()
    result = ask(world, override("out", "a"), accepts=["never_empty", "min_sites", "capacity"])
    found = finding(result, "never_empty")
    assert result.refused and found.level == "refused" and found.flag == ""
    assert "www" in found.text


def test_n_plus_asks_for_typed_confirmation_and_does_not_refuse() -> None:
    world = settled(World(one_service({"a": 1000.0, "b": 800.0, "c": 200.0}, 700.0)))
    result = ask(world, override("out", "b"))
    assert result.typed and not result.refused
    assert finding(result, "n_plus").text == "losing a too drops 520 of 700 (74%)"


def test_n_plus_that_was_lost_before_is_said_but_not_asked_again() -> None:
    world = settled(World(one_service({"a": 1000.0, "b": 800.0, "c": 200.0}, 700.0)))
    world.drain("b")
    world.decide()
    assert finding(ask(world), "n_plus").text == "losing a too drops 520 of 700 (74%), no worse than now"
    result = ask(world, override("out", "c"))
    assert result.typed and finding(result, "n_plus").text == "losing a too drops 700 of 700 (100%)"


def test_an_undrain_moves_nothing_at_once_and_is_not_refused() -> None:
    world = settled(World(one_service()))
    id_ = world.drain("a")
    world.decide()
    result = ask(world, drop=[id_])
    assert not result.refused
    assert all(move.after.get("a", 0) <= 10 for move in result.plan), "it comes back by the ramp"


def test_pinning_a_stale_copy_in_names_the_writes_at_stake() -> None:
    world = World(one_service(data=standby(5.0, "a")))
    world.lag = {"b": 42.0, "c": 0.5}
    settled(world)
    pin = override("in", "b", hard=True)
    found = finding(ask(world, pin), "data")
    assert (found.level, found.flag) == ("refused", "--accept data") and "42.0s of writes" in found.text
    assert not ask(world, pin, accepts=["data"]).refused
    assert not [f for f in ask(world, override("in", "c", hard=True)).findings if f.guard == "data"]


def test_overrides_that_become_ineffective_are_named() -> None:
    world = settled(World(one_service()))
    soft = world.drain("a")
    world.decide()
    result = ask(world, override("out", "a", hard=True))
    assert result.ineffective == (soft,)
    assert ask(world, override("out", "c")).ineffective == ()


def test_a_service_that_was_never_decided_is_left_out() -> None:
    result = ask(World(one_service()), override("out", "a"))
    assert result.plan == () and not result.refused


def test_freeze_changes_no_shares() -> None:
    world = settled(World(one_service()))
    frozen = replace(override("freeze"), verb="freeze")
    result = ask(world, frozen)
    assert result.plan == () and not result.refused


def test_where_no_site_may_serve_there_is_none_to_name_as_lost() -> None:
    world = settled(World(one_service({"a": 1000.0, "b": 1000.0})))
    world.override("out", "a", hard=True)
    world.decide()
    found = finding(ask(world, override("out", "b", hard=True)), "n_plus")
    assert (found.level, found.text) == ("warning", "no site is left to lose")
    world = settled(World(one_service({"a": 500.0, "b": 500.0}, 950.0)))
    world.drain("a", "b")
    world.decide()
    text = finding(ask(world, override("out", "a", hard=True)), "n_plus").text
    assert text.startswith("no site is left to lose; ") and "of 950" in text and "losing" not in text


def test_no_drain_may_make_a_last_resort_necessary() -> None:
    """Two sites are gone, the third comes back and carries as relief: without it only last resorts are left."""
    world = settled(World(one_service()))
    world.dark("a", "b")
    world.run(10)
    assert world.share("c") == 100
    found = finding(ask(world, override("out", "c")), "never_empty")
    assert found.level == "refused" and found.flag == ""
    why = "no site may serve www any more: only last resorts would be left (class: drained)"
    assert found.text == f"{why}; bring another site back first"
    hard = finding(ask(world, override("out", "c", hard=True)), "never_empty")
    assert "(class: last served)" in hard.text


def test_a_last_resort_that_is_in_use_may_not_get_worse() -> None:
    world = settled(World(one_service()))
    world.dark("a", "b")
    world.run(10)
    world.drain("c")
    world.decide()
    assert world.desired["www"].tier == "drained"
    assert finding(ask(world, override("out", "c", hard=True)), "never_empty").level == "refused"
    same = finding(ask(world, replace(override("out", "c"), for_s=60.0)), "never_empty")
    assert same.level == "ok", "it is out already, and as well served as before"


def test_a_figure_below_its_limit_is_never_green() -> None:
    world = settled(World(one_service()))
    world.dark("a", "b")
    world.run(10)
    world.drain("c")
    world.decide()
    found = finding(ask(world), "min_sites")
    assert (found.level, found.text) == ("warning", "www has 0, 1 needed, no worse than now")


def test_an_override_that_decides_nothing_is_refused() -> None:
    world = settled(World(one_service()))
    out = world.override("out", "b", hard=True)
    world.decide()
    pin_in = replace(override("in", "b", hard=True), command="pin", id="new")
    found = finding(ask(world, pin_in), "ineffective")
    assert found.level == "refused" and found.flag == ""
    assert found.text.startswith(f"{out} (") and found.text.endswith(
        f"outranks it at b; cancel it first: failoverctl overrides cancel {out}"
    )
    both = replace(pin_in, sites=("b", "c"))
    assert not [f for f in ask(world, both).findings if f.guard == "ineffective"], "it decides something at c"


def test_a_failback_needs_a_site_that_waits() -> None:
    back = replace(override("in", "a"), command="failback")
    world = settled(World(one_service()))
    found = finding(ask(world, back), "failback")
    assert (found.level, found.text) == ("refused", "a does not wait: ready, failback is auto")
    world = settled(World(one_service(policy=with_failback(mode="manual", soak_s=5.0))))
    assert finding(ask(world, back), "failback").text == "a does not wait: ready"
    world.dark("a")
    world.run(10)
    world.heal("a")
    world.run(30)
    assert not ask(world, back).refused


def test_a_freeze_says_what_it_holds_back() -> None:
    found = finding(ask(settled(World(one_service())), replace(override("freeze"), verb="freeze")), "freeze")
    assert (found.level, found.text) == ("warning", "a site that fails stays served until unfreeze")


def test_too_is_said_only_when_something_is_lost() -> None:
    world = settled(World(one_service({"a": 1000.0, "b": 100.0}, 700.0)))
    assert finding(ask(world), "n_plus").text.startswith("losing a drops ")
