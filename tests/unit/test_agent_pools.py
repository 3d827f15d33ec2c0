"""Agents and their site's load balancer: what it is told, what is left there, and that nobody waits for a hung one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from controlplane.documents import Applied, AppliedDoc, decode
from controlplane.drivers import Actual, Driver, Fence
from policies.topology import PoolDriver, Pools, Site
from policies.world import Desired
from tests.unit.agent_world import CONFIG, KEYS, SERVICE, World, virtual, want
from tests.unit.fake_driver import FakeDriver

POOL = PoolDriver("haproxy", "lb", ("site-a", "site-b"), '{"socket": "/run/x"}')
SERVERS: dict[str, tuple[str, ...]] = {"site-a": ("a",), "site-b": ("b",)}
POOLED = replace(
    CONFIG,
    sites={site: Site(1.0) for site in SERVERS},
    services={"www": replace(SERVICE, pools=Pools("bk_www", SERVERS))},
    pools=(POOL,),
)


class FakePool(FakeDriver):
    """Keeps what it is told, and counts sessions that a test plays."""

    name = "lb"

    def __init__(self) -> None:
        super().__init__()
        self.sessions: dict[str, int] = {}
        self.hangs = False
        self.dead = False

    async def read(self, names: Sequence[str]) -> Mapping[str, Actual]:
        if self.hangs:
            await asyncio.sleep(3600)
        if self.dead:
            raise ConnectionRefusedError("refused")
        return {name: replace(actual, sessions=self.sessions) for name, actual in (await super().read(names)).items()}

    def weights(self) -> dict[str, int]:
        actual = self.names.get("bk_www")
        return {a.address: a.weight for a in actual.answers} if actual else {}


def shared(generation: int, **shares: int) -> Desired:
    by_site = {f"site-{letter}": share for letter, share in shares.items()}
    return replace(want(generation), shares={"world": by_site})


def start(world: World, pool: FakePool, site: str = "site-a") -> None:
    source = world.start(site, {f"dns-{site}": world.driver(site), "lb": pool})
    source.config = POOLED


def pool_doc(world: World, site: str = "site-a") -> AppliedDoc | None:
    value = world.store.snapshot().data.get(KEYS.applied_by(site, site, "lb"))
    return decode(AppliedDoc, value.value) if value else None


def said(world: World) -> Applied:
    document = pool_doc(world)
    assert document is not None
    return document.services["www"]


def test_a_pool_takes_the_shares_and_is_read_back() -> None:
    async def body(world: World) -> None:
        pool = FakePool()
        start(world, pool)
        await world.decide(shared(1, a=60, b=40))
        await asyncio.sleep(0.05)
        assert pool.weights() == {"a": 60, "b": 40}
        await asyncio.sleep(1.5)
        document = pool_doc(world)
        assert document is not None
        assert (document.site, document.driver, document.writer, document.seen) == ("site-a", "lb", "site-a", {})
        assert said(world) == Applied(1, "ok", "", "d-1")
        await world.decide(shared(2, a=100))
        await asyncio.sleep(0.05)
        assert pool.weights() == {"a": 100, "b": 0}
        assert world.generation("site-a") == 2, "and its name server, as ever"

    virtual(body)


def test_what_name_servers_answer_is_said_of_them_though_the_pool_was_open_first() -> None:
    async def body(world: World) -> None:
        drivers: dict[str, Driver] = {"lb": FakePool()}
        world.start("site-a", drivers).config = POOLED
        await world.decide(shared(1, a=100))
        await asyncio.sleep(2.5)
        drivers["dns-site-a"] = world.driver("site-a")
        await asyncio.sleep(2.5)
        document = world.document("site-a", "site-a")
        assert document is not None and document.seen["www"][0].generation == 1
        pool = pool_doc(world)
        assert pool is not None and pool.seen == {}

    virtual(body)


def test_what_was_restarted_or_changed_by_hand_is_put_right_within_two_seconds() -> None:
    async def body(world: World) -> None:
        pool = FakePool()
        start(world, pool)
        await world.decide(shared(1, a=60, b=40))
        await asyncio.sleep(3)
        held = pool.names["bk_www"]
        pool.names["bk_www"] = replace(held, answers=tuple(replace(a, weight=1) for a in held.answers))
        await asyncio.sleep(1.1)
        assert pool.weights() == {"a": 60, "b": 40}
        assert [note.kind for note in world.notes["site-a"] if note.subject == "lb"] == ["applied", "repaired"]

    virtual(body)


def test_sessions_of_drained_sites_are_told_once_a_second_at_most() -> None:
    async def body(world: World) -> None:
        pool = FakePool()
        start(world, pool)
        await world.decide(shared(1, a=100))
        await asyncio.sleep(2)
        first = pool_doc(world)
        assert first is not None
        for left in range(100, 0, -1):
            pool.sessions = {"site-b": left, "site-a": 7}
            await asyncio.sleep(0.1)
        last = pool_doc(world)
        assert last is not None
        assert 5 <= last.n - first.n <= 11
        assert list(said(world).sessions) == ["site-b"], "those of a site that serves are no news"
        assert said(world).sessions["site-b"] < 30
        assert {n.kind for n in world.notes["site-a"]} == {"applied", "seen"}

    virtual(body)


def test_a_hung_pool_delays_nothing_else() -> None:
    async def body(world: World) -> None:
        pool = FakePool()
        pool.hangs = True
        start(world, pool)
        for generation in range(1, 11):
            await world.decide(shared(generation, a=100))
            await asyncio.sleep(0.05)
            assert world.generation("site-a") == generation
            await asyncio.sleep(0.25)
        await asyncio.sleep(1)
        document = world.document("site-a", "site-a")
        assert document is not None and document.services["www"].generation == 10
        assert (said(world).result, said(world).gone) == ("transient", False)
        pool.hangs = False
        await asyncio.sleep(3.2)
        assert pool.weights() == {"a": 100, "b": 0} and said(world).generation == 10

    virtual(body)


def test_a_pool_where_nothing_listens_is_gone() -> None:
    async def body(world: World) -> None:
        pool = FakePool()
        start(world, pool)
        await world.decide(shared(1, a=100))
        await asyncio.sleep(1.5)
        pool.dead = True
        await asyncio.sleep(1.5)
        assert (said(world).result, said(world).gone) == ("transient", True)
        pool.dead = False
        await asyncio.sleep(1.5)
        assert (said(world).result, said(world).gone) == ("ok", False)

    virtual(body)


def test_cut_off_from_the_store_a_pool_is_left_alone() -> None:
    async def body(world: World) -> None:
        pool = FakePool()
        start(world, pool)
        await world.decide(shared(1, a=100))
        await asyncio.sleep(1)
        source = world.sources["site-a"]
        source.current = False
        source.desired["www"] = shared(2, b=100)
        source.news.set()
        pool.names.clear()
        await asyncio.sleep(60)
        assert pool.weights() == {}
        source.current = True
        await asyncio.sleep(1.3)
        assert pool.weights() == {"a": 0, "b": 100}

    virtual(body)


def test_what_was_applied_last_is_not_undercut_by_a_store_that_was_restored() -> None:
    async def body(world: World) -> None:
        pool = FakePool()
        newer = shared(9, a=100)
        rows = (replace(want(1).answers[0], region="", rtype="SERVER", address=name) for name in ("a", "b"))
        pool.names["bk_www"] = Actual(Fence("inc", 9, f"{newer.stamp}.x"), 0, tuple(rows))
        start(world, pool)
        await world.decide(shared(3, b=100))
        await asyncio.sleep(2)
        assert (said(world).result, said(world).ahead_generation) == ("ahead", 9)
        assert not pool.writes

    virtual(body)


def test_a_driver_that_is_opened_anew_goes_on_where_the_old_one_was() -> None:
    async def body(world: World) -> None:
        pool, after = FakePool(), FakePool()
        drivers = {"dns-site-a": world.driver("site-a"), "lb": pool}
        source = world.start("site-a", drivers)
        source.config = POOLED
        await world.decide(shared(1, a=100))
        await asyncio.sleep(2)
        before = pool_doc(world)
        after.names = pool.names
        drivers["lb"] = after
        source.news.set()
        await asyncio.sleep(3)
        assert pool_doc(world) == before, "nothing was unknown in between"
        await world.decide(shared(2, b=100))
        await asyncio.sleep(0.1)
        assert after.writes == [["bk_www"]] and len(pool.writes) == 1

    virtual(body)


def test_two_services_of_one_backend_do_not_fight() -> None:
    async def body(world: World) -> None:
        pool = FakePool()
        start(world, pool)
        both = {"www": POOLED.services["www"], "zzz": replace(POOLED.services["www"], dns=None)}
        world.sources["site-a"].config = replace(POOLED, services=both)
        other = replace(shared(5, b=100), service="zzz", name="", answers=())
        await world.decide(shared(1, a=100), other)
        await asyncio.sleep(5)
        assert pool.weights() == {"a": 100, "b": 0} and len(pool.writes) == 1

    virtual(body)
