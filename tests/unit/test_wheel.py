from __future__ import annotations

from itertools import pairwise

from probes.wheel import Wheel


def wheel_of(count: int, salt: str = "site-a", jitter: float = 0.1) -> Wheel:
    wheel = Wheel(salt)
    for n in range(count):
        wheel.add(f"t{n}", 1.0, 0.2, jitter, 100.0)
    return wheel


def starts(wheel: Wheel, until_s: float, took_s: float = 0.0, fast: bool = False) -> list[tuple[float, str]]:
    """Run the wheel; every probe takes `took_s`."""
    begun: list[tuple[float, str]] = []
    running: list[tuple[float, str]] = []
    while True:
        due = [wheel.next_s(), running[0][0] if running else None]
        now_s = min((at for at in due if at is not None), default=until_s)
        if now_s >= until_s:
            return begun
        while running and running[0][0] <= now_s:
            wheel.ended(running.pop(0)[1], now_s, fast)
        for id_ in wheel.pop(now_s):
            begun.append((now_s, id_))
            running.append((now_s + took_s, id_))


def test_first_starts_are_spread_over_the_interval() -> None:
    begun = starts(wheel_of(100), 101.0, took_s=5.0)
    times = [at for at, _ in begun]
    assert len({id_ for _, id_ in begun}) == 100
    assert times[0] >= 100.0 and times[-1] < 101.0
    gaps = [b - a for a, b in pairwise(times)]
    assert max(gaps) < 0.03 and min(gaps) > 0.003  # never bunched: 0.01 would be perfect


def test_intervals_run_from_start_to_start_within_the_jitter() -> None:
    begun = [at for at, _ in starts(wheel_of(1), 200.0, took_s=0.4)]
    gaps = [b - a for a, b in pairwise(begun)]
    assert all(0.9 <= gap <= 1.1 for gap in gaps)
    assert max(gaps) > 1.05 and min(gaps) < 0.95  # it does jitter
    assert 0.97 < sum(gaps) / len(gaps) < 1.03


def test_jitter_is_a_hash_of_target_count_and_salt() -> None:
    assert starts(wheel_of(5), 120.0) == starts(wheel_of(5), 120.0)
    assert starts(wheel_of(5), 120.0) != starts(wheel_of(5, salt="site-b"), 120.0)


def test_fast_rechecks_have_no_jitter() -> None:
    begun = [at for at, _ in starts(wheel_of(1), 110.0, fast=True)]
    gaps = [b - a for a, b in pairwise(begun)]
    assert len(gaps) > 40
    assert all(abs(gap - 0.2) < 1e-9 for gap in gaps)


def test_a_probe_never_overlaps_its_predecessor() -> None:
    begun = [at for at, _ in starts(wheel_of(1), 120.0, took_s=1.5)]
    gaps = [b - a for a, b in pairwise(begun)]
    assert all(abs(gap - 1.5) < 1e-9 for gap in gaps)  # as soon as it ends


def test_running_targets_are_not_due_and_next_is_none_without_any() -> None:
    wheel = wheel_of(1)
    at = wheel.next_s()
    assert at is not None
    assert wheel.pop(at) == ["t0"]
    assert wheel.next_s() is None
    assert wheel.pop(1e9) == []


def test_removed_and_added_again() -> None:
    wheel = wheel_of(2)
    wheel.remove("t0")
    assert "t0" not in wheel and "t1" in wheel
    assert wheel.pop(102.0) == ["t1"]
    wheel.add("t0", 1.0, 0.2, 0.1, 102.0)
    assert wheel.pop(104.0) == ["t0"]


def test_retuned_from_the_next_probe_on() -> None:
    wheel = wheel_of(1, jitter=0.0)
    wheel.pop(101.0)
    wheel.retune("t0", 10.0, 3.0, 0.0)
    wheel.ended("t0", 101.1, fast=False)
    assert wheel.next_s() == 111.0
    wheel.pop(111.0)
    wheel.ended("t0", 111.5, fast=True)
    assert wheel.next_s() == 114.0


def test_what_is_hastened_is_due_a_fast_interval_after_its_last_start() -> None:
    wheel = Wheel("site-a")
    wheel.add("t", 60.0, 0.2, 0.0, 100.0)
    wheel.hasten("t", 100.0)
    assert wheel.pop(100.0) == ["t"]  # never begun: at once
    wheel.hasten("t", 100.1)
    assert wheel.next_s() is None  # running
    wheel.ended("t", 100.15, fast=False)
    wheel.hasten("t", 100.15)
    assert wheel.next_s() == 100.2
    wheel.hasten("t", 100.3)
    assert wheel.next_s() == 100.2  # never later than it was
    assert wheel.pop(100.3) == ["t"] and wheel.next_s() is None
