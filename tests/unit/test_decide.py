"""decide_service: the first decision, what is written when, the hold time, wake_in, and replay from the record."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from policies.decide import decide_service, spend
from policies.frame import frames, usable
from policies.topology import Config, Policy
from policies.world import Ahead, Carried, Slice, Step
from tests.unit.policy_world import HTTP, TCP, World, make_config, make_service, one_service, with_failback

ROOT = Path(__file__).resolve().parents[2]


def started(world: World | None = None) -> World:
    world = world or World(one_service())
    world.run(1)
    return world


# --- the first decision -----------------------------------------------------------------------------------------


def test_the_first_decision_waits_until_every_target_has_a_verdict() -> None:
    world = World(one_service())
    world.sites["c"] = "unknown"
    step = world.decide()
    assert (step.desired, step.events, step.wake_in_s) == (None, (), 10)
    world.now += 4
    assert world.decide().wake_in_s == 6
    world.sites.clear()
    assert world.decide().new_generation and world.shares() == {"a": 100}


def test_the_first_decision_waits_ten_seconds_at_most() -> None:
    world = World(one_service())
    world.sites["a"] = "unknown"
    world.decide()
    world.tick(9.9, every=0.3)
    assert not world.desired
    world.now += 0.1
    assert world.decide().new_generation
    assert (world.shares(), world.rule("a")) == ({"b": 100}, "unknown")
    world.sites.clear()
    world.run(1)
    assert world.rule("a") == "soak", "new to a service that already runs"


def test_in_the_first_decision_every_up_site_is_ready_without_soak() -> None:
    world = World(one_service())
    world.sites["b"] = "down"
    world.run(0)
    assert {site: world.rule(site) for site in "abc"} == {"a": "ready", "b": "failed", "c": "ready"}
    assert world.desired["www"].hold_left_s == 0


def test_nothing_is_decided_while_nobody_knows_anything() -> None:
    world = World(one_service())
    world.silent |= set(world.vantages)
    world.run(3600)
    assert not world.desired and world.steps["www"].wake_in_s is None


def test_nothing_is_published_while_nothing_answers() -> None:
    world = World(one_service())
    world.sites = dict.fromkeys("abc", "down")
    world.run(3600)
    assert not world.desired and world.said("nowhere to go")
    world.sites["b"] = "error"
    world.decide()
    assert world.shares() == {"b": 100}, "where something replies"
    world.sites["c"] = "up"
    world.run(60)
    assert (world.shares(), world.rule("c")) == ({"c": 100}, "soak"), "what soaks comes before any last resort"


# --- what is written, and when ----------------------------------------------------------------------------------


def test_a_change_of_verdict_is_written_without_a_new_generation() -> None:
    world = started()
    world.dark("c")
    step = world.decide()
    assert step.desired is not None and not step.new_generation
    assert (world.rule("c"), world.generation()) == ("failed", 1)
    assert [(event.kind, event.site) for event in step.events] == [("state", "c")]


def test_running_timers_are_written_once_a_minute() -> None:
    world = started()
    world.dark("a")
    world.run(10)
    world.heal("a")
    world.decide()
    written = []
    for _ in range(180):
        world.now += 1
        if world.decide().desired is not None:
            written.append(world.now)
    assert [later - earlier for earlier, later in pairwise(written)] == [60, 60]
    assert world.left_s("a") == 120


def test_the_quiet_day_is_written_once_an_hour() -> None:
    world = started()
    world.dark("a")
    world.run(10)
    world.heal("a")
    world.run(3 * 3600)
    written = sum(1 for _ in range(24) if world.tick(300, every=300) and world.steps["www"].desired is not None)
    assert written == 2, "in two hours"


def test_doing_nothing_wakes_nobody() -> None:
    step = started().decide()
    assert (step.desired, step.wake_in_s, step.events, step.refused) == (None, None, (), ())


def test_a_refusal_by_hold_is_said_and_not_written() -> None:
    world = started()
    drain = world.drain("a")
    world.decide()
    assert world.share("b") == 100 and world.desired["www"].hold_left_s == 0, "a drain is a forced move"
    world.lift(drain)
    world.decide()
    assert world.shares() == {"a": 10, "b": 90} and world.desired["www"].hold_left_s == 60
    world.now += 20
    world.override("in", "c", hard=True, services=("www",))
    step = world.decide()
    assert world.shares() == {"a": 10, "b": 90}
    second = world.drain("b")
    step = world.decide()
    assert world.share("b") == 0 and step.new_generation, "the forced plan is not held back"
    world.lift(second)
    step = world.decide()
    assert [event.rule for event in step.refused] == ["hold"]
    assert step.wake_in_s == 40 == world.desired["www"].hold_left_s
    world.now += 10
    step = world.decide()
    assert (step.desired, step.wake_in_s) == (None, 30), "and not written again"
    world.now += 30
    assert world.decide().new_generation


@pytest.mark.parametrize("why", ["hold", "rewound"])
def test_the_forced_plan_is_never_held_back_by_what_the_full_plan_adds(why: str) -> None:
    world = started(World(one_service({"a": 1000.0, "b": 1000.0, "c": 1000.0, "d": 1000.0})))
    world.dark("a")
    world.run(10)
    world.heal("a")
    world.run(301)
    assert world.shares() == {"a": 10, "b": 90}
    if why == "rewound":
        world.run(60)
        world.rewound = True
    world.dark("b")
    world.drain("c")
    step = world.decide()
    assert "b" not in world.shares() and "c" not in world.shares()
    moves = [event for event in step.events if event.kind == "move"]
    assert moves and all(event.forced for event in moves)


def test_an_optional_move_is_not_worth_an_overload() -> None:
    """Placing anew would give b to the first region, too, and b would be missed by the second: c, held, may keep
    what it has, and may take no more."""
    world = started(World(one_service({"a": 10.0, "b": 1000.0, "c": 1000.0}, {"r0": 450.0, "r1": 2000.0})))
    shares = {"r0": {"c": 100}, "r1": {"a": 1, "b": 99}}
    world.desired["www"] = replace(world.desired["www"], shares=shares)
    world.lies = {(vantage, "c"): "unknown" for vantage in "abw"}
    world.run(600)
    assert (world.rule("c"), world.desired["www"].shares) == ("held", shares)


def test_overrides_in_force_are_recorded_and_their_ends_too() -> None:
    world = started()
    pin = world.override("in", "b", hard=True)
    assert world.decide().desired is not None
    assert world.desired["www"].overrides == (pin,) and world.rule("b") == "pinned"
    world.lift(pin)
    world.decide()
    assert world.desired["www"].overrides == () and world.rule("b") == "ready"


def test_an_override_elsewhere_is_not_written_here() -> None:
    services = {"www": make_service("ab", {"world": 1.0}), "api": make_service("bc", {"world": 1.0}, 1)}
    world = started(World(make_config({"a": 10.0, "b": 10.0, "c": 10.0, "w": 0.0}, services)))
    world.drain("a")
    world.decide()
    assert world.steps["api"].desired is None and world.desired["api"].overrides == ()


def test_who_folds_past_a_service_spends_the_room_that_it_is_served() -> None:
    config = one_service()
    world = started(World(config))
    frame = frames(config)["www"]
    room = Carried(usable(config), 5.0, 7.0)
    assert spend(frame, world.desired["www"], room) == Carried({"a": 300.0, "b": 900.0, "c": 900.0}, 5.0, 7.0)
    assert world.steps["www"].carried.room == {"a": 300.0, "b": 900.0, "c": 900.0}


def test_an_old_report_of_ahead_is_ignored() -> None:
    world = started()
    world.ahead["www"] = Ahead(0, {"world": {"c": 100}})
    assert world.decide().desired is None


def test_every_event_names_its_rule_and_evidence() -> None:
    world = started()
    world.dark("a")
    frame = frames(world.config)["www"]
    target = "www@a/http:80/10.0.0.97"
    slice_ = replace(world.slice(frame), reasons={f"{vantage}/{target}": "timeout connect" for vantage in "bcw"})
    step = decide_service(frame, slice_, world.carried())
    (left,) = [event for event in step.events if event.kind == "move" and event.site == "a"]
    assert left.reason == "world 100 -> 0; down, 0/3 voters pass (timeout connect: b, c, w)"


# --- replay -----------------------------------------------------------------------------------------------------


def a_config() -> Config:
    regions = {"eu": 300.0, "us": 200.0}
    services = {
        "www": make_service("abc", regions, 0, checks=(HTTP, TCP), priority=1),
        "api": make_service("cab", regions, 1, policy=with_failback(soak_s=30.0)),
    }
    return make_config({"a": 600.0, "b": 500.0, "c": 400.0, "w": 0.0}, services, tuple(regions))


def a_life() -> list[tuple[Slice, Carried, Step]]:
    """Every step of a life with failures, drains, a ramp, two services and two regions."""
    recorded: list[tuple[Slice, Carried, Step]] = []
    world = World(a_config())

    def look() -> None:
        carried = world.carried()
        for frame in frames(world.config).values():
            slice_ = world.slice(frame)
            step = decide_service(frame, slice_, carried)
            recorded.append((slice_, carried, step))
            carried = step.carried
        world.decide()

    acts = {3: ("dark", "a"), 9: ("drain", "b"), 15: ("heal", "a"), 40: ("dark", "c"), 60: ("heal", "c")}
    for second in range(200):
        verb, site = acts.get(second, ("", ""))
        if verb:
            getattr(world, verb)(site)
        look()
        world.now += 3
    return recorded


def fingerprint() -> str:
    return hashlib.sha256(b"\n".join(msgspec.json.encode(step) for _, _, step in a_life())).hexdigest()


def test_a_decision_replays_from_its_record_byte_for_byte() -> None:
    life = a_life()
    assert sum(step.new_generation for _, _, step in life) > 8
    framed = frames(msgspec.json.decode(msgspec.json.encode(a_config()), type=Config))
    for slice_, carried, step in life:
        record = msgspec.json.encode({"slice": slice_, "carried": carried, "outcome": step})
        read = msgspec.json.decode(record, type=dict[str, msgspec.Raw])
        again = decide_service(
            framed[slice_.service],
            msgspec.json.decode(read["slice"], type=Slice),
            msgspec.json.decode(read["carried"], type=Carried),
        )
        assert msgspec.json.encode(again) == bytes(read["outcome"])
        assert msgspec.json.decode(read["outcome"], type=Step) == step


def test_nothing_depends_on_the_hash_seed() -> None:
    code = "from tests.unit.test_decide import fingerprint; print(fingerprint())"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "31337")
    }
    assert seen == {fingerprint() + "\n"}


def test_policies_that_switch_things_off() -> None:
    """No hold, no soak, one ramp step: the traffic comes back in the same moment, and nothing loops."""
    policy = with_failback(soak_s=0.0, ramp=(100,))
    world = started(World(one_service(policy=Policy(failback=policy.failback, hold_s=0.0))))
    world.dark("a")
    world.run(10)
    world.heal("a")
    world.decide()
    assert world.shares() == {"a": 100} and world.rule("a") == "ready"
