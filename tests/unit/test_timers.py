"""Coming back: every transition, every clock, and what stops it."""

from __future__ import annotations

from typing import Any

import pytest

from policies.timers import (
    LONGEST_SOAK_S,
    QUIET_DAY_S,
    TINY_S,
    TRANSITIONS,
    Moment,
    advance,
    percent,
    running_s,
    spent,
)
from policies.topology import Failback
from policies.world import SiteState

FAILBACK = Failback(mode="auto", soak_s=300.0, ramp=(10, 50, 100), step_s=60.0)


def moment(verdict: str = "up", **more: Any) -> Moment:
    """A plain moment: up without doubt, nothing carried, nothing in the way."""
    up = verdict == "up"
    given = {
        "run": up, "up": up, "first": False, "carries": False, "parked": False, "released": True, "out_ended": False,
        "failback": FAILBACK, **more,
    }  # fmt: skip
    return Moment(verdict=verdict, **given)


def state(phase: str, **more: Any) -> SiteState:
    return SiteState(verdict="up", phase=phase, **more)


DOWN = moment("down")
HELD = moment(run=False, up=False)

# (before, moment, seconds, phase after): one row for each transition, and for each condition that stops it.
STEPS: list[tuple[SiteState, Moment, float, str]] = [
    (state("new"), moment(first=True), 0, "ready"),
    (state("new"), moment(), 0, "soak"),
    (state("new"), moment("unknown", first=True), 0, "new"),
    *[(state(phase, left_s=9.0), DOWN, 1, "failed") for phase in ("new", "soak", "ramp", "ready", "failed")],
    (state("failed"), moment(carries=True), 0, "ready"),
    (state("failed"), moment(), 0, "soak"),
    (state("failed"), moment("unknown"), 0, "failed"),
    (state("soak", left_s=5.0), moment(), 5, "ramp"),
    (state("soak", left_s=5.0), moment(), 4.9, "soak"),
    (state("soak", left_s=5.0), moment(released=False), 50, "soak"),
    (state("soak", left_s=0.0), moment(released=False), 1, "soak"),
    (state("soak", left_s=0.0), moment(), 0, "ramp"),
    (state("soak", left_s=0.0), HELD, 1, "soak"),
    (state("soak", left_s=5.0), moment(parked=True), 5, "ramp"),
    (state("ramp", left_s=5.0, step=1), moment(), 5, "ready"),
    (state("ramp", left_s=5.0, step=0), moment(), 5, "ramp"),
    (state("ramp", left_s=5.0, step=1), moment(parked=True), 5, "ramp"),
    (state("ramp", left_s=5.0, step=1), HELD, 50, "ramp"),
    (state("ready"), moment(), 1, "ready"),
    (state("ready"), moment(out_ended=True), 0, "ramp"),
    (state("ready"), moment(out_ended=True, carries=True), 0, "ready"),
    (state("ready"), moment("unknown"), 1, "ready"),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda s: f"{s[0].phase}-{s[1].verdict}-{s[2]}-{s[3]}")
def test_transitions(step: tuple[SiteState, Moment, float, str]) -> None:
    before, now, seconds, phase = step
    assert advance(before, seconds, now).phase == phase


def test_every_transition_of_the_table_was_taken_above() -> None:
    taken = {(before.phase, phase) for before, _, _, phase in STEPS if before.phase != phase}
    for transition in TRANSITIONS:
        sources = ("new", "soak", "ramp", "ready") if not transition.source else (transition.source,)
        assert all((source, transition.target) in taken for source in sources), transition


def life(before: SiteState, seconds: float, now: Moment, every: float = 1.0) -> SiteState:
    for _ in range(round(seconds / every)):
        before = advance(before, every, now)
    return before


def test_soak_then_ramp_then_ready_take_what_they_say() -> None:
    s = advance(state("failed"), 1, moment())
    assert (s.phase, s.left_s) == ("soak", 300.0)
    s = life(s, 299, moment())
    assert (s.phase, s.left_s) == ("soak", 1.0)
    s = advance(s, 1, moment())
    assert (s.phase, s.step, s.left_s, percent(s, FAILBACK)) == ("ramp", 0, 60.0, 10)
    s = life(s, 60, moment())
    assert (s.phase, s.step, s.left_s, percent(s, FAILBACK)) == ("ramp", 1, 60.0, 50)
    s = life(s, 60, moment())
    assert (s.phase, s.step, s.left_s) == ("ready", 0, 0.0)


@pytest.mark.parametrize(
    ("failovers", "minutes"), [(0, 5), (1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (6, 60), (400, 60)]
)
def test_the_nth_failover_soaks_for_twice_as_long_each_up_to_an_hour(failovers: int, minutes: int) -> None:
    s = advance(state("failed", failovers=failovers, quiet_left_s=QUIET_DAY_S), 1, moment())
    assert s.left_s == minutes * 60
    assert s.left_s <= LONGEST_SOAK_S


def test_a_new_site_soaks_for_the_base_time_only() -> None:
    assert advance(state("new"), 1, moment()).left_s == 300.0


def test_after_a_quiet_day_it_starts_over() -> None:
    s = state("ready", failovers=3, quiet_left_s=QUIET_DAY_S)
    s = life(s, QUIET_DAY_S - 3600, moment(), every=3600)
    assert (s.failovers, s.quiet_left_s) == (3, 3600.0)
    s = advance(s, 3600, moment())
    assert (s.failovers, s.quiet_left_s) == (0, 0.0)
    s = advance(advance(s, 1, DOWN), 1, moment())
    assert s.left_s == 300.0


def test_a_decision_counts_a_minute_at_most_of_soak_and_ramp_and_an_hour_of_the_quiet_day() -> None:
    assert advance(state("soak", left_s=300.0), 7200, moment()).left_s == 240.0
    slept = advance(state("ramp", left_s=60.0, step=0), 7200, moment())
    assert (slept.phase, slept.step, slept.left_s) == ("ramp", 1, 60.0), "one step, not all of them"
    assert advance(state("ready", failovers=1, quiet_left_s=QUIET_DAY_S), 1e6, moment()).quiet_left_s == 82800.0


def test_soak_runs_only_while_up_and_not_held_and_under_overrides_too() -> None:
    s = state("soak", left_s=300.0)
    assert life(s, 600, HELD).left_s == 300.0
    assert life(s, 600, moment("unknown")).left_s == 300.0
    assert life(s, 100, moment(parked=True)).left_s == 200.0
    just_back = moment(run=False)  # the seconds before this moment were held: they do not count
    assert advance(s, 60, just_back).left_s == 300.0


def test_a_ramp_is_parked_at_step_0_while_out_frozen_or_rewound() -> None:
    s = advance(state("ramp", step=1, left_s=17.0), 1, moment(parked=True))
    assert (s.phase, s.step, s.left_s) == ("ramp", 0, 60.0)
    assert life(s, 3600, moment(parked=True), every=60) == s
    assert advance(s, 60, moment()).step == 1


def test_held_only_stops_a_ramp() -> None:
    s = state("ramp", step=1, left_s=17.0)
    assert life(s, 600, HELD) == s
    assert life(s, 17, moment()).phase == "ready"


def test_down_ends_a_ramp() -> None:
    s = advance(state("ramp", step=1, left_s=17.0), 1, DOWN)
    assert (s.phase, s.step, s.left_s) == ("failed", 0, 0.0)


def test_manual_failback_waits_for_as_long_as_it_takes() -> None:
    manual = moment(released=False)
    s = life(state("soak", left_s=300.0), 86400, manual, every=60)
    assert (s.phase, s.left_s) == ("soak", 0.0)
    assert running_s(s, manual) == ()
    assert advance(s, 0, moment(released=True)).phase == "ramp"


def test_who_fails_on_the_way_back_flaps_until_it_was_up_for_one_base_soak() -> None:
    for phase in ("soak", "ramp"):
        failed = advance(state(phase, left_s=30.0, failovers=3, quiet_left_s=QUIET_DAY_S), 1, DOWN)
        assert failed.flaps
        s = advance(failed, 1, moment())
        assert s.flaps and s.left_s == 1200.0
        s = life(s, 299, moment())
        assert s.flaps
        s = advance(s, 1, moment())
        assert not s.flaps and s.phase == "soak" and s.left_s == 900.0


def test_held_time_does_not_make_a_flapping_site_trusted() -> None:
    s = advance(advance(state("soak", left_s=30.0), 1, DOWN), 1, moment())
    assert life(s, 3600, HELD, every=60).flaps


def test_failing_while_ready_or_while_failed_is_not_flapping() -> None:
    assert not advance(state("ready"), 1, DOWN).flaps
    assert not advance(state("new"), 1, DOWN).flaps
    flapped = advance(state("soak", left_s=30.0), 1, DOWN)
    assert advance(flapped, 600, DOWN).flaps, "a long outage does not take the mark away"


def test_short_ways_back() -> None:
    """soak 0 and a ramp of one step: no phase is skipped for good and none is entered twice."""
    at_once = Failback(soak_s=0.0, ramp=(100,), step_s=60.0)
    assert advance(state("failed"), 1, moment(failback=at_once)).phase == "ready"
    ramped = Failback(soak_s=0.0, ramp=(10, 100), step_s=60.0)
    s = advance(state("failed"), 1, moment(failback=ramped))
    assert (s.phase, s.step, s.left_s) == ("ramp", 0, 60.0)
    ended = advance(state("ready"), 1, moment(out_ended=True, failback=at_once))
    assert ended.phase == "ready", "a ramp that begins at 100 % is none"


def test_next_to_nothing_is_nothing() -> None:
    assert spent(60.0, 60.0 - TINY_S / 2) == 0.0
    assert spent(60.0, 61.0) == 0.0
    assert advance(state("soak", left_s=5.0), 5 - 1e-9, moment()).phase == "ramp"


def test_which_clocks_run() -> None:
    assert running_s(state("soak", left_s=30.0), moment()) == (30.0,)
    assert running_s(state("soak", left_s=30.0, flaps=True, flaps_left_s=9.0), moment()) == (30.0, 9.0)
    assert running_s(state("soak", left_s=30.0), HELD) == ()
    assert running_s(state("soak", left_s=30.0), moment(parked=True)) == (30.0,)
    assert running_s(state("ramp", left_s=30.0), moment()) == (30.0,)
    assert running_s(state("ramp", left_s=30.0), moment(parked=True)) == ()
    assert running_s(state("ramp", left_s=30.0), HELD) == ()
    assert running_s(state("ready"), moment()) == running_s(state("failed"), DOWN) == ()
