"""What every DNS driver must do, whatever server is behind it (DESIGN 4.8, 4.9).

A driver's test module subclasses DnsContract and says how to open a Backend.
"""

from __future__ import annotations

import asyncio

from controlplane.documents import Seen
from controlplane.drivers import Actual, Driver, Fence, Result
from controlplane.sync import differs
from tests.contract.dns_sync_contract import UnderSync
from tests.contract.dns_world import INCARNATION, Backend, Writer, change, desired, seen


class DnsContract(UnderSync):
    """The driver alone; and what it inherits: the driver as agents use it."""

    def test_what_was_applied_is_read_back_and_served(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            d = desired(backend, 1, "192.0.2.1")
            c = change(d, None)
            assert await driver.read([d.name]) == {}
            assert (await driver.apply([c]))[d.name][0] is Result.DONE
            actual = (await driver.read([d.name]))[d.name]
            assert actual.fence == c.fence
            assert not differs(d, actual)
            assert await seen(backend, d) == Seen(backend.server, 1, True)

        self.case(body)

    def test_an_older_generation_is_refused_although_its_writer_has_read_the_newest_fence(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            new, old = desired(backend, 8, "192.0.2.8"), desired(backend, 7, "192.0.2.7")
            c = change(new, None)
            await driver.apply([c])
            assert (await driver.apply([change(old, c.fence)]))[old.name][0] is Result.FENCED
            other = desired(backend, 8, "192.0.2.9", decision="d-9")
            assert (await driver.apply([change(other, c.fence)]))[old.name][0] is Result.FENCED
            assert await seen(backend, new) == Seen(backend.server, 8, True)

        self.case(body)

    def test_a_writer_that_read_before_another_wrote_is_refused(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            first, second = change(desired(backend, 1, "192.0.2.1"), None), desired(backend, 2, "192.0.2.2")
            third = desired(backend, 3, "192.0.2.3")
            await driver.apply([first])
            assert (await driver.apply([change(third, first.fence)]))[third.name][0] is Result.DONE
            assert (await driver.apply([change(second, first.fence)]))[second.name][0] is Result.FENCED
            stale = desired(backend, 9, "192.0.2.9")
            assert (await driver.apply([change(stale, first.fence)]))[stale.name][0] is Result.FENCED
            assert (await driver.apply([change(stale, None)]))[stale.name][0] is Result.FENCED
            assert await seen(backend, third) == Seen(backend.server, 3, True)

        self.case(body)

    def test_of_two_writers_that_race_exactly_one_wins(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            drivers = [await backend.driver() for _ in range(4)]
            rivals = [desired(backend, 5, f"192.0.2.{i}", decision=f"d-{i}") for i in range(4)]
            try:
                results = await asyncio.gather(
                    *[w.apply([change(d, None)]) for w, d in zip(drivers, rivals, strict=True)]
                )
            finally:
                for each in drivers:
                    await each.aclose()
            won = [d for d, r in zip(rivals, results, strict=True) if r[d.name][0] is Result.DONE]
            lost = [r[d.name][0] for d, r in zip(rivals, results, strict=True) if d not in won]
            assert len(won) == 1
            assert lost == [Result.FENCED] * 3
            assert await seen(backend, won[0]) == Seen(backend.server, 5, True)

        self.case(body)

    def test_a_foreign_incarnation_and_a_fix_by_hand_are_not_overwritten(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            d = desired(backend, 9, "192.0.2.9")
            for fence in (Fence("other", 1, "d-1.1"), Fence(INCARNATION, 1, "manual-ana")):
                await backend.edit(d.name, Actual(fence, 20, desired(backend, 1, "192.0.2.1").answers))
                assert (await driver.apply([change(d, fence)]))[d.name][0] is Result.FENCED
                assert (await driver.read([d.name]))[d.name].fence == fence

        self.case(body)

    def test_both_address_families_and_the_ttl(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            both = desired(backend, 1, "192.0.2.1", "2001:db8::1", ttl_s=7)
            c = change(both, None)
            await driver.apply([c])
            assert await seen(backend, both) == Seen(backend.server, 1, True)
            assert (await driver.read([both.name]))[both.name].ttl_s == 7
            one = desired(backend, 2, "2001:db8::2", ttl_s=9)
            assert (await driver.apply([change(one, c.fence)]))[one.name][0] is Result.DONE
            assert await seen(backend, one) == Seen(backend.server, 2, True)
            assert not differs(one, (await driver.read([one.name]))[one.name])

        self.case(body)

    def test_many_names(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            writer = Writer(driver, "a")
            count = 2 * driver.capabilities.batch + 1
            wanted = [desired(backend, 1, "192.0.2.1", label=f"s{i}") for i in range(count)]
            done = await writer.settle(*wanted)
            assert len(done.applied) == count
            for d in (wanted[0], wanted[count // 2], wanted[-1]):
                assert await seen(backend, d) == Seen(backend.server, 1, True)

        self.case(body)

    def test_a_stale_name_in_a_batch_does_not_stop_the_others(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            rival = desired(backend, 9, "192.0.2.9", label="b")
            await driver.apply([change(rival, None)])
            batch = [desired(backend, 1, "192.0.2.1", label=label) for label in "abc"]
            results = await driver.apply([change(d, None) for d in batch])
            assert [results[d.name][0] for d in batch] == [Result.DONE, Result.FENCED, Result.DONE]

        self.case(body)

    def test_the_write_proof_changes_nothing(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            d = desired(backend, 1, "192.0.2.1")
            await driver.apply([change(d, None)])
            before = await driver.read([d.name])
            await driver.probe_write()
            assert await driver.read([d.name]) == before

        self.case(body)
