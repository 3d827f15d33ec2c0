"""TCP proxies of this process whose ways can be cut, so that a test needs no root to partition real servers.

A cut holds the bytes back, as a network does that drops packets: what was on its way arrives when it heals.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
HOST = "127.0.0.1"
TO, FROM = "to", "from"  # ways of a proxy: to what is behind it, and from it
_DIALER = re.compile(rb"X-Server-From: (\w+)")  # etcd's rafthttp tells who dials


class Proxy:
    """TCP to the port `target` of this host. `held`: what does not pass, as (dialer or "*", TO or FROM)."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.held: set[tuple[str, str]] = set()
        self.target = target
        self._pairs: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def hold(self, held: set[tuple[str, str]]) -> None:
        self.held = held
        self._changed.set()
        self._changed = asyncio.Event()

    async def sever(self) -> None:
        """End every connection; what is held back is lost."""
        for writers in list(self._pairs.values()):
            for writer in writers:
                writer.transport.abort()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._pairs):
            task.cancel()
        await asyncio.gather(*self._pairs, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        writers = self._pairs[task] = [writer]
        try:
            first = await reader.read(65536)
            found = _DIALER.search(first)
            dialer = found[1].decode() if found else ""
            await self._free(dialer, TO)
            behind_reader, behind = await asyncio.open_connection(HOST, self.target)
            writers.append(behind)
            behind.write(first)
            ways = ((reader, behind, TO), (behind_reader, writer, FROM))
            pumps = [asyncio.create_task(self._pump(*way, dialer)) for way in ways]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # the other side is gone, or the test is over: both ends are closed below
        finally:
            del self._pairs[task]
            for each in writers:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str, dialer: str) -> None:
        while data := await reader.read(65536):
            await self._free(dialer, way)
            writer.write(data)
            await writer.drain()

    async def _free(self, dialer: str, way: str) -> None:
        while {(dialer, way), ("*", way)} & self.held:
            await self._changed.wait()


class Switchboard:
    """Runs proxies on a loop of its own, in a thread: they work while the test waits for a process."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()
        self._proxies: list[Proxy] = []

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(main, self._loop).result(10)

    def proxy(self, target: int) -> Proxy:
        async def make() -> Proxy:
            proxy = Proxy(target)
            await proxy.open()
            return proxy

        self._proxies.append(self.run(make()))
        return self._proxies[-1]

    def close(self) -> None:
        for proxy in self._proxies:
            self.run(proxy.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
