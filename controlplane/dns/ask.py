"""The Ask port: one DNS query to one server, asked directly; and the adapter with real sockets."""

from __future__ import annotations

import asyncio
import secrets
from typing import Protocol

import dns.exception
import dns.flags
import dns.message
import dns.tsig

from controlplane.dns.server import endpoint

TRIES_S = (0.4, 1.0)  # how long to wait for each UDP datagram's answer, then for TCP


class Ask(Protocol):
    async def __call__(self, server: str, query: dns.message.Message) -> dns.message.Message:
        """`server`: "address:port". Raises OSError or TimeoutError if there is no answer. Sets the query's id."""
        ...


async def ask(server: str, query: dns.message.Message) -> dns.message.Message:
    """UDP, a second time if nothing comes back, and TCP if the answer was cut short (RFC 7766). A query with a key is
    signed with it. Raises dns.tsig.PeerError too: the server does not take the key."""
    host, port = endpoint(server)
    query.id = secrets.randbelow(1 << 16)  # replies are matched by it: it must not be guessed
    if query.keyring is not None:
        query.use_tsig(query.keyring)  # of this id
    for wait_s in TRIES_S:
        try:
            reply = await _udp(host, port, query, wait_s)
        except TimeoutError:
            continue
        return await _tcp(host, port, query) if reply.flags & dns.flags.TC else reply
    raise TimeoutError(f"no answer from {server}")


class _Waiter(asyncio.DatagramProtocol):
    def __init__(self, query: dns.message.Message) -> None:
        self.query = query
        self.reply: asyncio.Future[dns.message.Message] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if data[:2] != self.query.id.to_bytes(2, "big") or self.reply.done():
            return
        try:
            reply = _read(self.query, data)
        except dns.tsig.PeerError as error:
            self.reply.set_exception(error)
            return
        except (dns.exception.DNSException, ValueError):
            return  # not the answer; the right one may still come
        if self.query.is_response(reply) and not self.reply.done():
            self.reply.set_result(reply)

    def error_received(self, exc: Exception) -> None:
        if not self.reply.done():
            self.reply.set_exception(exc)


async def _udp(host: str, port: int, query: dns.message.Message, wait_s: float) -> dns.message.Message:
    loop = asyncio.get_running_loop()
    transport, waiter = await loop.create_datagram_endpoint(lambda: _Waiter(query), remote_addr=(host, port))
    try:
        transport.sendto(query.to_wire())
        async with asyncio.timeout(wait_s):
            return await waiter.reply
    finally:
        transport.abort()


async def _tcp(host: str, port: int, query: dns.message.Message) -> dns.message.Message:
    async with asyncio.timeout(TRIES_S[-1]):
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(query.to_wire(prepend_length=True))
            length = int.from_bytes(await reader.readexactly(2), "big")
            reply = _read(query, await reader.readexactly(length))
        except dns.tsig.PeerError:
            raise
        except (asyncio.IncompleteReadError, dns.exception.DNSException, ValueError) as error:
            raise ConnectionError(f"no DNS answer over TCP: {error}") from error
        finally:
            writer.close()
    if not query.is_response(reply):
        raise ConnectionError("an answer to another question over TCP")
    return reply


def _read(query: dns.message.Message, wire: bytes) -> dns.message.Message:
    """A signature has to be right. Raises dns.exception.DNSException or ValueError."""
    return dns.message.from_wire(wire, keyring=query.keyring, request_mac=query.mac or b"")
