"""One name server as its writer talks to it: signed requests over TCP, each on a connection of its own.

TCP, because an UPDATE that is sent twice is an UPDATE whose first reply was lost, and a zone needs it anyway. A new
connection each time is one round trip more, and no connection of a server's earlier life is ever met.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import dns.message
import dns.name
import dns.rcode
import dns.tsig
from dns.rdatatype import RdataType

from controlplane.dns.server import join
from controlplane.dns.signing import Conversation, Rejected, Wall
from controlplane.dns.wire import Malformed, Message, parse

ASK_S = 1.8  # for one request and its reply, and for each message of a transfer
TRANSFER_S = 10.0  # a zone that takes longer is too large for its line: it would be out of date before it is read
TRANSFER_BYTES = 128 << 20  # a zone larger than this is not one of ours

# What to do about a code, for whoever reads the alarm (RFC 2136, 2.2; RFC 8945, 3).
ADVICE = {
    "REFUSED": "may this key, from this address, update and transfer the zone?",
    "NOTAUTH": "is the zone served there?",
    "NOTIMP": "does this server take UPDATE?",
    "SERVFAIL": "see its log: a zone that could not be loaded, or too many transfers at once, look like this",
}
PASSING = ("SERVFAIL",)  # may be better a moment later
# Codes of a server that did not get as far as to sign its answer.
UNSIGNED = ("REFUSED", "NOTAUTH", "FORMERR", "NOTIMP", "SERVFAIL")


def rejection(rcode: int, what: str) -> Rejected:
    """What a code other than NOERROR means."""
    code = dns.rcode.to_text(dns.rcode.Rcode.make(rcode))
    advice = ADVICE.get(code)
    return Rejected(f"{what}: {code}" + (f": {advice}" if advice else ""), code not in PASSING)


class Peer:
    """key None: requests are not signed. wall: the clock that signatures carry."""

    def __init__(self, host: str, port: int, key: dns.tsig.Key | None, wall: Wall) -> None:
        self.host, self.port, self._key, self._wall = host, port, key, wall

    @property
    def where(self) -> str:
        key = f" with key {self._key.name.to_text(omit_final_dot=True)}" if self._key else ""
        return join(self.host, self.port) + key

    async def ask(self, request: bytes) -> Message:
        """One request, one reply. Raises OSError or TimeoutError; Rejected if the reply is not properly signed."""
        conversation = Conversation(self._key, self._wall)
        async with self._within(ASK_S):
            reader, writer = await asyncio.open_connection(self.host, self.port)
            try:
                writer.write(_framed(conversation.sign(request)))
                reply = await _receive(reader, request)
            finally:
                writer.close()
        if not conversation.check(reply):
            raise self._unsigned(reply)
        return reply

    async def serial(self, zone: str) -> int:
        """Of the zone's SOA. Raises OSError or TimeoutError."""
        query = dns.message.make_query(dns.name.from_text(zone), RdataType.SOA, flags=0)
        reply = await self.ask(query.to_wire())
        if reply.rcode != dns.rcode.NOERROR:
            raise rejection(reply.rcode, f"read {zone}")
        for record in reply.answer:
            if record.rtype == RdataType.SOA and record.name == zone:
                return serial_in(record.rdata)
        raise Rejected(f"{self.where} does not serve {zone}")

    async def transfer(self, zone: str, take: Callable[[Message], None]) -> None:
        """A full transfer (RFC 5936). `take` gets each message as it comes; what they said holds if this returns.
        Raises OSError or TimeoutError."""
        request = dns.message.make_query(dns.name.from_text(zone), RdataType.AXFR, flags=0).to_wire()
        conversation = Conversation(self._key, self._wall)
        async with self._within(TRANSFER_S, f"no transfer of {zone}"):
            async with self._within(ASK_S):
                reader, writer = await asyncio.open_connection(self.host, self.port)
            try:
                writer.write(_framed(conversation.sign(request)))
                await self._messages(zone, reader, request, conversation, take)
            finally:
                writer.close()

    @asynccontextmanager
    async def _within(self, patience_s: float, what: str = "no answer") -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(patience_s) as patience:
                yield
        except TimeoutError:
            if not patience.expired():  # it says itself what took so long
                raise
            raise TimeoutError(f"{join(self.host, self.port)}: {what} within {patience_s:g} s") from None

    async def _messages(
        self,
        zone: str,
        reader: asyncio.StreamReader,
        request: bytes,
        conversation: Conversation,
        take: Callable[[Message], None],
    ) -> None:
        """From the SOA at its beginning to the same SOA at its end."""
        soas: list[bytes] = []
        total = 0
        while len(soas) < 2:
            async with self._within(ASK_S):
                message = await _receive(reader, request)
            signed = conversation.check(message, stream=True)
            if message.rcode != dns.rcode.NOERROR:
                raise rejection(message.rcode, f"transfer {zone}") if signed else self._unsigned(message)
            if not soas and not (signed and message.answer and message.answer[0].rtype == RdataType.SOA):
                raise Malformed(f"transfer {zone}: does not begin with a signed SOA")
            total += len(message.wire)
            if total > TRANSFER_BYTES:
                raise Malformed(f"transfer {zone}: over {TRANSFER_BYTES >> 20} MiB")
            soas += [record.rdata[-20:] for record in message.answer if record.rtype == RdataType.SOA]
            take(message)
            await asyncio.sleep(0)  # what is in the buffer already must not hold the loop
        if not signed or soas[0] != soas[-1]:
            raise Malformed(f"transfer {zone}: its end is not signed, or is another zone's")

    def _unsigned(self, reply: Message) -> Rejected:
        """A server that does not take a key cannot sign its "no", which needs no proof. Anything else does.

        PowerDNS says no more than REFUSED or NOTAUTH, whatever is wrong with a signature."""
        assert self._key is not None
        code = dns.rcode.to_text(dns.rcode.Rcode.make(reply.rcode))
        if code not in UNSIGNED:
            return Rejected(f"{code}, not signed with the key that was used: not believed")
        if code in PASSING:
            return rejection(reply.rcode, self.where)
        name = self._key.name.to_text(omit_final_dot=True)
        return Rejected(
            f"{code}, not signed: does the server know TSIG key {name} with this secret and algorithm, may that key "
            f"update and transfer this zone from here (the server's ACL), and are both clocks right?"
        )


def _framed(wire: bytes) -> bytes:
    return len(wire).to_bytes(2, "big") + wire


async def _receive(reader: asyncio.StreamReader, request: bytes) -> Message:
    """The next message of the answer to `request`."""
    try:
        length = int.from_bytes(await reader.readexactly(2), "big")
        message = parse(await reader.readexactly(length))
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("the server closed the connection without an answer") from error
    if not message.response or message.id != int.from_bytes(request[:2], "big"):
        raise Malformed("an answer to another question")
    return message


def serial_in(soa: bytes) -> int:
    """Of the SOA's rdata: the five numbers stand at its end, whatever the names before them (RFC 1035, 3.3.13)."""
    if len(soa) < 22:
        raise Malformed("an SOA that is cut short")
    return int.from_bytes(soa[-20:-16], "big")
