"""The embedded name server passes the contract of all DNS drivers, over real sockets."""

from __future__ import annotations

from controlplane.dns.embedded import EmbeddedDriver, EmbeddedServer
from controlplane.dns.regions import Regions
from controlplane.dns.table import Zone
from controlplane.drivers import Actual, Driver
from policies.topology import Region
from tests.contract.dns_contract import Backend, DnsContract

ZONE = Zone("example.org", {"ns.example.org": ("127.0.1.1",)})


class Embedded:
    zone = ZONE.name
    keeps = False

    def __init__(self) -> None:
        self._now: EmbeddedServer | None = None
        self.server = "127.0.1.1:0"

    async def start(self) -> Embedded:
        self._now = EmbeddedServer([ZONE], Regions({"world": Region(default=True)}), [self.server])
        await self._now.start()
        self.server = self._now.addresses[0]
        return self

    async def driver(self) -> Driver:
        return EmbeddedDriver("embedded-site-a", lambda: self._now)

    async def restart(self) -> None:
        await self.aclose()
        await self.start()

    async def edit(self, name: str, actual: Actual | None) -> None:
        assert self._now is not None
        self._now.table.edit(name, actual)

    async def aclose(self) -> None:
        if self._now is not None:
            await self._now.aclose()
        self._now = None


class TestEmbedded(DnsContract):
    async def open(self) -> Backend:
        return await Embedded().start()
