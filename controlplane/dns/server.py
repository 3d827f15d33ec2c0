"""Sockets for a responder: UDP, and TCP with length-framed messages (RFC 1035 4.2, RFC 7766)."""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Sequence
from functools import partial
from typing import cast

from controlplane.dns.responder import Responder

MAX_CONNECTIONS = 128  # for each listening address; then the one that was silent longest makes room
AT_ONCE = 16  # queries of one connection that are answered before others get their turn
IDLE_S = 10.0  # since the last whole query: sending single bytes does not keep a connection
_LENGTH = struct.Struct("!H")


def endpoint(text: str, port: int = 53) -> tuple[str, int]:
    """Split "192.0.2.1", "192.0.2.1:53", "2001:db8::1" or "[2001:db8::1]:53". Raises ValueError."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, int(rest.removeprefix(":")) if rest else port
    if text.count(":") == 1:
        host, _, rest = text.partition(":")
        return host, int(rest)
    return text, port


def join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, responder: Responder) -> None:
        self.responder = responder
        self.full = False
        self.transport: asyncio.DatagramTransport | None = None
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        # Port 0 cannot be answered; it only comes from forged packets.
        reply = self.responder.respond(data, addr[0]) if addr[1] else None
        if reply is not None and self.transport is not None and not self.full:
            self.transport.sendto(reply, addr)

    def pause_writing(self) -> None:
        self.full = True  # answers are dropped, as the network would: memory is not a queue for a flood

    def resume_writing(self) -> None:
        self.full = False

    def error_received(self, exc: Exception) -> None:
        """A client went away before its answer came: nothing to do."""


class _Tcp(asyncio.Protocol):
    """One connection. Queries are answered in order; a client that does not read is not read from either."""

    def __init__(self, responder: Responder, peers: dict[_Tcp, None]) -> None:
        self.responder, self.peers = responder, peers
        self.buffer = bytearray()
        self.source = ""
        self.paused = False
        self.transport: asyncio.Transport | None = None
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.source = self.transport.get_extra_info("peername")[0]
        if len(self.peers) >= MAX_CONNECTIONS:
            next(iter(self.peers)).close()
        self._active()

    def connection_lost(self, exc: Exception | None) -> None:
        self.close()

    def close(self) -> None:
        self.peers.pop(self, None)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.transport is not None:
            self.transport.abort()
            self.transport = None

    def _active(self) -> None:
        """A whole query came: last in the row of those that make room, and a new idle time."""
        self.peers.pop(self, None)
        self.peers[self] = None
        if self.timer is not None:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_later(IDLE_S, self.close)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._serve()

    def _serve(self) -> None:
        """Answer some of what was read; nothing more is read until all of it is answered."""
        for _ in range(AT_ONCE):
            if self.transport is None or self.paused or not self._next():
                break
        else:
            asyncio.get_running_loop().call_soon(self._serve)
            if self.transport is not None:
                self.transport.pause_reading()
            return
        if self.transport is not None and not self.paused:
            self.transport.resume_reading()

    def _next(self) -> bool:
        """Answer one query; False if there is no whole one."""
        if len(self.buffer) < _LENGTH.size or self.transport is None:
            return False
        end = _LENGTH.size + _LENGTH.unpack_from(self.buffer)[0]
        if len(self.buffer) < end:
            return False
        wire = bytes(self.buffer[_LENGTH.size : end])
        del self.buffer[:end]
        reply = self.responder.respond(wire, self.source, tcp=True)
        if reply is None:  # not a query: this client does not speak DNS
            self.close()
            return False
        self._active()
        self.transport.write(_LENGTH.pack(len(reply)) + reply)
        return True

    def pause_writing(self) -> None:
        self.paused = True
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.paused = False
        self._serve()


class _Bound:
    """UDP and TCP on the same port of one address."""

    def __init__(
        self,
        address: tuple[str, int],
        udp: asyncio.DatagramTransport,
        protocol: _Udp,
        tcp: asyncio.Server,
        peers: dict[_Tcp, None],
    ) -> None:
        self.address = address
        self._udp, self._protocol, self._tcp, self._peers = udp, protocol, tcp, peers

    async def aclose(self) -> None:
        await _close(self._udp, self._protocol)
        self._tcp.close()
        for peer in list(self._peers):
            peer.close()
        await self._tcp.wait_closed()


class Sockets:
    """The open sockets of one responder: UDP and TCP on the same port of each address."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], _Bound] = {}  # by what was asked for

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """As bound."""
        return tuple(bound.address for bound in self._open.values())

    async def open(self, responder: Responder, listen: Sequence[tuple[str, int]]) -> None:
        """Listen at exactly these; port 0 = any free one. What is open already goes on without a break. Raises
        OSError if one cannot be bound, and then nothing has changed."""
        new: dict[tuple[str, int], _Bound] = {}
        try:
            for place in listen:
                if place not in self._open and place not in new:
                    new[place] = await _bind(responder, *place)
        except BaseException:
            for bound in new.values():
                await bound.aclose()
            raise
        old, self._open = self._open, {place: self._open.get(place) or new[place] for place in listen}
        for place, bound in old.items():
            if place not in self._open:
                await bound.aclose()

    async def aclose(self) -> None:
        old, self._open = self._open, {}
        for bound in old.values():
            await bound.aclose()


async def _bind(responder: Responder, host: str, port: int) -> _Bound:
    loop = asyncio.get_running_loop()
    for attempt in range(20):
        udp, protocol = await loop.create_datagram_endpoint(lambda: _Udp(responder), (host, port))
        bound: int = udp.get_extra_info("sockname")[1]
        peers: dict[_Tcp, None] = {}
        try:
            tcp = await loop.create_server(partial(_Tcp, responder, peers), host, bound)
        except BaseException as error:
            await _close(udp, protocol)
            # The free port that UDP was given is taken for TCP: take another.
            if isinstance(error, OSError) and error.errno == errno.EADDRINUSE and not port and attempt < 19:
                continue
            raise
        return _Bound((host, bound), udp, protocol, tcp, peers)
    raise AssertionError("unreachable")


async def _close(udp: asyncio.DatagramTransport, protocol: _Udp) -> None:
    """The socket is closed one turn of the loop after abort(); until then its port is taken."""
    udp.abort()
    await protocol.closed
