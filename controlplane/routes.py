"""Who writes and who answers for each DNS name, as one configuration has it, seen from one site."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.dns.verify import drivers_for, servers_of
from controlplane.lens import Lens, dns_lens, pool_lens
from policies.timing import zone_of
from policies.topology import Config


class Routes:
    """`beside`: zone -> servers that only the zone's NS set names."""

    def __init__(self, config: Config, site: str, beside: Mapping[str, tuple[str, ...]]) -> None:
        self.config, self.site, self.beside = config, site, beside
        self.owners = {spec.dns.name: service for service, spec in config.services.items() if spec.dns}
        self.lenses = {d.name: dns_lens(config, d) for d in config.dns}
        self.pool = pool_lens(config, site)
        self.zones = tuple(dict.fromkeys(z for d in config.dns if site in d.writers for z in d.zones))
        self._servers = {d.name: servers_of(d) for d in config.dns}
        self._routes: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._drivers: dict[str, str] = {}  # of each server: whose lens its answers are seen through
        for driver in config.dns:
            for server in self._servers[driver.name]:
                self._drivers.setdefault(server, driver.name)
        for zone, servers in beside.items():
            named = next((d.name for d in config.dns if zone in d.zones), "")
            for server in servers if named else ():
                self._drivers.setdefault(server, named)

    def known(self, name: str) -> bool:
        return name in self._routes

    def of(self, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(this site's drivers that write a name, servers that answer for it if there is such a driver)."""
        if name not in self._routes:
            writing = drivers_for(self.config, name)
            mine = tuple(d.name for d in writing if self.site in d.writers)
            servers = [server for d in writing for server in self._servers[d.name]]
            servers += [server for d in writing for server in self.beside.get(zone_of(name, d.zones), ())]
            self._routes[name] = (mine, tuple(dict.fromkeys(servers)) if mine else ())
        return self._routes[name]

    def lens_of(self, server: str) -> Lens | None:
        return self.lenses.get(self._drivers.get(server, ""))

    def is_beside(self, server: str) -> bool:
        return any(server in servers for servers in self.beside.values())
