"""The embedded name server passes the contract of all DNS drivers, over real sockets."""

from __future__ import annotations

import itertools
from pathlib import Path

import dns.asyncquery
import dns.edns
import dns.message

from controlplane.dns.embedded import EmbeddedDriver, EmbeddedServer
from controlplane.dns.regions import Regions
from controlplane.dns.server import endpoint
from controlplane.dns.table import Zone
from controlplane.drivers import Actual, Driver, Result
from policies.topology import Region
from tests.contract.dns_contract import DnsContract
from tests.contract.dns_world import Backend, by_region, change
from tests.contract.geo_contract import GeoContract, SubnetContract, WeightContract
from tests.support import run
from tests.support_mmdb import write_mmdb

ZONE = Zone("example.org", {"ns.example.org": ("127.0.1.1",)})
REGIONS = {"eu": Region(networks=("203.0.113.0/24",)), "rest": Region(default=True)}
SUBNETS = {"eu": "203.0.113.7", "rest": "198.51.100.7"}


class Embedded:
    zone = ZONE.name
    keeps = False
    atomic = True
    regions = tuple(REGIONS)
    weights = True

    def __init__(self) -> None:
        self._now: EmbeddedServer | None = None
        self.server = "127.0.1.1:0"

    async def start(self) -> Embedded:
        self._now = EmbeddedServer([ZONE], Regions(REGIONS), [self.server])
        await self._now.start()
        self.server = self._now.addresses[0]
        return self

    async def driver(self) -> Driver:
        return EmbeddedDriver("embedded-site-a", lambda: self._now)

    async def restart(self) -> None:
        await self.aclose()
        await self.start()

    async def kill(self) -> None:
        await self.restart()

    async def edit(self, name: str, actual: Actual | None) -> None:
        assert self._now is not None
        self._now.table.edit(name, actual)

    async def told(self, region: str, name: str, rtype: str) -> list[str]:
        return await ask_as(SUBNETS[region], self.server, name, rtype)

    async def aclose(self) -> None:
        if self._now is not None:
            await self._now.aclose()
        self._now = None


async def ask_as(client: str, server: str, name: str, rtype: str) -> list[str]:
    query = dns.message.make_query(name, rtype, use_edns=0, options=[dns.edns.ECSOption(client, 24)])
    host, port = endpoint(server)
    reply = await dns.asyncquery.udp(query, host, port=port, timeout=5)
    return sorted(rdata.address for rrset in reply.answer for rdata in rrset)


class TestEmbedded(SubnetContract, GeoContract, WeightContract, DnsContract):
    async def open(self) -> Backend:
        return await Embedded().start()


def test_it_learns_countries_from_a_maxmind_file(tmp_path: Path) -> None:
    places = {
        "203.0.113.0/24": ("FR", "EU"),
        "198.18.0.0/15": ("FR", "EU"),
        "198.51.100.0/24": ("NL", "EU"),
        "192.0.2.0/24": ("US", "NA"),
    }
    mmdb = write_mmdb(tmp_path / "geo.mmdb", places)
    regions = {
        "france": Region(countries=("FR",)),
        "europe": Region(continents=("EU",)),
        "lab": Region(networks=("198.18.7.0/24",)),
        "rest": Region(default=True),
    }
    expected = {
        "203.0.113.7": "france",
        "198.18.7.1": "lab",  # a network comes before a country
        "198.51.100.7": "europe",  # no region has its country
        "192.0.2.7": "rest",
        "8.8.8.8": "rest",  # not in the file
    }

    async def main() -> None:
        backend = Embedded()
        server = EmbeddedServer([ZONE], Regions(regions, str(mmdb)), ["127.0.1.1:0"])
        await server.start()
        try:
            told = {region: {f"127.9.9.{i}": 100} for region, i in zip(regions, itertools.count(1), strict=False)}
            d = by_region(backend, 1, told)
            driver = EmbeddedDriver("embedded-site-a", lambda: server)
            assert (await driver.apply([change(d, None)]))[d.name][0] is Result.DONE
            for client, region in expected.items():
                assert await ask_as(client, server.addresses[0], d.name, "A") == list(told[region])
        finally:
            await server.aclose()

    run(main())
