"""Where the load would settle: the full plan, if sites were lost, drained or the demand grew. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import combinations

from msgspec import Struct
from msgspec.structs import replace

from policies.frame import Frame, frames, usable
from policies.placing import Shares, load, overload, place
from policies.standing import FULL, NONE, RAMP, RELIEF, Standing
from policies.topology import Config

READY = Standing("ready", "assumed up", FULL)
LOST = Standing("failed", "assumed lost", NONE)
TAKEN_OUT = Standing("out", "assumed not to come back", NONE)
DRAINED = Standing("out", "assumed drained", NONE, "drained")


class Settled(Struct, frozen=True):
    """One service: region -> site -> percent; site -> rule; demand that has no room (`tier`: last resort)."""

    shares: Shares
    standing: dict[str, str]
    shortfall: float
    tier: str


class SiteLoad(Struct, frozen=True):
    """Demand units. `usable` is capacity times guards.max_utilisation, 0 at a lost site."""

    load: float
    usable: float
    capacity: float


class Left(Struct, frozen=True):
    """How many are left of what has to agree, and how many are needed."""

    left: int
    needed: int
    of: int


class WhatIf(Struct, frozen=True):
    services: dict[str, Settled]
    sites: dict[str, SiteLoad]
    voters: Left
    store: Left | None  # None: the configuration does not say where the store runs


class Present(Struct, frozen=True):
    """One service as it stands: what preflight and a live `whatif` start from."""

    frame: Frame
    standings: dict[str, Standing]
    cur: Shares


def settle(
    config: Config, lost: Collection[str] = (), drained: Collection[str] = (), demand_factor: float = 1.0
) -> WhatIf:
    """Everything is up and ready but for the sites named; needs no cluster."""
    if demand_factor != 1.0:
        config = scaled(config, demand_factor)
    before = [_assumed(frame, (), ()) for frame in frames(config).values()]
    base, _ = fold(before, usable(config), ())
    after = [_assumed(p.frame, lost, drained, base[p.frame.service].shares) for p in before]
    services, loads = fold(after, usable(config), lost)
    room = usable(config)
    sites = {
        name: SiteLoad(round(loads.get(name, 0.0), 3), 0.0 if name in lost else room[name], site.capacity)
        for name, site in config.sites.items()
        if site.role != "witness"
    }
    return WhatIf(services, sites, *agreement(config, lost))


def scaled(config: Config, factor: float) -> Config:
    """The same configuration with every demand times `factor`."""
    services = {
        name: replace(service, demand={region: demand * factor for region, demand in service.demand.items()})
        for name, service in config.services.items()
    }
    return replace(config, services=services)


def _assumed(frame: Frame, lost: Collection[str], drained: Collection[str], cur: Shares | None = None) -> Present:
    standings = {s: LOST if s in lost else DRAINED if s in drained else READY for s in frame.sites}
    return Present(frame, standings, cur or {region: {} for region in frame.regions})


def fold(
    present: Sequence[Present], room: Mapping[str, float], lost: Collection[str]
) -> tuple[dict[str, Settled], dict[str, float]]:
    """Place every service anew, in order, with these sites lost as well; also site -> load."""
    left = {site: 0.0 if site in lost else amount for site, amount in room.items()}
    loads: dict[str, float] = {}
    settled: dict[str, Settled] = {}
    for p in present:
        standings = {s: LOST if s in lost else standing for s, standing in p.standings.items()}
        # What is served at a dead site, for want of a better one, has no room there.
        mine = {site: 0.0 if site in standings and standings[site].rule == "failed" else x for site, x in left.items()}
        plan = place(p.frame, mine, standings, p.cur, sticky=False)
        over = overload(p.frame, mine, plan.shares) if all(plan.shares.values()) else p.frame.demand
        shortfall = round(over, 3) if over > p.frame.demand / 100 else 0.0
        rules = {site: standing.rule for site, standing in standings.items()}
        settled[p.frame.service] = Settled(plan.shares, rules, shortfall, plan.tier)
        for site, amount in load(p.frame, plan.shares).items():
            loads[site] = loads.get(site, 0.0) + amount
            left[site] = left.get(site, 0.0) - amount
    return settled, loads


def worst_loss(present: Sequence[Present], room: Mapping[str, float], n: int) -> tuple[tuple[str, ...], float]:
    """The n further sites whose loss leaves the largest shortfall, and that shortfall (demand units).

    What an operator took out counts as lost as well: it was taken out for a reason.
    """
    present = [
        replace(p, standings={s: TAKEN_OUT if x.rule == "out" else x for s, x in p.standings.items()}) for p in present
    ]
    takers = sorted(
        {s for p in present for s, standing in p.standings.items() if standing.take in (FULL, RAMP, RELIEF)}
    )
    worst: tuple[tuple[str, ...], float] = ((), -1.0)
    for lost in combinations(takers, min(n, len(takers))):
        settled, _ = fold(present, room, lost)
        shortfall = sum(s.shortfall for s in settled.values())
        if shortfall > worst[1]:
            worst = (lost, shortfall)
    return worst[0], max(0.0, worst[1])


def agreement(config: Config, lost: Collection[str] = (), mute: Collection[str] = ()) -> tuple[Left, Left | None]:
    """(vantages, store members) that are left without these sites, and how many have to agree.

    mute: sites whose vantage says nothing that counts now, whatever else is lost.
    """
    there = [s for s in config.sites if s not in lost and s not in mute]
    voters = Left(len(there), config.policy.quorum.min_vantages, len(config.sites))
    members = config.store_members
    if not members:
        return voters, None
    return voters, Left(len([m for m in members if m not in lost]), len(members) // 2 + 1, len(members))


def dead(present: Sequence[Present]) -> set[str]:
    """Sites that failed for every service that they have."""
    here = {s: [p.standings[s].rule for p in present if s in p.standings] for p in present for s in p.standings}
    return {s for s, rules in here.items() if all(rule == "failed" for rule in rules)}
