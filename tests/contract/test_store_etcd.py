"""EtcdStore passes the contract of every store, on a real etcd of three members. And what only it has."""

from __future__ import annotations

import asyncio
import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

import controlplane.store.etcd.store as implementation
from chaos.worlds.servers.process import free_port
from controlplane.store import (
    KV,
    MAX_OPS,
    OutcomeUnknown,
    Put,
    Snapshot,
    Store,
    StoreError,
    Txn,
    TxnResult,
    Unavailable,
)
from controlplane.store.etcd import EtcdStore
from controlplane.store.etcd.watch import EtcdWatch
from tests.contract.store_contract import CASES, Case, close, put, read
from tests.real.etcd_world import World
from tests.real.proxies import FROM, HOST, TO
from tests.support import run

PROGRESS = ("--experimental-watch-progress-notify-interval", "200ms")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("etcd"), extra=PROGRESS) as world:
        yield world


class Losing:
    """A client whose next transaction loses its request or its reply on the way."""

    def __init__(self, world: World, applied: bool) -> None:
        self.world, self.way = world, FROM if applied else TO
        self.store = world.store("a")
        self.armed = True

    async def get(self, key: str) -> KV | None:
        return await self.store.get(key)

    async def range(self, prefix: str) -> Snapshot:
        return await self.store.range(prefix)

    def watch(self, prefix: str, from_rev: int) -> EtcdWatch:
        return self.store.watch(prefix, from_rev)

    async def txn(self, txn: Txn) -> TxnResult:
        if not self.armed:
            return await self.store.txn(txn)
        self.armed = False
        await self.store.txn(Txn((), ()))  # the connection stands
        self.world.hold_client("a", self.way)
        try:
            return await self.store.txn(txn)
        finally:
            self.world.board.run(self.world.clients["a"].sever())
            self.world.heal_client("a")


class EtcdAdapter:
    _numbers = itertools.count(1)

    def __init__(self, world: World) -> None:
        self.world = world
        self.prefix = f"/contract/{next(self._numbers)}/"
        self.stores: list[EtcdStore] = []

    def client(self) -> EtcdStore:
        self.stores.append(self.world.store("abc"[len(self.stores) % 3]))
        return self.stores[-1]

    def losing_reply(self, applied: bool) -> Store:
        losing = Losing(self.world, applied)
        self.stores.append(losing.store)
        return losing

    async def compact(self, rev: int) -> None:
        await self.client().compact(rev)

    async def request_progress(self) -> None:
        """The members tell it by themselves, every 200 ms."""

    async def backup(self) -> Path:
        return self.world.cluster.backup(self.world.directory / f"backup{next(self._numbers)}")

    async def restore(self, backup: object) -> None:
        assert isinstance(backup, Path)
        self.world.cluster.restore(backup)

    async def aclose(self) -> None:
        for store in self.stores:
            await store.aclose()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_contract(world: World, case: Case) -> None:
    async def main() -> None:
        adapter = EtcdAdapter(world)
        try:
            await case(adapter)
        finally:
            await adapter.aclose()

    run(main())


@pytest.fixture
def adapter(world: World) -> EtcdAdapter:
    return EtcdAdapter(world)


def in_groups(prefix: str, groups: int, value: bytes) -> list[Txn]:
    """`groups` transactions that write MAX_OPS keys each."""
    return [
        Txn((), tuple(Put(f"{prefix}{group:03}/{key:03}", value) for key in range(MAX_OPS))) for group in range(groups)
    ]


def test_a_large_range_is_one_moment(adapter: EtcdAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pages are read at one revision, whatever is written between them."""
    monkeypatch.setattr(implementation, "PAGE", 300)

    async def main() -> None:
        store, other, p = adapter.client(), adapter.client(), adapter.prefix
        for number in range(2):
            for txn in in_groups(p, 10, b"%d" % number):
                await store.txn(txn)

        async def rewrite(times: int) -> None:
            for number in range(times):
                await other.txn(Txn((), tuple(Put(f"{p}{n:03}/000", b"%d" % number) for n in range(10))))

        await rewrite(1)
        task = asyncio.create_task(rewrite(10_000))
        for _ in range(10):
            items = (await store.range(p)).items
            assert len(items) == 10 * MAX_OPS
            assert [item.key for item in items] == sorted(item.key for item in items)
            assert len({(item.value, item.mod_rev) for item in items if item.key.endswith("/000")}) == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await adapter.aclose()

    run(main())


def test_a_range_starts_anew_when_its_revision_is_compacted(
    adapter: EtcdAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(implementation, "PAGE", 10)

    async def main() -> None:
        store, other, p = adapter.client(), adapter.client(), adapter.prefix
        await store.txn(in_groups(p, 1, b"1")[0])
        read_page, pages = store._read, 0

        async def interrupted(request: object, what: str) -> object:
            nonlocal pages
            pages += 1
            if pages == 3:
                await other.compact(await put(other, f"{p}more"))
            return await read_page(request, what)

        monkeypatch.setattr(store, "_read", interrupted)
        snapshot = await store.range(p)
        assert len(snapshot.items) == MAX_OPS + 1
        assert pages > 14
        await adapter.aclose()

    run(main())


def test_large_revisions_come_whole(adapter: EtcdAdapter) -> None:
    """More than fits in one message of etcd, which splits it anywhere; `read` sees whether revisions are whole."""

    async def main() -> None:
        store, p = adapter.client(), adapter.prefix
        revs = [(await store.txn(txn)).rev for _ in range(3) for txn in in_groups(p, 4, bytes(9000))]
        batches = store.watch(p, revs[0])
        events = await read(batches, revs[-1])
        assert [event.mod_rev for event in events] == [rev for rev in revs for _ in range(MAX_OPS)]
        await close(batches)
        await adapter.aclose()

    run(main())


def test_what_etcd_will_never_take_is_not_tried_again(adapter: EtcdAdapter) -> None:
    async def main() -> None:
        store, p = adapter.client(), adapter.prefix
        for size in (1_700_000, 2_200_000):  # refused by etcd, and already by its gRPC server
            with pytest.raises(StoreError, match="large") as told:
                await put(store, f"{p}a", bytes(size))
            assert not isinstance(told.value, (Unavailable, OutcomeUnknown))
        assert await store.get(f"{p}a") is None
        await adapter.aclose()

    run(main())


def test_compacting_twice_is_no_error(adapter: EtcdAdapter) -> None:
    async def main() -> None:
        store = adapter.client()
        rev = await put(store, f"{adapter.prefix}a")
        await store.compact(rev)
        await store.compact(rev)
        await store.compact(rev - 1)
        with pytest.raises(ValueError, match="still to come"):
            await store.compact(rev + 1000)
        await adapter.aclose()

    run(main())


def test_closing_ends_what_is_under_way(adapter: EtcdAdapter) -> None:
    async def main() -> None:
        store, p = adapter.client(), adapter.prefix
        rev = await put(store, f"{p}a")
        batches = store.watch(p, rev + 1)
        waiting = asyncio.create_task(all_of(batches))
        await asyncio.sleep(0.1)
        await store.aclose()
        assert await waiting == []
        for call in (store.get(f"{p}a"), store.range(p), put(store, f"{p}a"), anext(store.watch(p, 1))):
            with pytest.raises(Unavailable, match="closed"):
                await call
        await store.aclose()

    run(main())


async def all_of(batches: EtcdWatch) -> list[object]:
    return [batch async for batch in batches]


def test_the_members_say_how_they_are(world: World, adapter: EtcdAdapter) -> None:
    async def main() -> None:
        store = adapter.client()
        health = await store.health()
        assert [member.endpoint for member in health.members] == world.urls("a")
        assert [member.name for member in health.members] == ["a", "b", "c"]
        assert sum(member.leader for member in health.members) == 1
        assert {member.quota_bytes for member in health.members} == {2 << 30}
        assert all(0 < member.in_use_bytes <= member.db_bytes for member in health.members)
        assert {member.version.split(".")[0] for member in health.members} == {"3"}
        assert {member.cluster_id for member in health.members} == {health.cluster_id}
        assert health.majority
        assert health.alarms == ()
        assert all(m.db_bytes > 0 and not m.half_full for m in health.members)
        for name, majority in (("b", True), ("c", False)):
            world.cluster.members[name].kill()
            health = await store.health()
            assert health.majority == majority
            dead = next(m for m in health.members if m.endpoint == world.urls(name)[0])
            assert not dead.reachable
            assert dead.why
        await adapter.aclose()

    try:
        run(main())
    finally:
        for name in "bc":
            world.cluster.members[name].start()
        world.cluster.ready()


def test_without_any_member_each_call_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(implementation, "CALL_S", 1.0)
    urls = [f"http://{HOST}:{free_port()}" for _ in range(2)]

    async def main() -> None:
        store = EtcdStore(urls)
        for call in (store.get("/a"), store.range("/"), put(store, "/a"), store.compact(1)):
            with pytest.raises(Unavailable, match="Connection refused") as told:
                await call
            assert all(url in str(told.value) for url in urls)
        assert [member.reachable for member in (await store.health()).members] == [False, False]
        await store.aclose()

    run(main())


@pytest.mark.parametrize("url", ["127.0.0.1:2379", "http://127.0.0.1", "ftp://h:1", "http://h:1/path", ""])
def test_what_is_no_endpoint(url: str) -> None:
    with pytest.raises(ValueError, match="no etcd endpoint"):
        EtcdStore([url])


def test_how_fast_it_is(adapter: EtcdAdapter) -> None:
    """Printed, not judged."""

    async def main() -> None:
        loop, store, p = asyncio.get_running_loop(), adapter.client(), adapter.prefix
        batches = store.watch(p, await put(store, f"{p}a") + 1)
        writes, arrivals = [], []
        for number in range(300):
            start = loop.time()
            rev = await put(store, f"{p}a", b"%d" % number)
            writes.append((loop.time() - start) * 1000)
            assert len(await read(batches, rev)) == 1
            arrivals.append((loop.time() - start) * 1000)
        for txn in in_groups(p, 79, bytes(2000)):
            await store.txn(txn)
        start = loop.time()
        items = (await store.range(p)).items
        range_s = loop.time() - start
        assert len(items) == 79 * MAX_OPS + 1
        for name, times in (("write", writes), ("write to watch", arrivals)):
            print(f"{name}: p50 {statistics.median(times):.1f} ms, p99 {statistics.quantiles(times, n=100)[98]:.1f} ms")
        print(f"range of {len(items)} keys, 2 kB each: {range_s:.2f} s")
        await close(batches)
        await adapter.aclose()

    run(main())
