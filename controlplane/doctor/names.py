"""Name servers as they are: do they answer for the zone, how long are negatives kept, who is in the NS set, does the
key open it, what time is it there?"""

from __future__ import annotations

import asyncio
from typing import Any

import dns.message
import dns.name
import dns.rdata
import dns.rdataclass
from dns.rdatatype import RdataType

from controlplane.dns import DRIVERS, rfc2136
from controlplane.dns.ask import Ask
from controlplane.dns.nameservers import beside, servers_of_zone
from controlplane.dns.peer import Peer
from controlplane.dns.questions import Silent, ask_server
from controlplane.dns.server import endpoint, join
from controlplane.dns.signing import Rejected
from controlplane.dns.verify import servers_of
from controlplane.doctor.finding import CALL_S, Findings, Wall
from controlplane.drivers import Kind
from policies.topology import Config, DnsDriver

NEGATIVE_S = 60  # a name or type that comes back after a resolver asked for it is late by this
PRECISION_S = 1.5  # a signature's time is in seconds, and travels
ANSWERS = "does it run there, and does a firewall let port 53 through, UDP and TCP?"


async def examine(config: Config, site: str, wall: Wall, ask: Ask) -> Findings:
    found = Findings()
    checks = [_server(ask, driver, found) for driver in config.dns]
    checks += [_ns_set(ask, config, zone, found) for zone in sorted({z for d in config.dns for z in d.zones})]
    checks += [_key(config, driver, site, wall, found) for driver in config.dns]
    await asyncio.gather(*checks)
    found.all.sort(key=lambda finding: ORDER.index(finding.what))
    return found


ORDER = ("name server", "NS set", "key", "clock")


# ---- what everybody may ask


async def _server(ask: Ask, driver: DnsDriver, found: Findings) -> None:
    """Each of its servers, for each zone."""
    for server in servers_of(driver):
        for zone in driver.zones:
            subject = f"{zone} at {server} ({driver.name})"
            try:
                async with asyncio.timeout(CALL_S):
                    reply = await ask_server(ask, server, zone, "SOA", None)
            except (Silent, TimeoutError) as error:
                _silent(DRIVERS[driver.driver], subject, str(error) or "no answer in time", found)
                break
            _soa(subject, reply, found)


def _silent(kind: Kind, subject: str, why: str, found: Findings) -> None:
    if kind.in_process:
        found.unknown("name server", subject, why, "it is part of failoverd, which does not run there", False)
    elif why == "REFUSED" or why == "not authoritative":
        found.error("name server", subject, why, "load the zone there", True)
    else:
        found.error("name server", subject, why, ANSWERS, False)


def _soa(subject: str, reply: dns.message.Message, found: Findings) -> None:
    rows = [rrset for rrset in reply.answer if rrset.rdtype == RdataType.SOA]
    if not rows:
        found.error("name server", subject, "answers, and has no SOA for it", "load the zone there")
        return
    minimum = min(rows[0][0].minimum, rows[0].ttl)  # RFC 2308, 5
    detail = f"serial {rows[0][0].serial}, negatives kept {minimum} s"
    if minimum > NEGATIVE_S:
        remedy = "set the last number of its SOA to 1: resolvers remember for so long that a name or type is not there"
        found.warn("name server", subject, detail, remedy)
    else:
        found.ok("name server", subject, detail)


async def _ns_set(ask: Ask, config: Config, zone: str, found: Findings) -> None:
    """Clients ask who is in it; failoverd writes who is in the configuration."""
    try:
        async with asyncio.timeout(2 * CALL_S):
            strangers, known = await beside(ask, config, zone)
    except TimeoutError:
        found.unknown("NS set", zone, "no answer in time", ANSWERS, False)
        return
    if known.reason:
        found.unknown("NS set", zone, known.reason, ANSWERS, False)
        return
    inside = {endpoint(server)[0] for server in known.servers}
    missing = [s for s in servers_of_zone(config, zone) if known.servers and endpoint(s)[0] not in inside]
    names = ", ".join((*known.servers, *known.unknown)) or "nobody"
    if strangers:
        remedy = "a secondary: list it in `servers` of the driver, so that it is verified; else take its NS away"
        found.warn("NS set", zone, f"clients also ask {', '.join(strangers)}, which nobody here writes to", remedy)
    if missing:
        remedy = "add its NS and address to the zone, and to its parent"
        found.warn("NS set", zone, f"{', '.join(missing)} is not in it: no client asks there", remedy)
    if not strangers and not missing:
        found.ok("NS set", zone, names)


# ---- what only the key may ask


async def _key(config: Config, driver: DnsDriver, site: str, wall: Wall, found: Findings) -> None:
    kind = DRIVERS[driver.driver]
    if kind.in_process or kind.open is None or (site and site not in driver.writers):
        return
    try:
        opened = await kind.open(driver, config)
    except Exception as error:  # whatever its library raises; here: a secret that cannot be had
        where = f"needed at {', '.join(driver.writers)}: ask there, with the environment of failoverd"
        (found.error if site else found.unknown)("key", driver.name, str(error), where, None)
        return
    try:
        async with asyncio.timeout(CALL_S * (1 + len(driver.zones))):
            await opened.probe_write()
    except Rejected as error:
        found.error("key", driver.name, str(error), "the zone's and the key's settings at that server", True)
    except (OSError, TimeoutError) as error:
        found.error("key", driver.name, str(error) or "no answer in time", ANSWERS, False)
    else:
        found.ok("key", driver.name, f"may write {', '.join(driver.zones)}")
        await _clock(driver, wall, found)
    finally:
        await opened.aclose()


async def _clock(driver: DnsDriver, wall: Wall, found: Findings) -> None:
    """By the time that its signature carries (RFC 8945, 4.2)."""
    options = DRIVERS[driver.driver].options_of(driver)
    if not isinstance(options, rfc2136.Options):
        return
    tsig = options.tsig or next(iter(options.views.values()), None)
    if tsig is None:
        return
    query = dns.message.make_query(dns.name.from_text(driver.zones[0]), RdataType.SOA, flags=0)
    try:
        before_s = wall()
        reply = await Peer(options.address, options.port, tsig.resolve(), wall).ask(query.to_wire())
        now_s = (before_s + wall()) / 2
    except (OSError, TimeoutError, ValueError):
        return  # it answered a moment ago: nothing is wrong with it that is not told above
    if reply.tsig is not None:
        raw = reply.tsig.rdata
        signature: Any = dns.rdata.from_wire(dns.rdataclass.ANY, RdataType.TSIG, raw, 0, len(raw))
        found.clock(join(options.address, options.port), signature.time_signed + 0.5 - now_s, PRECISION_S)
