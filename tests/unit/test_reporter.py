"""A vantage's reports: when they are written, in what company, and what no late or foreign write can spoil."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from itertools import pairwise

import pytest

from chaos.worlds.faulty_store import FaultyStore
from chaos.worlds.loop import Kernel
from controlplane.documents import Keys, decode, encode
from controlplane.reporter import SHARDS, StoreReporter, Superseded
from controlplane.store import KV, Delete, Put, Rewound, Txn
from controlplane.store.memory import MemoryStore
from probes.target import Beat, Health, Observation, Shard

KEYS = Keys("test")
BEAT = KEYS.beat("site-a", "p1")


def up(reason: str = "") -> tuple[Observation, ...]:
    return (Observation("t", Health.UP, reason, True),)


class World:
    """One reporter on its node, the memory store, and what was written, by transaction."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.memory = MemoryStore()
        self.store = FaultyStore(self.memory, random.Random(1))
        self.node = kernel.loop("site-a")
        self.writes: list[tuple[float, list[str]]] = []
        kernel.loop("observer").create_task(self._observe())
        self.reporter, self.task = self.start("run-1")

    def start(self, run: str) -> tuple[StoreReporter, asyncio.Task[None]]:
        reporter = StoreReporter(self.store, KEYS, "site-a", "p1", run, lambda: 1.7e9)
        return reporter, self.node.create_task(reporter.run())

    async def _observe(self) -> None:
        while True:
            try:
                await self._follow()
            except Rewound:
                self.writes.append((self.kernel.now, ["rewound"]))

    async def _follow(self) -> None:
        async for batch in self.memory.watch(KEYS.vantages, 1):
            now = self.kernel.now
            by_rev: dict[int, list[str]] = {}
            for event in batch.events:
                if isinstance(event, KV):
                    by_rev.setdefault(event.mod_rev, []).append(event.key.rpartition("/")[2])
            self.writes += [(now, keys) for keys in by_rev.values()]

    def put(self, shard: str, observations: tuple[Observation, ...]) -> None:
        self.node.ask(lambda: self.reporter.put(shard, observations))

    def beat(self, blind: bool = False) -> None:
        self.node.ask(lambda: self.reporter.beat(blind))

    def beats(self, until: float) -> None:
        """The probing loop is well: a beat each second from now on."""

        reporter = self.reporter

        async def probing() -> None:
            while self.kernel.now < until:
                reporter.beat(False)
                await asyncio.sleep(1.0)

        self.node.create_task(probing())

    def stored(self) -> Beat:
        return decode(Beat, self.memory.snapshot().data[BEAT].value)

    def shard(self, name: str) -> Shard:
        return decode(Shard, self.memory.snapshot().data[KEYS.shard("site-a", "p1", name)].value)

    def usable(self) -> dict[str, str]:
        """As a judge reads it: the shards at exactly the number in the beat, and their first reason."""
        beat = self.stored()
        shards = {name: self.shard(name) for name in beat.shards}
        assert all(shard.run == beat.run and shard.n == beat.shards[name] for name, shard in shards.items())
        return {name: shard.observations[0].reason for name, shard in shards.items()}


@pytest.fixture
def world() -> Iterator[World]:
    with Kernel() as kernel:
        yield World(kernel)


def test_a_changed_shard_and_the_beat_are_one_transaction(world: World) -> None:
    world.put("site-b", up("first"))
    world.kernel.run_for(0.5)
    assert world.writes == []  # blind or not is not known before the first beat
    world.beat()
    world.kernel.run_for(0.01)
    assert world.writes == [(0.5, ["site-b", "beat"])]
    assert world.stored() == Beat("site-a", "run-1", 1, {"site-b": 1}, False, 1.7e9)
    world.kernel.run_until(0.9)
    world.put("site-c", up("other"))
    world.kernel.run_for(0.01)
    assert world.writes[1:] == [(0.9, ["site-c", "beat"])]
    assert world.stored().shards == {"site-b": 1, "site-c": 1}
    assert world.usable() == {"site-b": "first", "site-c": "other"}


def test_without_changes_the_beat_goes_alone(world: World) -> None:
    world.put("site-b", up())
    world.beats(until=10.0)
    world.kernel.run_until(4.5)
    world.put("site-b", up())  # the same again is no news
    world.kernel.run_until(5.5)
    assert world.writes[0] == (0.0, ["site-b", "beat"])
    assert world.writes[1:] == [(float(second), ["beat"]) for second in range(1, 6)]
    assert world.stored().n == 6


def test_changes_are_spaced_and_the_latest_wins(world: World) -> None:
    world.beats(until=1.0)
    for number in range(100):
        world.put("site-b", up(str(number)))
        world.kernel.run_for(0.01)
    times = [time for time, _ in world.writes]
    assert 9 <= len(times) <= 11
    assert min(later - earlier for earlier, later in pairwise(times)) >= 0.0999
    world.kernel.run_for(0.2)
    assert world.usable() == {"site-b": "99"}
    assert world.stored().shards == {"site-b": 100}


def test_blindness_is_told_at_once(world: World) -> None:
    world.beat()
    world.kernel.run_for(0.3)
    world.beat(blind=True)
    world.kernel.run_for(0.01)
    assert world.stored().blind
    assert world.writes[-1] == (0.3, ["beat"])


def test_no_beat_that_was_not_earned(world: World) -> None:
    """The prober hangs: whatever the store does meanwhile, the vantage is silent."""
    world.beats(until=5.0)
    world.put("site-b", up())
    world.kernel.run_until(5.5)
    n = world.stored().n
    world.kernel.run_for(60.0)
    assert world.stored().n == n
    world.store.down = True
    world.beat()
    world.kernel.run_for(3.0)
    world.store.down = False
    world.kernel.run_for(60.0)  # the store is back, but that beat was earned long ago
    assert world.stored().n == n
    world.beat()
    world.kernel.run_for(0.1)
    assert world.stored().n > n


def test_a_paused_process_does_not_send_what_it_had_earned(world: World) -> None:
    world.beats(until=3.0)
    world.kernel.run_until(3.5)
    n = world.stored().n
    world.beat()
    world.node.pause()
    world.kernel.run_for(60.0)
    world.node.resume()
    world.kernel.run_for(5.0)
    assert world.stored().n == n


def test_a_short_refusal_is_tried_again_within_the_second(world: World) -> None:
    world.beats(until=10.0)
    world.kernel.run_until(2.95)
    world.store.down = True
    world.put("site-b", up("news"))
    world.kernel.run_for(0.4)
    assert world.reporter.trouble == "connection refused"
    world.store.down = False
    world.kernel.run_for(0.2)
    assert world.usable() == {"site-b": "news"}
    assert world.reporter.trouble == ""


def test_what_was_not_confirmed_is_written_again(world: World) -> None:
    for applied in (False, True):
        world.beats(until=world.kernel.now + 0.5)
        world.kernel.run_for(0.5)
        world.store.lose_replies(1, applied)
        world.put("site-b", up(f"{applied}"))
        world.kernel.run_for(0.2)
        assert world.reporter.trouble == "no reply"
        world.beat()
        world.kernel.run_for(0.2)
        assert world.writes[-1][1] == ["site-b", "beat"]
        assert world.usable() == {"site-b": f"{applied}"}


def test_everything_is_written_again_after_a_reconnection(world: World) -> None:
    world.beats(until=30.0)
    for name in ("site-b", "site-c"):
        world.put(name, up(name))
    world.kernel.run_until(5.5)
    world.store.down = True
    world.kernel.run_until(10.5)
    world.store.down = False
    world.kernel.run_until(12.5)
    at, keys = world.writes[-3]
    assert 10.5 <= at <= 10.7  # the beat of 10.0 was still good
    assert keys == ["site-b", "site-c", "beat"]
    assert world.writes[-2:] == [(11.0, ["beat"]), (12.0, ["beat"])]


def test_a_write_that_lands_late_spoils_nothing(world: World) -> None:
    """Given up after a second, applied much later by the network: the newer reports stand."""
    world.beats(until=60.0)
    world.put("site-b", up("old"))
    world.kernel.run_until(3.5)
    world.store.hang = True
    world.put("site-b", up("held back"))
    world.kernel.run_until(3.6)
    held = list(world.store._late)
    world.store._late.clear()
    assert len(held) == 1
    other = FaultyStore(world.memory, random.Random(2))  # the client goes to another member
    world.reporter._store = other
    world.put("site-b", up("new"))
    world.kernel.run_until(8.5)
    assert world.usable() == {"site-b": "new"}
    world.store.hang = False
    world.kernel.run_until(9.5)
    assert held[0].result().ok is False
    assert world.usable() == {"site-b": "new"}
    assert world.stored().n >= 8


def test_a_restarted_vantage_writes_everything_under_its_new_run(world: World) -> None:
    world.beats(until=3.0)
    world.put("site-b", up("old"))
    world.kernel.run_until(3.5)
    world.node.kill()
    world.node = world.kernel.loop("site-a")
    world.reporter, world.task = world.start("run-2")
    world.put("site-c", up("new"))
    world.beat()
    world.kernel.run_for(0.1)
    assert world.stored().run == "run-2"
    assert world.usable() == {"site-c": "new"}


def test_an_old_process_that_wakes_up_yields_to_its_successor(world: World) -> None:
    world.beats(until=100.0)
    world.put("site-b", up("old"))
    world.kernel.run_until(3.5)
    old_task, old_node = world.task, world.node
    old_node.pause()
    world.node = world.kernel.loop("site-a again")
    world.reporter, world.task = world.start("run-2")
    world.put("site-b", up("new"))
    world.beats(until=100.0)
    world.kernel.run_until(10.5)
    old_node.resume()
    with pytest.raises(Superseded, match="another process reports as site-a/p1"):
        world.kernel.run_until_complete(old_task)
    world.kernel.run_until(20.5)
    assert world.stored().run == "run-2"
    assert world.usable() == {"site-b": "new"}
    assert [keys for _, keys in world.writes[-8:]] == [["beat"]] * 8


@pytest.mark.parametrize("swept", [False, True])
def test_a_store_that_lost_its_memory_is_told_everything(world: World, swept: bool) -> None:
    world.beats(until=30.0)
    world.put("site-b", up("old"))
    world.kernel.run_until(2.5)
    backup = world.memory.snapshot()
    world.put("site-b", up("new"))
    world.kernel.run_until(5.5)
    if swept:
        world.memory.apply(Txn((), (Delete(BEAT), Delete(KEYS.shard("site-a", "p1", "site-b")))))
    else:
        world.memory.restore(backup)
        assert world.usable() == {"site-b": "old"}
    world.kernel.run_until(6.5)
    assert world.usable() == {"site-b": "new"}
    assert world.reporter.trouble == ""


def test_an_unreadable_beat_is_replaced() -> None:
    with Kernel() as kernel:
        world = World(kernel)
        for value in (b"not json", encode(Beat("x", "r", 1, {}, False, 0.0, schema=99))):
            world.memory.apply(Txn((), (Put(BEAT, value),)))
            world.reporter, world.task = world.start(f"run {value!r}")
            world.beat()
            kernel.run_for(0.2)
            assert world.stored().vantage == "site-a"


def test_more_shards_than_a_transaction_holds_take_several(world: World) -> None:
    names = [f"s{number:03}" for number in range(2 * SHARDS + 20)]
    for name in names:
        world.put(name, up(name))
    world.beat()
    world.kernel.run_for(0.01)
    assert len(world.usable()) == SHARDS  # those that are there, and no others, are in the beat
    world.kernel.run_for(0.5)
    assert world.usable() == {name: name for name in names}
    assert [len(keys) for _, keys in world.writes] == [SHARDS + 1, SHARDS + 1, 21]
