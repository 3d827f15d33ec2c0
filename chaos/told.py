"""What clients of a region are to be told by a name server after a decision: as its driver can express that, picked as
a name server picks (DESIGN 4.5, 5). Pure."""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.lens import Lens, dns_lens
from policies.timing import zone_of
from policies.topology import Config
from policies.world import Answer, Desired

SERVED = ("A", "AAAA")


def primary(server: str) -> str:
    """The name server that a secondary ("site-a/2") follows."""
    return server.partition("/")[0]


class Told:
    """By one configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._default = next((name for name, region in config.regions.items() if region.default), "")
        self._lenses: dict[tuple[str, str], list[Lens]] = {}

    def serves(self, server: str, service: str) -> bool:
        """Is it, or what it follows, configured for the service's name?"""
        return bool(self._of(primary(server), service))

    def sites(self, server: str, desired: Desired, region: str) -> Iterator[frozenset[str]]:
        """The sites in its answers, over all address families; of each driver at that site that has the name."""
        for lens in self._of(primary(server), desired.service):
            said = lens(desired)
            rows = said.answers if said is not None else ()
            yield frozenset(row.site for rtype in SERVED for row in self._picked(rows, region, rtype))

    def _of(self, site: str, service: str) -> list[Lens]:
        key = (site, service)
        if key not in self._lenses:
            spec = self._config.services.get(service)
            name = spec.dns.name if spec is not None and spec.dns is not None else ""
            entries = [entry for entry in self._config.dns if entry.site == site and zone_of(name, entry.zones)]
            self._lenses[key] = [dns_lens(self._config, entry) for entry in entries]
        return self._lenses[key]

    def _picked(self, answers: tuple[Answer, ...], region: str, rtype: str) -> list[Answer]:
        """The region's, else the default one's, else those of any one region."""
        rows = [row for row in answers if row.rtype == rtype and row.weight > 0]
        for each in (region, self._default, rows[0].region if rows else ""):
            if mine := [row for row in rows if row.region == each]:
                return mine
        return []
