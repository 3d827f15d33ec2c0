"""The embedded authoritative Geo-DNS server, and its driver: a name server inside the site's own process.

Its answers live in memory. After a start it fails every query (SERVFAIL) until its agent has written, so that
resolvers go on to the zone's other servers instead of believing that nothing exists.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import maxminddb
import msgspec
from msgspec import Struct

from controlplane.dns.regions import Regions
from controlplane.dns.responder import Responder
from controlplane.dns.server import Sockets, endpoint, join
from controlplane.dns.table import Table, Zone
from controlplane.drivers import Actual, Capabilities, Change, Domain, Driver, Kind, Listen, Result
from policies.timing import zone_of
from policies.topology import Config, DnsDriver
from probes.kinds.base import Problem

CAPABILITIES = Capabilities(geo=True, weights=True, cas=True, expires=False, batch=200)


class Options(Struct, frozen=True):
    listen: tuple[Listen, ...]
    ns: tuple[Domain, ...] = ()  # () = "ns." and the zone
    mmdb: str = ""
    ecs: bool = True


class EmbeddedServer:
    """`zones`: what it is authoritative for. `listen`: "address:port" each, port 0 = any free one; name the
    addresses, not 0.0.0.0, from which UDP answers may leave with another source address. `ecs` False ignores
    client subnets. `expected`: names that the configuration says will be written.

    Without `start()` it has no sockets, and `answer` can be called directly (the simulator does).
    """

    def __init__(
        self,
        zones: Sequence[Zone],
        regions: Regions,
        listen: Sequence[str] = (),
        *,
        ecs: bool = True,
        expected: Collection[str] = (),
    ) -> None:
        self.listen = tuple(endpoint(text) for text in listen)
        self.table = Table(zones, expected)
        self.responder = Responder(self.table, regions, ecs)
        self._sockets = Sockets()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of each bound socket, as "address:port"; ports that were asked for as 0 are filled in."""
        return tuple(join(host, port) for host, port in self._sockets.addresses)

    async def start(self) -> None:
        """Raises OSError if an address cannot be bound; nothing is left open then."""
        await self._sockets.open(self.responder, self.listen)

    async def listen_at(self, listen: Sequence[str]) -> None:
        """Move to these addresses while serving. Raises OSError; nothing is changed then."""
        places = tuple(endpoint(text) for text in listen)
        if places != self.listen:
            await self._sockets.open(self.responder, places)
            self.listen = places

    async def aclose(self) -> None:
        await self._sockets.aclose()
        self.responder.regions.close()

    def configure(
        self, zones: Sequence[Zone], regions: Regions, *, ecs: bool = True, expected: Collection[str] = ()
    ) -> None:
        """Take another configuration over while serving; what was written stays. Not `listen`."""
        self.table.configure(zones, expected)
        if self.responder.regions is not regions:
            self.responder.regions.close()
        self.responder.regions, self.responder.ecs = regions, ecs

    def answer(self, wire: bytes, source: str, tcp: bool = False) -> bytes | None:
        """One message in, at most one out; never raises."""
        return self.responder.respond(wire, source, tcp)


class EmbeddedDriver:
    """The Driver port over an EmbeddedServer of this process, which `find` returns, or None while it is down:
    a server that was stopped and started anew is another object."""

    capabilities = CAPABILITIES

    def __init__(self, name: str, find: Callable[[], EmbeddedServer | None]) -> None:
        self.name = name
        self._find = find

    async def read(self, names: Sequence[str]) -> Mapping[str, Actual]:
        table = self._table()
        found = ((name, table.read(name)) for name in names)
        return {name: actual for name, actual in found if actual is not None}

    async def apply(self, changes: Sequence[Change]) -> Mapping[str, tuple[Result, str]]:
        table = self._table()
        return {change.desired.name: table.apply(change) for change in changes}

    async def probe_write(self) -> None:
        self._table()

    async def aclose(self) -> None:
        """Nothing is held: the server belongs to whoever started it."""

    def _table(self) -> Table:
        server = self._find()
        if server is None:
            raise ConnectionRefusedError("the embedded name server is down")
        return server.table


class OwnServer(EmbeddedDriver):
    """A driver that was opened together with its server."""

    def __init__(self, name: str, server: EmbeddedServer) -> None:
        super().__init__(name, lambda: server)
        self.server = server

    async def aclose(self) -> None:
        await self.server.aclose()


def zones_of(driver: DnsDriver, config: Config) -> tuple[Zone, ...]:
    """The driver's zones. A zone's NS set names the servers of every embedded driver that serves it, each with
    the addresses that it listens on: all of them give the same set."""
    zones = []
    for zone in driver.zones:
        servers: dict[str, tuple[str, ...]] = {}
        for other in config.dns:
            if other.driver != driver.driver or zone not in other.zones:
                continue
            options = options_of(other)
            hosts = [endpoint(text)[0] for text in options.listen]
            hosts = [host for host in hosts if not ipaddress.ip_address(host).is_unspecified]
            for name in options.ns or (f"ns.{zone}",):
                servers[name] = tuple(dict.fromkeys((*servers.get(name, ()), *hosts)))
        zones.append(Zone(zone, servers))
    return tuple(zones)


def names_of(driver: DnsDriver, config: Config) -> tuple[str, ...]:
    """The services' names inside the driver's zones."""
    names = (service.dns.name for service in config.services.values() if service.dns is not None)
    return tuple(name for name in names if zone_of(name, driver.zones))


def options_of(driver: DnsDriver) -> Options:
    return msgspec.json.decode(driver.options, type=Options)


def server_for(driver: DnsDriver, config: Config) -> EmbeddedServer:
    """Not started yet. Raises OSError or maxminddb.InvalidDatabaseError if the MaxMind file cannot be read."""
    options = options_of(driver)
    regions = Regions(config.regions, options.mmdb)
    return EmbeddedServer(
        zones_of(driver, config), regions, options.listen, ecs=options.ecs, expected=names_of(driver, config)
    )


def configure(server: EmbeddedServer, driver: DnsDriver, config: Config) -> None:
    """Give a running server another configuration. Raises what `server_for` raises; nothing is changed then."""
    options = options_of(driver)
    regions = Regions(config.regions, options.mmdb)
    server.configure(zones_of(driver, config), regions, ecs=options.ecs, expected=names_of(driver, config))


async def reconfigure(server: EmbeddedServer, driver: DnsDriver, config: Config) -> None:
    """`configure`, and move to where it is to listen: where it listens already, it goes on without a break. Raises
    OSError too; it listens where it did then."""
    configure(server, driver, config)
    await server.listen_at(options_of(driver).listen)


async def open_driver(driver: DnsDriver, config: Config) -> Driver:
    """Start the server of this site, and a driver that closes it."""
    server = server_for(driver, config)
    try:
        await server.start()
    except BaseException:
        await server.aclose()
        raise
    return OwnServer(driver.name, server)


async def reconfigure_driver(running: Driver, driver: DnsDriver, config: Config) -> bool:
    """In place, whatever changes. False if that driver has no server of its own."""
    if not isinstance(running, OwnServer):
        return False
    await reconfigure(running.server, driver, config)
    running.name = driver.name
    return True


# ---- before it is opened


def complete(options: Options, zones: Sequence[str]) -> Options:
    return msgspec.structs.replace(options, ns=options.ns or tuple(f"ns.{zone}" for zone in zones))


def problems(options: Options, entry: DnsDriver, config: Config) -> Iterator[Problem]:
    if not options.listen:
        yield Problem(("listen",), "expected a list of address:port, got an empty one")
    if len(entry.writers) > 1:
        message = "an embedded name server is written by its own site alone; the other writers have no effect"
        yield Problem(("writers",), message, warning=True)
    for name, region in config.regions.items():
        if (region.countries or region.continents) and not region.networks and not options.mmdb:
            message = f'region "{name}" uses countries and has no networks: give mmdb, a MaxMind file'
            yield Problem(("mmdb",), message)
    if options.mmdb:
        try:
            maxminddb.open_database(options.mmdb).close()
        except OSError as err:
            yield Problem(("mmdb",), f'cannot read "{options.mmdb}": {err.strerror or err}')
        except (maxminddb.InvalidDatabaseError, ValueError):
            yield Problem(("mmdb",), f'"{options.mmdb}" is not a MaxMind file')


KIND = Kind(
    options=Options,
    capabilities=lambda options: CAPABILITIES,
    problems=problems,
    complete=complete,
    servers=lambda options: options.listen,
    in_process=True,
    open=open_driver,
    reconfigure=reconfigure_driver,
)
