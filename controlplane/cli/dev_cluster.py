"""`failoverctl dev`: a whole cluster in one process, as it runs in production, sharing nothing but the store."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from controlplane.api.app import Server, make_app, serve
from controlplane.cli.dev_config import web_places
from controlplane.cli.dev_web import WebService
from controlplane.node import ROLES, Node
from controlplane.store.memory import MemoryStore
from controlplane.telemetry.environment import telemetry_from
from policies.topology import Config
from probes.kinds.prober import KindProber

HEAD_START_S = 0.3  # of the first site, so that it leads: the one that is broken first in a demonstration


class DevSite:
    """One site: its demo web services, and its node with the name server and the API."""

    def __init__(self, name: str, roles: tuple[str, ...], places: tuple[tuple[str, int], ...]) -> None:
        self.name, self.roles, self.places = name, roles, places
        self.services: list[WebService] = []
        self.node: Node | None = None
        self.task: asyncio.Task[None] | None = None
        self.api: Server | None = None
        self.api_port = 0

    @property
    def alive(self) -> bool:
        return self.task is not None and not self.task.done()


class DevCluster:
    """`failed(site, error)` is told when a node ends by an error, which only a bug or a port taken explains."""

    def __init__(self, config: Config, failed: Callable[[str, BaseException], None]) -> None:
        self.config = config
        self.store = MemoryStore()
        self._failed = failed
        self._closing = False
        places = web_places(config)
        self.sites = {
            name: DevSite(
                name,
                tuple(role for role in ROLES if role != "agent" or site.role != "witness"),
                places.get(name, ()),
            )
            for name, site in config.sites.items()
        }

    async def start(self) -> None:
        """All sites, then the configuration. Raises OSError or ListenError if a port is taken."""
        for index, site in enumerate(self.sites.values()):
            await self._start(site)
            if index == 0:
                await self._apply(site)
                await asyncio.sleep(HEAD_START_S)

    async def _apply(self, site: DevSite) -> None:
        assert site.node is not None
        applied = await site.node.operator.apply_config(self.config, (), expect=0)
        site.node.journal.audit("dev", f"apply revision {applied.config.revision}", "ok")

    async def _start(self, site: DevSite) -> None:
        for address, port in site.places:
            service = WebService(site.name, address, port)
            await service.start()
            site.services.append(service)
        wall = time.time  # noqa: TID251 - this is the port: the root hands the wall clock in
        node = Node(
            site.name,
            self.config.cluster,
            self.store,
            KindProber(),
            roles=site.roles,
            wall=wall,
            rng=random.SystemRandom(),
            telemetry=telemetry_from(os.environ, site.name, self.config.cluster, wall),
        )
        site.node = node
        site.api = await serve(make_app(node), "127.0.0.1", site.api_port)
        site.api_port = site.api.port
        site.task = asyncio.create_task(node.run(), name=site.name)
        site.task.add_done_callback(lambda task: self._ended(site, task))

    def _ended(self, site: DevSite, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not self._closing and (error := task.exception()) is not None:
            self._failed(site.name, error)

    async def break_site(self, name: str) -> None:
        """Services, name server, vantage, agent and controller end without a clean-up. KeyError if unknown."""
        await self._end(self.sites[name])

    async def heal_site(self, name: str) -> None:
        """Start a broken site anew, with empty memory. KeyError if unknown."""
        site = self.sites[name]
        if not site.alive:
            await self._start(site)

    async def _end(self, site: DevSite) -> None:
        services, site.services = site.services, []
        task, site.task, api, site.api = site.task, None, site.api, None
        if task is not None:
            task.cancel()
        for service in services:
            await service.stop()
        if task is not None:
            with suppress(asyncio.CancelledError):
                await task
        if api is not None:
            await api.aclose()

    async def aclose(self) -> None:
        """End everything, in order; nothing is left listening."""
        self._closing = True
        for site in self.sites.values():
            await self._end(site)

    @property
    def urls(self) -> tuple[str, ...]:
        """The API of each site, dead ones too: whoever asks goes on to the next."""
        return tuple(f"http://127.0.0.1:{site.api_port}" for site in self.sites.values())

    @property
    def leader(self) -> str:
        """The site that leads, or ""."""
        for site in self.sites.values():
            if site.alive and site.node is not None and site.node.election.token is not None:
                return site.name
        return ""

    def witness(self) -> Node:
        """The node of a site that lives, preferring those that carry nothing: to look on from."""
        alive = [s for s in self.sites.values() if s.alive and s.node is not None]
        chosen = next((s for s in alive if self.config.sites[s.name].role == "witness"), alive[0])
        assert chosen.node is not None
        return chosen.node


def now_utc() -> str:
    """ISO 8601, for people."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
