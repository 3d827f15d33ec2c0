"""What desired looks like where not all of it can be said (DESIGN 4.5). Pure.

A driver is handed what it can express, and reads back exactly that; who asks a name server compares with the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import lcm

from msgspec.structs import replace

from policies.topology import Config
from policies.world import Answer, Desired

SERVER = "SERVER"  # rtype of a pool's rows: the address is a server's name
LEAST_PERCENT = 10  # without weights a site with less is left out
MOST_WEIGHT = 100  # of a pool's server

_Shares = dict[str, Fraction]  # site -> its part of 1


def expressed(desired: Desired, can_geo: bool, can_weights: bool, demand: Mapping[str, float]) -> Desired:
    """Desired as a name server without these abilities can say it; `demand`: region -> demand of the service.

    Without geo there is one set of answers, for region "": each site has its demand-weighted part over the regions
    (equal parts where no region has any), of each address family as it was rendered, in whole percent. Without
    weights every site with at least 10 % of the answers is named, and at least the largest; each address has
    weight 1. Never empty unless desired is.
    """
    answers = desired.answers
    if not can_geo:
        answers = tuple(a for rtype in _rtypes(answers) for a in _everywhere(_of(answers, rtype), demand))
    if not can_weights:
        answers = tuple(a for rows in _sets(answers).values() for a in _unweighted(rows))
    return desired if answers is desired.answers else replace(desired, answers=answers)


def pooled(config: Config, site: str, desired: Desired) -> Desired | None:
    """Desired as the pool at `site` takes it: a row for every server of the service, of its weight 0 to 100
    (0 = drain), under the name of the backend.

    The shares are those of the site's own region; a site's share is split evenly over its servers. Where that gives
    whole numbers the weights are percentages that add up to 100; else they are in the same proportions, the
    highest 100, and none of a site that has a share is under 1. None: the service has no pool there, or desired
    names no site that has servers (then what is set stays: no pool is ever emptied).
    """
    spec = config.services.get(desired.service)
    if spec is None or spec.pools is None or not has_pool(config, site, desired):
        return None
    servers = spec.pools.servers
    shares = _shares_at(config, site, desired)
    parts = {s: Fraction(share, len(servers[s])) for s, share in shares.items() if servers.get(s)}
    whole = all(part.denominator == 1 for part in parts.values())
    scale = Fraction(1) if whole else MOST_WEIGHT / max(parts.values())
    rows = tuple(
        Answer("", SERVER, server, s, _weight(parts.get(s, Fraction(0)) * scale))
        for s in sorted(servers)
        for server in servers[s]
    )
    return replace(desired, name=spec.pools.backend, ttl_s=0, answers=rows)


def has_pool(config: Config, site: str, desired: Desired) -> bool:
    """Is there anything that the pool at a site can be told?"""
    spec = config.services.get(desired.service)
    if spec is None or spec.pools is None or site not in spec.pools.servers:
        return False
    servers = spec.pools.servers
    return any(share and servers.get(s) for s, share in _shares_at(config, site, desired).items())


def region_of(config: Config, site: str) -> str:
    """A site's own region: the one that has its country, else the default."""
    country = config.sites[site].country if site in config.sites else ""
    named = next((name for name, region in config.regions.items() if country and country in region.countries), "")
    return named or next((name for name, region in config.regions.items() if region.default), "")


def _shares_at(config: Config, site: str, desired: Desired) -> Mapping[str, int]:
    """Of the site's region; of the default region, or of any, where desired does not know that one yet."""
    default = next((name for name, region in config.regions.items() if region.default), "")
    for region in (region_of(config, site), default, *sorted(desired.shares)):
        if any(desired.shares.get(region, {}).values()):
            return desired.shares[region]
    return {}


def _weight(part: Fraction) -> int:
    """To the nearest whole number; what has any part at all gets new sessions."""
    return max(1, int(part + Fraction(1, 2))) if part else 0


# ---- sets of answers


def _rtypes(answers: Sequence[Answer]) -> list[str]:
    return sorted({a.rtype for a in answers})


def _of(answers: Sequence[Answer], rtype: str) -> list[Answer]:
    return [a for a in answers if a.rtype == rtype]


def _sets(answers: Sequence[Answer]) -> dict[tuple[str, str], list[Answer]]:
    """By region and family, in their order."""
    found: dict[tuple[str, str], list[Answer]] = {}
    for answer in answers:
        found.setdefault((answer.region, answer.rtype), []).append(answer)
    return found


def _parts(rows: Sequence[Answer]) -> _Shares:
    """Site -> its part of one set's answers; equal parts where nothing weighs anything."""
    total = sum(a.weight for a in rows)
    parts: _Shares = {}
    for a in rows:
        part = Fraction(a.weight, total) if total else Fraction(1, len(rows))
        parts[a.site] = parts.get(a.site, Fraction(0)) + part
    return parts


def _everywhere(rows: Sequence[Answer], demand: Mapping[str, float]) -> list[Answer]:
    """One family's answers of all regions as one set."""
    regions = _sets(rows)
    weighs = {region: Fraction(max(0.0, demand.get(region, 0.0))) for region, _ in regions}
    if not any(weighs.values()):
        weighs = dict.fromkeys(weighs, Fraction(1))
    parts: _Shares = {}
    for (region, _), set_ in regions.items():
        for site, part in _parts(set_).items():
            parts[site] = parts.get(site, Fraction(0)) + part * weighs[region]
    percent = _percent(parts)
    addresses: dict[str, dict[str, None]] = {}
    for a in rows:
        addresses.setdefault(a.site, {})[a.address] = None
    split = lcm(*(len(addresses[site]) for site in percent))
    return [
        Answer("", rows[0].rtype, address, site, percent[site] * split // len(addresses[site]))
        for site in percent
        for address in addresses[site]
    ]


def _percent(parts: _Shares) -> dict[str, int]:
    """Whole percentages that add up to 100, by site; remainders go to the largest ones, a tie by name."""
    total = sum(parts.values())
    exact = {site: 100 * part / total for site, part in sorted(parts.items())}
    whole = {site: int(part) for site, part in exact.items()}
    short = 100 - sum(whole.values())
    for site in sorted(exact, key=lambda s: (whole[s] - exact[s], s))[:short]:
        whole[site] += 1
    return {site: share for site, share in whole.items() if share}


def _unweighted(rows: Sequence[Answer]) -> list[Answer]:
    """One set's answers, each alike; a site that has too little is not named."""
    parts = _parts(rows)
    largest = max(sorted(parts), key=lambda site: parts[site])
    named = {site for site, part in parts.items() if 100 * part >= LEAST_PERCENT} | {largest}
    return [replace(a, weight=1) for a in rows if a.site in named]
