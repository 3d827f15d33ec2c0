"""What a decision did or refused, and why, in words. Pure. No event without a reason."""

from __future__ import annotations

from policies.frame import Frame
from policies.placing import Shares, carriers
from policies.stage import Stage
from policies.verdicts import NEW
from policies.world import Desired, Event, Slice

REFUSALS = {
    "hold": "an optional move waits: the last one was less than the hold time ago",
    "governor": "most of all demand would move and a voter dissents: waits for what the next seconds show",
    "freeze": "the service is frozen: what lost its right to carry goes on carrying until unfreeze",
    "rewound": "optional moves wait for failoverctl unfreeze: the store was restored from a backup",
    "nowhere to go": "no site may take the traffic; what is served stays",
}


def refusal(refused: str) -> Event:
    return Event("hold", "", refused, REFUSALS[refused])


def events(frame: Frame, slice_: Slice, st: Stage, new: Desired, *, optional: bool, changed: bool) -> tuple[Event, ...]:
    """In the order of sites; alarms of the service as a whole come last."""
    prev = slice_.desired
    found: list[Event] = []
    for site in sorted(st.standings):
        found += _of_site(frame, slice_, st, new, site, optional, changed)
    if changed and not slice_.ahead and not any(event.kind == "move" for event in found):
        reason = f"another name, TTL, or set of regions in revision {new.config_rev}"
        found.append(Event("move", "", "configuration", reason, forced=True))
    if slice_.ahead:
        unknown = "" if slice_.ahead.shares else " (by which sites cannot be told: what this store has goes on)"
        reason = f"took over generation {slice_.ahead.generation} as it is served{unknown}"
        found.append(Event("alarm", "", "rewound", reason))
    if new.tier and (changed or prev is None or prev.tier != new.tier):
        found.append(Event("alarm", "", "last_resort", f"no site may take more; served by class: {new.tier}"))
    if new.shortfall and (prev is None or prev.shortfall != new.shortfall):
        found.append(Event("alarm", "", "shortfall", f"{new.shortfall:g} of {frame.demand:g} has no room"))
    return tuple(found)


def _of_site(
    frame: Frame, slice_: Slice, st: Stage, new: Desired, site: str, optional: bool, changed: bool
) -> list[Event]:
    found: list[Event] = []
    standing, state = st.standings[site], st.states[site]
    before = slice_.desired.sites.get(site, NEW) if slice_.desired else NEW
    change = _change(frame, st.cur, new.shares, site)
    if change:
        evidence = evidence_of(slice_, site)
        reason = f"{change}; {standing.reason}" + (f" ({evidence})" if evidence else "")
        found.append(Event("move", site, standing.rule, reason, forced=not optional))
    elif change := _family_change(slice_.desired, new, site):
        found.append(Event("move", site, standing.rule, f"{change}; {standing.reason}", forced=True))
    if before.rule != standing.rule or before.phase != state.phase:
        found.append(Event("state", site, standing.rule, standing.reason))
    if before.addresses and before.addresses != state.addresses:
        answers = any(answer.site == site for answer in new.answers)
        reason = f"serves {', '.join(state.addresses)} now"
        found.append(Event("move" if answers else "state", site, standing.rule, reason, forced=answers))
    ignored = standing.rule == "out" and not standing.ladder and site in carriers(new.shares)
    if ignored and (changed or before.rule != "out"):
        found.append(Event("alarm", site, "hard_out_ignored", "no other site can answer: never-empty wins"))
    return found


def evidence_of(slice_: Slice, site: str) -> str:
    """A few of the reasons that vantages gave for this site's targets: "timeout connect: site-b, site-c"."""
    by_reason: dict[str, set[str]] = {}
    for key, reason in slice_.reasons.items():
        vantage, _, target = key.partition("/")
        if f"@{site}/" in target:
            by_reason.setdefault(reason, set()).add(vantage)
    return "; ".join(f"{reason}: {', '.join(sorted(by_reason[reason]))}" for reason in sorted(by_reason))[:300]


def _change(frame: Frame, before: Shares, after: Shares, site: str) -> str:
    """ "eu-west 100 -> 0, rest 100 -> 0", or "" where nothing changed."""
    changes = [
        f"{region} {before[region].get(site, 0)} -> {after[region].get(site, 0)}"
        for region in frame.regions
        if before[region].get(site, 0) != after[region].get(site, 0)
    ]
    return ", ".join(changes)


def _family_change(before: Desired | None, after: Desired, site: str) -> str:
    """An address family that no site with a share has is served by the best one that has it: where that begins or
    ends. "serves AAAA in eu-west", or "" where nothing changed."""
    if before is None or before.answers == after.answers:
        return ""
    had = {f"{a.rtype} in {a.region}" for a in before.answers if a.site == site}
    has = {f"{a.rtype} in {a.region}" for a in after.answers if a.site == site}
    gained, lost = ", ".join(sorted(has - had)), ", ".join(sorted(had - has))
    return "; ".join([f"serves {gained}"] * bool(gained) + [f"no longer serves {lost}"] * bool(lost))
