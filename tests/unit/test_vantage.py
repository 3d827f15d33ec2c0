"""The vantage on a clock of the test's own: what it probes when, and what it says."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from probes.target import Cancel, Done, Health, Sample, Target
from probes.vantage import Vantage
from tests.support import run
from tests.unit.vantage_world import BROKEN, PASS, REFUSED, SILENT, UNREACHABLE, World, dark_from, target, three_sites


def test_targets_start_unknown_are_put_and_then_up() -> None:
    world = World(three_sites())
    world.until(0)
    assert [entry[1:] for entry in world.log] == [
        ("put", "site-a"),
        ("put", "site-b"),
        ("put", "site-c"),
        ("beat", False),
    ]
    assert world.health("www@site-b") == (Health.UNKNOWN, "starting")
    world.until(2)
    assert all(world.health(f"www@{site}") == (Health.UP, "ok") for site in ("site-a", "site-b", "site-c"))


def test_a_shard_is_put_only_when_something_changed() -> None:
    world = World(three_sites())
    world.until(5)
    puts = [entry for entry in world.log if entry[1] == "put"]
    world.until(30)
    assert [entry for entry in world.log if entry[1] == "put"] == puts


def test_beats_each_second() -> None:
    world = World(three_sites())
    world.until(10.5)
    beats = [at for at, _ in world.beats()]
    assert len(beats) == 11
    assert all(0.99 <= b - a <= 1.01 for a, b in pairwise(beats))


def test_a_refused_target_is_down_after_two_fast_intervals() -> None:
    world = World(three_sites())
    world.until(10)
    world.says = lambda id_, now: REFUSED if id_ == "www@site-b" else PASS
    world.until(15)
    first = min(at for at, id_ in world.began if id_ == "www@site-b" and at > 1010.0)
    down = next(at for at, verb, what in world.log if verb == "put" and what == "site-b" and at >= first)
    assert down - first <= 0.41
    assert world.health("www@site-b") == (Health.DOWN, "refused")


@pytest.mark.parametrize("sample", [SILENT, UNREACHABLE])
@pytest.mark.parametrize("at", [10 + n / 7 for n in range(14)])
def test_a_silent_target_is_down_within_the_bound(at: float, sample: Sample) -> None:
    world = World(three_sites())
    world.says = lambda id_, now: sample if id_ == "www@site-b" and now >= 1000 + at else PASS
    world.until(at + 1.1 + 3 * 1.5 + 0.01)
    assert world.health("www@site-b") == (Health.DOWN, sample.reason)
    assert not world.vantage.blind


def test_broken_is_unknown_never_down() -> None:
    world = World(three_sites())
    world.until(10)
    world.says = lambda id_, now: BROKEN if id_ == "www@site-b" else PASS
    world.until(20)
    assert world.health("www@site-b") == (Health.UNKNOWN, "broken: KeyError")


@pytest.mark.parametrize("sample", [SILENT, UNREACHABLE])
@pytest.mark.parametrize("cut", [20.0, 20.3, 20.7, 21.1])
def test_a_dark_vantage_never_says_down_and_is_blind(sample: Sample, cut: float) -> None:
    world = World(three_sites())
    world.says = dark_from(cut, sample)
    for step in range(200):
        world.until(15 + step / 10)
        for site in ("site-b", "site-c"):
            assert world.health(f"www@{site}")[0] is not Health.DOWN
    assert world.vantage.blind
    assert world.health("www@site-a") == (Health.UP, "ok")
    said = [at for at, blind in world.beats() if blind]
    assert said[0] <= cut + 1.1 + 3 * 1.5 + 0.01


def test_sight_comes_back_and_nothing_false_was_said() -> None:
    world = World(three_sites())
    dark = dark_from(20)
    world.says = lambda id_, now: dark(id_, now) if now < 1040 else PASS
    world.until(39)
    assert world.beats()[-1][1]
    for step in range(60):
        world.until(39 + step / 10)
        assert world.health("www@site-b")[0] is not Health.DOWN
        assert world.health("www@site-c")[0] is not Health.DOWN
    assert not world.beats()[-1][1]
    assert world.health("www@site-b")[0] is Health.UP


def test_blindness_is_said_at_once_with_a_beat() -> None:
    world = World(three_sites())
    world.says = dark_from(20)
    world.until(30)
    beats = world.beats()
    turned = [blind for _, blind in beats].index(True)
    assert all(blind is (n >= turned) for n, (_, blind) in enumerate(beats))
    assert beats[turned][0] - beats[turned - 1][0] < 0.95  # out of turn


def test_refused_references_prove_sight() -> None:
    world = World(three_sites())
    world.says = dark_from(20, REFUSED)
    world.until(40)
    assert not world.vantage.blind
    assert world.health("www@site-b") == (Health.DOWN, "refused")


def test_a_single_other_site_is_no_reference() -> None:
    # Two sites and a witness: the vantage at site-a must be able to say that site-b is down.
    world = World([target("site-a"), target("site-b"), target("site-b", "api")])
    world.says = dark_from(20)
    world.until(40)
    assert not world.vantage.blind
    assert world.health("www@site-b") == (Health.DOWN, "timeout connect")


def test_configured_references_count_alone_and_need_two() -> None:
    two = [target("site-b"), target("", "one"), target("", "two")]
    world = World(two)
    world.says = dark_from(20)
    world.until(40)
    assert world.vantage.blind
    assert set(world.shards["refs"]) == {"one@", "two@"}
    world = World(two[:2])
    world.says = dark_from(20)
    world.until(40)
    assert not world.vantage.blind
    world = World(two)
    world.says = lambda id_, now: SILENT if id_ == "www@site-b" and now > 1020 else PASS
    world.until(40)
    assert not world.vantage.blind
    assert world.health("www@site-b")[0] is Health.DOWN


def test_late_results_are_void() -> None:
    world = World(three_sites())
    world.until(10)
    late = Sample(passed=False, answered=False, reason="timeout connect", took_s=2.6)  # over 1.5 + 1
    world.says = lambda id_, now: late if id_ == "www@site-b" else PASS
    world.until(40)
    assert world.health("www@site-b") == (Health.UP, "ok")
    assert world.vantage.voids >= 10
    world.says = lambda id_, now: Sample(False, False, "timeout connect", 2.4) if id_ == "www@site-b" else PASS
    world.until(60)
    assert world.health("www@site-b")[0] is Health.DOWN  # late, but not by more than an interval


def test_after_a_sleep_all_is_unknown_before_the_next_beat() -> None:
    world = World(three_sites())
    world.says = lambda id_, now: SILENT if id_ == "www@site-b" else PASS
    world.until(20)
    assert world.health("www@site-b")[0] is Health.DOWN
    asleep = len(world.log)
    # The clock went on, the loop did not; a result of before comes first of all.
    world.now = 1023.5
    for _, _, done, sample in world.pending:
        done(sample)
    world.pending = []
    world.due = world.vantage.step(world.now)
    woke = [entry[1] for entry in world.log[asleep:]]
    assert woke[-1] == "beat" and woke.count("beat") == 1 and "put" in woke
    assert all(world.health(f"www@{site}") == (Health.UNKNOWN, "slept") for site in ("site-a", "site-b", "site-c"))
    world.until(31)
    assert world.health("www@site-b")[0] is Health.DOWN
    assert world.health("www@site-c")[0] is Health.UP


def test_a_short_stall_is_no_sleep() -> None:
    world = World(three_sites())
    world.until(20)
    world.now = 1022.9
    world.due = world.vantage.step(world.now)
    assert world.health("www@site-b") == (Health.UP, "ok")


def test_a_prober_that_never_answers_makes_unknown() -> None:
    world = World(three_sites())
    world.until(20)
    world.says = lambda id_, now: None if id_ == "www@site-b" else PASS
    world.until(30)
    assert world.health("www@site-b") == (Health.UNKNOWN, "broken: no result")
    assert world.cancelled
    world.says = lambda id_, now: PASS
    world.until(40)
    assert world.health("www@site-b") == (Health.UP, "ok")


def test_set_targets_keeps_starts_and_removes() -> None:
    world = World(three_sites())
    world.until(10)
    puts = len(world.log)
    world.vantage.set_targets([target("site-a"), target("site-b", fall=2), target("site-d")])
    world.due = world.now
    world.until(10.001)
    assert world.health("www@site-a") == (Health.UP, "ok")
    assert world.health("www@site-b") == (Health.UP, "ok")  # other counts, same check
    assert world.health("www@site-d") == (Health.UNKNOWN, "starting")
    assert world.shards["site-c"] == {}
    assert [entry[2] for entry in world.log[puts:] if entry[1] == "put"] == ["site-c", "site-d"]
    world.says = lambda id_, now: REFUSED if id_ == "www@site-b" else PASS
    world.until(13)
    assert world.health("www@site-b") == (Health.DOWN, "refused")
    assert not [at for at, id_ in world.began if id_ == "www@site-c" and at > 1010.1]


def test_another_check_under_the_same_id_starts_unknown_and_its_probe_is_cancelled() -> None:
    world = World(three_sites())
    world.until(10)
    world.says = lambda id_, now: SILENT
    world.until(11.2)
    running = len(world.pending)
    assert running == 3
    world.vantage.set_targets([target("site-a"), target("site-b", options='{"path":"/x"}'), target("site-c")])
    world.due = world.now
    world.says = lambda id_, now: PASS
    world.until(11.21)
    assert world.health("www@site-b") == (Health.UNKNOWN, "starting")
    assert len(world.cancelled) == 1
    world.until(15)
    assert world.health("www@site-b") == (Health.UP, "ok")


def test_never_two_probes_of_a_target_at_once() -> None:
    world = World(three_sites())
    world.says = lambda id_, now: SILENT
    world.until(30)
    for site in ("site-a", "site-b", "site-c"):
        at = [began for began, id_ in world.began if id_ == f"www@{site}"]
        assert all(b - a >= 1.5 - 1e-9 for a, b in pairwise(at))


def test_equal_worlds_have_equal_histories() -> None:
    def history() -> list[object]:
        world = World([target(site, name) for site in ("site-a", "site-b", "site-c") for name in ("api", "www")])
        world.says = lambda id_, now: SILENT if id_ == "www@site-b" and now > 1010 else PASS
        world.until(40)
        return [*world.began, *world.log]

    assert history() == history()


class LoopProber:
    """On a real loop: passes at once, or raises."""

    def __init__(self) -> None:
        self.fail = False

    def start(self, target: Target, done: Done) -> Cancel:
        if self.fail:
            raise RuntimeError("prober is gone")
        handle = asyncio.get_running_loop().call_later(0.001, done, PASS)
        return handle.cancel

    async def aclose(self) -> None: ...


def test_run_on_a_real_loop_beats_reports_and_ends_with_its_prober() -> None:
    async def main() -> None:
        fast = [
            Target(f"t@{site}", site, "t", "192.0.2.1", "tcp", "{}", interval_s=0.02, fast_interval_s=0.01)
            for site in "abc"
        ]
        prober = LoopProber()
        world = World([])
        vantage = Vantage("a", fast, prober, world)
        task = asyncio.create_task(vantage.run())
        while not world.shards or any(o.health is not Health.UP for s in world.shards.values() for o in s.values()):
            await asyncio.sleep(0.01)
        assert world.beats()[0][1] is False
        vantage.set_targets(fast[:1])
        while world.shards["b"] or world.shards["c"]:
            await asyncio.sleep(0.001)
        prober.fail = True
        with pytest.raises(RuntimeError, match="prober is gone"):
            await task
        said = len(world.log)
        await asyncio.sleep(0.05)
        assert len(world.log) == said  # silent

    run(main())
