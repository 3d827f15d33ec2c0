"""Outcome -> reason tree: which rule won at each site, on whose evidence, and what the guards say. Pure."""

from __future__ import annotations

from msgspec import Struct

from policies.decide import decide_service
from policies.frame import Frame, watched
from policies.placing import Shares, load
from policies.quorum import counts, voters
from policies.stage import stage
from policies.standing import FULL, RAMP
from policies.world import Carried, Desired, Slice, Vote


class Evidence(Struct, frozen=True):
    """One vantage's word on one target. `votes`: it counted; a site's own vantage has no vote there."""

    vantage: str
    target: str
    health: str  # UP | DOWN | UNKNOWN
    reason: str
    fresh: bool
    votes: bool
    own: bool


class SiteWhy(Struct, frozen=True):
    rule: str
    reason: str
    verdict: str  # up | down | held | unknown
    tally: str  # "2/3": voters that pass
    load: float
    phase: str
    evidence: tuple[Evidence, ...]


class Guard(Struct, frozen=True):
    name: str
    ok: bool
    text: str


class Explanation(Struct, frozen=True):
    service: str
    decision: str | None  # None: nothing was decided yet
    generation: int | None
    sites: dict[str, SiteWhy]
    shares: Shares
    tier: str
    shortfall: float
    refused: tuple[str, ...]  # why what would be better waits
    guards: tuple[Guard, ...]


def explain(frame: Frame, slice_: Slice, carried: Carried, decided: Desired | None = None) -> Explanation:
    """The reasons for what is served. carried: the room that services of higher priority leave.

    decided: what was decided on this very slice, to explain that decision; None: explain what is served now.
    """
    st = stage(frame, slice_)
    step = decide_service(frame, slice_, carried)
    desired = decided or slice_.desired
    shares = desired.shares if desired else {}
    loads = load(frame, shares)
    evidence = _evidence(frame, slice_)
    sites: dict[str, SiteWhy] = {}
    for site, standing in st.standings.items():
        state = (decided.sites.get(site) if decided else None) or st.states[site]
        sites[site] = SiteWhy(
            rule=standing.rule,
            reason=standing.reason,
            verdict="held" if state.held else state.verdict,
            tally=st.judged[site].tally,
            load=round(loads.get(site, 0.0), 3),
            phase=state.phase,
            evidence=tuple(e for at, e in evidence if at == site),
        )
    return Explanation(
        service=frame.service,
        decision=(desired.decision or None) if desired else None,
        generation=desired.generation if desired else None,
        sites=sites,
        shares=shares,
        tier=desired.tier if desired else "",
        shortfall=desired.shortfall if desired else frame.demand,
        refused=tuple(f"{event.rule}: {event.reason}" for event in step.refused),
        guards=_guards(frame, desired, sum(1 for s in st.standings.values() if s.take in (FULL, RAMP))),
    )


def _evidence(frame: Frame, slice_: Slice) -> list[tuple[str, Evidence]]:
    width, found = len(slice_.vantages), []
    min_vantages = frame.spec.policy.quorum.min_vantages
    for index, row in enumerate(watched(frame, slice_.desired)):
        votes = slice_.votes[index * width : (index + 1) * width]
        own_votes = len(voters(votes, min_vantages)) == sum(1 for vote in votes if counts(vote))
        for vantage, vote in zip(slice_.vantages, votes, strict=True):
            own = bool(vote & Vote.OWN)
            found.append(
                (
                    row.site,
                    Evidence(
                        vantage=vantage,
                        target=row.id,
                        health="UP" if vote & Vote.UP else "DOWN" if vote & Vote.DOWN else "UNKNOWN",
                        reason=slice_.reasons.get(f"{vantage}/{row.id}", "silent" if not vote & Vote.FRESH else ""),
                        fresh=bool(vote & Vote.FRESH),
                        votes=counts(vote) and (own_votes or not own),
                        own=own,
                    ),
                )
            )
    return found


def _guards(frame: Frame, desired: Desired | None, serving: int) -> tuple[Guard, ...]:
    if desired is None:
        return (Guard("never_empty", False, "nothing is served yet"),)
    limit = frame.spec.policy.guards.min_sites
    empty = not all(desired.shares.values())
    served = "nothing is served" if empty else f"last resort: {desired.tier}" if desired.tier else "served"
    fits = "the demand fits" if not desired.shortfall else f"{desired.shortfall:g} of {frame.demand:g} has no room"
    return (
        Guard("never_empty", not empty and not desired.tier, served),
        Guard("min_sites", serving >= limit, f"{serving} may serve, {limit} needed"),
        Guard("capacity", not desired.shortfall, fits),
    )
