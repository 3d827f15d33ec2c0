"""Desired as one driver can express it, worked out once for each desired."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from controlplane.dns import DRIVERS
from policies.express import expressed, pooled
from policies.topology import Config, DnsDriver
from policies.world import Desired


class Lens:
    """`project`: pure; None for what the driver has nothing to say of."""

    def __init__(self, project: Callable[[Desired], Desired | None]) -> None:
        self._project = project
        self._seen: dict[str, tuple[Desired, Desired | None]] = {}

    def __call__(self, desired: Desired) -> Desired | None:
        seen = self._seen.get(desired.service)
        if seen is None or seen[0] is not desired:
            seen = self._seen[desired.service] = (desired, self._project(desired))
        return seen[1]

    def all(self, desired: Mapping[str, Desired]) -> dict[str, Desired]:
        """By service; without those of which nothing is said."""
        found = ((service, self(d)) for service, d in desired.items())
        return {service: d for service, d in found if d is not None}


def dns_lens(config: Config, entry: DnsDriver) -> Lens:
    """What the name server of an entry of the configuration can be told."""
    kind = DRIVERS[entry.driver]
    can = kind.capabilities(kind.options_of(entry))

    def project(desired: Desired) -> Desired:
        spec = config.services.get(desired.service)
        return expressed(desired, can.geo, can.weights, spec.demand if spec else {})

    return Lens(project)


def pool_lens(config: Config, site: str) -> Lens:
    """What the pool at a site is told."""
    return Lens(partial(pooled, config, site))
