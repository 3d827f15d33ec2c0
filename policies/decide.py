"""World -> Outcome: the one entry point of JUDGE (DESIGN 2, 4.6; the procedure is DECIDE's). Pure.

`decide_service` is one step of a fold over services in order of priority; it carries only the room left at each
site and what was moved automatically. Durations go in, `wake_in_s` comes out; the same slice gives the same step.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from policies.events import events, refusal
from policies.frame import Frame
from policies.placing import Plan, Shares, carriers, load, moved, overload, place, render
from policies.stage import Stage, stage
from policies.standing import LADDER, NONE
from policies.timers import COUNTED_QUIET_S, COUNTED_S, QUIET_DAY_S, TINY_S, running_s, spent
from policies.world import Carried, Desired, Event, SiteState, Slice, Step

FIRST_LOOK_S = 10.0  # how long a service's first decision waits for the verdicts of all its targets
WORTH_MOVING = 0.02  # of the service's demand: a smaller relief of overload is not worth a forced move
CHECKPOINT_S = 60.0  # running timers are written at least this often

# What operators do not read in `desired` need not be written: a refusal by hold is most of the time.
QUIET_REFUSALS = ("", "hold")


class Choice(Struct, frozen=True):
    """Which plan was taken. refused: why the full plan, or all of it, waits."""

    shares: Shares
    tier: str
    optional: bool
    auto: bool
    refused: str
    wait_left_s: float


def decide_service(frame: Frame, slice_: Slice, carried: Carried) -> Step:
    """One step of the fold. Never raises for what the world may bring; never leaves a service without answer."""
    ahead = slice_.ahead
    if ahead and slice_.desired and ahead.generation < slice_.desired.generation:
        slice_, ahead = replace(slice_, ahead=None), None  # an old report: it was taken over already
    st = stage(frame, slice_)
    if st.first and not _ready_to_start(st, slice_):
        left = FIRST_LOOK_S - slice_.age_s
        return Step(None, False, (), (), carried, left if left > TINY_S else None)
    choice = _choose(frame, slice_, carried, st)
    if not all(choice.shares.values()):
        # Only a first decision can come here: nothing was ever served, and nothing answers.
        event = Event("hold", "", "nowhere to go", "no site is up or answers, and none was served before")
        return Step(None, False, (), (event,), carried, None)
    new = _write(frame, slice_, st, choice, carried.room)
    changed = _answers_differ(slice_.desired, new) or ahead is not None
    if changed:
        new = replace(new, generation=max(new.generation, ahead.generation if ahead else 0) + 1)
    carried = _carry(frame, st, choice, carried)
    said = events(frame, slice_, st, new, optional=choice.optional, changed=changed)
    refused = (refusal(choice.refused),) if choice.refused else ()
    dirty = changed or _differs(slice_, st, new)
    wake = _wake_in(slice_, st, new, dirty)
    return Step(new if dirty else None, changed, said, refused, carried, wake, new)


def spend(frame: Frame, desired: Desired, carried: Carried) -> Carried:
    """Fold past a service without deciding it: the room less what it is served."""
    shares = {region: desired.shares.get(region, {}) for region in frame.regions}
    return replace(carried, room=_less(carried.room, load(frame, shares)))


def _less(room: Mapping[str, float], loads: Mapping[str, float]) -> dict[str, float]:
    return {site: left - loads.get(site, 0.0) for site, left in room.items()}


def _ready_to_start(st: Stage, slice_: Slice) -> bool:
    if all(j.verdict == "unknown" for j in st.judged.values()) and slice_.ahead is None:
        return False
    return slice_.age_s >= FIRST_LOOK_S - TINY_S or all(j.complete for j in st.judged.values())


def _choose(frame: Frame, slice_: Slice, carried: Carried, st: Stage) -> Choice:
    """Forced and full plan, freeze, governor, hold: which one is taken."""
    room, cur = carried.room, st.cur
    full = place(frame, room, st.standings, cur, sticky=False)
    if st.first and slice_.ahead is None:
        return Choice(full.shares, full.tier, False, False, "", 0.0)
    forced, refused = _forced(frame, room, st)
    if slice_.freeze:
        if _one_plan_under_freeze(slice_, st):
            return Choice(forced.shares, forced.tier, False, False, refused, 0.0)
        return Choice(cur, "", False, False, "freeze" if forced.shares != cur else "", 0.0)
    auto = forced.shares != cur and bool(_failed(st))
    wait = _governor_wait(frame, slice_, carried, st, forced.shares) if auto else None
    if wait:
        return Choice(cur, "", False, False, "governor", wait)
    if full.tier or not all(full.shares.values()) or full.shares == forced.shares or _worse(frame, room, full, forced):
        return Choice(forced.shares, forced.tier, False, auto, refused, 0.0)
    if slice_.rewound:
        refused = "rewound"
    elif slice_.desired and spent(slice_.desired.hold_left_s, min(slice_.age_s, COUNTED_S)) > 0:
        refused = "hold"
    else:
        return Choice(full.shares, full.tier, True, auto, "", 0.0)
    return Choice(forced.shares, forced.tier, False, auto, refused, 0.0)


def _forced(frame: Frame, room: Mapping[str, float], st: Stage) -> tuple[Plan, str]:
    """Only what lost its right moves, or what relieves enough overload; else the present shares are the plan."""
    cur = st.cur
    worth = max(WORTH_MOVING * frame.demand, TINY_S)
    over = overload(frame, room, cur)
    carrying = [st.standings[site] for site in st.carrying if site in st.standings]
    if over < worth and all(cur.values()) and all(standing.take != NONE for standing in carrying):
        return Plan(cur, ""), ""
    plan = place(frame, room, st.standings, cur, sticky=True)
    if not all(plan.shares.values()):
        return Plan(cur, ""), "nowhere to go"
    # Last of all, what was served last may go on.
    rightful = all(s.take != NONE or (plan.tier and plan.tier in (s.ladder, LADDER[-1])) for s in carrying)
    if rightful and over - overload(frame, room, plan.shares) < worth:
        return Plan(cur, plan.tier), ""
    return plan, ""


def _worse(frame: Frame, room: Mapping[str, float], full: Plan, forced: Plan) -> bool:
    """Placing anew fills by preference; where some sites may only keep what they have, that can fit less. No
    optional move is worth an overload."""
    more = overload(frame, room, full.shares) - overload(frame, room, forced.shares)
    return more > max(WORTH_MOVING * frame.demand, TINY_S)


def _one_plan_under_freeze(slice_: Slice, st: Stage) -> bool:
    if slice_.desired is None or st.applied == slice_.desired.overrides:
        return False
    for site, standing in st.standings.items():
        carries = site in st.carrying
        if (standing.rule == "out" and carries) or (standing.rule == "pinned" and not carries):
            return True
    return False


def _governor_wait(frame: Frame, slice_: Slice, carried: Carried, st: Stage, forced: Shares) -> float:
    """What is left to wait before so much is moved on a verdict on which a voter dissents."""
    governor = frame.spec.policy.governor
    total = carried.moved + moved(frame, st.cur, forced)
    if governor.share >= 1 or total <= governor.share * frame.total_demand:
        return 0.0
    if all(st.judged[s].unanimous for s in _failed(st)):
        return 0.0
    begun = slice_.desired.wait_left_s if slice_.desired else 0.0
    return spent(begun, min(slice_.age_s, COUNTED_S)) if begun else frame.spec.policy.freshness_s


def _failed(st: Stage) -> list[str]:
    """The failed sites that carry something."""
    return [site for site, standing in st.standings.items() if standing.rule == "failed" and site in st.carrying]


def _left_behind(st: Stage, choice: Choice) -> tuple[str, ...]:
    """Failed sites that carried something and carry nothing any more."""
    left = carriers(choice.shares)
    return tuple(site for site in _failed(st) if site not in left) if choice.auto else ()


def _write(frame: Frame, slice_: Slice, st: Stage, choice: Choice, room: Mapping[str, float]) -> Desired:
    """The desired state as of now, with the previous generation."""
    prev, dns = slice_.desired, frame.spec.dns
    states = dict(st.states)
    for site in _left_behind(st, choice):
        states[site] = replace(states[site], failovers=states[site].failovers + 1, quiet_left_s=QUIET_DAY_S)
    addresses = {s: state.addresses for s, state in states.items()}
    still = bool(slice_.freeze) and choice.shares == st.cur
    answers = render(frame, choice.shares, st.standings, addresses, prev, still)
    serving = {*frame.spec.endpoints, *(carriers(choice.shares) & states.keys()), *(a.site for a in answers)}
    # Whole percents round within 1 % of the demand: that much is not a shortfall.
    over = overload(frame, room, choice.shares)
    shortfall = round(over, 3) if over > frame.demand / 100 else 0.0
    if choice.optional:
        hold = frame.spec.policy.hold_s
    else:
        hold = spent(prev.hold_left_s, min(slice_.age_s, COUNTED_S)) if prev else 0.0
    return Desired(
        service=frame.service,
        generation=prev.generation if prev else 0,
        shares={region: dict(sorted(choice.shares[region].items())) for region in frame.regions},
        answers=answers,
        sites={s: state for s, state in states.items() if s in serving},
        name=dns.name if dns else "",
        ttl_s=dns.ttl_s if dns else 0,
        hold_left_s=hold,
        wait_left_s=choice.wait_left_s,
        overrides=st.applied,
        shortfall=shortfall,
        tier=choice.tier or _still_in_use(st, choice, prev),
        refused=choice.refused,
        decision=prev.decision if prev else "",
        nonce=prev.nonce if prev else "",
        config_rev=frame.config_rev,
        token=prev.token if prev else 0,
        traceparent=prev.traceparent if prev else "",
    )


def _still_in_use(st: Stage, choice: Choice, prev: Desired | None) -> str:
    """The class of last resort that was resorted to before, while who serves is still of that class."""
    if prev is None or not prev.tier or choice.shares != st.cur:
        return ""
    serving = [st.standings[site] for site in st.carrying if site in st.standings]
    if prev.tier == LADDER[-1]:
        return prev.tier if any(standing.take == NONE for standing in serving) else ""
    return prev.tier if any(standing.ladder == prev.tier for standing in serving) else ""


def _answers_differ(prev: Desired | None, new: Desired) -> bool:
    """Other answers mean another generation."""
    return prev is None or (prev.shares, prev.answers, prev.name, prev.ttl_s) != (
        new.shares,
        new.answers,
        new.name,
        new.ttl_s,
    )


def _differs(slice_: Slice, st: Stage, new: Desired) -> bool:
    """Must this be written although the answers are the same?"""
    prev = slice_.desired
    assert prev is not None
    loud = new.refused if new.refused not in QUIET_REFUSALS else ""
    was_loud = prev.refused if prev.refused not in QUIET_REFUSALS else ""
    if (
        loud != was_loud
        or (new.wait_left_s > 0) != (prev.wait_left_s > 0)
        or (new.overrides, new.shortfall, new.tier) != (prev.overrides, prev.shortfall, prev.tier)
        or new.sites.keys() != prev.sites.keys()
    ):
        return True
    if any(_site_differs(prev.sites[site], state) for site, state in new.sites.items()):
        return True
    # Nearly due is due: what is next to nothing cannot be waited for.
    age = slice_.age_s + TINY_S
    if age >= CHECKPOINT_S and _ticking(st, new):
        return True
    return age >= COUNTED_QUIET_S and any(state.failovers for state in new.sites.values())


def _site_differs(before: SiteState, now: SiteState) -> bool:
    return (
        before.verdict != now.verdict
        or before.held != now.held
        or before.rule != now.rule
        or before.phase != now.phase
        or before.step != now.step
        or before.flaps != now.flaps
        or (now.phase == "ramp" and before.parked != now.parked)
        or before.failovers != now.failovers
        or before.addresses != now.addresses
        or before.last != now.last
        or before.replies != now.replies
    )


def _ticking(st: Stage, new: Desired) -> bool:
    """Is any clock running that must outlive the leader?"""
    if new.hold_left_s > 0 or new.wait_left_s > 0:
        return True
    return any(running_s(state, st.moments[site]) for site, state in new.sites.items())


def _carry(frame: Frame, st: Stage, choice: Choice, carried: Carried) -> Carried:
    room = _less(carried.room, load(frame, choice.shares))  # what IS served, not what was planned
    if not choice.auto:
        return replace(carried, room=room)
    # The window starts anew with each automatic move: a chain of them, each within the window, counts as one.
    amount = moved(frame, st.cur, choice.shares)
    return Carried(room, carried.moved + amount, frame.spec.policy.governor.window_s)


def _wake_in(slice_: Slice, st: Stage, new: Desired, dirty: bool) -> float | None:
    """When something falls due by itself, from now; None: not before an input changes."""
    due: list[float] = []
    for site, state in new.sites.items():
        due += running_s(state, st.moments[site])
    if new.refused == "hold":
        due.append(new.hold_left_s)
    if new.wait_left_s > 0:
        due.append(new.wait_left_s)
    age = 0.0 if dirty else slice_.age_s
    if _ticking(st, new):
        due.append(max(0.0, CHECKPOINT_S - age))
    if any(state.failovers for state in new.sites.values()):
        due.append(max(0.0, COUNTED_QUIET_S - age))
    return min(due, default=None)
