"""A real HAProxy between web servers that answer with their own name and clients, all on loopback."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec

from chaos.worlds.servers.haproxy import HAProxy
from chaos.worlds.servers.process import free_port
from controlplane.drivers import Driver, Place
from controlplane.pools.haproxy import KIND
from policies.topology import Config, Policy, PoolDriver, Pools, Service, Site
from tests.contract.pool_contract import POOLS, SERVERS

HOST = "127.0.0.1"


class WebServers:
    """One for each name; "/held" is answered when `release` is set."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.release = asyncio.Event()
        self.holding = asyncio.Condition()
        self.held: list[str] = []
        self._servers: list[asyncio.Server] = []

    async def start(self, names: Sequence[str]) -> None:
        for name in names:
            server = await asyncio.start_server(partial(self._serve, name), HOST, 0, backlog=512)
            self._servers.append(server)
            self.ports[name] = server.sockets[0].getsockname()[1]

    async def _serve(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if b" /held " in head:
                    async with self.holding:
                        self.held.append(name)
                        self.holding.notify_all()
                    await self.release.wait()
                body = name.encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.transport.abort()

    async def aclose(self) -> None:
        self.release.set()
        for server in self._servers:
            server.close()
            await server.wait_closed()


class Client:
    """Keeps its connection, as browsers do."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str = "/") -> tuple[int, str]:
        """Status and body. Raises OSError or asyncio.IncompleteReadError."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self.port)
        reader, writer = self._streams
        writer.write(f"GET {path} HTTP/1.1\r\nHost: www.example.org\r\n\r\n".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length:")[2].split()[0])
        return int(head.split()[1]), (await reader.readexactly(length)).decode()

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


class World:
    """The contract suite's Backend. tcp: the driver uses the runtime API over TCP. state_file: and keeps one."""

    def __init__(self, directory: Path, *, tcp: bool = False, state_file: bool = False, timeout_s: float = 1.0) -> None:
        self.directory, self.timeout_s, self.state_file = directory, timeout_s, state_file
        self.web = WebServers()
        self.admin = (HOST, free_port())
        self.socket = f"{HOST}:{self.admin[1]}" if tcp else str(directory / "admin.sock")
        self.state_dir = directory / "state"
        self.pools: tuple[str, ...] = POOLS

    async def start(self, pools: Sequence[str] = POOLS) -> World:
        """Clients can ask the first three of them."""
        self.pools = tuple(pools)
        await self.web.start([name for names in SERVERS.values() for name in names])
        backends = {pool: {name: (HOST, port) for name, port in self.web.ports.items()} for pool in pools}
        listen = {pool: (HOST, free_port()) for pool in pools[:3]}
        # Time-outs are generous: this is no test of how fast a busy computer is.
        self.haproxy = HAProxy(
            self.directory,
            listen,
            backends,
            admin=self.admin,
            check_path="",
            connect_timeout_ms=5000,
            server_timeout_ms=20_000,
        )
        try:
            self.haproxy.start()
        except BaseException:
            await self.web.aclose()
            raise
        return self

    def entry(self, socket: str = "") -> PoolDriver:
        options: dict[str, object] = {"socket": socket or self.socket, "timeout_s": self.timeout_s}
        if self.state_file:
            options["state_file"] = str(self.haproxy.state_file)
        text = msgspec.json.encode(KIND.options_of(PoolDriver("haproxy", "haproxy", (), _json(options)))).decode()
        return PoolDriver("haproxy", "haproxy", ("site-a", "site-b"), text)

    def config(self, pools: Sequence[str] = ()) -> Config:
        return config(pools or self.pools, self.entry())

    async def driver(self, socket: str = "", state_dir: Path | None = None) -> Driver:
        assert KIND.open_pool is not None
        return await KIND.open_pool(self.entry(socket), self.config(), Place("site-a", state_dir or self.state_dir))

    async def successor(self) -> Driver:
        # A copy, because drivers of one process share what they know of a file.
        there = self.directory / "successor"
        shutil.copytree(self.state_dir, there)
        return await self.driver(state_dir=there)

    async def request(self, pool: str = POOLS[0]) -> str:
        client = Client(self.haproxy.listen[pool][1])
        try:
            status, body = await client.get()
        finally:
            client.close()
        assert status == 200, body
        return body

    @asynccontextmanager
    async def held(self, pool: str = POOLS[0]) -> AsyncIterator[str]:
        client = Client(self.haproxy.listen[pool][1])
        asked = asyncio.ensure_future(client.get("/held"))
        try:
            async with self.web.holding:
                await self.web.holding.wait_for(lambda: bool(self.web.held))
            yield self.web.held[-1]
            self.web.release.set()
            assert await asked == (200, self.web.held[-1])
        finally:
            self.web.release.set()
            asked.cancel()
            client.close()

    async def restart(self) -> None:
        self.haproxy.restart()

    def edit(self, server: str, out: bool, pool: str = POOLS[0]) -> None:
        self.haproxy.command(f"set server {pool}/{server} state {'maint' if out else 'ready'}")

    def freeze(self) -> None:
        self.haproxy.freeze()

    def thaw(self) -> None:
        self.haproxy.thaw()

    async def aclose(self) -> None:
        self.haproxy.stop()
        await self.web.aclose()


def config(pools: Sequence[str], entry: PoolDriver) -> Config:
    """A service for each of `pools`, with SERVERS."""
    services = {
        pool.removeprefix("bk_"): Service(
            endpoints=dict.fromkeys(SERVERS, (HOST,)),
            demand={},
            checks=(),
            policy=Policy(),
            target_s=60.0,
            pools=Pools(pool, dict(SERVERS)),
        )
        for pool in pools
    }
    sites = dict.fromkeys(SERVERS, Site(1000.0))
    return Config("test", 60.0, sites, {}, services, Policy(), pools=(entry,))


def _json(values: dict[str, object]) -> str:
    return msgspec.json.encode(values).decode()
