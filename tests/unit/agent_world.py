"""Agents in a world of their own: three sites' embedded servers without sockets, a memory store, a virtual clock,
and for each agent a source that the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import dns.message

from chaos.worlds.loop import Kernel
from controlplane.agent import Agent
from controlplane.dns.embedded import EmbeddedDriver, EmbeddedServer
from controlplane.dns.regions import Regions
from controlplane.dns.table import Zone
from controlplane.documents import AppliedDoc, Keys, decode, encode
from controlplane.drivers import Driver
from controlplane.notes import Note
from controlplane.signal import Signal
from controlplane.store import Put, Snapshot, Txn, Unavailable
from controlplane.store.memory import MemoryStore
from policies.topology import Config, Dns, DnsDriver, Policy, Region, Service
from policies.world import Answer, Desired

KEYS = Keys("acme")
REGIONS = {"world": Region(default=True)}
SITES = ("site-a", "site-b", "site-c")
NAME = "www.example.org"


def address(site: str) -> str:
    return f"127.0.{SITES.index(site) + 1}.1:5300"


def driver_of(site: str, *deputies: str) -> DnsDriver:
    options = f'{{"listen": ["{address(site)}"]}}'
    writers = (site, *deputies)
    return DnsDriver("embedded", f"dns-{site}", site, ("example.org",), writers, 1.0, "freeze", (), options)


DRIVERS = (driver_of("site-a", "site-b"), driver_of("site-b", "site-a"), driver_of("site-c"))
SERVICE = Service({"site-a": ("192.0.2.1",)}, {}, (), Policy(), 60.0, dns=Dns(NAME))
CONFIG = Config("acme", 60.0, {}, REGIONS, {"www": SERVICE}, Policy(), dns=DRIVERS, revision=1)


def want(generation: int, decision: str = "", ttl_s: int = 20, service: str = "www") -> Desired:
    return Desired(
        service=service,
        generation=generation,
        shares={},
        answers=(Answer("world", "A", f"192.0.2.{generation}", "site-a", 100),),
        sites={},
        name=f"{service}.example.org",
        ttl_s=ttl_s,
        decision=decision or f"d-{generation}",
    )


class Source:
    """What a View would show."""

    def __init__(self) -> None:
        self.desired: dict[str, Desired] = {}
        self.config: Config | None = CONFIG
        self.incarnation = "inc"
        self.adopted: tuple[str, ...] = ()
        self.adoption = 0
        self.current = True
        self.news = Signal()


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.ranges = 0

    async def range(self, prefix: str) -> Snapshot:
        self.ranges += prefix == KEYS.desired
        if self.away:
            raise Unavailable("away")
        return await super().range(prefix)


class World:
    """Three name servers, one store, and the agents that a test starts."""

    def __init__(self) -> None:
        self.store = CountingStore()
        self.servers: dict[str, EmbeddedServer | None] = {site: self.server() for site in SITES}
        self.sources: dict[str, Source] = {}
        self.agents: dict[str, Agent] = {}
        self.notes: dict[str, list[Note]] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def server(self) -> EmbeddedServer:
        return EmbeddedServer([Zone("example.org", {})], Regions(REGIONS), expected=(NAME,))

    def driver(self, site: str) -> Driver:
        return EmbeddedDriver(f"dns-{site}", lambda: self.servers[site])

    def start(self, site: str, drivers: Mapping[str, Driver] | None = None) -> Source:
        source = self.sources[site] = Source()
        for other in self.sources.values():
            source.desired |= other.desired
        self.notes[site] = []
        if drivers is None:
            drivers = {f"dns-{s}": self.driver(s) for s in SITES}
        agent = self.agents[site] = Agent(
            site, "r1", source, self.store, KEYS, drivers, ask=self.ask, on_note=self.notes[site].append
        )
        self.tasks[site] = asyncio.get_running_loop().create_task(agent.run())
        return source

    async def stop(self, site: str) -> None:
        task = self.tasks.pop(site)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def ask(self, server: str, query: dns.message.Message) -> dns.message.Message:
        one = next(self.servers[site] for site in SITES if address(site) == server)
        if one is None:
            await asyncio.sleep(1.4)
            raise TimeoutError("no answer")
        await asyncio.sleep(0.001)
        reply = one.answer(query.to_wire(), "127.0.0.1")
        assert reply is not None
        return dns.message.from_wire(reply)

    async def decide(self, *desired: Desired, unseen_by: str = "") -> None:
        await self.store.txn(Txn((), tuple(Put(KEYS.service(d.service), encode(d)) for d in desired)))
        for site, source in self.sources.items():
            if site != unseen_by:
                source.desired |= {d.service: d for d in desired}
                source.news.set()

    def generation(self, site: str) -> int | None:
        server = self.servers[site]
        actual = server.table.read(NAME) if server else None
        return actual.fence.generation if actual and actual.fence else None

    def document(self, site: str, writer: str) -> AppliedDoc | None:
        value = self.store.snapshot().data.get(KEYS.applied_by(writer, site, f"dns-{site}"))
        return decode(AppliedDoc, value.value) if value else None


def virtual(body: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        world = World()
        try:
            await body(world)
        finally:
            for site in list(world.tasks):
                await world.stop(site)

    with Kernel() as kernel:
        kernel.run(main())
