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


class Sockets:
    """The open sockets of one responder: UDP and TCP on the same port of each address."""

    def __init__(self) -> None:
        self.addresses: tuple[tuple[str, int], ...] = ()  # as bound
        self._udp: list[tuple[asyncio.DatagramTransport, _Udp]] = []
        self._tcp: list[tuple[asyncio.Server, dict[_Tcp, None]]] = []

    async def open(self, responder: Responder, listen: Sequence[tuple[str, int]]) -> None:
        """Bind all; port 0 = any free one. Raises OSError, and then nothing is left open."""
        try:
            self.addresses = tuple([await self._bind(responder, host, port) for host, port in listen])
        except BaseException:
            await self.aclose()
            raise

    async def _bind(self, responder: Responder, host: str, port: int) -> tuple[str, int]:
        loop = asyncio.get_running_loop()
        for attempt in range(20):
            udp, protocol = await loop.create_datagram_endpoint(lambda: _Udp(responder), (host, port))
            bound: int = udp.get_extra_info("sockname")[1]
            peers: dict[_Tcp, None] = {}
            try:
                tcp = await loop.create_server(partial(_Tcp, responder, peers), host, bound)
            except OSError as error:
                await _close(udp, protocol)
                # The free port that UDP was given is taken for TCP: take another.
                if port or error.errno != errno.EADDRINUSE or attempt == 19:
                    raise
                continue
            self._udp.append((udp, protocol))
            self._tcp.append((tcp, peers))
            return host, bound
        raise AssertionError("unreachable")

    async def aclose(self) -> None:
        for udp, protocol in self._udp:
            await _close(udp, protocol)
        for tcp, peers in self._tcp:
            tcp.close()
            for peer in list(peers):
                peer.close()
            await tcp.wait_closed()
        self._udp, self._tcp = [], []


async def _close(udp: asyncio.DatagramTransport, protocol: _Udp) -> None:
    """The socket is closed one turn of the loop after abort(); until then its port is taken."""
    udp.abort()
    await protocol.closed
