"""One question to one name server: about a fence, or for addresses as clients of one region get them."""

from __future__ import annotations

import ipaddress
from functools import lru_cache

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import dns.tsig
from dns.rdataclass import IN
from dns.rdatatype import RdataType
from msgspec import Struct

from controlplane.dns.ask import Ask
from controlplane.dns.regions import Client
from controlplane.dns.table import fence_name
from controlplane.drivers import Fence


class Probe(Struct, frozen=True):
    """How to ask as a client of `region`, "" = wherever we are. client: the client subnet to send; key: what opens
    the view of that region. scoped: only a client subnet that comes back with a scope was looked at."""

    region: str
    client: Client | None = None
    key: dns.tsig.Key | None = None
    scoped: bool = False


class Told(Struct, frozen=True):
    """What a server answered to one question. regional: as it answers clients of the region that was asked for."""

    addresses: tuple[str, ...]
    ttl_s: int
    regional: bool


class Silent(Exception):
    """The server gave no usable answer; says why."""


async def ask_fence(ask: Ask, server: str, name: str, key: dns.tsig.Key | None = None) -> Fence | None:
    """None: no fence there, or not as it is written: one record of one string. Raises Silent."""
    reply = await ask_server(ask, server, fence_name(name), "TXT", None, key)
    found = [rdata.strings for rrset in reply.answer if rrset.rdtype == RdataType.TXT for rdata in rrset]
    if len(found) != 1 or len(found[0]) != 1:
        return None
    return Fence.parse(found[0][0].decode("ascii", "replace"))


async def ask_addresses(ask: Ask, server: str, name: str, rtype: str, probe: Probe) -> Told:
    """`ttl_s` is 0 where there are no addresses. Raises Silent."""
    reply = await ask_server(ask, server, name, rtype, probe.client, probe.key)
    rows = [rrset for rrset in reply.answer if rrset.rdtype == RdataType[rtype]]
    addresses = sorted(plain_address(rdata.address) for rrset in rows for rdata in rrset)
    ttl_s = max((rrset.ttl for rrset in rows), default=0)
    scopes = [option.scopelen for option in reply.options if isinstance(option, dns.edns.ECSOption)]
    regional = probe.key is not None or any(scope or not probe.scoped for scope in scopes)
    return Told(tuple(addresses), ttl_s, regional)


async def ask_server(
    ask: Ask, server: str, name: str, rtype: str, client: Client | None, key: dns.tsig.Key | None = None
) -> dns.message.Message:
    """An authoritative answer. Raises Silent."""
    query = dns.message.QueryMessage(id=0)
    query.flags = 0
    query.question.append(_question(name, rtype))
    query.opt = _edns(client)
    whose = ""
    if key is not None:
        query.use_tsig(key)
        whose = f"TSIG key {key.name.to_text(omit_final_dot=True)}: "
    try:
        reply = await ask(server, query)
    except (OSError, TimeoutError, dns.exception.DNSException) as error:
        raise Silent(whose + (str(error) or type(error).__name__)) from error
    if key is not None and not reply.had_tsig:
        raise Silent(f"{whose}{dns.rcode.to_text(reply.rcode())}, not signed with it")
    rcode = reply.rcode()
    if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise Silent(dns.rcode.to_text(rcode))
    if not reply.flags & dns.flags.AA:
        raise Silent("not authoritative")
    return reply


@lru_cache(maxsize=65536)
def plain_address(text: str) -> str:
    """The one way to write an address that may be written in more than one (RFC 5952)."""
    return str(ipaddress.ip_address(text))


@lru_cache(maxsize=1024)
def _question(name: str, rtype: str) -> dns.rrset.RRset:
    """Asked again and again, and slow to make."""
    return dns.rrset.RRset(dns.name.from_text(name), IN, RdataType[rtype])


@lru_cache(maxsize=1024)
def _edns(client: Client | None) -> dns.rrset.RRset | None:
    template = dns.message.QueryMessage(id=0)
    options: list[dns.edns.Option] = []
    if client is not None:
        options.append(dns.edns.ECSOption(str(client.address), client.bits))
    template.use_edns(0, payload=1232, options=options)
    return template.opt
