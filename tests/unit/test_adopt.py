"""Records of another incarnation: left alone, adopted, taken back, and never fought over."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from chaos.worlds.loop import Kernel
from controlplane.documents import AdoptedDoc, Applied, Keys, decode
from controlplane.drivers import Change, Fence
from controlplane.operator import Operator, Refused
from controlplane.store import Put, Txn
from controlplane.store.memory import MemoryStore
from controlplane.sync import Sync
from policies.world import Desired
from tests.support import run
from tests.unit.agent_world import World, virtual, want
from tests.unit.fake_driver import FakeDriver

KEYS = Keys("acme")


class Cluster:
    """One of two that write the same name server."""

    def __init__(self, name: str, driver: FakeDriver) -> None:
        self.name, self.driver = name, driver
        self.adopted: tuple[str, ...] = ()
        self.adoption = 0
        self.start()

    def start(self, told: Applied | None = None) -> None:
        async def reread() -> Mapping[str, Desired]:
            return {}

        self.sync = Sync(self.driver, self.name, 0, reread, random.Random(1))
        if told is not None and told.adoption:
            self.sync.remember({"www": told.adoption})

    def adopt(self, other: str, adoption: int) -> None:
        self.adopted, self.adoption = (other,), adoption

    async def said(self, generation: int) -> Applied:
        done = await self.sync.bring({"www": want(generation)}, self.name, self.adopted, self.adoption)
        return done.applied["www"]


def test_the_last_to_adopt_has_the_records_and_nobody_fights() -> None:
    async def body() -> None:
        driver = FakeDriver()
        old, new = Cluster("old", driver), Cluster("new", driver)
        assert (await old.said(58)).result == "ok"
        assert (await new.said(3)).result == "foreign"
        new.adopt("old", 17)
        assert await new.said(3) == Applied(3, "ok", "", "d-3", adoption=17), "whatever its generation"
        for _ in range(3):
            assert (await old.said(59)).result == "foreign"
            assert (await new.said(3)).result == "ok"
        old.adopt("new", 40)
        assert (await old.said(59)).result == "ok"
        for _ in range(3):
            assert (await new.said(4)).result == "foreign"
            assert (await old.said(59)).result == "ok"
        again = await new.said(4)
        new.start(again)  # a new process knows what the old one reported
        assert (await new.said(4)).result == "foreign"
        new.adopt("old", 90)
        assert (await new.said(4)).result == "ok"
        assert (await old.said(60)).result == "foreign"

    with Kernel() as kernel:
        kernel.run(body())


def test_neither_what_was_written_by_hand_nor_our_own_is_adopted() -> None:
    async def body() -> None:
        driver = FakeDriver()
        new = Cluster("new", driver)
        new.adopt("old", 17)
        await Cluster("old", driver).said(5)
        actual = driver.names["www.example.org"]
        driver.names["www.example.org"] = replace(actual, fence=Fence("old", 5, "manual-ana"))
        assert (await new.said(3)).result == "manual"
        driver.names["www.example.org"] = replace(actual, fence=Fence("new", 9, "d-9.x"))
        new.adopt("new", 18)
        assert (await new.said(3)).result == "ahead", "as without it"

    with Kernel() as kernel:
        kernel.run(body())


def test_agents_adopt_what_they_are_told_to() -> None:
    async def body(world: World) -> None:
        server = world.servers["site-c"]
        assert server is not None
        await world.driver("site-c").apply([Change(want(9), None, Fence("theirs", 500, "d-500.x"))])
        source = world.start("site-c")
        await world.decide(want(1))
        await asyncio.sleep(2)
        document = world.document("site-c", "site-c")
        assert document is not None and document.services["www"].result == "foreign"
        source.adopted, source.adoption = ("theirs",), 33
        source.news.set()
        await asyncio.sleep(1.5)
        document = world.document("site-c", "site-c")
        assert document is not None and document.services["www"] == Applied(1, "ok", "", "d-1", adoption=33)
        # Taken away by the other cluster; a new process of ours leaves it there.
        actual = server.table.read("www.example.org")
        assert actual is not None
        server.table.edit("www.example.org", replace(actual, fence=Fence("theirs", 501, "d-501.x")))
        await asyncio.sleep(2)
        await world.stop("site-c")
        again = world.start("site-c")
        again.adopted, again.adoption = ("theirs",), 33
        await asyncio.sleep(3)
        document = world.document("site-c", "site-c")
        assert document is not None and document.services["www"].result == "foreign"
        actual = server.table.read("www.example.org")
        assert actual is not None and actual.fence == Fence("theirs", 501, "d-501.x")

    virtual(body)


def test_the_operators_word_is_one_transaction() -> None:
    async def main() -> None:
        store = MemoryStore()
        operator = Operator(store, KEYS, random.Random(1))
        with pytest.raises(Refused, match="no configuration"):
            await operator.adopt(["x"])
        await store.txn(Txn((), (Put(KEYS.incarnation, b"ours"),)))
        with pytest.raises(Refused, match="own incarnation"):
            await operator.adopt(["ours"])
        assert await operator.adopt(["b"], 0) == ("b",)
        first = await store.get(KEYS.adopted)
        assert first is not None
        with pytest.raises(Refused, match="adopted meanwhile"):
            await operator.adopt(["c"], 0)
        assert await operator.adopt(["a", "c"], first.mod_rev) == ("a", "c"), "b may have taken back what was its own"
        assert await operator.adopt(["a", "c"]) == ("a", "c")
        last = await store.get(KEYS.adopted)
        assert last is not None and last.mod_rev > first.mod_rev + 1, "the same again is another adoption"
        assert decode(AdoptedDoc, last.value).incarnations == ("a", "c")

    run(main())
