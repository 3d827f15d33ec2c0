"""Shares read back from answers: what a fence that is ahead of `desired` serves."""

from __future__ import annotations

from collections.abc import Iterable

from policies.express import SERVER
from policies.world import Answer


def pool_shares(answers: Iterable[Answer]) -> dict[str, int]:
    """Site -> whole percent, from the weights of a pool's servers; {} for what is no pool's."""
    sites: dict[str, int] = {}
    for answer in answers:
        if answer.rtype == SERVER:
            sites[answer.site] = sites.get(answer.site, 0) + answer.weight
    return _percent(sites)


def ahead_shares(answers: Iterable[Answer]) -> dict[str, dict[str, int]]:
    """Region -> site -> whole percent, adding up to 100, from the weights (of the A records, if there are any).
    Region "" = everybody."""
    weights: dict[str, dict[str, dict[str, int]]] = {}
    for answer in answers:
        sites = weights.setdefault(answer.region, {}).setdefault(answer.rtype, {})
        sites[answer.site] = sites.get(answer.site, 0) + answer.weight
    shares: dict[str, dict[str, int]] = {}
    for region in sorted(weights):
        family = weights[region].get("A") or weights[region].get("AAAA") or {}
        shares[region] = _percent(family)
    return shares


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
