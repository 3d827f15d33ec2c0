"""What every Store must do. An adapter's test runs each of CASES with an Adapter of its own:

@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_contract(case): run(case(MyAdapter()))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import pytest

from controlplane.store import (
    KV,
    Batch,
    Compacted,
    Compare,
    Delete,
    OutcomeUnknown,
    Put,
    Rewound,
    Store,
    Txn,
)

PATIENCE_S = 20.0  # never waited for unless the store fails the test


class Adapter(Protocol):
    """A store under test. `prefix` ends in "/" and nothing stands below it yet."""

    prefix: str

    def client(self) -> Store:
        """Another client of the one store."""
        ...

    def losing_reply(self, applied: bool) -> Store:
        """A client whose next transaction has an unknown outcome: it was applied, or it was not."""
        ...

    async def compact(self, rev: int) -> None: ...

    async def request_progress(self) -> None:
        """Have running watches tell how far they are."""
        ...

    async def backup(self) -> object: ...

    async def restore(self, backup: object) -> None:
        """Stop the store, put it back to the backup, start it; clients stay."""
        ...


Case = Callable[[Adapter], Awaitable[None]]
Event = KV | Delete


async def put(store: Store, key: str, value: bytes = b"v") -> int:
    """Returns the revision."""
    result = await store.txn(Txn((), (Put(key, value),)))
    assert result.ok
    return result.rev


async def read(batches: AsyncIterator[Batch], last_rev: int) -> list[Event]:
    """The events of a watch up to the one at `last_rev`. Checks the order, and that revisions come whole."""
    events: list[Event] = []
    told = 0
    async with asyncio.timeout(PATIENCE_S):
        while not events or events[-1].mod_rev < last_rev:
            batch = await anext(batches)
            assert batch.rev >= told
            for event in batch.events:
                assert event.mod_rev > told, "a revision was split, repeated or reordered"
                assert event.mod_rev <= batch.rev
            revisions = [event.mod_rev for event in batch.events]
            assert revisions == sorted(revisions)
            events.extend(batch.events)
            told = batch.rev
    return events


async def close(batches: AsyncIterator[Batch]) -> None:
    aclose = getattr(batches, "aclose", None)
    if aclose is not None:
        await aclose()


async def ends_with(error: type[Exception], batches: AsyncIterator[Batch]) -> None:
    """The watch raises `error`, perhaps after some batches."""
    with pytest.raises(error):
        async with asyncio.timeout(PATIENCE_S):
            while True:
                await anext(batches)


async def get_and_range(a: Adapter) -> None:
    store, p = a.client(), a.prefix
    assert await store.get(p + "a") is None
    assert (await store.range(p)).items == ()
    rev_b = await put(store, p + "b", b"2")
    rev_a = await put(store, p + "a", b"1")
    await put(store, p[:-1] + "-beside", b"not below the prefix")
    assert await store.get(p + "a") == KV(p + "a", b"1", rev_a)
    snapshot = await a.client().range(p)
    assert snapshot.items == (KV(p + "a", b"1", rev_a), KV(p + "b", b"2", rev_b))
    assert snapshot.rev >= rev_a > rev_b
    assert (await store.range(p + "b")).items == (KV(p + "b", b"2", rev_b),)
    assert await store.get(p) is None


async def every_write_has_a_revision_of_its_own(a: Adapter) -> None:
    store, p = a.client(), a.prefix
    first = await put(store, p + "a", b"same")
    second = await put(store, p + "a", b"same")
    assert second > first
    result = await store.txn(Txn((), (Put(p + "b", b""), Put(p + "c", b""), Delete(p + "a"))))
    items = (await store.range(p)).items
    assert [item.mod_rev for item in items] == [result.rev, result.rev]
    nothing = await store.txn(Txn((), (Delete(p + "absent"),)))
    assert nothing.ok
    failed = await store.txn(Txn((Compare(p + "b", mod_rev=0),), (Put(p + "b", b"x"),)))
    assert not failed.ok
    assert (await store.range(p)).items == items


async def comparing_mod_revisions(a: Adapter) -> None:
    store, p = a.client(), a.prefix
    absent = Compare(p + "a", mod_rev=0)
    won = await store.txn(Txn((absent,), (Put(p + "a", b"1"),)))
    lost = await store.txn(Txn((absent,), (Put(p + "a", b"2"),)))
    assert (won.ok, lost.ok) == (True, False)
    assert lost.rev >= won.rev
    kv = await store.get(p + "a")
    assert kv is not None
    assert kv.value == b"1"
    assert (await store.txn(Txn((Compare(p + "a", mod_rev=kv.mod_rev),), (Put(p + "a", b"3"),)))).ok
    assert not (await store.txn(Txn((Compare(p + "a", mod_rev=kv.mod_rev),), (Delete(p + "a"),)))).ok
    assert (await store.txn(Txn((), (Delete(p + "a"),)))).ok
    assert (await store.txn(Txn((absent,), (Put(p + "a", b"4"),)))).ok


async def comparing_values(a: Adapter) -> None:
    store, p = a.client(), a.prefix
    assert not (await store.txn(Txn((Compare(p + "a", value=b""),), (Put(p + "a", b"1"),)))).ok  # absent
    await put(store, p + "a", b"1")
    assert not (await store.txn(Txn((Compare(p + "a", value=b"2"),), (Put(p + "a", b"3"),)))).ok
    assert (await store.txn(Txn((Compare(p + "a", value=b"1"),), (Put(p + "a", b"3"),)))).ok
    kv = await store.get(p + "a")
    assert kv is not None
    assert kv.value == b"3"


async def all_or_nothing(a: Adapter) -> None:
    store, p = a.client(), a.prefix
    rev = await put(store, p + "a", b"1")
    wrong = (Compare(p + "a", mod_rev=rev), Compare(p + "b", mod_rev=rev))
    assert not (await store.txn(Txn(wrong, (Put(p + "a", b"2"), Put(p + "b", b"2"))))).ok
    assert [item.value for item in (await store.range(p)).items] == [b"1"]
    right = (Compare(p + "a", mod_rev=rev), Compare(p + "a", value=b"1"), Compare(p + "b", mod_rev=0))
    assert (await store.txn(Txn(right, (Put(p + "a", b"2"), Put(p + "b", b"2"))))).ok
    assert [item.value for item in (await store.range(p)).items] == [b"2", b"2"]
    empty = await store.txn(Txn((Compare(p + "b", value=b"2"),), ()))
    assert empty.ok  # only asks


async def a_key_is_written_once_in_a_transaction(a: Adapter) -> None:
    store, p = a.client(), a.prefix
    for second in (Put(p + "a", b"2"), Delete(p + "a")):
        with pytest.raises(ValueError):
            await store.txn(Txn((), (Put(p + "a", b"1"), second)))
    for compare in (Compare(p + "a"), Compare(p + "a", mod_rev=1, value=b"")):
        with pytest.raises(ValueError):
            await store.txn(Txn((compare,), ()))
    assert (await store.range(p)).items == ()


async def watching_from_the_past(a: Adapter) -> None:
    store, p = a.client(), a.prefix
    first = await put(store, p + "a", b"1")
    await put(store, p[:-1] + "-beside")
    second = await put(store, p + "a", b"2")
    third = (await store.txn(Txn((), (Delete(p + "a"), Put(p + "b", b"3"))))).rev
    for start in (first, first + 1, second, third):
        batches = store.watch(p, start)
        events = await read(batches, third)
        await close(batches)
        everything: list[Event] = [KV(p + "a", b"1", first), KV(p + "a", b"2", second)]
        everything += [Delete(p + "a", third), KV(p + "b", b"3", third)]
        expected = [event for event in everything if event.mod_rev >= start]
        assert sorted(events, key=str) == sorted(expected, key=str)


async def watching_what_comes(a: Adapter) -> None:
    """From a snapshot's revision + 1, nothing is missed and nothing comes twice."""
    store, p = a.client(), a.prefix
    await put(store, p + "a", b"old")
    snapshot = await store.range(p)
    batches = store.watch(p, snapshot.rev + 1)
    waiting = asyncio.get_running_loop().create_task(read(batches, snapshot.rev + 1))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    rev = await put(a.client(), p + "a", b"new")
    assert await waiting == [KV(p + "a", b"new", rev)]
    await close(batches)


async def a_cancelled_wait_loses_nothing(a: Adapter) -> None:
    store, p = a.client(), a.prefix
    rev = await put(store, p + "a", b"1")
    batches = store.watch(p, rev + 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(batches)
    rev = await put(store, p + "a", b"2")
    assert await read(batches, rev) == [KV(p + "a", b"2", rev)]
    await close(batches)


async def many_writers_many_watchers(a: Adapter) -> None:
    """No event is lost, repeated or reordered, and every watch tells the same story."""
    p, writers, writes = a.prefix, 8, 25
    start = (await a.client().range(p)).rev + 1
    everything = [a.client().watch(p, start) for _ in range(3)]
    some = a.client().watch(p + "w3/", start)

    async def write(writer: int) -> int:
        store, rev = a.client(), 0
        for number in range(writes):
            op = Put(f"{p}w{writer}/{number % 5}", str(number).encode())
            rev = (await store.txn(Txn((), (op, Put(f"{p}w{writer}/n", str(number).encode()))))).rev
        return rev

    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(write(writer)) for writer in range(writers)]
    revs = [await task for task in tasks]
    stories = [await read(batches, max(revs)) for batches in everything]
    late = a.client().watch(p, start)
    stories.append(await read(late, max(revs)))
    part = await read(some, revs[3])
    for batches in (*everything, some, late):
        await close(batches)
    assert all(story == stories[0] for story in stories)
    assert len(stories[0]) == writers * writes * 2
    assert part == [event for event in stories[0] if event.key.startswith(p + "w3/")]
    for writer in range(writers):
        told = [event for event in stories[0] if event.key == f"{p}w{writer}/n"]
        assert [event.value for event in told if isinstance(event, KV)] == [b"%d" % n for n in range(writes)]


async def one_of_many_racers_wins(a: Adapter) -> None:
    """A counter under comparison: every success counts once."""
    p, racers, rounds = a.prefix, 8, 10
    await put(a.client(), p + "n", b"0")

    async def race() -> int:
        store, won = a.client(), 0
        for _ in range(rounds):
            kv = await store.get(p + "n")
            assert kv is not None
            more = Put(p + "n", b"%d" % (int(kv.value) + 1))
            won += (await store.txn(Txn((Compare(p + "n", mod_rev=kv.mod_rev),), (more,)))).ok
        return won

    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(race()) for _ in range(racers)]
    won = sum([await task for task in tasks])
    kv = await a.client().get(p + "n")
    assert kv is not None
    assert int(kv.value) == won
    assert rounds <= won <= racers * rounds


async def progress_says_how_far_a_quiet_watch_is(a: Adapter) -> None:
    store, p = a.client(), a.prefix
    rev = await put(store, p + "a", b"1")
    batches = store.watch(p + "a", rev)
    assert await read(batches, rev) == [KV(p + "a", b"1", rev)]
    waiting = asyncio.get_running_loop().create_task(_until_progress(batches))
    beside = await put(store, p + "b", b"2")
    await asyncio.sleep(0.01)
    await a.request_progress()
    assert await waiting >= beside
    await close(batches)


async def _until_progress(batches: AsyncIterator[Batch]) -> int:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            batch = await anext(batches)
            if not batch.events:
                return batch.rev


async def a_compacted_revision_is_gone(a: Adapter) -> None:
    store, p = a.client(), a.prefix
    first = await put(store, p + "a", b"1")
    await put(store, p + "a", b"2")
    third = await put(store, p + "a", b"3")
    current = store.watch(p, third)
    assert await read(current, third) == [KV(p + "a", b"3", third)]
    await a.compact(third)
    await ends_with(Compacted, store.watch(p, first))
    snapshot = await store.range(p)
    assert snapshot.items == (KV(p + "a", b"3", third),)
    fourth = await put(store, p + "a", b"4")
    again = store.watch(p, snapshot.rev + 1)
    for batches in (current, again):  # neither the one that was up to date nor a new one minds
        assert await read(batches, fourth) == [KV(p + "a", b"4", fourth)]
        await close(batches)


async def an_unknown_outcome_is_resolved_by_reading(a: Adapter) -> None:
    p = a.prefix
    for applied in (True, False):
        store, op = a.losing_reply(applied), f"{p}op-{applied}"
        with pytest.raises(OutcomeUnknown):
            await store.txn(Txn((Compare(op, mod_rev=0),), (Put(op, b"nonce"), Put(p + "data", b"x"))))
        assert (await store.get(op) is not None) == applied
        again = await store.txn(Txn((Compare(op, mod_rev=0),), (Put(op, b"nonce"), Put(p + "data", b"x"))))
        assert again.ok != applied  # the comparison keeps it from being done twice


async def a_restored_backup_is_noticed(a: Adapter) -> None:
    store, p = a.client(), a.prefix
    kept = await put(store, p + "a", b"kept")
    backup = await a.backup()
    lost = await put(store, p + "a", b"lost")
    last = await put(store, p + "b", b"lost too")
    running = store.watch(p, lost)
    events = await read(running, last)
    assert len(events) == 2
    before = await store.range(p)
    await a.restore(backup)
    await ends_with(Rewound, running)
    await ends_with(Rewound, store.watch(p, before.rev + 1))
    after = await store.range(p)
    assert after.rev < before.rev
    assert after.items == (KV(p + "a", b"kept", kept),)
    batches = store.watch(p, after.rev + 1)
    rev = await put(store, p + "c", b"new")
    assert after.rev < rev
    assert await read(batches, rev) == [KV(p + "c", b"new", rev)]
    await close(batches)


CASES: tuple[Case, ...] = (
    get_and_range,
    every_write_has_a_revision_of_its_own,
    comparing_mod_revisions,
    comparing_values,
    all_or_nothing,
    a_key_is_written_once_in_a_transaction,
    watching_from_the_past,
    watching_what_comes,
    a_cancelled_wait_loses_nothing,
    many_writers_many_watchers,
    one_of_many_racers_wins,
    progress_says_how_far_a_quiet_watch_is,
    a_compacted_revision_is_gone,
    an_unknown_outcome_is_resolved_by_reading,
    a_restored_backup_is_noticed,
)
