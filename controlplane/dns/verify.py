"""Ask each authoritative server itself what a client would be told, and compare (DESIGN 4.9).

Needs no cluster: `survey` takes only a configuration.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dns.tsig
import maxminddb
from msgspec import Struct
from msgspec.structs import replace

from controlplane.dns import DRIVERS
from controlplane.dns.ask import Ask
from controlplane.dns.ask import ask as ask_sockets
from controlplane.dns.fencing import Relation, relation
from controlplane.dns.questions import Probe, Silent, Told, ask_addresses, ask_fence, plain_address
from controlplane.dns.regions import Client, Regions
from controlplane.dns.server import endpoint, join
from controlplane.documents import Seen
from controlplane.drivers import Fence
from policies.timing import zone_of, zones_of
from policies.topology import Config, DnsDriver, Region
from policies.world import Desired

log = logging.getLogger(__name__)

AT_ONCE = 16  # queries under way to one server
RTYPES = ("A", "AAAA")


def servers_of(driver: DnsDriver) -> tuple[str, ...]:
    """ "address:port" of every server of a driver: the one it writes to, and the extra ones to verify."""
    kind = DRIVERS[driver.driver]
    own = kind.servers(kind.options_of(driver))
    return tuple(dict.fromkeys(join(*endpoint(text)) for text in (*own, *driver.servers)))


def drivers_for(config: Config, name: str) -> tuple[DnsDriver, ...]:
    """Those that write a name: at each site the one with the longest zone around it."""
    best: dict[str, DnsDriver] = {}
    for driver in config.dns:
        zone = zone_of(name, driver.zones)
        if zone and (driver.site not in best or len(zone) > len(zone_of(name, best[driver.site].zones))):
            best[driver.site] = driver
    return tuple(best.values())


def entries_by_server(config: Config, beside: Mapping[str, Sequence[str]]) -> dict[str, DnsDriver]:
    """The driver whose answers each server gives. `beside`: zone -> further servers of it."""
    found: dict[str, DnsDriver] = {}
    for driver in config.dns:
        for server in servers_of(driver):
            found.setdefault(server, driver)
    for zone, servers in beside.items():
        for named in [driver for driver in config.dns if zone in driver.zones][:1]:
            found = dict.fromkeys(servers, named) | found
    return found


def authoritative(config: Config, name: str) -> tuple[str, ...]:
    """Every server that answers for a name."""
    return tuple(dict.fromkeys(s for driver in drivers_for(config, name) for s in servers_of(driver)))


def geo_file(config: Config) -> str:
    """The MaxMind file of the embedded servers, by which an address of a country can be found; "" = none."""
    files = (getattr(DRIVERS[d.driver].options_of(d), "mmdb", "") for d in config.dns)
    return next((file for file in files if file), "")


def probes_for(regions: Mapping[str, Region], mmdb: str = "") -> tuple[Probe, ...]:
    """One probe without a client subnet, and for each region one for each address family that an address of is known
    to be there: of its networks, else of a country's in the MaxMind file `mmdb`, if there is one. Of other regions no
    address is known, and nothing can be asked for them. Blocks while that file is read."""
    finder = Regions(regions)
    found = {name: finder.representatives(name, region.networks) for name, region in regions.items()}
    missing = [name for name, clients in found.items() if not clients]
    if mmdb and missing:
        found |= _from_file(regions, mmdb, missing)
    return (Probe("", None), *(Probe(name, client) for name, clients in found.items() for client in clients))


def _from_file(regions: Mapping[str, Region], mmdb: str, missing: Sequence[str]) -> dict[str, tuple[Client, ...]]:
    """At most one IPv4 and one IPv6 network of each of these regions, the first in the file."""
    found: dict[str, dict[int, Client]] = {name: {} for name in missing}
    try:
        finder = Regions(regions, mmdb)
        with maxminddb.open_database(mmdb) as file:
            for network, _ in file:
                region = finder.locate(str(network.network_address), None).region
                version = network.version
                if version not in found.get(region, (version,)):
                    bits = max(network.prefixlen, 24 if version == 4 else 56)
                    found[region][version] = Client(network.network_address, bits)
                    if all(len(clients) == 2 for clients in found.values()):
                        break
        finder.close()
    except (OSError, maxminddb.InvalidDatabaseError, ValueError) as error:
        log.warning("%s cannot be read, so regions of countries are not asked for: %s", mmdb, error)
    return {name: tuple(clients[v] for v in sorted(clients)) for name, clients in found.items()}


def by_server(
    config: Config, probes: Sequence[Probe], beside: Mapping[str, Sequence[str]] | None = None, site: str = ""
) -> dict[str, tuple[Probe, ...]]:
    """How to ask each server. Views are opened with their keys, as far as their secrets can be had here; `site`: only
    with those of drivers that this site writes, "" = any. Blocks while secrets are read."""
    found: dict[str, tuple[Probe, ...]] = {}
    for server, entry in entries_by_server(config, beside or {}).items():
        options = DRIVERS[entry.driver].options_of(entry)
        views = getattr(options, "views", {})
        # PowerDNS and our own server look at each client subnet: scope 0 means that everybody is told the same. BIND
        # sends it back like that and looks at none (RFC 7871, 7.2.1).
        heeded = _by_region(entry) and not views
        own = server in {join(*endpoint(text)) for text in DRIVERS[entry.driver].servers(options)}
        keys = _keys(views) if own and (not site or site in entry.writers) else {}
        found[server] = (
            *(replace(p, scoped=not heeded) if p.client else p for p in probes if p.region not in keys),
            *(Probe(region, key=key) for region, key in keys.items()),
        )
    return found


def _keys(views: Mapping[str, Any]) -> dict[str, dns.tsig.Key]:
    found = {}
    for region, tsig in views.items():
        try:
            found[region] = tsig.resolve()
        except ValueError as error:
            log.debug("the view of %s is not asked: %s", region, error)
    return found


def _by_region(entry: DnsDriver) -> bool:
    """Does it tell clients of different regions different things?"""
    kind = DRIVERS[entry.driver]
    return kind.capabilities(kind.options_of(entry)).geo


# ---- comparing with desired


async def verify(
    ask: Ask, server: str, services: Sequence[Desired], incarnation: str, probes: Sequence[Probe]
) -> dict[str, Seen]:
    """Ask one server about services with a DNS name; by service. Never raises; one silent answer is enough to
    call the server silent for the rest."""
    gate = asyncio.Semaphore(AT_ONCE)
    dead = ""

    async def one(desired: Desired) -> Seen:
        nonlocal dead
        async with gate:
            if dead:
                return Seen(server, None, False, dead)
            try:
                return await _compare(ask, server, desired, incarnation, probes)
            except Silent as silent:
                if silent.__cause__ is not None:  # not even an error came back
                    dead = str(silent)
                return Seen(server, None, False, str(silent))

    if len(services) == 1:
        return {services[0].service: await one(services[0])}
    seen = await asyncio.gather(*[one(desired) for desired in services])
    return {desired.service: each for desired, each in zip(services, seen, strict=True)}


async def _compare(ask: Ask, server: str, desired: Desired, incarnation: str, probes: Sequence[Probe]) -> Seen:
    mine = Fence(incarnation, desired.generation, desired.stamp)
    for probe in _places(probes):
        fence = await ask_fence(ask, server, desired.name, probe.key)
        where = f"{probe.region}: " if probe.region else ""
        if fence is None:
            return Seen(server, 0, False, where + "no fence")
        found = relation(fence, mine)
        if found is Relation.OLDER:
            return Seen(server, fence.generation, False, f"{where}still generation {fence.generation}")
        if found is not Relation.SAME:
            return Seen(server, fence.generation, False, f"{where}{found}: {fence.text()}")
    for rtype in RTYPES:
        any_of = [a for a in desired.answers if a.rtype == rtype]
        for probe in probes if any_of else probes[:1]:
            told = await ask_addresses(ask, server, desired.name, rtype, probe)
            wrong = _wrong(desired, rtype, probe.region if told.regional else "", told)
            if wrong:
                return Seen(server, desired.generation, False, wrong)
    return Seen(server, desired.generation, True)


def _places(probes: Sequence[Probe]) -> Iterator[Probe]:
    """Where a fence stands: where we are, and in each view that can be opened."""
    yield Probe("")
    yield from (probe for probe in probes if probe.key is not None)


def _wrong(desired: Desired, rtype: str, region: str, told: Told) -> str:
    """Why an answer is not one that desired allows; "" if it is. region "" = may be any."""
    rows = [a for a in desired.answers if a.rtype == rtype and a.weight > 0]
    rows = [a for a in rows if a.region == region] or rows
    where = f"{rtype} for {region or 'us'}: "
    if rows and not told.addresses:
        return where + "no answer"
    allowed = {a.address for a in rows}
    # An address may be written in more than one way (RFC 5952).
    strange = sorted(set(told.addresses) - {plain_address(a) for a in allowed})
    if strange:
        return where + f"answers {', '.join(strange)}"
    if told.ttl_s > desired.ttl_s:
        return where + f"TTL {told.ttl_s} s, desired {desired.ttl_s} s"
    return ""


# ---- without a cluster


class Reading(Struct, frozen=True):
    """What one server says of one service. `answers`: region ("" = ours) -> addresses, both families.
    generation, incarnation None: no fence. not_asked: regions whose answers cannot be told from those of others here.
    reachable False: `reason` says why, and the rest is empty."""

    server: str
    service: str
    reachable: bool
    generation: int | None = None
    incarnation: str | None = None
    op: str = ""
    ttl_s: int | None = None
    answers: dict[str, tuple[str, ...]] = {}
    not_asked: tuple[str, ...] = ()
    reason: str = ""


async def survey(
    config: Config,
    ask: Ask = ask_sockets,
    services: Sequence[str] = (),
    probes: Mapping[str, Sequence[Probe]] | None = None,
    more: Mapping[str, Sequence[str]] | None = None,
) -> tuple[Reading, ...]:
    """Ask every server about every service that it answers for (or only the services named); in the order of
    the configuration's drivers, then services. `probes`: by server; `more`: zone -> further servers of it. Never
    raises for what a server does."""
    probes = by_server(config, probes_for(config.regions), more) if probes is None else probes
    # Where everybody is told the same, or there is one region, nothing has to be asked for each.
    entries = entries_by_server(config, more or {})
    several = tuple(config.regions) if len(config.regions) > 1 else ()
    regions = {server: several if _by_region(entry) else () for server, entry in entries.items()}
    zones = zones_of(config)
    asked: dict[str, dict[str, str]] = {}
    for name, service in config.services.items():
        if service.dns is None or (services and name not in services):
            continue
        beside = (more or {}).get(zone_of(service.dns.name, zones), ())
        for server in (*authoritative(config, service.dns.name), *beside):
            asked.setdefault(server, {})[name] = service.dns.name
    rows = await asyncio.gather(
        *[_survey_server(ask, server, names, probes[server], regions[server]) for server, names in asked.items()]
    )
    return tuple(reading for readings in rows for reading in readings)


async def _survey_server(
    ask: Ask, server: str, names: Mapping[str, str], probes: Sequence[Probe], regions: Sequence[str]
) -> list[Reading]:
    readings: list[Reading] = []
    dead = ""
    for service, name in names.items():
        if dead:
            readings.append(Reading(server, service, False, reason=dead))
            continue
        try:
            readings.append(await _survey_one(ask, server, service, name, probes, regions))
        except Silent as silent:
            dead = str(silent) if silent.__cause__ is not None else ""
            readings.append(Reading(server, service, False, reason=str(silent)))
    return readings


async def _survey_one(
    ask: Ask, server: str, service: str, name: str, probes: Sequence[Probe], regions: Sequence[str]
) -> Reading:
    """`regions`: those that have to be asked for."""
    fences = [await ask_fence(ask, server, name, probe.key) for probe in _places(probes)]
    fence = fences[0]
    reason = "its views have different fences" if any(other != fence for other in fences) else ""
    answers: dict[str, tuple[str, ...]] = {}
    ttl_s: int | None = None
    for probe in probes:
        for rtype in RTYPES:
            told = await ask_addresses(ask, server, name, rtype, probe)
            if told.regional or not probe.region:
                known = answers.get(probe.region, ())
                answers[probe.region] = tuple(dict.fromkeys((*known, *told.addresses)))
            if told.addresses:
                ttl_s = max(ttl_s or 0, told.ttl_s)
    return Reading(
        server,
        service,
        True,
        generation=fence.generation if fence else None,
        incarnation=fence.incarnation if fence else None,
        op=fence.op if fence else "",
        ttl_s=ttl_s,
        answers=answers,
        not_asked=tuple(region for region in regions if region not in answers),
        reason=reason if fence else "no fence",
    )
