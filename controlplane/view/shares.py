"""Shares read back from answers: what a fence that is ahead of `desired` serves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policies.express import SERVER
from policies.topology import Config
from policies.world import Answer, Desired


def pool_shares(answers: Iterable[Answer]) -> dict[str, int]:
    """Site -> whole percent, from the weights of a pool's servers; {} for what is no pool's."""
    sites: dict[str, int] = {}
    for answer in answers:
        if answer.rtype == SERVER:
            sites[answer.site] = sites.get(answer.site, 0) + answer.weight
    return _percent(sites)


def homes(config: Config | None, desired: Desired | None, service: str) -> dict[str, str]:
    """Address -> site: of what is known to be served, and of what the configuration has now."""
    known = desired.sites if desired else {}
    home = {address: site for site, state in sorted(known.items()) for address in state.addresses}
    spec = config.services.get(service) if config else None
    return home | {address: site for site, found in (spec.endpoints if spec else {}).items() for address in found}


def ahead_shares(answers: Iterable[Answer], home: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Region -> site -> whole percent, adding up to 100, from the weights (of the A records, if there are any).
    Region "" = everybody; regions of which nothing is known are left out.

    home: address -> site, for answers that were read from a name server, which does not know of sites. An address that
    is in none, and what could not be made out (weight 0), says nothing about sites."""
    weights: dict[str, dict[str, dict[str, int]]] = {}
    for answer in answers:
        site = answer.site or home.get(answer.address, "")
        if site and answer.weight > 0:
            sites = weights.setdefault(answer.region, {}).setdefault(answer.rtype, {})
            sites[site] = sites.get(site, 0) + answer.weight
    shares = {region: _percent(rows.get("A") or rows.get("AAAA") or {}) for region, rows in sorted(weights.items())}
    return {region: sites for region, sites in shares.items() if sites}


def _percent(weights: dict[str, int]) -> dict[str, int]:
    """Largest remainder; a tie goes by name."""
    total = sum(weights.values())
    if total <= 0:
        return {}
    whole = {site: 100 * weight // total for site, weight in weights.items()}
    spare = 100 - sum(whole.values())
    order = sorted(weights, key=lambda site: (-(100 * weights[site] % total), site))
    for site in order[:spare]:
        whole[site] += 1
    return {site: whole[site] for site in sorted(whole) if whole[site] > 0}
