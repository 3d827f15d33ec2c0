"""A pass that ends in the middle: what was reported before it must not go on looking well."""

from __future__ import annotations

import asyncio
from typing import Any

from controlplane.dns.checker import AGAIN_S
from controlplane.dns.embedded import EmbeddedDriver
from controlplane.documents import Applied, AppliedDoc, Seen
from controlplane.lens import Lens
from controlplane.notes import Note
from policies.world import Desired
from tests.unit.agent_world import World, address, virtual, want

BUG = "bug: KeyError('broken')"


def told(world: World) -> AppliedDoc:
    document = world.document("site-c", "site-c")
    assert document is not None
    return document


async def broken(*_: Any, **__: Any) -> Any:
    raise KeyError("broken")


def own(world: World) -> Seen:
    """What the site's own server was seen to answer."""
    return next(seen for seen in told(world).seen["www"] if seen.server == address("site-c"))


async def settled(world: World) -> None:
    world.start("site-c", {"dns-site-c": world.driver("site-c")})
    await world.decide(want(1))
    await asyncio.sleep(3)
    assert (told(world).services["www"].result, told(world).unwritable) == ("ok", "")
    assert own(world) == Seen(address("site-c"), 1, True)


def since(world: World, kind: str, subject: str) -> list[Note]:
    return [n for n in world.notes["site-c"] if (n.kind, n.subject) == (kind, subject)]


def test_a_pass_that_breaks_takes_the_last_good_report_away() -> None:
    async def body(world: World) -> None:
        await settled(world)
        sync = world.agents["site-c"].keepers["dns-site-c"].sync
        whole, sync.bring = sync.bring, broken  # type: ignore[method-assign]
        await asyncio.sleep(5)
        assert told(world).services["www"] == Applied(1, "terminal", BUG, "d-1")
        assert told(world).unwritable == BUG
        assert [n.text for n in since(world, "alarm", "driver dns-site-c")] == [BUG], "once"
        sync.bring = whole  # type: ignore[method-assign]
        await asyncio.sleep(3)
        assert (told(world).services["www"].result, told(world).unwritable) == ("ok", "")
        assert len(since(world, "cleared", "driver dns-site-c")) == 1

    virtual(body)


def test_a_first_pass_that_breaks_is_told_though_nothing_was_applied() -> None:
    def wanted(name: str, pool: bool, lens: Lens) -> dict[str, Desired]:
        raise KeyError("broken")

    async def body(world: World) -> None:
        world.start("site-c", {"dns-site-c": world.driver("site-c")})
        await asyncio.sleep(1)
        keeper = world.agents["site-c"].keepers["dns-site-c"]
        world.agents["site-c"]._aims.of_driver = wanted  # type: ignore[method-assign]
        await world.decide(want(1))
        await asyncio.sleep(3)
        assert keeper.applied == {}
        assert told(world).unwritable == BUG

    virtual(body)


def test_a_proof_that_breaks_leaves_the_names_as_they_are() -> None:
    async def body(world: World) -> None:
        driver = EmbeddedDriver("dns-site-c", lambda: world.servers["site-c"])
        driver.probe_write = broken  # type: ignore[method-assign]
        world.start("site-c", {"dns-site-c": driver})
        await world.decide(want(1))
        await asyncio.sleep(3)
        assert (told(world).services["www"].result, told(world).unwritable) == ("ok", BUG)

    virtual(body)


def test_a_round_of_questions_that_breaks_takes_the_last_good_answers_away() -> None:
    async def body(world: World) -> None:
        await settled(world)
        checker = world.agents["site-c"].checkers[address("site-c")]
        whole, checker.step = checker.step, broken  # type: ignore[method-assign]
        await asyncio.sleep(AGAIN_S + 3)
        assert own(world) == Seen(address("site-c"), 1, False, BUG)
        checker.step = whole  # type: ignore[method-assign]
        await asyncio.sleep(3)
        assert own(world) == Seen(address("site-c"), 1, True)

    virtual(body)
