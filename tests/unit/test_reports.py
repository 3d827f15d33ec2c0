"""An agent's documents: shards of a bounded size, renewed, moved and taken away."""

from __future__ import annotations

import asyncio

import dns.message
import pytest
from msgspec.structs import replace

from controlplane.documents import Applied, AppliedDoc, Seen, decode, encode
from controlplane.reports import Reports, spread
from controlplane.store import Put, Txn, TxnResult
from tests.unit.agent_world import KEYS, CountingStore, World, driver_of, virtual, want
from tests.unit.test_agent_pools import POOLED, FakePool, shared, start

DONE = Applied(1234, "ok", "", "d-1042-3fd2a19f3c0b1a2d")


@pytest.mark.parametrize("count", [0, 1, 200, 201, 1000, 10_000])
def test_services_are_spread_evenly_and_stably(count: int) -> None:
    services = [f"service-{n:05}" for n in range(count)]
    shards = spread(services)
    assert sorted(s for shard in shards for s in shard) == services
    assert len(shards) == max(1, -(-count // 200))
    assert max(map(len, shards)) <= 260
    assert [set(shard) for shard in spread(services[::-1])] == [set(shard) for shard in shards]


class WeighingStore(CountingStore):
    """Knows the limits of etcd."""

    largest_document = 0
    largest_txn = 0

    async def txn(self, txn: Txn) -> TxnResult:
        sizes = [len(op.value) for op in txn.then if isinstance(op, Put) and op.key.startswith(KEYS.applied)]
        assert len(txn.then) <= 128
        self.largest_document = max(self.largest_document, *sizes, 0)
        self.largest_txn = max(self.largest_txn, sum(sizes))
        return await super().txn(txn)


def keys(world: World, writer: str = "site-c") -> list[str]:
    prefix = f"{KEYS.applied}{writer}/"
    return sorted(key.removeprefix(prefix) for key in world.store.snapshot().data if key.startswith(prefix))


async def silent(server: str, query: dns.message.Message) -> dns.message.Message:
    """Ten thousand answers take their time; here nobody needs them."""
    await asyncio.sleep(1.0)
    raise TimeoutError("no answer")


def documents(world: World) -> list[AppliedDoc]:
    data = world.store.snapshot().data
    return [decode(AppliedDoc, data[f"{KEYS.applied}site-c/{key}"].value) for key in keys(world)]


def test_ten_thousand_services_fit_the_store() -> None:
    async def body(world: World) -> None:
        world.store = store = WeighingStore()
        world.ask = silent  # type: ignore[method-assign]
        source = world.start("site-c")
        many = [replace(want(1, service=f"s{n}"), nonce="9f3ca0b1c2d3e4f5") for n in range(10_000)]
        source.desired |= {d.service: d for d in many}
        source.news.set()
        await asyncio.sleep(6)
        found = documents(world)
        assert len(found) == 50 and [d.shard for d in found] == [int(key.split("/")[2]) for key in keys(world)]
        told = {service: done for d in found for service, done in d.services.items()}
        assert len(told) == 10_000 and {done.result for done in told.values()} == {"ok"}
        assert all(len(rows) == 3 for d in found for rows in d.seen.values())
        assert store.largest_document < 100_000 and store.largest_txn < 1024 * 1024
        print(f"largest document {store.largest_document} bytes, transaction {store.largest_txn} bytes")

    virtual(body)


def test_a_full_shard_of_three_servers_is_small_enough() -> None:
    services = [f"a-service-of-a-long-name-{n:05}" for n in range(10_000)]
    fullest = max(spread(services), key=len)
    rows = tuple(Seen(f"198.51.100.{n}:53", 1234, True) for n in (53, 54, 55))
    document = AppliedDoc(
        site="site-a",
        driver="rfc2136-site-a",
        writer="site-a",
        run="0123456789abcdef",
        n=12345,
        services=dict.fromkeys(fullest, DONE),
        seen=dict.fromkeys(fullest, rows),
        old_ttl_left_s=dict.fromkeys(fullest, 19.123456789),
    )
    size = len(encode(document))
    print(f"{len(fullest)} services: {size} bytes")
    assert size < 110_000


def test_only_the_first_shard_is_renewed_when_nothing_happens() -> None:
    async def body(world: World) -> None:
        world.ask = silent  # type: ignore[method-assign]
        source = world.start("site-c")
        source.desired |= {f"s{n}": want(1, service=f"s{n}") for n in range(450)}
        source.news.set()
        await asyncio.sleep(30)
        before = {d.shard: d.n for d in documents(world)}
        await asyncio.sleep(31)
        after = {d.shard: d.n for d in documents(world)}
        assert [shard for shard in after if after[shard] != before[shard]] == [0]
        assert set(before) == {0, 1, 2}

    virtual(body)


def test_fewer_services_need_fewer_shards_and_the_rest_goes() -> None:
    async def body(world: World) -> None:
        world.ask = silent  # type: ignore[method-assign]
        source = world.start("site-c")
        source.desired |= {f"s{n}": want(1, service=f"s{n}") for n in range(450)}
        source.news.set()
        await asyncio.sleep(5)
        assert keys(world) == [f"site-c/dns-site-c/{n}" for n in range(3)]
        for n in range(10, 450):
            del source.desired[f"s{n}"]
        source.news.set()
        await asyncio.sleep(3)
        assert keys(world) == ["site-c/dns-site-c/0"]
        assert sorted(documents(world)[0].services) == sorted(f"s{n}" for n in range(10))

    virtual(body)


def test_what_a_former_process_left_is_taken_away_but_not_that_of_a_driver_that_is_about_to_open() -> None:
    async def body(world: World) -> None:
        old = AppliedDoc("site-a", "dns-site-a", "site-a", "r0", 9, {}, {}, {})
        left = [
            KEYS.applied_by("site-a", "site-a", "dns-site-a", 7),
            KEYS.applied_by("site-a", "site-b", "dns-site-b"),  # configured, and not open here
            KEYS.applied_by("site-a", "site-z", "dns-gone"),
            KEYS.applied + "site-a/x",
        ]
        await world.store.txn(Txn((), tuple(Put(key, encode(old)) for key in left)))
        world.start("site-a", {"dns-site-a": world.driver("site-a")})
        await world.decide(want(1))
        await asyncio.sleep(3)
        assert keys(world, "site-a") == ["site-a/dns-site-a/0", "site-b/dns-site-b/0"]

    virtual(body)


def test_a_driver_that_leaves_the_configuration_takes_its_documents_along() -> None:
    async def body(world: World) -> None:
        pool = FakePool()
        start(world, pool)
        await world.decide(shared(1, a=100))
        await asyncio.sleep(2)
        assert keys(world, "site-a") == ["site-a/dns-site-a/0", "site-a/lb/0"]
        world.sources["site-a"].config = replace(POOLED, pools=(), dns=(driver_of("site-a"),), revision=2)
        world.sources["site-a"].news.set()
        await asyncio.sleep(3)
        assert keys(world, "site-a") == ["site-a/dns-site-a/0"]

    virtual(body)


def test_what_stands_there_is_read_whoever_wrote_it() -> None:
    async def body(world: World) -> None:
        done = replace(DONE, adoption=17)
        document = AppliedDoc("site-a", "d", "site-a", "r0", 1, {"www": done, "api": DONE}, {}, {})
        junk = KEYS.applied_by("site-a", "site-a", "e")
        await world.store.txn(
            Txn((), (Put(KEYS.applied_by("site-a", "site-a", "d"), encode(document)), Put(junk, b'{"schema": 99}')))
        )
        assert await Reports(world.store, KEYS, "site-a", "r1").look() == {("site-a", "d"): {"www": 17}}

    virtual(body)
