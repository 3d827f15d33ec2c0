"""PowerDNS passes the contract of all DNS drivers: answers by region and weight, as LUA records."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.worlds.servers.powerdns import PowerDns
from chaos.worlds.servers.process import free_port
from controlplane.dns.peer import Peer
from controlplane.dns.rfc2136 import Rfc2136Driver
from controlplane.drivers import Driver, Result
from controlplane.sync import differs
from policies.topology import Region
from tests.contract.dns_world import Backend, Writer, by_region, change, desired
from tests.contract.geo_contract import GeoContract, SubnetContract, WeightContract
from tests.contract.rfc2136_contract import Rfc2136Contract
from tests.contract.rfc2136_world import KEY, NS, READER, ZONE, Rfc2136Backend
from tests.support import run
from tests.support_mmdb import write_mmdb


class TestPowerDns(SubnetContract, GeoContract, WeightContract, Rfc2136Contract):
    dialect = "powerdns"
    running: PowerDns

    @classmethod
    def build(cls, directory: Path) -> PowerDns:
        places = {"192.0.2.0/24": ("FR", "EU"), "198.51.100.0/24": ("NL", "EU"), "203.0.113.0/24": ("US", "NA")}
        mmdb = write_mmdb(directory / "geo.mmdb", places)
        return PowerDns(directory, "127.0.0.1", free_port(), ZONE, ns=NS, key=KEY, reader=READER, mmdb=mmdb)

    def test_an_edit_that_leaves_the_serial_alone_is_found_by_the_next_transfer(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            writer = Writer(driver, "a")
            d = desired(backend, 1, "192.0.2.1", "192.0.2.2")
            await writer.bring(d)
            reader = driver_peer(driver)
            before = await reader.serial(ZONE)
            self.running.util("replace-rrset", ZONE, d.name.removesuffix(f".{ZONE}"), "A", "20", "198.51.100.66")
            self.running.util("replace-rrset", ZONE, "unrelated", "A", "20", "198.51.100.66")
            assert await reader.serial(ZONE) == before
            monkeypatch.setattr("controlplane.dns.zone.ANYWAY_S", 0.0)
            assert differs(d, (await driver.read([d.name]))[d.name])
            assert [note.kind for note in (await writer.bring(d)).notes] == ["repaired"]
            assert not differs(d, (await driver.read([d.name]))[d.name])

        self.case(body)

    def test_countries_networks_and_continents_in_their_order(self) -> None:
        """As the embedded server decides (dns/regions.py)."""
        regions = {
            "lab": Region(networks=("198.18.7.0/24", "2001:db8:7::/48")),
            "test": Region(networks=("198.18.0.0/15",)),
            "france": Region(countries=("FR",)),
            "europe": Region(continents=("EU",)),
            "rest": Region(default=True),
        }
        expected = {
            "192.0.2.7": "france",
            "198.51.100.7": "europe",
            "203.0.113.7": "rest",  # in another country
            "8.8.8.8": "rest",  # in none that is known
            "198.18.7.1": "lab",
            "198.18.6.1": "test",
        }

        async def main() -> None:
            backend = Rfc2136Backend(self.running, "powerdns", self.directory, regions)
            driver = backend.driver_with()
            told = {region: {f"127.9.9.{i}": 60, "127.9.9.9": 40} for i, region in enumerate(regions)}
            d = by_region(backend, 1, told)
            assert (await driver.apply([change(d, None)]))[d.name] == (Result.DONE, "")
            assert not differs(d, (await driver.read([d.name]))[d.name])
            for client, region in expected.items():
                seen = {(await backend.told_to(client, d.name, "A"))[0] for _ in range(40)}
                assert seen == set(told[region])

        run(main())


def driver_peer(driver: Driver) -> Peer:
    assert isinstance(driver, Rfc2136Driver)
    return driver.sides[0].peer
