"""The name servers of the simulated world: which there are, who follows whom, and what clients are told there. What
one holds is in server.py, writers and askers are in writers.py."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from chaos.scenario import CLIENTS
from chaos.worlds.loop import Kernel
from chaos.worlds.sim.network import Network, Undo, resent_s
from chaos.worlds.sim.recorder import Recorder
from chaos.worlds.sim.server import Named, Server
from controlplane.dns import DRIVERS
from controlplane.dns.server import endpoint, join
from controlplane.dns.table import Zone
from controlplane.dns.verify import drivers_for
from controlplane.drivers import Actual, Change, Fence, Result
from policies.timing import zone_of
from policies.topology import Config, DnsDriver
from policies.world import Answer

FOLLOW_S = 0.2  # until a secondary has followed, where the scenario does not say
RESOLVER_S = 1.0  # patience of a resolver with a name server
FOREIGN = "f0e1d2c3b4a59687"  # another cluster's incarnation


class NameServer:
    """One entry of drivers.dns at its home: the server that is written, and those that follow it.

    inside: it lives in the process of its site's node, and what it holds dies with that. `opened`: how many drivers
    of that process hold it open."""

    def __init__(self, site: str, inside: bool, primary: Server, secondaries: Sequence[Server]) -> None:
        self.site, self.inside, self.primary, self.secondaries = site, inside, primary, tuple(secondaries)
        self.opened = 0
        self.refusing = 0  # updates


class NameServers:
    """All of them. running(site): does the process of its node run now? transfer_s: how late secondaries follow."""

    def __init__(
        self,
        config: Config,
        transfer_s: float,
        network: Network,
        kernel: Kernel,
        recorder: Recorder,
        running: Callable[[str], bool],
    ) -> None:
        self._network, self._kernel, self._recorder, self._running = network, kernel, recorder, running
        self._follow_s = transfer_s or FOLLOW_S
        self.config = config
        # By "address:port", and by site: one inside a process may listen on all addresses of its machine.
        self._homes: dict[tuple[str, str], NameServer] = {}
        self._followers: dict[str, tuple[NameServer, Server]] = {}
        self._serving: dict[str, list[tuple[NameServer, Server]]] = {}  # service -> who answers
        for n, driver in enumerate(config.dns):
            self._open(n, driver, transfer_s > 0)
        self.learn(config)

    def _open(self, n: int, driver: DnsDriver, follows: bool) -> None:
        kind = DRIVERS[driver.driver]
        options = kind.options_of(driver)
        own = [join(*endpoint(text)) for text in kind.servers(options)]
        more = [join(*endpoint(text)) for text in _secondaries(n, driver, follows)]
        zones = [Zone(zone, self._ns_set(zone, follows)) for zone in driver.zones]
        geo = kind.capabilities(options).geo
        expected = self._names(driver) if kind.in_process else ()
        primary = Server(driver.site, zones, self._regions(driver), geo, expected)
        secondaries = [Server(f"{driver.site}/{i + 2}", zones, self._regions(driver), geo) for i in range(len(more))]
        server = NameServer(driver.site, kind.in_process, primary, secondaries)
        self._homes |= {(address, driver.site): server for address in own}
        self._followers |= {address: (server, each) for address, each in zip(more, secondaries, strict=True)}

    def _ns_set(self, zone: str, follows: bool) -> dict[str, tuple[str, ...]]:
        """Every server of the zone, so that whoever looks at the set finds secondaries too."""
        found: dict[str, tuple[str, ...]] = {}
        for n, driver in enumerate(self.config.dns):
            if zone not in driver.zones:
                continue
            kind = DRIVERS[driver.driver]
            own = kind.servers(kind.options_of(driver))
            for i, text in enumerate((*own, *_secondaries(n, driver, follows))):
                found[f"ns{n + 1}-{i + 1}.{zone}"] = (endpoint(text)[0],)
        return found

    def _regions(self, driver: DnsDriver) -> Named:
        return Named(self.config.regions, getattr(DRIVERS[driver.driver].options_of(driver), "mmdb", ""))

    def _names(self, driver: DnsDriver) -> tuple[str, ...]:
        names = (spec.dns.name for spec in self.config.services.values() if spec.dns is not None)
        return tuple(name for name in names if zone_of(name, driver.zones))

    # --- looking ---

    def learn(self, config: Config) -> None:
        """A configuration came in force. No machine comes or goes by that."""
        self.config = config
        for driver in config.dns:
            server = self.home(driver)
            if server is not None:
                server.primary.configure(self._regions(driver), self._names(driver) if server.inside else ())
                for each in server.secondaries:
                    each.configure(self._regions(driver), ())
        self._serving = {name: self._who(spec.dns.name) for name, spec in config.services.items() if spec.dns}
        self.look()

    def _who(self, name: str) -> list[tuple[NameServer, Server]]:
        homes = [self.home(driver) for driver in drivers_for(self.config, name)]
        return [(home, each) for home in homes if home for each in (home.primary, *home.secondaries)]

    def home(self, driver: DnsDriver) -> NameServer | None:
        """None: nothing is there."""
        kind = DRIVERS[driver.driver]
        for text in kind.servers(kind.options_of(driver)):
            address = join(*endpoint(text))
            found = self._homes.get((address, driver.site)) if kind.in_process else self._anywhere(address)
            if found is not None:
                return found
        return None

    def at(self, address: str, site: str) -> tuple[NameServer, Server] | None:
        """Who listens at "address:port", as seen from a site."""
        home = self._homes.get((address, site)) or self._anywhere(address)
        return (home, home.primary) if home is not None else self._followers.get(address)

    def _anywhere(self, address: str) -> NameServer | None:
        return next((home for (there, _), home in self._homes.items() if there == address), None)

    def of(self, service: str, site: str) -> NameServer | None:
        """The name server at a site that answers for a service."""
        return next((home for home, _ in self._serving.get(service, ()) if home.site == site), None)

    def serving(self, service: str) -> list[tuple[NameServer, Server]]:
        """Who answers for it, secondaries too."""
        return self._serving.get(service, [])

    def answers(self, home: NameServer, server: Server) -> bool:
        """Does it run?"""
        inside = home.inside and server is home.primary
        return self._network.on(home.site) and (not inside or (home.opened > 0 and self._running(home.site)))

    def look(self, changed: NameServer | None = None) -> None:
        """Record what clients are told now, where that is news. changed: nothing else can be."""
        reached: dict[str, bool] = {}
        for service, serving in self._serving.items():
            spec = self.config.services[service].dns
            assert spec is not None
            for home, server in serving:
                if changed not in (None, home):
                    continue
                if server.name not in reached:
                    reached[server.name] = self.reached(home, server)
                for region in self.config.regions:
                    told = server.told(spec.name, region) if reached[server.name] else None
                    self._recorder.answered(server.name, service, region, told)

    def reached(self, home: NameServer, server: Server) -> bool:
        """By clients."""
        return self._network.path(CLIENTS, home.site).works and self.answers(home, server)

    def ask(
        self, server: str, service: str, region: str, site_of: Callable[[str, str], str], rng: random.Random
    ) -> tuple[dict[str, str], float] | None:
        """A resolver of a region asks: address -> site, and the TTL. None: no answer in time."""
        spec = self.config.services.get(service)
        found = [(home, each) for home, each in self.serving(service) if each.name == server]
        if spec is None or spec.dns is None or not found:
            return None
        home, there = found[0]
        path = self._network.path(CLIENTS, home.site)
        late_s = path.rtt_s + (resent_s(path.loss, rng) if path.loss else 0.0)
        told = there.pick(spec.dns.name, region) if self.reached(home, there) and late_s < RESOLVER_S else None
        if told is None:
            return None
        addresses, ttl_s = told
        return {address: site_of(service, address) for address in addresses}, float(ttl_s)

    # --- changing ---

    def receive(self, writer: str, home: NameServer, change: Change) -> tuple[Result, str]:
        """A writer's update is here."""
        name = change.desired.name
        held = home.primary.read(name)
        if home.refusing:
            result = (Result.TERMINAL, f"update {zone_of(name, home.primary.zones)}: REFUSED")
        else:
            result = home.primary.apply(change)
        self._recorder.wrote(home.site, writer, change, held.fence if held else None, result[0])
        if result[0] is Result.DONE:
            self._changed(home)
        return result

    def edit(self, service: str, site: str, serve: str, fence: str) -> None:
        """Somebody writes another site's addresses in by hand."""
        home, spec = self.of(service, site), self.config.services[service]
        assert home is not None and spec.dns is not None
        actual = home.primary.read(spec.dns.name)
        sets = dict.fromkeys((a.region, a.rtype) for a in actual.answers) if actual else {("", "A"): None}
        rows = [
            Answer(region, rtype, address, serve, 1)
            for region, rtype in sets
            for address in spec.endpoints[serve]
            if (":" in address) == (rtype == "AAAA")
        ]
        held = actual.fence if actual else None
        new = _fence(fence, held)
        ttl_s = actual.ttl_s if actual else spec.dns.ttl_s
        home.primary.put(spec.dns.name, Actual(new, ttl_s, tuple(rows)))
        self._recorder.edited(home.site, service, new is not None and new.manual)
        self._changed(home)

    def refuse(self, site: str) -> Undo:
        homes = [home for home in self._all() if home.site == site]
        for home in homes:
            home.refusing += 1

        def undo() -> None:
            for home in homes:
                home.refusing -= 1

        return undo

    def died(self, site: str) -> None:
        """The process of the site's node: what was inside it is gone."""
        for home in self._all():
            if home.site == site and home.inside:
                home.opened = 0
                home.primary.forget()

    def powered(self, site: str) -> None:
        """The machines of a site are on again: secondaries look whether they are up to date."""
        for home in self._all():
            if home.site == site:
                self._kernel.at(self._kernel.now + self._follow_s, self._transfer, home)

    def _all(self) -> list[NameServer]:
        return list(dict.fromkeys(self._homes.values()))

    def _changed(self, home: NameServer) -> None:
        self.look(home)
        if home.secondaries:
            self._kernel.at(self._kernel.now + self._follow_s, self._transfer, home)

    def _transfer(self, home: NameServer) -> None:
        if not self.answers(home, home.primary):
            return
        for secondary in home.secondaries:
            for name in dict.fromkeys((*home.primary.names, *secondary.names)):
                actual = home.primary.read(name)
                if secondary.read(name) != actual:
                    secondary.put(name, actual)
        self.look(home)

    def close(self) -> None:
        """Files of regions."""
        for home in self._all():
            for server in (home.primary, *home.secondaries):
                server.close()


def _fence(how: str, held: Fence | None) -> Fence | None:
    """What an edit leaves beside the name."""
    generation = held.generation if held else 1
    if how == "manual":
        return Fence(held.incarnation if held else FOREIGN, generation, "manual-edit")
    if how == "foreign":
        return Fence(FOREIGN, generation + 1, "d-1-f0e1d2.other-1")
    return held if how == "keep" else None


def _secondaries(n: int, driver: DnsDriver, follows: bool) -> tuple[str, ...]:
    """Of the nth entry: those that it names; else one, where the scenario has them follow. The server inside a node's
    process transfers its zone to nobody."""
    if driver.servers or DRIVERS[driver.driver].in_process:
        return driver.servers
    return (f"100.65.{n}.2:53",)[: int(follows)]
