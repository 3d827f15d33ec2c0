"""One DNS message in, at most one out (RFC 1035, 2181, 2308, 6891, 7871, 8482). No I/O, no clock."""

from __future__ import annotations

import ipaddress
import logging
import struct

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
from dns.rdatatype import RdataType

from controlplane.dns.regions import Client, Place, Regions
from controlplane.dns.table import Found, Kind, Table, Zone

log = logging.getLogger(__name__)

# Fits every path without fragments (DNS flag day 2020), and bounds what a forged query can make us send.
PAYLOAD = 1232
PLAIN = 512  # RFC 1035: UDP without EDNS
NS_TTL_S = 60
FENCE_TTL_S = 1
# SOA: the minimum bounds how long "no such name" is believed (RFC 2308); nobody transfers these zones.
SOA_TIMES = "60 10 3600 1"
NEGATIVE_TTL_S = 1

_HEADER = struct.Struct("!HHHHHH")
_ADDRESS = {RdataType.A: "A", RdataType.AAAA: "AAAA"}
# Not data: transfers, and what only has a meaning inside a message (RFC 6895, 3.1: 128-255 are meta types).
_TRANSFERS = (RdataType.AXFR, RdataType.IXFR)


class _Failed(Exception):
    """The query is answered with nothing but this response code."""

    def __init__(self, rcode: int) -> None:
        self.rcode = rcode


class Responder:
    """Answers for a table. `ecs` False: client subnets are neither used nor sent back."""

    def __init__(self, table: Table, regions: Regions, ecs: bool = True) -> None:
        self.table, self.regions, self.ecs = table, regions, ecs

    def respond(self, wire: bytes, source: str, tcp: bool = False) -> bytes | None:
        """`source`: the sender's address. None: nothing may be sent (too short to be a query, or itself a
        response: two servers that answer each other's answers never stop). Never raises."""
        if len(wire) < _HEADER.size:
            return None
        id_, flags, *_ = _HEADER.unpack_from(wire)
        if flags & dns.flags.QR:
            return None
        if dns.opcode.from_flags(flags) != dns.opcode.QUERY:
            return _bare(id_, flags, dns.rcode.NOTIMP)
        try:
            query = dns.message.from_wire(wire, keyring=False)
        except Exception:
            # Whatever the parser chokes on, the sender's message is what is wrong.
            return _bare(id_, flags, dns.rcode.FORMERR)
        try:
            return self._answer(query, source, tcp)
        except Exception:
            log.exception("a query could not be answered")
            return _bare(id_, flags, dns.rcode.SERVFAIL)

    def _answer(self, query: dns.message.Message, source: str, tcp: bool) -> bytes:
        reply = dns.message.QueryMessage(id=query.id)
        reply.flags = dns.flags.QR | (query.flags & (dns.flags.RD | dns.flags.CD))
        reply.question = list(query.question) if len(query.question) == 1 else []
        options: list[dns.edns.Option] = []
        extended = 0
        try:
            client = self._check(query)
            place = self.regions.locate(source, client)
            self._resolve(reply, place)
            if client is not None:
                options.append(_echo(query, place.scope))
        except _Failed as failed:
            # The upper eight bits of a response code live in EDNS (RFC 6891, 6.1.3).
            reply.flags = (reply.flags & ~dns.flags.AA) | (failed.rcode & 15)
            extended = failed.rcode >> 4
        if query.edns >= 0:
            flags = (query.ednsflags & dns.flags.DO) | (extended << 24)
            reply.use_edns(0, flags, PAYLOAD, options=options)
        if tcp:
            return reply.to_wire(max_size=65535, prefer_truncation=True, want_shuffle=False)
        limit = PLAIN if query.edns < 0 else min(max(query.payload, PLAIN), PAYLOAD)
        return reply.to_wire(max_size=limit, prefer_truncation=True, want_shuffle=False)

    def _check(self, query: dns.message.Message) -> Client | None:
        """The client subnet, if there is one to use. Raises _Failed."""
        if query.edns > 0:
            raise _Failed(dns.rcode.BADVERS)
        if len(query.question) != 1:  # RFC 9619
            raise _Failed(dns.rcode.FORMERR)
        if query.had_tsig:  # there are no keys here (RFC 8945, 5.2)
            raise _Failed(dns.rcode.NOTAUTH)
        question = query.question[0]
        if question.rdclass not in (dns.rdataclass.IN, dns.rdataclass.ANY) or question.rdtype in _TRANSFERS:
            raise _Failed(dns.rcode.REFUSED)
        if 128 <= question.rdtype < 255 or question.rdtype in (RdataType.NONE, RdataType.OPT):
            raise _Failed(dns.rcode.NOTIMP)
        subnets = [option for option in query.options if isinstance(option, dns.edns.ECSOption)]
        if not self.ecs or not subnets:
            return None
        if len(subnets) > 1 or subnets[0].scopelen:  # RFC 7871, 6
            raise _Failed(dns.rcode.FORMERR)
        # Zero bits: the client asked not to be told apart; it still gets the option back (RFC 7871, 7.1.2).
        return Client(ipaddress.ip_address(subnets[0].address), subnets[0].srclen)

    def _resolve(self, reply: dns.message.Message, place: Place) -> None:
        question = reply.question[0]
        zone = self.table.zone(question.name)
        if zone is None:
            raise _Failed(dns.rcode.REFUSED)
        found = self.table.find(question.name)
        if found.kind is Kind.UNREADY:
            raise _Failed(dns.rcode.SERVFAIL)
        reply.flags |= dns.flags.AA
        for rrset in self._sets(question.name, question.rdtype, found, zone, place.region):
            reply.answer.append(rrset)
            if rrset.rdtype == RdataType.NS:
                reply.additional += self._glue(zone)
        if not reply.answer:
            if found.kind is Kind.ABSENT:
                reply.set_rcode(dns.rcode.NXDOMAIN)
            reply.authority.append(self._soa(zone, NEGATIVE_TTL_S))

    def _sets(self, name: dns.name.Name, rdtype: int, found: Found, zone: Zone, region: str) -> list[dns.rrset.RRset]:
        """What answers this question; for ANY one of the sets that are there (RFC 8482, 4.1)."""
        wanted = [RdataType.A, RdataType.AAAA, RdataType.TXT, RdataType.SOA, RdataType.NS]
        for each in wanted if rdtype == RdataType.ANY else [t for t in wanted if t == rdtype]:
            if each in _ADDRESS:
                rrset = self._addresses(name, _ADDRESS[each], found, region)
            elif each == RdataType.TXT:
                rrset = _fence(name, found)
            elif found.kind is not Kind.APEX:
                rrset = None
            elif each == RdataType.SOA:
                rrset = self._soa(zone, NEGATIVE_TTL_S, name)
            else:
                servers = [dns.name.from_text(server).to_text() for server in zone.ns]
                rrset = dns.rrset.from_text(name, NS_TTL_S, "IN", "NS", *servers) if servers else None
            if rrset is not None:
                return [rrset]
        return []

    def _addresses(self, name: dns.name.Name, rtype: str, found: Found, region: str) -> dns.rrset.RRset | None:
        addresses: tuple[str, ...] = ()
        ttl_s = NS_TTL_S
        if found.kind in (Kind.SERVICE, Kind.APEX) and found.record is not None:
            addresses, ttl_s = found.record.pick(region, self.regions.default, rtype), found.record.ttl_s
        elif found.kind is Kind.SERVER:
            addresses = tuple(a for a in found.addresses if (":" in a) == (rtype == "AAAA"))
        return dns.rrset.from_text(name, ttl_s, "IN", rtype, *addresses) if addresses else None

    def _soa(self, zone: Zone, ttl_s: int, name: dns.name.Name | None = None) -> dns.rrset.RRset:
        first = next(iter(zone.ns), zone.name)
        text = f"{first}. hostmaster.{zone.name}. {self.table.serial(zone)} {SOA_TIMES}"
        return dns.rrset.from_text(name or dns.name.from_text(zone.name), ttl_s, "IN", "SOA", text)

    def _glue(self, zone: Zone) -> list[dns.rrset.RRset]:
        sets = []
        for server in zone.ns:
            name = dns.name.from_text(server)
            if self.table.zone(name) is not None:
                found = self.table.find(name)
                sets += [self._addresses(name, t, found, "") for t in _ADDRESS.values()]
        return [rrset for rrset in sets if rrset is not None]


def _fence(name: dns.name.Name, found: Found) -> dns.rrset.RRset | None:
    if found.kind is not Kind.FENCE or found.record is None or found.record.fence is None:
        return None
    return dns.rrset.from_text(name, FENCE_TTL_S, "IN", "TXT", f'"{found.record.fence.text()}"')


def _echo(query: dns.message.Message, scope: int) -> dns.edns.ECSOption:
    asked = next(option for option in query.options if isinstance(option, dns.edns.ECSOption))
    # A scope for a client that gave no bits must be 0 (RFC 7871, 7.2.1).
    return dns.edns.ECSOption(asked.address, asked.srclen, scope if asked.srclen else 0)


def _bare(id_: int, flags: int, rcode: int) -> bytes:
    """A header and nothing else: what may be said about a message that was not understood."""
    kept = flags & (dns.opcode.to_flags(dns.opcode.from_flags(flags)) | dns.flags.RD)
    return _HEADER.pack(id_, dns.flags.QR | kept | rcode, 0, 0, 0, 0)
