"""What a zone on somebody else's server holds for us, kept up to date without asking for each name.

Each second all names are read back (4.9): that is one question for the SOA's serial, and a transfer only if it is
another one. If it went up by exactly the updates that we sent, nobody else changed anything: then the server is only
asked whether it has what we wrote, which it says by the prerequisites of an UPDATE that changes nothing.

An edit may leave the serial alone (PowerDNS' own tools do), so the zone is transferred now and then anyhow. What is
kept may be stale for that long, which is harmless: no write relies on it, the server compares.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

import dns.rcode
from dns.rdatatype import CNAME, RdataType

from controlplane.dns.peer import Peer, serial_in
from controlplane.dns.table import FENCE_LABEL
from controlplane.dns.update import TooLong, Write, fence_rdata, question
from controlplane.dns.wire import Message
from controlplane.drivers import Fence

ANYWAY_S = 10.0  # how old what is kept may be
LUA = 65402  # PowerDNS' own type
KEPT = frozenset((RdataType.A, RdataType.AAAA, CNAME, LUA))
_PREFIX = FENCE_LABEL + "."


class Row(NamedTuple):
    rtype: int
    ttl: int
    rdata: bytes


class Contents:
    """By name: `rows`: its addresses, LUA and CNAME records; `fences`: the TXT records of `_failover.<name>`."""

    def __init__(self) -> None:
        self.serial = 0
        self.rows: dict[str, list[Row]] = {}
        self.fences: dict[str, list[bytes]] = {}

    def take(self, message: Message) -> None:
        for record in message.answer:
            if record.rtype in KEPT:
                self.rows.setdefault(record.name, []).append(Row(record.rtype, record.ttl, record.rdata))
            elif record.rtype == RdataType.TXT and record.name.startswith(_PREFIX):
                self.fences.setdefault(record.name[len(_PREFIX) :], []).append(record.rdata)
            elif record.rtype == RdataType.SOA:
                self.serial = serial_in(record.rdata)

    def put(self, write: Write, types: Sequence[int]) -> None:
        """As the server did when it took this."""
        rows = [row for row in self.rows.get(write.name, []) if row.rtype not in (*types, CNAME)]
        self.rows[write.name] = rows + [Row(rtype, write.ttl_s, rdata) for rtype, rdata in write.records]
        self.fences[write.name] = [fence_rdata(write.fence)]

    def fence(self, name: str) -> Fence | None:
        """None: there is none, or something else stands there."""
        found = self.fences.get(name, [])
        text = _text(found[0]) if len(found) == 1 else None
        return Fence.parse(text) if text is not None else None

    def alias(self, name: str) -> bool:
        """Does a CNAME stand there? Then no address can be put beside it (RFC 2136, 3.4.2.2)."""
        return any(row.rtype == CNAME for row in self.rows.get(name, ()))

    def strange(self, name: str) -> bool:
        """Does something stand in the fence's place that is none? It would have to be removed by hand."""
        return name in self.fences and self.fence(name) is None


def _text(rdata: bytes) -> str | None:
    """A TXT record of exactly one string, as we write them: a prerequisite compares them byte by byte."""
    if not rdata or len(rdata) != rdata[0] + 1:
        return None
    return rdata[1:].decode("ascii", "replace")


class ZoneReader:
    """One zone of one server, through one key. types: what every write of ours replaces at its name."""

    def __init__(self, peer: Peer, zone: str, types: Sequence[int]) -> None:
        self.peer, self.zone, self.types = peer, zone, types
        self.kept = Contents()
        self._at: float | None = None  # when that transfer began
        self._taken: list[Sequence[Write]] = []  # by the server, since then
        self._unsure = False  # something was sent whose outcome is not known
        self._sent = 0
        self._ended = 0

    async def contents(self) -> Contents:
        """Raises OSError or TimeoutError."""
        now = asyncio.get_running_loop().time()
        serial = await self.peer.serial(self.zone)
        fresh = self._at is not None and now < self._at + ANYWAY_S and not self._unsure
        if fresh and ((serial == self.kept.serial and not self._taken) or await self._ours(serial)):
            return self.kept
        sent, quiet, contents = self._sent, self._sent == self._ended, Contents()
        await self.peer.transfer(self.zone, contents.take)
        self.kept, self._at, self._taken = contents, now, []
        self._unsure = not (quiet and self._sent == sent)
        return contents

    async def update(self, message: bytes, writes: Sequence[Write]) -> int:
        """Send this message, which holds these writes. Returns the server's code. Raises OSError or TimeoutError."""
        self._sent += 1
        try:
            reply = await self.peer.ask(message)
        except BaseException:  # also when it is given up: it may be carried out yet
            self._unsure = True
            raise
        finally:
            self._ended += 1
        if reply.rcode == dns.rcode.NOERROR:
            self._taken.append(writes)
        return reply.rcode

    async def _ours(self, serial: int) -> bool:
        """Is what we wrote all that has changed, and is it there? Then it is kept."""
        taken = list(self._taken)
        if not taken or (serial - self.kept.serial) % 2**32 != len(taken):
            return False
        last = {write.name: write for writes in taken for write in writes}
        for writes in taken:
            try:
                message = question(self.zone, [w for w in writes if last[w.name] is w], self.types)
            except TooLong:
                return False
            if (await self.peer.ask(message)).rcode != dns.rcode.NOERROR:
                return False
        if len(self._taken) != len(taken):
            return False
        for write in last.values():
            self.kept.put(write, self.types)
        self.kept.serial, self._taken = serial, []
        return True
