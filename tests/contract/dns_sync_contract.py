"""What every DNS driver must do in the hands of a Sync, as agents use it (DESIGN 4.8, 4.9)."""

from __future__ import annotations

import asyncio

from controlplane.documents import Seen
from controlplane.drivers import Actual, Driver, Fence
from controlplane.sync import differs
from tests.contract.dns_world import INCARNATION, Backend, Lossy, OnBackend, Writer, desired, seen


class UnderSync(OnBackend):
    def test_a_lost_reply_is_resolved_by_reading_the_fence(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            lossy = Lossy(driver)
            d = desired(backend, 1, "192.0.2.1")
            done = await Writer(lossy, "a").bring(d)
            assert done.applied["www"].result == "ok"
            assert lossy.applied == 1

        self.case(body)

    def test_two_writers_with_different_configurations_do_not_fight(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            other = await backend.driver()
            lossy = [Lossy(driver), Lossy(other)]
            for each in lossy:
                each.lose = 0
            a = Writer(lossy[0], "a")
            b = Writer(lossy[1], "b")
            mine, theirs = desired(backend, 4, "192.0.2.1", decision="d-1"), desired(backend, 4, "192.0.2.2")
            try:
                results = []
                for _ in range(5):
                    results.append((await a.bring(mine)).applied["www"].result)
                    results.append((await b.bring(theirs)).applied["www"].result)
            finally:
                await other.aclose()
            assert results == ["ok", "ahead"] * 5
            assert [each.applied for each in lossy] == [1, 0]

        self.case(body)

    def test_a_restart_in_between(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            writer = Writer(driver, "a")
            first, second = desired(backend, 1, "192.0.2.1"), desired(backend, 2, "192.0.2.2")
            await writer.bring(first)
            await backend.restart()
            there = await driver.read([first.name])
            assert (first.name in there) == backend.keeps
            assert (await writer.bring(second)).applied["www"].result == "ok"
            assert await seen(backend, second) == Seen(backend.server, 2, True)

        self.case(body)

    def test_killed_while_it_is_written_to(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            writer = Writer(driver, "a")
            old = [desired(backend, 1, "192.0.2.1", label=f"k{i}") for i in range(400)]
            new = [desired(backend, 2, "192.0.2.2", label=f"k{i}") for i in range(400)]
            await writer.settle(*old)
            under_way = asyncio.ensure_future(writer.bring(*new))
            await asyncio.sleep(0.05)
            await backend.kill()
            await under_way
            there = await driver.read([d.name for d in old])
            # Each name is what it was or what it was to become (or was forgotten), with the fence that belongs to it;
            # only a set of views may be half written, and then shows the older fence.
            for before, after in zip(old, new, strict=True):
                actual = there.get(before.name)
                assert actual is not None or not backend.keeps
                if actual is not None:
                    assert actual.fence is not None
                    assert not differs({1: before, 2: after}[actual.fence.generation], actual) or not backend.atomic
            await writer.settle(*new)
            assert await seen(backend, new[-1]) == Seen(backend.server, 2, True)

        self.case(body)

    def test_a_zone_edited_by_hand_is_diverged_and_put_right(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            writer = Writer(driver, "a")
            d = desired(backend, 3, "192.0.2.1")
            await writer.bring(d)
            fence = (await driver.read([d.name]))[d.name].fence
            wrong = desired(backend, 3, "198.51.100.66")
            await backend.edit(d.name, Actual(fence, 20, wrong.answers))
            diverged = await seen(backend, d)
            assert (diverged.generation, diverged.agrees) == (3, False)
            deputy = await Writer(driver, "b", turn=1).bring(d)
            assert deputy.applied["www"].result == "transient"
            done = await writer.bring(d)
            assert [note.kind for note in done.notes] == ["repaired"]
            assert await seen(backend, d) == Seen(backend.server, 3, True)

        self.case(body)

    def test_a_fix_by_hand_is_left_alone_and_told(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            writer = Writer(driver, "a")
            await writer.bring(desired(backend, 3, "192.0.2.1"))
            fixed = Fence(INCARNATION, 3, "manual-ana")
            by_hand = desired(backend, 3, "198.51.100.66")
            await backend.edit(by_hand.name, Actual(fixed, 20, by_hand.answers))
            done = await writer.bring(desired(backend, 4, "192.0.2.4"))
            assert done.applied["www"].result == "manual"
            assert [note.kind for note in done.notes] == ["alarm"]
            assert (await driver.read([by_hand.name]))[by_hand.name].fence == fixed

        self.case(body)

    def test_a_fence_that_was_removed_is_put_back(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            writer = Writer(driver, "a")
            d = desired(backend, 3, "192.0.2.1")
            await writer.bring(d)
            await backend.edit(d.name, Actual(None, 20, d.answers))
            assert (await seen(backend, d)).reason == "no fence"
            assert (await writer.bring(d)).applied["www"].result == "ok"
            assert await seen(backend, d) == Seen(backend.server, 3, True)
            await backend.edit(d.name, None)
            assert (await writer.bring(d)).applied["www"].result == "ok"
            assert await seen(backend, d) == Seen(backend.server, 3, True)

        self.case(body)

    def test_a_fence_that_is_ahead_is_reported_with_what_it_serves(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            newer = desired(backend, 9, "192.0.2.9")
            await Writer(driver, "a").bring(newer)
            done = await Writer(driver, "b").bring(desired(backend, 7, "192.0.2.7"))
            said = done.applied["www"]
            assert (said.result, said.ahead_generation) == ("ahead", 9)
            assert {a.address for a in said.ahead_answers} == {"192.0.2.9"}
            assert await seen(backend, newer) == Seen(backend.server, 9, True)

        self.case(body)

    def test_a_paused_writer_that_wakes_up_with_old_news_learns_the_new_ones(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            newer = desired(backend, 9, "192.0.2.9")
            await Writer(driver, "a").bring(newer)
            sleeper = Writer(driver, "b", known=[newer])
            done = await sleeper.bring(desired(backend, 7, "192.0.2.7"))
            assert (done.applied["www"].result, done.applied["www"].generation) == ("ok", 9)

        self.case(body)

    def test_a_foreign_zone_is_told_and_left_alone_until_it_is_adopted(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            theirs = desired(backend, 1, "192.0.2.1")
            await Writer(driver, "a").bring(theirs, incarnation="theirs")
            writer, mine = Writer(driver, "b"), desired(backend, 5, "192.0.2.5")
            assert (await writer.bring(mine)).applied["www"].result == "foreign"
            assert (await writer.bring(mine, adopted=["another"])).applied["www"].result == "foreign"
            fence = (await driver.read([theirs.name]))[theirs.name].fence
            assert fence is not None
            assert fence.incarnation == "theirs"
            assert (await writer.bring(mine, adopted=["theirs"])).applied["www"].result == "ok"
            assert await seen(backend, mine) == Seen(backend.server, 5, True)

        self.case(body)
