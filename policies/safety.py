"""Preflight: what an operator's action would do, and which guards it would break (DESIGN 4.6). Pure.

All refusals are found at once. A guard refuses only if the action makes its figure worse *and* leaves it below
the limit. never_empty cannot be accepted; n_plus does not refuse, it asks for typed confirmation.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from policies.decide import decide_service, spend
from policies.frame import Frame
from policies.placing import carriers, place
from policies.stage import Stage, stage
from policies.standing import FULL, LADDER, RAMP, effective
from policies.topology import Guards, Override
from policies.whatif import Present, worst_loss
from policies.world import Carried, Desired, Slice

OK, WARNING, REFUSED = "ok", "warning", "refused"
ACCEPTABLE = ("min_sites", "capacity", "data")


class Finding(Struct, frozen=True):
    """One guard's word. `flag`: what to add to accept it, "" if it cannot be or need not be."""

    guard: str
    level: str  # ok | warning | refused
    text: str
    value: float | None = None
    limit: float | None = None
    flag: str = ""


class Move(Struct, frozen=True):
    """One region of one service whose shares would change at once."""

    service: str
    region: str
    before: dict[str, int]
    after: dict[str, int]
    generation: int  # the one that would be made


class Preflight(Struct, frozen=True):
    """`typed`: ask to type the site's name. `ineffective`: override ids that would be outranked."""

    findings: tuple[Finding, ...]
    plan: tuple[Move, ...]
    ineffective: tuple[str, ...]
    refused: bool
    typed: bool


class _Outcome(Struct, frozen=True):
    present: list[Present]
    desired: dict[str, Desired]
    serving: dict[str, int]  # service -> sites that may take traffic
    tiers: dict[str, str]  # service -> the class of last resort that is needed, or ""

    @property
    def shortfall(self) -> float:
        return sum(d.shortfall for d in self.desired.values())


def preflight(
    frames: Mapping[str, Frame],
    slices: Mapping[str, Slice],
    room: Mapping[str, float],
    overrides: Sequence[Override],
    changed: Sequence[Override],
    guards: Guards,
    accepts: Collection[str] = (),
) -> Preflight:
    """What happens if `overrides` (in force now) become `changed`. frames: in fold order; room: before placing."""
    before = _outcome(frames, slices, room, overrides)
    after = _outcome(frames, slices, room, changed)
    new = [o for o in changed if o not in overrides]
    findings = [
        _never_empty(before, after, new),
        *_min_sites(before, after, frames),
        _capacity(before, after),
        *_data(frames, slices, new),
        *_outranked(frames, changed, new),
        *_nobody_waits(frames, slices, new),
        *_frozen(new),
        _n_plus(before, after, room, guards),
    ]
    findings = [_accepted(f) if f.guard in accepts and f.guard in ACCEPTABLE else f for f in findings]
    return Preflight(
        findings=tuple(findings),
        plan=tuple(_moves(slices, after)),
        ineffective=_ineffective(frames, overrides, changed),
        refused=any(f.level == REFUSED for f in findings),
        typed=any(f.guard == "n_plus" and f.level == WARNING for f in findings),
    )


def _accepted(finding: Finding) -> Finding:
    if finding.level != REFUSED:
        return finding
    return replace(finding, level=WARNING, text=f"{finding.text} (accepted)", flag="")


def _outcome(
    frames: Mapping[str, Frame], slices: Mapping[str, Slice], room: Mapping[str, float], overrides: Sequence[Override]
) -> _Outcome:
    carried = Carried(dict(room))
    present: list[Present] = []
    desired: dict[str, Desired] = {}
    serving: dict[str, int] = {}
    tiers: dict[str, str] = {}
    for service, frame in frames.items():
        won, freeze = effective(overrides, frame)
        slice_ = replace(slices[service], overrides=won, freeze=freeze)
        if slice_.desired is None:
            continue  # nothing is served yet: nothing can move
        st = stage(frame, slice_)
        step = decide_service(frame, slice_, carried)
        now = step.current or slice_.desired
        desired[service] = now
        # Whether or not a freeze or the governor holds it back now: is there nothing better than a last resort?
        tiers[service] = now.tier or place(frame, carried.room, st.standings, st.cur, sticky=True).tier
        carried = spend(frame, now, carried)
        serving[service] = _serving(st)
        present.append(Present(frame, st.standings, now.shares))
    return _Outcome(present, desired, serving, tiers)


def _serving(st: Stage) -> int:
    return sum(1 for standing in st.standings.values() if standing.take in (FULL, RAMP))


def _never_empty(before: _Outcome, after: _Outcome, new: Sequence[Override]) -> Finding:
    """No last resort may become necessary, nor a worse one; nor may the site that is to be left have to go on."""
    taken = {site for o in new if o.verb == "out" for site in o.sites}
    was_out = {p.frame.service: {s for s, x in p.standings.items() if x.rule == "out"} for p in before.present}
    stuck = {
        service: tier
        for service, tier in sorted(after.tiers.items())
        if tier
        and (
            _worse(tier, before.tiers[service]) or (taken - was_out[service]) & carriers(after.desired[service].shares)
        )
    }
    if not stuck:
        return Finding("never_empty", OK, "every service keeps an answer")
    classes = ", ".join(sorted(set(stuck.values())))
    text = f"no site may serve {', '.join(stuck)} any more: only last resorts would be left (class: {classes})"
    return Finding("never_empty", REFUSED, f"{text}; bring another site back first")


def _worse(tier: str, than: str) -> bool:
    return not than or LADDER.index(tier) > LADDER.index(than)


def _outranked(frames: Mapping[str, Frame], changed: Sequence[Override], new: Sequence[Override]) -> list[Finding]:
    """A new override that would decide nothing anywhere is a mistake."""
    winners: set[str] = set()
    over: dict[str, dict[str, list[str]]] = {o.id: {} for o in new}  # new one -> who wins -> where
    for frame in frames.values():
        won, freeze = effective(changed, frame)
        winners |= {o.id for o in won.values()} | {freeze}
        for o in new:
            if o.services and frame.service not in o.services:
                continue
            for site in o.sites if o.verb != "freeze" else ():
                if site in won and won[site].id != o.id:
                    over[o.id].setdefault(won[site].id, []).append(site)
            if o.verb == "freeze" and freeze != o.id:
                over[o.id].setdefault(freeze, []).append(frame.service)
    by_id = {o.id: o for o in changed}
    findings: list[Finding] = []
    for id_, better in over.items():
        if id_ in winners or not better:
            continue
        who = [f"{_named(by_id[b])} outranks it at {', '.join(sorted(set(at)))}" for b, at in sorted(better.items())]
        text = f"{'; '.join(who)}; cancel it first: failoverctl overrides cancel {' '.join(sorted(better))}"
        findings.append(Finding("ineffective", REFUSED, text))
    return findings


def _named(o: Override) -> str:
    what = f"{o.command} {o.verb}" if o.command == "pin" else o.command
    return f"{o.id} ({what} {' '.join(o.sites)}".rstrip() + f" by {o.author})"


def _nobody_waits(frames: Mapping[str, Frame], slices: Mapping[str, Slice], new: Sequence[Override]) -> list[Finding]:
    """A failback ends a manual wait: without one it would lie in wait for a later failure."""
    findings: list[Finding] = []
    for o in new:
        if o.verb != "in" or o.hard:
            continue
        for site in o.sites:
            stands: set[str] = set()
            for service, frame in frames.items():
                if site not in frame.sites or (o.services and service not in o.services):
                    continue
                st = stage(frame, slices[service])
                manual = frame.spec.policy.failback.mode == "manual"
                waits = manual and st.states[site].phase == "soak"
                stands.add("" if waits else f"{st.standings[site].rule}{'' if manual else ', failback is auto'}")
            if "" not in stands:
                why = "; ".join(sorted(stands)) or "no service is there"
                findings.append(Finding("failback", REFUSED, f"{site} does not wait: {why}"))
    return findings


def _frozen(new: Sequence[Override]) -> list[Finding]:
    if not any(o.verb == "freeze" for o in new):
        return []
    return [Finding("freeze", WARNING, "a site that fails stays served until unfreeze")]


def _min_sites(before: _Outcome, after: _Outcome, frames: Mapping[str, Frame]) -> list[Finding]:
    findings: list[Finding] = []
    least: tuple[int, str, int] | None = None
    for service, n in sorted(after.serving.items()):
        limit = frames[service].spec.policy.guards.min_sites
        if n < limit and n < before.serving[service]:
            text = f"{service} would have {n} serving sites, {limit} needed"
            findings.append(Finding("min_sites", REFUSED, text, n, limit, "--accept min_sites"))
        if least is None or n - limit < least[0] - least[2]:
            least = (n, service, limit)
    if findings or least is None:
        return findings
    n, service, limit = least
    text = f"{service} has {n}, {limit} needed"
    if n < limit:
        return [Finding("min_sites", WARNING, f"{text}, no worse than now", n, limit)]
    return [Finding("min_sites", OK, text, n, limit)]


def _capacity(before: _Outcome, after: _Outcome) -> Finding:
    if after.shortfall > before.shortfall + 1e-6:
        text = f"{after.shortfall:g} of the demand would not fit any more (now {before.shortfall:g})"
        return Finding("capacity", REFUSED, text, after.shortfall, 0, "--accept capacity")
    text = "the demand fits" if not after.shortfall else f"{after.shortfall:g} does not fit, no more than now"
    return Finding("capacity", OK, text, after.shortfall, 0)


def _data(frames: Mapping[str, Frame], slices: Mapping[str, Slice], new: Sequence[Override]) -> list[Finding]:
    """Pinning a stale copy in loses the writes that it has not got."""
    findings: list[Finding] = []
    for service, frame in frames.items():
        data = frame.spec.data
        if data is None:
            continue
        for override in new:
            if override.verb != "in" or not override.hard or (override.services and service not in override.services):
                continue
            for site in override.sites:
                if site not in frame.sites or site == data.source:
                    continue
                lag = stage(frame, slices[service]).states[site].lag_s
                if lag is None or lag > data.rpo_s:
                    stake = "an unknown amount of writes" if lag is None else f"{lag:.1f}s of writes"
                    text = f"{service} at {site}: {stake} at stake, rpo is {data.rpo_s:g}s"
                    findings.append(Finding("data", REFUSED, text, lag, data.rpo_s, "--accept data"))
    return findings


def _n_plus(before: _Outcome, after: _Outcome, room: Mapping[str, float], guards: Guards) -> Finding:
    n = guards.n_plus
    if not n:
        return Finding("n_plus", OK, "not asked for (n_plus: 0)", 0, 0)
    lost, drop = worst_loss(after.present, room, n)
    lost_now, drop_now = worst_loss(before.present, room, n)
    total = sum(p.frame.demand for p in after.present)
    if not total or (drop <= 0 and lost):
        return Finding("n_plus", OK, f"any {n} further site{'s' * (n > 1)} may be lost", 0, n)
    share = f"{drop:g} of {total:g} ({drop / total:.0%})"
    too = " too" if any(x.rule in ("out", "failed") for p in after.present for x in p.standings.values()) else ""
    text = f"losing {' and '.join(lost)}{too} drops {share}" if lost else "no site is left to lose"
    text += f"; {share} has no room" if drop > 0 and not lost else ""
    level = WARNING if drop > drop_now + 1e-6 or (lost_now and not lost) else OK
    return Finding("n_plus", level, text if level == WARNING else f"{text}, no worse than now", drop, n)


def _moves(slices: Mapping[str, Slice], after: _Outcome) -> list[Move]:
    moves: list[Move] = []
    for service, new in after.desired.items():
        old = slices[service].desired
        assert old is not None
        for region in sorted(new.shares):
            if new.shares[region] != old.shares.get(region, {}):
                before = old.shares.get(region, {})
                moves.append(Move(service, region, before, new.shares[region], old.generation + 1))
    return moves


def _ineffective(
    frames: Mapping[str, Frame], overrides: Sequence[Override], changed: Sequence[Override]
) -> tuple[str, ...]:
    """Overrides that stay stored, decide something now, and would decide nothing any more."""
    kept = {o.id for o in changed}

    def winners(these: Sequence[Override]) -> set[str]:
        ids: set[str] = set()
        for frame in frames.values():
            won, freeze = effective(these, frame)
            ids |= {o.id for o in won.values()} | {freeze}
        return ids

    return tuple(sorted((winners(overrides) - winners(changed)) & kept))
