"""What every DNS driver must do, whatever server is behind it (DESIGN 4.8, 4.9).

A driver's test module subclasses DnsContract and says how to open a Backend.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from controlplane.dns.ask import ask
from controlplane.dns.verify import Probe, verify
from controlplane.documents import Seen
from controlplane.drivers import Actual, Capabilities, Change, Driver, Fence, Result
from controlplane.sync import Pass, Sync, differs
from policies.world import Answer, Desired
from tests.support import run

INCARNATION = "5f0c2d"
REGION = "world"


class Backend(Protocol):
    """One running name server. It serves `zone`; its only region, or its default one, is "world"."""

    zone: str
    server: str  # "address:port"
    keeps: bool  # what was written outlives a restart

    async def driver(self) -> Driver:
        """A writer of its own; closed by the test."""
        ...

    async def restart(self) -> None: ...

    async def edit(self, name: str, actual: Actual | None) -> None:
        """By hand, as an operator with an editor would; None removes the name and its fence."""
        ...

    async def aclose(self) -> None: ...


def desired(
    backend: Backend,
    generation: int,
    *addresses: str,
    label: str = "www",
    decision: str = "",
    ttl_s: int = 20,
) -> Desired:
    """One site for each address; equal weights."""
    answers = tuple(Answer(REGION, "AAAA" if ":" in a else "A", a, f"site-{i}", 100) for i, a in enumerate(addresses))
    return Desired(
        service=label,
        generation=generation,
        shares={REGION: {answers[0].site: 100}},
        answers=answers,
        sites={},
        name=f"{label}.{backend.zone}",
        ttl_s=ttl_s,
        decision=decision or f"d-{generation}",
    )


def change(d: Desired, expect: Fence | None, nonce: str = "1", incarnation: str = INCARNATION) -> Change:
    return Change(d, expect, Fence(incarnation, d.generation, f"{d.decision}.{nonce}"))


class Lossy:
    """Does what it is told, and loses the reply."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.name = driver.name
        self.capabilities: Capabilities = driver.capabilities
        self.lose = 1
        self.applied = 0

    async def read(self, names: Sequence[str]) -> Mapping[str, Actual]:
        return await self.driver.read(names)

    async def apply(self, changes: Sequence[Change]) -> Mapping[str, tuple[Result, str]]:
        self.applied += 1
        results = await self.driver.apply(changes)
        if self.lose:
            self.lose -= 1
            raise TimeoutError("the reply was lost")
        return results

    async def probe_write(self) -> None:
        await self.driver.probe_write()

    async def aclose(self) -> None:
        await self.driver.aclose()


class Writer:
    """An agent's side of one driver: `known` is what a linearizable read of the store would show it."""

    def __init__(self, driver: Driver, name: str, known: Sequence[Desired] = (), turn: int = 0) -> None:
        self.driver = driver
        self.known = {d.service: d for d in known}
        self.sync = Sync(driver, name, turn, self._reread, random.Random(name))

    async def _reread(self) -> Mapping[str, Desired]:
        return self.known

    async def bring(self, *wanted: Desired, incarnation: str = INCARNATION) -> Pass:
        for d in wanted:
            self.known.setdefault(d.service, d)
        return await self.sync.bring({d.service: d for d in wanted}, incarnation)


class DnsContract:
    async def open(self) -> Backend:
        raise NotImplementedError

    def case(self, body: Callable[[Backend, Driver], Awaitable[None]]) -> None:
        async def main() -> None:
            backend = await self.open()
            try:
                driver = await backend.driver()
                try:
                    await body(backend, driver)
                finally:
                    await driver.aclose()
            finally:
                await backend.aclose()

        run(main())

    # ---- the driver alone

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
            drivers = [await backend.driver() for _ in range(8)]
            rivals = [desired(backend, 5, f"192.0.2.{i}", decision=f"d-{i}") for i in range(8)]
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
            assert lost == [Result.FENCED] * 7
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
            done = await writer.bring(*wanted)
            assert {a.result for a in done.applied.values()} == {"ok"}
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

    # ---- the driver under sync, as agents use it

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
            assert [a.address for a in said.ahead_answers] == ["192.0.2.9"]
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

    def test_a_foreign_zone_is_told_and_left_alone(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            theirs = desired(backend, 1, "192.0.2.1")
            await Writer(driver, "a").bring(theirs, incarnation="theirs")
            done = await Writer(driver, "b").bring(desired(backend, 5, "192.0.2.5"))
            assert done.applied["www"].result == "foreign"
            fence = (await driver.read([theirs.name]))[theirs.name].fence
            assert fence is not None
            assert fence.incarnation == "theirs"

        self.case(body)


async def seen(backend: Backend, d: Desired) -> Seen:
    """What the server says to a client, compared with desired."""
    answers = await verify(ask, backend.server, [d], INCARNATION, [Probe("", None)])
    return answers[d.service]
