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
from policies.placing import Shares
from policies.stage import Stage, stage
from policies.standing import FULL, RAMP, effective
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
        *_never_empty(before, after, new),
        *_min_sites(before, after, frames),
        _capacity(before, after),
        *_data(frames, slices, new),
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
    for service, frame in frames.items():
        won, freeze = effective(overrides, frame)
        slice_ = replace(slices[service], overrides=won, freeze=freeze)
        if slice_.desired is None:
            continue  # nothing is served yet: nothing can move
        st = stage(frame, slice_)
        step = decide_service(frame, slice_, carried)
        now = step.current or slice_.desired
        desired[service] = now
        carried = spend(frame, now, carried)
        serving[service] = _serving(st)
        present.append(Present(frame, st.standings, now.shares))
    return _Outcome(present, desired, serving)


def _serving(st: Stage) -> int:
    return sum(1 for standing in st.standings.values() if standing.take in (FULL, RAMP))


def _never_empty(before: _Outcome, after: _Outcome, new: Sequence[Override]) -> list[Finding]:
    taken = {site for o in new if o.verb == "out" for site in o.sites}
    stuck = [
        service
        for service, d in sorted(after.desired.items())
        if d.tier and not before.desired[service].tier and any(_carries(d.shares, s) for s in taken)
    ]
    if not stuck:
        return [Finding("never_empty", OK, "every service keeps an answer")]
    text = f"no other site may serve {', '.join(stuck)}: it would stay where it is; bring another site back first"
    return [Finding("never_empty", REFUSED, text)]


def _carries(shares: Shares, site: str) -> bool:
    return any(region.get(site) for region in shares.values())


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
    return [Finding("min_sites", OK, f"{least[1]} has {least[0]}, {least[2]} needed", least[0], least[2])]


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
    _, drop_now = worst_loss(before.present, room, n)
    total = sum(p.frame.demand for p in after.present)
    if drop <= 0 or not total:
        return Finding("n_plus", OK, f"any {n} further site{'s' * (n > 1)} may be lost", 0, n)
    text = f"losing {' and '.join(lost)} too drops {drop:g} of {total:g} ({drop / total:.0%})"
    level = WARNING if drop > drop_now + 1e-6 else OK
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
