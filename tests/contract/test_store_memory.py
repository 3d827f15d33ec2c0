"""The memory store, bare and behind a FaultyStore without faults, passes the contract of every store: on a real
event loop and on the virtual one. And what only these two have."""

from __future__ import annotations

import asyncio
import random

import pytest

from chaos.worlds.faulty_store import FaultyStore
from chaos.worlds.loop import Kernel
from controlplane.store import (
    KV,
    MAX_OPS,
    Batch,
    Compacted,
    OutcomeUnknown,
    Put,
    Store,
    Txn,
    Unavailable,
)
from controlplane.store.memory import BATCH_EVENTS, Backup, MemoryStore
from tests.contract.store_contract import CASES, Case, close, put, read
from tests.support import run


class MemoryAdapter:
    prefix = "/contract/"

    def __init__(self, wrapped: bool) -> None:
        self.store = MemoryStore()
        self.wrapped = wrapped

    def client(self) -> Store:
        return FaultyStore(self.store, random.Random(1)) if self.wrapped else self.store

    def losing_reply(self, applied: bool) -> Store:
        faulty = FaultyStore(self.store, random.Random(1))
        faulty.lose_replies(1, applied)
        return faulty

    async def compact(self, rev: int) -> None:
        self.store.compact(rev)

    async def request_progress(self) -> None:
        self.store.request_progress()

    async def backup(self) -> Backup:
        return self.store.snapshot()

    async def restore(self, backup: object) -> None:
        assert isinstance(backup, Backup)
        self.store.restore(backup)


@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "wrapped"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_contract(case: Case, wrapped: bool) -> None:
    async def main() -> None:
        await case(MemoryAdapter(wrapped))

    run(main())
    with Kernel() as kernel:
        kernel.run(main())


def test_an_old_history_is_compacted_by_itself() -> None:
    async def main() -> None:
        store = MemoryStore(history=10)
        slow = store.watch("/", 1)
        for number in range(100):
            await put(store, "/a", b"%d" % number)
        with pytest.raises(Compacted):
            await anext(slow)
        with pytest.raises(Compacted):  # and stays so
            await anext(slow)
        recent = await read(store.watch("/", store.rev - 9), store.rev)
        assert [event.value for event in recent if isinstance(event, KV)] == [b"%d" % n for n in range(90, 100)]

    run(main())


def test_a_long_history_comes_in_several_batches() -> None:
    async def main() -> None:
        store, revisions = MemoryStore(), 2 * BATCH_EVENTS + 100
        for number in range(revisions // 2):
            await store.txn(Txn((), (Put("/a", b"%d" % number), Put("/b", b"%d" % number))))
        batches = store.watch("/", 1)
        first = await anext(batches)
        assert len(first.events) == BATCH_EVENTS
        assert first.rev < store.rev
        rest = await read(batches, store.rev)
        assert len(rest) == revisions - BATCH_EVENTS
        assert rest[0].mod_rev == first.rev + 1

    run(main())


def test_too_many_operations_are_refused() -> None:
    store = MemoryStore()
    with pytest.raises(ValueError, match="128"):
        store.apply(Txn((), tuple(Put(f"/{n}", b"") for n in range(MAX_OPS + 1))))
    assert store.rev == 1


def test_events_come_as_messages_never_inside_the_transaction() -> None:
    async def main() -> list[str]:
        store, order = MemoryStore(), ["start"]

        async def listen() -> None:
            async for _ in store.watch("/", 2):
                order.append("event")

        task = asyncio.get_running_loop().create_task(listen())
        await asyncio.sleep(0)
        store.apply(Txn((), (Put("/a", b""),)))
        order.append("applied")
        await asyncio.sleep(0.01)
        task.cancel()
        return order

    assert run(main()) == ["start", "applied", "event"]


def test_each_watcher_is_served_on_its_own_node() -> None:
    """A paused node gets all it missed when it wakes up, a killed one nothing; the writer notices neither."""
    store = MemoryStore()
    got: list[tuple[str, float, int]] = []

    async def listen(name: str) -> None:
        loop = asyncio.get_running_loop()
        async for batch in store.watch("/", 2):
            assert asyncio.get_running_loop() is loop
            got.append((name, loop.time(), len(batch.events)))

    async def write() -> None:
        for number in range(4):
            await asyncio.sleep(1)
            await put(store, "/a", b"%d" % number)

    with Kernel() as kernel:
        for name in ("a", "b", "c"):
            kernel.loop(name).create_task(listen(name))
        kernel.loop("writer").create_task(write())
        kernel.at(1.5, kernel.loop("b").pause)
        kernel.at(1.5, kernel.loop("c").kill)
        kernel.at(9.0, kernel.loop("b").resume)
        kernel.run_until(10.0)
        expected = {"a": [(1.0, 1), (2.0, 1), (3.0, 1), (4.0, 1)], "b": [(1.0, 1), (9.0, 3)], "c": [(1.0, 1)]}
        assert {n: [(t, k) for who, t, k in got if who == n] for n in expected} == expected


# --- FaultyStore ---


def test_a_store_that_is_down_refuses_calls_and_breaks_watches() -> None:
    async def main() -> None:
        store = FaultyStore(MemoryStore(), random.Random(1))
        batches = store.watch("/", 2)
        rev = await put(store, "/a")
        await read(batches, rev)
        loop = asyncio.get_running_loop()
        waiting = loop.create_task(_next(batches))
        await asyncio.sleep(1)
        store.down = True
        for call in (store.get("/a"), store.range("/"), put(store, "/a"), waiting, anext(store.watch("/", 2))):
            with pytest.raises(Unavailable):
                await call
        store.down = False
        again = store.watch("/", rev + 1)
        assert (await read(again, await put(store, "/b")))[0].key == "/b"
        await close(again)

    with Kernel() as kernel:
        kernel.run(main())


async def _next(batches: object) -> Batch:
    return await anext(batches)  # type: ignore[call-overload,no-any-return]


def test_a_hanging_store_may_apply_late() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        memory = MemoryStore()
        store = FaultyStore(memory, random.Random(1))
        store.hang = True
        with pytest.raises(OutcomeUnknown):
            await put(store, "/a")
        assert loop.time() == 10.0
        with pytest.raises(Unavailable):
            await store.get("/a")
        assert memory.rev == 1
        loop.call_later(3, setattr, store, "hang", False)
        assert await put(store, "/b") == 3  # in time: it went through, after the first
        assert await store.get("/a") == KV("/a", b"v", 2)
        assert loop.time() == 23.0

    with Kernel() as kernel:
        kernel.run(main())


def test_latency_and_lag_take_virtual_time() -> None:
    async def main() -> tuple[float, float, float]:
        loop = asyncio.get_running_loop()
        store = FaultyStore(MemoryStore(), random.Random(1))
        store.latency_s, store.watch_lag_s = 0.2, 3.0
        batches = store.watch("/", 2)
        rev = await put(store, "/a")
        written = loop.time()
        await read(batches, rev)
        delivered = loop.time()
        await close(batches)
        store.jitter = 0.5
        await store.get("/a")
        return written, delivered, loop.time() - delivered

    with Kernel() as kernel:
        written, delivered, read_s = kernel.run(main())
        assert written == pytest.approx(0.2)
        assert delivered == pytest.approx(3.1)
        assert 0.2 < read_s < 0.3


def test_random_lost_replies_are_equal_for_equal_seeds() -> None:
    async def main(seed: int) -> list[tuple[bool, bool]]:
        memory = MemoryStore()
        store = FaultyStore(memory, random.Random(seed))
        store.unknown_rate = 0.5
        seen = []
        for number in range(100):
            try:
                await put(store, f"/{number}")
                lost = False
            except OutcomeUnknown:
                lost = True
            seen.append((lost, await memory.get(f"/{number}") is not None))
        return seen

    with Kernel() as kernel:
        first = kernel.run(main(7))
        assert {(False, True), (True, True), (True, False)} == set(first)
        assert kernel.run(main(7)) == first
        assert kernel.run(main(8)) != first
