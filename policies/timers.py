"""Coming back (DESIGN 4.7): the phases of a site, their clocks, and every transition between them. Pure.

Clocks are what is left of them, in seconds, advanced by a duration. All transitions stand in TRANSITIONS, the
first that applies is taken; the documentation's state diagram is generated from it.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from policies.topology import Failback
from policies.world import SiteState

LONGEST_SOAK_S = 3600.0
QUIET_DAY_S = 86400.0
COUNTED_S = 60.0  # a decision counts at most this much elapsed time, however long the leader slept
COUNTED_QUIET_S = 3600.0  # the quiet day is written once an hour
TINY_S = 1e-6


class Moment(Struct, frozen=True):
    """What a transition may depend on, beside the phase itself."""

    verdict: str  # up | down | unknown
    run: bool  # the verdict is up, not held, and was so at the last step: clocks run
    up: bool  # the verdict is up and not held
    first: bool  # the service's first decision
    carries: bool  # the site has a share now
    parked: bool  # out, frozen or rewound: a ramp waits at step 0
    released: bool  # failback is auto, or `failoverctl failback` is in force
    out_ended: bool  # an `out` was in force at the last step and is no more
    failback: Failback


class Transition(Struct, frozen=True):
    source: str  # a phase, or "" for any other than the target
    target: str
    when: str
    applies: Callable[[SiteState, Moment], bool]


TRANSITIONS: tuple[Transition, ...] = (
    Transition("", "failed", "the verdict is down", lambda s, m: m.verdict == "down"),
    Transition("new", "ready", "up in the service's first decision", lambda s, m: m.verdict == "up" and m.first),
    Transition("new", "soak", "up, at a service that already runs", lambda s, m: m.verdict == "up"),
    Transition("failed", "ready", "up again, and still carries", lambda s, m: m.verdict == "up" and m.carries),
    Transition("failed", "soak", "up again, at a site that was left", lambda s, m: m.verdict == "up"),
    Transition(
        "soak",
        "ramp",
        "soak is over, up, failback auto or released",
        lambda s, m: s.left_s == 0 and m.up and m.released,
    ),
    Transition(
        "ramp",
        "ready",
        "its 100 % is reached",
        lambda s, m: m.verdict == "up" and not m.parked and percent(s, m.failback) >= 100,
    ),
    Transition(
        "ready",
        "ramp",
        "a drain ended, and it carries nothing",
        lambda s, m: m.out_ended and not m.carries and percent(s, m.failback) < 100,
    ),
)


def percent(state: SiteState, failback: Failback) -> int:
    """The present step of the ramp, percent of each region's clients."""
    return failback.ramp[min(state.step, len(failback.ramp) - 1)]


def spent(left_s: float, elapsed_s: float) -> float:
    """What is left, never below 0; what is next to nothing is nothing, or a timer would fall due twice."""
    left = left_s - elapsed_s
    return left if left > TINY_S else 0.0


def advance(state: SiteState, age_s: float, moment: Moment) -> SiteState:
    """The state after `age_s` more seconds at this moment.

    Several transitions may follow at once (a soak of 0 s), but no phase is entered twice."""
    state = _run_clocks(state, min(age_s, COUNTED_S), min(age_s, COUNTED_QUIET_S), moment)
    been = {state.phase}
    while (target := _next_phase(state, moment)) and target not in been:
        been.add(target)
        state = _enter(state, target, moment)
    return state


def _next_phase(state: SiteState, moment: Moment) -> str:
    for transition in TRANSITIONS:
        if state.phase == transition.target or transition.source not in ("", state.phase):
            continue
        if transition.applies(state, moment):
            return transition.target
    return ""


def _run_clocks(state: SiteState, dt: float, quiet_dt: float, moment: Moment) -> SiteState:
    if state.failovers:
        quiet = spent(state.quiet_left_s, quiet_dt)
        state = replace(state, quiet_left_s=quiet, failovers=state.failovers if quiet else 0)
    if state.phase == "soak" and moment.run:
        flaps_left = spent(state.flaps_left_s, dt)
        state = replace(
            state,
            left_s=spent(state.left_s, dt),
            flaps_left_s=flaps_left,
            flaps=state.flaps and flaps_left > 0,
        )
    elif state.phase == "ramp":
        if moment.parked:
            return replace(state, step=0, left_s=moment.failback.step_s)
        if moment.run and not state.parked:
            left = spent(state.left_s, dt)
            step = state.step if left else min(state.step + 1, len(moment.failback.ramp) - 1)
            state = replace(state, left_s=left or moment.failback.step_s, step=step)
    return state


def _enter(state: SiteState, phase: str, moment: Moment) -> SiteState:
    base = moment.failback.soak_s
    if phase == "failed":
        # Whoever fails on the way back must first stay up for a whole soak before it is trusted with overflow.
        flaps = state.phase in ("soak", "ramp")
        return replace(state, phase="failed", left_s=0.0, step=0, flaps=flaps, flaps_left_s=base if flaps else 0.0)
    if phase == "soak":
        doubled = base * 2.0 ** max(0, state.failovers - 1) if state.phase == "failed" else base
        left = min(doubled, LONGEST_SOAK_S)
        return replace(state, phase="soak", left_s=left, step=0, flaps=state.flaps and base > 0)
    if phase == "ramp":
        return replace(state, phase="ramp", step=0, left_s=moment.failback.step_s)
    return replace(state, phase="ready", left_s=0.0, step=0, flaps=False, flaps_left_s=0.0)


def running_s(state: SiteState, moment: Moment) -> tuple[float, ...]:
    """What is left of each clock of this site that is running now."""
    clocks: tuple[float, ...] = ()
    if moment.up and not (state.phase == "ramp" and moment.parked) and state.phase in ("soak", "ramp"):
        clocks += (state.left_s,)
        if state.phase == "soak" and state.flaps:
            clocks += (state.flaps_left_s,)
    return tuple(left for left in clocks if left > 0)
