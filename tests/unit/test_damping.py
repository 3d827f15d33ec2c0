from __future__ import annotations

import pytest

from probes.damping import NO_SIGHT, Damper, damp
from probes.target import Health, Sample

PASS = Sample(passed=True, answered=True, reason="ok", took_s=0.0)
REFUSED = Sample(passed=False, answered=True, reason="refused", took_s=0.0)
SILENT = Sample(passed=False, answered=False, reason="timeout connect", took_s=0.0)
BROKEN = Sample(passed=False, answered=False, reason="broken: KeyError: 'x'", took_s=0.0, broken=True)


def fed(samples: list[Sample], health: Health = Health.UP, sight: bool = True) -> Damper:
    damper = Damper(3, 5, 10, health)
    for sample in samples:
        damper.feed(sample, sight)
    return damper


@pytest.mark.parametrize(
    ("start", "samples", "said"),
    [
        (Health.UP, "UUDDD", "UUUUD"),
        (Health.UP, "DD" + "U" * 9 + "D", "U" * 11 + "D"),  # nine passes do not clear
        (Health.UP, "DD" + "U" * 10 + "DD", "U" * 14),  # ten do
        (Health.UP, "DD" + "U" * 10 + "DDD", "U" * 14 + "D"),
        (Health.UP, "DUDUD", "UUUUD"),  # every other probe fails: it does go down
        (Health.UP, "D" + "U" * 9 + "D" + "U" * 9 + "D", "U" * 20 + "D"),
        (Health.DOWN, "UUUUU", "DDDDU"),
        (Health.DOWN, "UUUUDUUUUU", "DDDDDDDDDU"),
        (Health.DOWN, "UUUUUDD", "DDDDUUU"),  # f starts at 0 after a rise
        (Health.UNKNOWN, "DDD", "??D"),
        (Health.UNKNOWN, "UUUUU", "????U"),
        (Health.UNKNOWN, "DDUDDUDDD", "????????D"),  # consecutive only
        (Health.UNKNOWN, "UUUUDUUUUU", "?????????U"),
        (Health.UP, "DDBDD", "UU???"),  # broken starts over
        (Health.UP, "DDBDDD", "UU???D"),
        (Health.DOWN, "B", "?"),
        (Health.UNKNOWN, "UUUUBUUUUU", "?????????U"),
        (Health.UP, "RRR", "UUD"),
    ],
)
def test_damping_as_strings(start: Health, samples: str, said: str) -> None:
    assert damp(samples, start) == said


def test_fall_rise_and_clear_of_one() -> None:
    assert damp("DUDU", fall=1, rise=1) == "DUDU"
    assert damp("DUDUD", fall=2, clear=1) == "UUUUU"


@pytest.mark.parametrize(
    ("start", "samples", "fast"),
    [
        (Health.UNKNOWN, [], True),
        (Health.UP, [PASS], False),
        (Health.UP, [REFUSED], True),
        (Health.UP, [REFUSED] + [PASS] * 9, True),
        (Health.UP, [REFUSED] + [PASS] * 10, False),
        (Health.UP, [REFUSED] * 3, False),  # DOWN, nothing passes
        (Health.DOWN, [PASS], True),
        (Health.DOWN, [PASS, REFUSED], False),
        (Health.UP, [BROKEN], True),
    ],
)
def test_next_probe_is_fast(start: Health, samples: list[Sample], fast: bool) -> None:
    assert fed(samples, start).fast is fast


def test_reason_is_of_the_latest_sample_that_agrees() -> None:
    damper = fed([REFUSED, REFUSED, SILENT])
    assert (damper.health, damper.reason) == (Health.DOWN, "timeout connect")
    damper.feed(PASS)
    assert damper.reason == "timeout connect"
    damper.feed(REFUSED)
    assert damper.reason == "refused"
    damper.feed(BROKEN)
    assert (damper.health, damper.reason) == (Health.UNKNOWN, "broken: KeyError: 'x'")


def test_answered_is_damped_by_its_own_count() -> None:
    damper = Damper(3, 5, 10)
    assert (damper.answered, damper.silent) == (False, False)  # nothing settled
    damper.feed(REFUSED)
    assert (damper.answered, damper.silent) == (True, False)  # one answer settles it at the start
    for _ in range(2):
        damper.feed(SILENT)
    damper.feed(REFUSED)
    for _ in range(2):
        damper.feed(SILENT)
    assert damper.answered  # never three in a row
    damper.feed(SILENT)
    assert (damper.answered, damper.silent) == (False, True)
    for _ in range(4):
        damper.feed(REFUSED)
    assert damper.silent
    damper.feed(REFUSED)
    assert damper.answered


def test_silence_from_the_start_settles_after_fall() -> None:
    assert not fed([SILENT] * 2, Health.UNKNOWN).silent
    assert fed([SILENT] * 3, Health.UNKNOWN).silent


def test_silence_without_sight_is_unknown_and_the_next_with_sight_is_down() -> None:
    damper = fed([SILENT] * 3, sight=False)
    assert (damper.health, damper.reason, damper.fast) == (Health.UNKNOWN, NO_SIGHT, True)
    assert damper.silent  # blindness goes by this
    damper.feed(SILENT, sight=False)
    assert damper.health is Health.UNKNOWN
    damper.feed(SILENT, sight=True)
    assert (damper.health, damper.reason) == (Health.DOWN, "timeout connect")


def test_after_no_sight_a_pass_starts_the_count_again() -> None:
    damper = fed([SILENT] * 3, sight=False)
    damper.feed(PASS)
    damper.feed(SILENT)
    damper.feed(SILENT)
    assert damper.health is Health.UNKNOWN


def test_an_answer_needs_no_sight_and_what_was_down_stays_down() -> None:
    assert fed([REFUSED] * 3, sight=False).health is Health.DOWN
    assert fed([SILENT] * 3, Health.DOWN, sight=False).health is Health.DOWN


def test_warning_position_and_lag_are_those_of_the_last_pass_while_up() -> None:
    warned = Sample(passed=True, answered=True, reason="ok", took_s=0.0, warning="w", position=7.0, lag_s=0.5)
    damper = fed([warned, REFUSED])
    seen = damper.observation("t")
    assert (seen.target, seen.health, seen.warning, seen.position, seen.lag_s) == ("t", Health.UP, "w", 7.0, 0.5)
    damper.feed(REFUSED)
    damper.feed(REFUSED)
    down = damper.observation("t")
    assert (down.health, down.warning, down.position, down.lag_s) == (Health.DOWN, "", None, None)
