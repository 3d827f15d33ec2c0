"""What a driver must do whose server tells clients of different regions different things (DESIGN 4.5)."""

from __future__ import annotations

from collections import Counter

from controlplane.dns.ask import ask
from controlplane.dns.verify import probes_for, verify
from controlplane.documents import Seen
from controlplane.drivers import Actual, Driver, Result
from controlplane.sync import differs
from policies.topology import Region
from tests.contract.dns_world import INCARNATION, Backend, OnBackend, Writer, by_region, change, desired


class GeoContract(OnBackend):
    def test_each_region_is_told_its_own_addresses(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            assert driver.capabilities.geo
            eu, rest = backend.regions
            told = {
                eu: {"192.0.2.1": 100, "2001:db8::1": 100},
                rest: {"192.0.2.2": 100, "2001:db8::2": 100},
            }
            d = by_region(backend, 1, told)
            c = change(d, None)
            assert (await driver.apply([c]))[d.name] == (Result.DONE, "")
            assert not differs(d, (await driver.read([d.name]))[d.name])
            for region, addresses in told.items():
                for rtype, address in zip(("A", "AAAA"), addresses, strict=True):
                    assert await backend.told(region, d.name, rtype) == [address]
            # ... and one family may differ by region where the other does not.
            mixed = {eu: {"192.0.2.1": 100, "2001:db8::9": 100}, rest: {"192.0.2.1": 100, "2001:db8::2": 100}}
            second = by_region(backend, 2, mixed)
            assert (await driver.apply([change(second, c.fence)]))[d.name] == (Result.DONE, "")
            assert not differs(second, (await driver.read([d.name]))[d.name])
            assert await backend.told(eu, d.name, "AAAA") == ["2001:db8::9"]
            assert await backend.told(rest, d.name, "AAAA") == ["2001:db8::2"]
            assert await backend.told(eu, d.name, "A") == await backend.told(rest, d.name, "A") == ["192.0.2.1"]

        self.case(body)

    def test_one_site_for_all_and_back(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            eu, rest = backend.regions
            apart = {eu: {"192.0.2.1": 100}, rest: {"192.0.2.2": 100}}
            writer = Writer(driver, "a")
            steps = [by_region(backend, 1, apart), desired(backend, 2, "192.0.2.2"), by_region(backend, 3, apart)]
            for d in steps:
                assert (await writer.bring(d)).applied["www"].result == "ok"
                for region in backend.regions:
                    expected = [a.address for a in d.answers if a.region == region]
                    assert await backend.told(region, d.name, "A") == expected

        self.case(body)


class SubnetContract(OnBackend):
    """Its server looks at client subnets (RFC 7871). The region of 203.0.113.0/24 is its first."""

    def test_verify_asks_for_each_region_and_says_which_one_is_wrong(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            eu, rest = backend.regions
            regions = {eu: Region(networks=("203.0.113.0/24",)), rest: Region(networks=("198.51.100.0/24",))}
            probes = probes_for(regions)
            assert [probe.region for probe in probes] == ["", eu, rest]
            d = by_region(backend, 1, {eu: {"192.0.2.1": 100}, rest: {"192.0.2.2": 100}})
            c = change(d, None)
            assert (await driver.apply([c]))[d.name][0] is Result.DONE
            assert (await verify(ask, backend.server, [d], INCARNATION, probes))["www"] == Seen(backend.server, 1, True)
            wrong = by_region(backend, 1, {eu: {"192.0.2.2": 100}, rest: {"192.0.2.2": 100}})
            await backend.edit(d.name, Actual(c.fence, 20, wrong.answers))
            told = (await verify(ask, backend.server, [d], INCARNATION, probes))["www"]
            assert told == Seen(backend.server, 1, False, "A for eu: answers 192.0.2.2")

        self.case(body)


class WeightContract(OnBackend):
    def test_answers_follow_the_weights(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            assert driver.capabilities.weights
            eu, rest = backend.regions
            told = {eu: {"192.0.2.1": 80, "192.0.2.2": 20}, rest: {"192.0.2.2": 60, "192.0.2.3": 40}}
            d = by_region(backend, 1, told)
            assert (await driver.apply([change(d, None)]))[d.name] == (Result.DONE, "")
            assert not differs(d, (await driver.read([d.name]))[d.name])
            for region, weights in told.items():
                seen = Counter([(await backend.told(region, d.name, "A"))[0] for _ in range(300)])
                assert set(seen) == set(weights)
                for address, weight in weights.items():
                    # Drawn at random: five standard deviations are at most 45 of 300.
                    assert abs(seen[address] - 3 * weight) < 45

        self.case(body)
