"""The zone's own NS set: servers that answer for a zone, whether or not the configuration names them."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

import dns.message
from dns.rdatatype import RdataType
from msgspec import Struct

from controlplane.dns.ask import Ask
from controlplane.dns.questions import Silent, ask_server
from controlplane.dns.server import endpoint, join
from controlplane.dns.verify import servers_of
from policies.timing import zone_of
from policies.topology import Config

MOST_SERVERS = 16  # of one zone; what a zone says is not a limit
RTYPES = ("A", "AAAA")


class NsSet(Struct, frozen=True):
    """`servers`: "address:53" of each name server that the zone itself tells the address of; `unknown`: names of
    those outside of it. `reason`: why nothing is known, "" = it is."""

    servers: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    reason: str = ""


def servers_of_zone(config: Config, zone: str) -> tuple[str, ...]:
    """ "address:port" of every server of the configuration that answers for a zone."""
    return tuple(dict.fromkeys(s for driver in config.dns if zone in driver.zones for s in servers_of(driver)))


async def ns_set(ask: Ask, zone: str, servers: Sequence[str]) -> NsSet:
    """What the first of these servers that answers says. Never raises for what a server does."""
    reason = "no server to ask"
    for server in servers:
        try:
            return await _ns_set(ask, zone, server)
        except Silent as silent:
            reason = f"{server}: {silent}"
    return NsSet(reason=reason)


async def beside(ask: Ask, config: Config, zone: str) -> tuple[tuple[str, ...], NsSet]:
    """(servers of the zone's NS set that the configuration does not name, the set). One at an address of the
    configuration is named, whatever its port: the DNS does not tell ports."""
    configured = servers_of_zone(config, zone)
    found = await ns_set(ask, zone, configured)
    named = {_host(server) for server in configured}
    return tuple(server for server in found.servers if _host(server) not in named), found


async def _ns_set(ask: Ask, zone: str, server: str) -> NsSet:
    """Raises Silent."""
    reply = await ask_server(ask, server, zone, "NS", None)
    names = sorted({_text(rdata.target) for rrset in reply.answer if rrset.rdtype == RdataType.NS for rdata in rrset})
    glue = _addresses(reply)
    found: dict[str, None] = {}
    unknown = []
    for name in names[:MOST_SERVERS]:
        addresses = glue.get(name, [])
        if not addresses and zone_of(name, (zone,)):
            for rtype in RTYPES:
                asked = await ask_server(ask, server, name, rtype, None)
                addresses = [*addresses, *_addresses(asked).get(name, [])]
        if not addresses:
            unknown.append(name)
        found |= dict.fromkeys(join(address, 53) for address in addresses[:MOST_SERVERS])
    return NsSet(tuple(found), tuple(unknown))


def _addresses(reply: dns.message.Message) -> Mapping[str, list[str]]:
    """Name -> its addresses, from everywhere in a reply but its question."""
    found: dict[str, list[str]] = {}
    for rrset in (*reply.answer, *reply.additional):
        if rrset.rdtype in (RdataType.A, RdataType.AAAA):
            found.setdefault(_text(rrset.name), []).extend(str(ipaddress.ip_address(r.address)) for r in rrset)
    return found


def _text(name: object) -> str:
    return str(name).lower().rstrip(".")


def _host(server: str) -> str:
    host = endpoint(server)[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host
