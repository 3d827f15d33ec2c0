"""Two clients write and one watches while members of a real etcd die, freeze and lose each other.

In each: no event lost, repeated or out of order, nothing applied twice, every unknown outcome found by its id. How
long the watch was silent and writes stood still is printed (`pytest -rA`), not asserted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from controlplane.store import KV, Compacted, Delete, Rewound, Txn
from controlplane.store.etcd import EtcdStore
from tests.contract.store_contract import put, read
from tests.real.etcd_world import Books, World, thawed
from tests.real.proxies import FROM, TO
from tests.support import run

DOWN_S = 2.5  # how long a fault lasts that heals by itself


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("etcd")) as world:
        yield world


@pytest.fixture(autouse=True)
def _thawed(world: World) -> Iterator[None]:
    with thawed(world):
        yield


def roles(world: World) -> tuple[str, str, str]:
    """Names of etcd's leader and its two followers."""
    leader = world.cluster.leader().name
    return (leader, *(name for name in world.cluster.members if name != leader))  # type: ignore[return-value]


def test_the_leader_is_killed(world: World) -> None:
    leader, follower, _ = roles(world)

    async def main() -> str:
        async with Books(world, leader, follower) as books:
            world.cluster.members[leader].kill()
            await books.more(50)
            world.cluster.members[leader].start()
            await books.more(20)
            await books.check()
            return books.line("etcd's leader killed, the client's member")

    print(run(main()))


def test_the_leader_is_killed_and_the_client_is_elsewhere(world: World) -> None:
    leader, follower, other = roles(world)

    async def main() -> str:
        async with Books(world, follower, other) as books:
            world.cluster.members[leader].kill()
            await books.more(50)
            await books.check()
            return books.line("etcd's leader killed, not the client's member")

    print(run(main()))


@pytest.mark.parametrize("leads", [False, True], ids=["follower", "leader"])
def test_the_clients_member_is_frozen(world: World, leads: bool) -> None:
    leader, follower, other = roles(world)
    frozen = leader if leads else follower

    async def main() -> str:
        async with Books(world, frozen, other) as books:
            world.cluster.members[frozen].freeze()
            await books.more(50)
            world.cluster.members[frozen].thaw()
            await books.more(20)
            await books.check()
            return books.line(f"the client's member frozen, a {'leader' if leads else 'follower'}")

    print(run(main()))


@pytest.mark.parametrize("hears, is_heard", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("leads", [False, True], ids=["follower", "leader"])
def test_the_clients_member_is_cut_off_from_its_peers(world: World, leads: bool, hears: bool, is_heard: bool) -> None:
    leader, follower, other = roles(world)
    cut = leader if leads else follower

    async def main() -> str:
        async with Books(world, cut, other) as books:
            world.hold_peers(cut, hears=hears, is_heard=is_heard)
            await books.more(50)
            world.heal_peers()
            await books.more(20)
            await books.check()
            way = "hears only" if hears else "is heard only" if is_heard else "both ways"
            return books.line(f"a {'leader' if leads else 'follower'} cut off from its peers, {way}")

    print(run(main()))


@pytest.mark.parametrize("ways", [(TO, FROM), (TO,), (FROM,)], ids=["both", "requests", "replies"])
def test_the_client_is_cut_off_from_its_member(world: World, ways: tuple[str, ...]) -> None:
    leader, follower, _ = roles(world)

    async def main() -> str:
        async with Books(world, follower, leader) as books:
            world.hold_client(follower, *ways)
            await books.more(50)
            world.heal_client(follower)  # what was held back arrives now, late
            await books.more(20)
            await books.check()
            return books.line(f"the client cut off from its member, {'both ways' if len(ways) > 1 else ways[0]}")

    print(run(main()))


def test_the_client_is_cut_off_from_all(world: World) -> None:
    leader, follower, _ = roles(world)

    async def main() -> str:
        async with Books(world, follower, leader) as books:
            for name in world.cluster.members:
                world.hold_client(name, TO, FROM)
            await asyncio.sleep(DOWN_S)
            for name in world.cluster.members:
                world.heal_client(name)
            await books.more(50)
            await books.check()
            return books.line(f"clients cut off from every member for {DOWN_S:g} s")

    print(run(main()))


def test_compaction_during_a_cut(world: World) -> None:
    """What the watch has not seen is gone when it comes back: it starts over from a snapshot."""
    leader, follower, _other = roles(world)

    async def main() -> str:
        async with Books(world, follower, leader) as books:
            assert books.watcher is not None
            for name in world.cluster.members:
                world.hold_client(name, TO, FROM)
            direct = EtcdStore(world.cluster.urls)
            rev = [await put(direct, f"{books.prefix}during/{number}") for number in range(100)][-1]
            await direct.compact(rev)
            await direct.aclose()
            for name in world.cluster.members:
                world.sever_client(name)
                world.heal_client(name)
            await books.more(50)
            await books.settle()
            assert books.watcher.snapshots == [Compacted]
            items = (await books.stores[1].range(books.prefix)).items
            seen = {(event.key, event.mod_rev) for event in books.watcher.events}
            assert [item for item in items if (item.key, item.mod_rev) not in seen] == []
            books.check_operations(books.watcher.events)
            return books.line("compaction while the client was cut off")

    print(run(main()))


def test_a_deletion_that_was_seen_is_compacted_during_a_cut(world: World) -> None:
    """A deletion may go with the compaction of its own revision (etcd does that when it gets round to it): whether
    history is the same cannot be told then, so the watch ends as Compacted. Else it goes on; it is never Rewound."""

    async def main() -> None:
        store, direct, key = world.store("a"), EtcdStore(world.cluster.urls), f"{world.prefix()}a"
        first = await put(direct, key)
        deleted = (await direct.txn(Txn((), (Delete(key),)))).rev
        watch = store.watch(key, first)
        assert await read(watch, deleted) == [KV(key, b"v", first), Delete(key, deleted)]
        for name in world.cluster.members:
            world.hold_client(name, TO, FROM)
            world.sever_client(name)
        await direct.compact(deleted)
        for name in world.cluster.members:
            world.heal_client(name)
        after = await put(direct, key)
        with contextlib.suppress(Compacted):
            assert await read(watch, after) == [KV(key, b"v", after)]
        await direct.aclose()
        await store.aclose()

    run(main())


def test_all_members_are_killed_and_started_again(world: World) -> None:
    leader, follower, _ = roles(world)

    async def main() -> str:
        async with Books(world, follower, leader) as books:
            for member in world.cluster.members.values():
                member.kill()
            await asyncio.sleep(1)
            for member in world.cluster.members.values():
                member.start()
            await books.more(50)
            await books.check()
            return books.line("all members killed, down for 1 s, started again")

    print(run(main()))


def test_restored_from_a_backup(world: World) -> None:
    """What was written after the backup is lost, and the watcher is told so: Rewound."""
    leader, follower, _ = roles(world)

    async def main() -> str:
        async with Books(world, follower, leader) as books:
            assert books.watcher is not None
            backup = world.cluster.backup(world.directory / "backup")
            await books.more(50)
            before = books.watcher.next
            world.cluster.restore(backup)
            await books.until(lambda: books.watcher is not None and books.watcher.snapshots != [])
            assert books.watcher.snapshots == [Rewound]
            await books.more(50)
            await books.check_after_restore(before)
            return books.line("restored from a backup")

    print(run(main()))


def test_restored_from_a_backup_and_grown_again(world: World) -> None:
    """By the time the client is back, the store is further than the client has seen: its content betrays it."""
    leader, follower, _ = roles(world)

    async def main() -> None:
        async with Books(world, follower, leader) as books:
            assert books.watcher is not None
            backup = world.cluster.backup(world.directory / "backup2")
            await books.more(20)
            for name in world.cluster.members:
                world.hold_client(name, TO, FROM)
            before = books.watcher.next
            world.cluster.restore(backup)
            direct = EtcdStore(world.cluster.urls)
            while await put(direct, f"{books.prefix}after") < before + 50:
                pass
            await direct.aclose()
            for name in world.cluster.members:
                world.heal_client(name)
            await books.until(lambda: books.watcher is not None and books.watcher.snapshots != [])
            assert books.watcher.snapshots == [Rewound]
            assert "another content" in " ".join(books.watcher.breaks)

    run(main())
