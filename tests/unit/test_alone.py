"""Is there another process of this node?"""

from __future__ import annotations

import asyncio
import random

from chaos.worlds.faulty_store import FaultyStore
from chaos.worlds.loop import Kernel
from controlplane.alone import ALIVE_S, another_beats
from controlplane.store import Put, Txn
from controlplane.store.memory import MemoryStore
from controlplane.view.pulse import BEAT_S

KEY = "/failover/x/nodes/site-a"


def asked(beats: int, every_s: float = BEAT_S, away: bool = False) -> tuple[bool, float]:
    """(the answer, seconds until it came) while a process beats so often."""

    async def main() -> tuple[bool, float]:
        memory = MemoryStore()
        store = FaultyStore(memory, random.Random(1))
        loop = asyncio.get_running_loop()

        async def beat() -> None:
            for n in range(beats):
                await memory.txn(Txn((), (Put(KEY, b"%d" % n),)))
                await asyncio.sleep(every_s)

        beating = loop.create_task(beat())
        await asyncio.sleep(0.01)
        store.down = away
        began = loop.time()
        found = await another_beats(store, KEY)
        beating.cancel()
        return found, loop.time() - began

    with Kernel() as kernel:
        return kernel.run(main())


def test_one_that_beats_is_there() -> None:
    found, took_s = asked(100)
    assert found and took_s < 2.5 * BEAT_S


def test_one_that_is_dead_is_not_even_if_its_last_beat_comes_late() -> None:
    assert asked(0) == (False, 0.0)
    assert asked(1) == (False, ALIVE_S)
    assert asked(2) == (False, ALIVE_S)


def test_a_store_that_is_away_holds_nobody_up() -> None:
    found, took_s = asked(100, away=True)
    assert not found and took_s <= ALIVE_S
