"""Servers on loopback that fail in one known way each, and certificates to go with them."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HOST = "127.0.0.1"


@asynccontextmanager
async def server(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a free port of loopback; yields the port. Connections that are left end with it."""
    open_: list[asyncio.StreamWriter] = []
    running: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.append(task)
        open_.append(writer)
        with suppress(asyncio.CancelledError, ConnectionError):
            await handler(reader, writer)
        writer.transport.abort()

    listening = await asyncio.start_server(serve, HOST, 0, ssl=tls)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running)
        for writer in open_:
            writer.transport.abort()
        await asyncio.sleep(0)


def replies(*texts: str, seen: list[str] | None = None) -> Handler:
    """Answers the nth request with the nth text (the last one again and again), then closes."""
    count = 0

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        request = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(request.decode())
        text = texts[min(count, len(texts) - 1)]
        count += 1
        writer.write(text.encode())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    return handle


def reply(status: str = "200 OK", body: str = "ok", *headers: str) -> str:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body.encode())}", "Connection: close", *headers]
    return "\r\n".join(lines) + "\r\n\r\n" + body


def stalls(text: str = "") -> Handler:
    """Sends the text at once and then nothing, for ever."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text.encode())
        await asyncio.Event().wait()

    return handle


def resets() -> Handler:
    """Resets the connection as soon as something was sent."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()

    return handle


@contextmanager
def refusing() -> Iterator[int]:
    """A port that nothing listens on, and nobody else gets."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        yield sock.getsockname()[1]


@contextmanager
def dropping() -> Iterator[int]:
    """A port that does not answer a handshake: its queue is full and nobody accepts."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        sock.listen(0)
        fill = [socket.socket() for _ in range(4)]
        for one in fill:
            one.setblocking(False)
            one.connect_ex(sock.getsockname())
        try:
            yield sock.getsockname()[1]
        finally:
            for one in fill:
                one.close()
