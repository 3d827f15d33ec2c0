"""What agents say of fences that are ahead of desired: the store was rewound, and this is what is served."""

from __future__ import annotations

from collections.abc import Collection

from controlplane.dns.fencing import LEAP
from controlplane.documents import Applied, AppliedDoc
from controlplane.drivers import Fence
from controlplane.view.shares import ahead_shares, homes, pool_shares
from policies.express import region_of
from policies.topology import Config
from policies.world import Ahead, Desired

# From the first claim until it is acted on: a server without weights or regions must not be taken at its word just
# because its agent was the first to speak.
HEAR_ALL_S = 1.0


class Claims:
    """By applied document, "<writer>/<site>/<driver>/<shard>"."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}  # service -> when the first of its claims came
        self._young: set[str] = set()  # those of them that are not to be acted on yet
        self._docs: dict[str, tuple[str, dict[str, Applied]]] = {}  # its site; service -> what was found ahead

    def take(self, name: str, document: AppliedDoc | None, now: float) -> set[str]:
        """A document is this now (None: gone). Returns the services of which something else may be claimed."""
        before = self._docs.pop(name, ("", {}))[1]
        found = {s: done for s, done in document.services.items() if done.result == "ahead"} if document else {}
        if document is not None and found:
            self._docs[name] = (document.site, found)
        if before or found:
            claimed = self.services()
            self._young = (self._young | (found.keys() - self._since.keys())) & claimed
            self._since = {service: self._since.get(service, now) for service in claimed}
        return {*before, *found}

    @property
    def any_young(self) -> bool:
        return bool(self._young)

    def young(self, service: str) -> bool:
        """Others may still have something to say of it."""
        return service in self._young

    def ripen(self, now: float) -> set[str]:
        """Services of which all is said by now; each once."""
        ripe = {service for service in self._young if now >= self._since[service] + HEAR_ALL_S}
        self._young -= ripe
        return ripe

    def services(self) -> set[str]:
        return {service for _, found in self._docs.values() for service in found}

    def decisions(self, service: str, least: int) -> set[str]:
        """What the fences found ahead of generation `least`, or at it, say of the decisions that made them."""
        rows = [found[service] for _, found in self._docs.values() if service in found]
        fences = [Fence.parse(done.reason) for done in rows if least <= done.ahead_generation <= least + LEAP]
        return {fence.decision if fence else "" for fence in fences}

    def highest(self, service: str, desired: Desired | None, config: Config | None) -> Ahead | None:
        """The highest fence, of desired's generation or beyond, and the shares that are served under it.

        Of each region those count that were read for that very region; then what a server without regions answers
        everybody; then what the pool of a site in it has. Regions of which nothing is known are left out."""
        least = desired.generation if desired else 0
        there = [(site, found[service]) for _, (site, found) in sorted(self._docs.items()) if service in found]
        there = [(site, done) for site, done in there if done.ahead_generation <= least + LEAP]
        generation = max((done.ahead_generation for _, done in there), default=least - 1)
        if generation < least:
            return None
        regions = tuple(config.regions) if config else ()
        home = homes(config, desired, service)
        exact: dict[str, dict[str, int]] = {}
        everybody: dict[str, dict[str, int]] = {}
        pools: dict[str, dict[str, int]] = {}
        for site, done in there:
            if done.ahead_generation != generation:
                continue
            if config is not None and (shares := pool_shares(done.ahead_answers)):
                pools.setdefault(region_of(config, site), shares)
                continue
            for region, shares in ahead_shares(done.ahead_answers, home).items():
                if region:
                    exact.setdefault(region, shares)
                else:
                    everybody = everybody or _each(regions, shares)
        return Ahead(generation, {**pools, **everybody, **exact})


def _each(regions: Collection[str], shares: dict[str, int]) -> dict[str, dict[str, int]]:
    return {region: dict(shares) for region in regions}
