"""Demand onto sites: steering, capacity, whole shares, and the answers that say them (DESIGN 4.5). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import lcm

from msgspec import Struct

from policies.frame import Frame
from policies.standing import FULL, KEEP, LADDER, NONE, RAMP, RELIEF, Standing
from policies.world import Answer, Desired

Shares = dict[str, dict[str, int]]  # region -> site -> percent, only sites over 0

VANISHING = 1e-6  # the demand of a region without any
EPS = 1e-9


class Plan(Struct, frozen=True):
    """`tier`: the class of last resort that was used, or ""."""

    shares: Shares
    tier: str


class _Placing:
    """One placing in progress. Sites and regions are visited in sorted order, so that the order in the file
    cannot change a float's last bit."""

    def __init__(self, frame: Frame, room: Mapping[str, float], standings: Mapping[str, Standing], cur: Shares):
        self.frame = frame
        self.standings = standings
        self.cur = cur
        self.sites = sorted(standings)
        self.room = {site: max(0.0, room.get(site, 0.0)) for site in self.sites}
        self.start_room = dict(self.room)
        self.demand = {r: frame.spec.demand.get(r) or VANISHING for r in frame.regions}
        self.left = dict(self.demand)
        self.amount: dict[str, dict[str, float]] = {r: {} for r in frame.regions}
        self.cap: dict[str, dict[str, float]] = {r: self._caps(r) for r in frame.regions}
        # Sites that are still served and that the configuration no longer has come after all others.
        strangers = tuple(s for s in self.sites if s not in frame.sites)
        self.groups = {r: (*frame.preference[r], strangers) for r in frame.regions}

    def _caps(self, region: str) -> dict[str, float]:
        caps: dict[str, float] = {}
        for site, standing in self.standings.items():
            has = self.cur[region].get(site, 0)
            if standing.take == KEEP:
                caps[site] = has * self.demand[region] / 100
            elif standing.take == RAMP:
                caps[site] = max(standing.cap_percent, has) * self.demand[region] / 100
        return caps

    def grant(self, region: str, site: str, amount: float) -> None:
        self.amount[region][site] = self.amount[region].get(site, 0.0) + amount
        self.left[region] = max(0.0, self.left[region] - amount)
        self.room[site] = max(0.0, self.room[site] - amount)

    def keep(self, sites: list[str]) -> None:
        """Present shares stay, as far as there is room; a region without demand needs none."""
        for site in sites:
            wanted = {
                r: min(share * self.demand[r] / 100, self.left[r])
                for r in self.frame.regions
                if (share := self.cur[r].get(site, 0))
            }
            real = sum(amount for r, amount in wanted.items() if self.demand[r] > VANISHING)
            fits = min(1.0, self.room[site] / real) if real > EPS else 1.0
            for r, amount in wanted.items():
                self.grant(r, site, amount * fits if self.demand[r] > VANISHING else amount)

    def fill(self, sites: list[str]) -> None:
        """Up to their caps, whether there is room or not."""
        for region in self.frame.regions:
            for site in sites:
                self.grant(region, site, min(self.left[region], self._under_cap(region, site, capped=True)))

    def rounds(self, sites: list[str], capped: bool) -> None:
        """Every region with demand left asks its most preferred site that has room; a site that is asked for
        more than it has grants in proportion; until all is placed or nothing has room."""
        while True:
            asks: dict[str, dict[str, float]] = {}
            for region in self.frame.regions:
                for site, amount in self._ask(region, sites, capped):
                    asks.setdefault(site, {})[region] = amount
            if not asks:
                return
            for site in sorted(asks):
                asked = sum(asks[site].values())
                factor = min(1.0, self.room[site] / asked)
                for region, amount in asks[site].items():
                    self.grant(region, site, amount * factor)
                if factor < 1.0:
                    self.room[site] = 0.0  # exactly: a crumb of room would be asked for again

    def _ask(self, region: str, sites: list[str], capped: bool) -> list[tuple[str, float]]:
        left = self.left[region]
        if left <= self.demand[region] * EPS:
            return []
        for group in self.groups[region]:
            open_ = [s for s in group if s in sites and self.room[s] > EPS and self._under_cap(region, s, capped) > 0]
            if not open_:
                continue
            if len(open_) == 1:
                return [(open_[0], min(left, self._under_cap(region, open_[0], capped)))]
            weights = self.frame.spec.steering.weights
            # Who weighs nothing is asked when those who do have no room.
            weighed = {s: weights[s] for s in open_ if weights.get(s)} or dict.fromkeys(open_, 1)
            total = sum(weighed.values())
            parts = {s: weight / total for s, weight in weighed.items()}
            return [(s, min(left * part, self._under_cap(region, s, capped))) for s, part in parts.items()]
        return []

    def _under_cap(self, region: str, site: str, capped: bool) -> float:
        if not capped or site not in self.cap[region]:
            return self.left[region]
        under = self.cap[region][site] - self.amount[region].get(site, 0.0)
        return under if under > self.demand[region] * EPS else 0.0

    def spread(self, sites: list[str], kept: Sequence[str] = ()) -> None:
        """What is left over, in proportion to usable capacity (to capacity, if none is left). `kept`: who may only keep
        what it has bears its part too, up to that; an overload must not take from it what a verdict did not."""
        parts, shared = self._parts(sites), self._parts([*sites, *kept])
        for region in self.frame.regions:
            left = self.left[region]
            if left > self.demand[region] * EPS:
                for site in kept:
                    self.grant(region, site, min(left * shared[site], self._under_cap(region, site, capped=True)))
                left = self.left[region]
                for site in sites:
                    self.grant(region, site, left * parts[site])
            self.left[region] = 0.0

    def _parts(self, sites: list[str]) -> dict[str, float]:
        """Of 1, in proportion to the room that each had, else to its capacity."""
        size = {s: self.start_room[s] for s in sites}
        if sum(size.values()) <= EPS:
            size = {s: self.frame.capacity.get(s, 0.0) for s in sites}
        if sum(size.values()) <= EPS:
            size = dict.fromkeys(sites, 1.0)
        total = sum(size.values())
        return {s: size[s] / total for s in sites}

    def rest(self) -> float:
        """Demand that has no place yet; a region without demand counts as next to nothing, not as nothing."""
        return sum(left for r, left in self.left.items() if left > self.demand[r] * EPS)

    def whole(self) -> Shares:
        """Whole percentages by largest remainder: to sites with room for one percent more, else to the
        preferred one; over the cap of a site that may only keep what it has only if no other can take it.
        Where the present shares are a rounding of the same amounts, they stay: a percent is not worth a move."""
        return {region: self._whole(region) for region in self.frame.regions}

    def _whole(self, region: str) -> dict[str, int]:
        demand = self.demand[region]
        exact = {s: a * 100 / demand for s, a in sorted(self.amount[region].items()) if a > demand * EPS}
        if len(exact) == 1 and not self.left[region]:
            return dict.fromkeys(exact, 100)
        now = self.cur[region]
        if sum(now.values()) == 100 and all(abs(now.get(s, 0) - exact.get(s, 0)) < 1 - 1e-6 for s in {*now, *exact}):
            return dict(now)
        shares = {s: int(value + 1e-6) for s, value in exact.items()}
        caps = {s: self.cap[region][s] * 100 / demand for s in exact if s in self.cap[region]}
        ranks = [s for group in self.groups[region] for s in group]

        def order(site: str) -> tuple[bool, bool, float, int]:
            at_cap = site in caps and exact[site] - 1e-6 <= caps[site] <= shares[site] + 1e-6
            roomy = self.room[site] >= (shares[site] + 1 - exact[site]) * demand / 100
            return (at_cap, not roomy, -round(exact[site] - shares[site], 6), ranks.index(site))

        for _ in range(100 - sum(shares.values()) if shares else 0):
            chosen = min(shares, key=order)
            self.room[chosen] = max(0.0, self.room[chosen] - (shares[chosen] + 1 - exact[chosen]) * demand / 100)
            shares[chosen] += 1
        return {s: share for s, share in shares.items() if share}


def place(
    frame: Frame, room: Mapping[str, float], standings: Mapping[str, Standing], cur: Shares, sticky: bool
) -> Plan:
    """The forced plan (sticky: who may keep its share, does) or the full plan (placed anew)."""
    p = _Placing(frame, room, standings, cur)
    take = {site: standings[site].take for site in p.sites}
    trusted = [s for s in p.sites if take[s] in (FULL, RAMP, KEEP)]
    ramping = [s for s in p.sites if take[s] == RAMP and not standings[s].flaps]
    soaking = [s for s in p.sites if take[s] == RELIEF]
    if sticky:
        p.keep([s for s in p.sites if take[s] != NONE])
    p.rounds(trusted, capped=True)
    # Who ramps is asked first: were both asked at once, overflow would drift from one to the other, move by move.
    for relief in (ramping, soaking):
        if p.rest():
            p.rounds(relief, capped=False)
    tier = ""
    if p.rest():
        open_ = [s for s in p.sites if take[s] in (FULL, RELIEF, RAMP)]
        if open_:
            p.spread(open_, [s for s in p.sites if take[s] == KEEP])
        else:
            # Who may keep what it has keeps it, room or not: better too much there than anything on a last resort.
            p.fill([s for s in p.sites if take[s] == KEEP])
            if p.rest():
                tier = _last_resort(p)
    return Plan(p.whole(), tier)


def _last_resort(p: _Placing) -> str:
    """The first class of LADDER that has a site takes the rest; present shares are kept within it."""
    carrying = [s for s in p.sites if any(p.cur[r].get(s) for r in p.frame.regions)]
    for tier in LADDER:
        if tier == "last served":
            if not carrying:
                return ""
            for region in p.frame.regions:
                total, left = sum(p.cur[region].values()), p.left[region]
                for site, share in sorted(p.cur[region].items()):
                    p.grant(region, site, left * share / total)
            return tier
        sites = [s for s in p.sites if p.standings[s].ladder == tier]
        if sites:
            p.keep([s for s in sites if s in carrying])
            p.rounds(sites, capped=False)
            p.spread(sites)
            return tier
    return ""


def carriers(shares: Shares) -> frozenset[str]:
    """The sites that have a share of any region."""
    return frozenset(site for region in shares.values() for site, share in region.items() if share)


def load(frame: Frame, shares: Shares) -> dict[str, float]:
    """Site -> demand that these shares send there."""
    loads: dict[str, float] = {}
    for region in frame.regions:
        demand = frame.spec.demand.get(region, 0.0)
        for site, share in sorted(shares.get(region, {}).items()):
            loads[site] = loads.get(site, 0.0) + demand * share / 100
    return loads


def overload(frame: Frame, room: Mapping[str, float], shares: Shares) -> float:
    """Demand beyond the room of the sites that these shares name."""
    return sum(max(0.0, amount - max(0.0, room.get(s, 0.0))) for s, amount in sorted(load(frame, shares).items()))


def moved(frame: Frame, before: Shares, after: Shares) -> float:
    """Demand that goes elsewhere."""
    return sum(
        frame.spec.demand.get(region, 0.0)
        * sum(max(0, share - before[region].get(site, 0)) for site, share in after[region].items())
        / 100
        for region in frame.regions
    )


def render(
    frame: Frame,
    shares: Shares,
    standings: Mapping[str, Standing],
    addresses: Mapping[str, tuple[str, ...]],
    before: Desired | None,
    still: bool,
) -> tuple[Answer, ...]:
    """The answers that say these shares: each address family's are the shares renormalised over the sites that
    have the family, and if that is empty, the best standing site that has it (`still`: the one that had it)."""
    if frame.spec.dns is None:
        return ()
    served = {(a.region, a.rtype, a.site) for a in before.answers} if before else set()
    wanted = {rtype for mine in frame.spec.endpoints.values() for rtype in ("A", "AAAA") if _family(mine, rtype)}
    answers: list[Answer] = []
    families = {
        rtype: {s: mine for s in sorted(addresses) if (mine := _family(addresses[s], rtype))} for rtype in ("A", "AAAA")
    }
    for region in frame.regions:
        for rtype, have in families.items():
            chosen = {s: share for s, share in sorted(shares[region].items()) if s in have}
            if not chosen and have and rtype in wanted:
                now = {s for s in have if (region, rtype, s) in served}
                chosen = {_best(frame, region, sorted(now if still and now else have), standings, now): 100}
            # A site's weight is split over its addresses, so that two addresses do not double it.
            split = lcm(*(len(have[s]) for s in chosen)) if chosen else 1
            answers += [
                Answer(region, rtype, address, site, share * split // len(have[site]))
                for site, share in chosen.items()
                for address in have[site]
            ]
    return tuple(answers)


@lru_cache(maxsize=65536)
def _family(addresses: tuple[str, ...], rtype: str) -> tuple[str, ...]:
    return tuple(a for a in addresses if (":" in a) == (rtype == "AAAA"))


def _best(frame: Frame, region: str, sites: list[str], standings: Mapping[str, Standing], served: set[str]) -> str:
    """The best standing of these sites; of equals one that is served already, then the preferred. Who may only
    keep what it has is as good as any while it is served, and a last resort otherwise."""
    takes = (FULL, RAMP, RELIEF)
    ranks = [s for group in frame.preference[region] for s in group]

    def rank(site: str) -> tuple[int, bool, int]:
        standing = standings[site]
        if standing.take in takes:
            level = takes.index(standing.take)
        elif standing.take == KEEP and site in served:
            level = 0
        else:
            level = len(takes) + (LADDER.index(standing.ladder) if standing.ladder else len(LADDER))
        return (level, site not in served, ranks.index(site) if site in ranks else len(ranks))

    return min(sites, key=rank)
