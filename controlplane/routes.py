"""Who writes and who answers for each DNS name, as one configuration has it, seen from one site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controlplane.dns.questions import Probe
from controlplane.dns.verify import by_server, drivers_for, entries_by_server, servers_of
from controlplane.lens import Lens, dns_lens, pool_lens
from policies.timing import zone_of
from policies.topology import Config


class Routes:
    """`beside`: zone -> servers that only the zone's NS set names. `known`: how to ask any server; `probes`: how to ask
    each, with the keys of this site's drivers ("" = with all that can be had)."""

    def __init__(
        self, config: Config, site: str, beside: Mapping[str, tuple[str, ...]], known: Sequence[Probe] = (Probe(""),)
    ) -> None:
        self.config, self.site, self.beside = config, site, beside
        self.owners = {spec.dns.name: service for service, spec in config.services.items() if spec.dns}
        self.lenses = {d.name: dns_lens(config, d) for d in config.dns}
        self.pool = pool_lens(config, site)
        self.zones = tuple(dict.fromkeys(z for d in config.dns if site in d.writers for z in d.zones))
        self._servers = {d.name: servers_of(d) for d in config.dns}
        self._routes: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._drivers = {server: entry.name for server, entry in entries_by_server(config, beside).items()}
        self._known = known
        self.reread_keys()

    def reread_keys(self) -> None:
        """Their secrets may be others now. Blocks while they are read."""
        self.probes = by_server(self.config, self._known, self.beside, self.site)

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
