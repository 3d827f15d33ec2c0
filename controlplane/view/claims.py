"""What agents say of fences that are ahead of desired: the store was rewound, and this is what is served."""

from __future__ import annotations

from collections.abc import Collection

from controlplane.documents import Applied, AppliedDoc
from controlplane.view.shares import ahead_shares, pool_shares
from policies.express import region_of
from policies.topology import Config
from policies.world import Ahead


class Claims:
    """By applied document, "<writer>/<site>/<driver>/<shard>"."""

    def __init__(self) -> None:
        self._docs: dict[str, tuple[str, dict[str, Applied]]] = {}  # its site; service -> what was found ahead

    def take(self, name: str, document: AppliedDoc | None) -> set[str]:
        """A document is this now (None: gone). Returns the services of which something else may be claimed."""
        before = self._docs.pop(name, ("", {}))[1]
        found = {s: done for s, done in document.services.items() if done.result == "ahead"} if document else {}
        if document is not None and found:
            self._docs[name] = (document.site, found)
        return {*before, *found}

    def services(self) -> set[str]:
        return {service for _, found in self._docs.values() for service in found}

    def highest(self, service: str, least: int, config: Config | None) -> Ahead | None:
        """The highest fence, of generation `least` or beyond, and the shares that are served under it.

        Of each region those count that were read for that very region; then what a server without regions answers
        everybody; then what the pool of a site in it has. Regions of which nothing is known are left out."""
        there = [(site, found[service]) for _, (site, found) in sorted(self._docs.items()) if service in found]
        generation = max((done.ahead_generation for _, done in there), default=least - 1)
        if generation < least:
            return None
        regions = tuple(config.regions) if config else ()
        exact: dict[str, dict[str, int]] = {}
        everybody: dict[str, dict[str, int]] = {}
        pools: dict[str, dict[str, int]] = {}
        for site, done in there:
            if done.ahead_generation != generation:
                continue
            if config is not None and (shares := pool_shares(done.ahead_answers)):
                pools.setdefault(region_of(config, site), shares)
                continue
            for region, shares in ahead_shares(done.ahead_answers).items():
                if region:
                    exact.setdefault(region, shares)
                else:
                    everybody = everybody or _each(regions, shares)
        return Ahead(generation, {**pools, **everybody, **exact})


def _each(regions: Collection[str], shares: dict[str, int]) -> dict[str, dict[str, int]]:
    return {region: dict(shares) for region in regions}
