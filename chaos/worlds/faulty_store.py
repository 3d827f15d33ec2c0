"""One node's connection to a store, with switches for what goes wrong on the way.

Each node gets its own FaultyStore over the shared store. Switches are plain attributes and may be set at any
time, from a fault script or a test; randomness comes from the generator that is passed in, so that equal seeds
give equal histories.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from controlplane.store import KV, Batch, OutcomeUnknown, Snapshot, Store, StoreError, Txn, TxnResult, Unavailable

T = TypeVar("T")
CALL_S = 10.0  # patience of a client with a store that does not answer


class FaultyStore:
    """Implements Store.

    latency_s, jitter   each call takes latency_s * (1 to 1 + jitter), half before and half after its effect
    watch_lag_s         each batch of a watch is at least this much late, at most twice
    unknown_rate        the share of transactions whose reply is lost; half of those were applied
    down, hang          see there
    """

    def __init__(self, store: Store, rng: random.Random) -> None:
        self.latency_s = 0.0
        self.jitter = 0.0
        self.watch_lag_s = 0.0
        self.unknown_rate = 0.0
        self.call_s = CALL_S
        self._store = store
        self._rng = rng
        self._down = False
        self._answers = asyncio.Event()
        self._answers.set()
        self._watches: dict[FaultyWatch, None] = {}
        self._lost: list[bool] = []  # of the next transactions: True = applied, reply lost; False = never applied
        self._late: list[asyncio.Task[TxnResult]] = []

    @property
    def down(self) -> bool:
        """Connections are refused: calls raise Unavailable at once, running watches too."""
        return self._down

    @down.setter
    def down(self, down: bool) -> None:
        self._down = down
        if down:
            self.break_watches()

    @property
    def hang(self) -> bool:
        """Nothing comes back: reads raise Unavailable after call_s, transactions OutcomeUnknown, and these are
        applied when the hang ends, however late. Watches are silent meanwhile."""
        return not self._answers.is_set()

    @hang.setter
    def hang(self, hang: bool) -> None:
        if hang:
            self._answers.clear()
        else:
            self._answers.set()

    def lose_replies(self, count: int = 1, applied: bool = True) -> None:
        """The next `count` transactions raise OutcomeUnknown, after or (applied=False) instead of their effect."""
        self._lost.extend([applied] * count)

    def break_watches(self) -> None:
        """Running watches raise Unavailable once; new ones work (unless the store is down)."""
        watches, self._watches = self._watches, {}
        for watch in watches:
            watch.break_off()

    # --- Store ---

    async def get(self, key: str) -> KV | None:
        return await self._read(lambda: self._store.get(key))

    async def range(self, prefix: str) -> Snapshot:
        return await self._read(lambda: self._store.range(prefix))

    async def txn(self, txn: Txn) -> TxnResult:
        self._check()
        applied: bool | None = None
        if self._lost:
            applied = self._lost.pop(0)
        elif self.unknown_rate and self._rng.random() < self.unknown_rate:
            applied = self._rng.random() < 0.5
        latency_s = self._draw_latency_s()
        await self._travel(latency_s / 2)
        if applied is False:
            raise OutcomeUnknown("no reply")
        result = await (self._store.txn(txn) if self._answers.is_set() else self._hanging(txn))
        await self._travel(latency_s / 2)
        if applied:
            raise OutcomeUnknown("no reply")
        return result

    def watch(self, prefix: str, from_rev: int) -> FaultyWatch:
        watch = FaultyWatch(self, self._store.watch(prefix, from_rev))
        self._watches[watch] = None
        return watch

    # --- inside ---

    def _check(self) -> None:
        if self._down:
            raise Unavailable("connection refused")

    def _draw_latency_s(self) -> float:
        return self.latency_s * (1 + self.jitter * self._rng.random()) if self.latency_s else 0.0

    async def _travel(self, latency_s: float) -> None:
        if latency_s:
            await asyncio.sleep(latency_s)

    async def _read(self, read: Callable[[], Awaitable[T]]) -> T:
        self._check()
        latency_s = self._draw_latency_s()
        await self._travel(latency_s / 2)
        try:
            await asyncio.wait_for(self._answers.wait(), self.call_s)
        except TimeoutError:
            raise Unavailable("no reply") from None
        result = await read()
        await self._travel(latency_s / 2)
        return result

    async def _hanging(self, txn: Txn) -> TxnResult:
        async def when_it_answers() -> TxnResult:
            await self._answers.wait()
            return await self._store.txn(txn)

        # A request under way is not called back when its sender gives up.
        request = asyncio.get_running_loop().create_task(when_it_answers())
        self._late = [task for task in self._late if not task.done()] + [request]
        try:
            return await asyncio.wait_for(asyncio.shield(request), self.call_s)
        except TimeoutError:
            raise OutcomeUnknown("no reply") from None


class FaultyWatch:
    """A watch through a FaultyStore. A cancelled `__anext__` loses nothing; an error is final."""

    def __init__(self, faults: FaultyStore, batches: AsyncIterator[Batch]) -> None:
        self._faults = faults
        self._batches = batches
        self._arrived: asyncio.Queue[Batch | StoreError] = asyncio.Queue()
        self._error: StoreError | None = None
        self._pump = asyncio.get_running_loop().create_task(self._run())
        if faults.down:
            self.break_off()

    def break_off(self) -> None:
        """Raise Unavailable instead of whatever is under way."""
        self._pump.cancel()
        while not self._arrived.empty():
            self._arrived.get_nowait()
        self._arrived.put_nowait(Unavailable("connection lost"))

    def __aiter__(self) -> FaultyWatch:
        return self

    async def __anext__(self) -> Batch:
        if self._error is not None:
            raise self._error
        item = await self._arrived.get()
        if isinstance(item, Batch):
            return item
        self._error = item
        raise item

    async def aclose(self) -> None:
        self._pump.cancel()
        self._faults._watches.pop(self, None)

    async def _run(self) -> None:
        faults = self._faults
        try:
            async for batch in self._batches:
                if faults.watch_lag_s:
                    await asyncio.sleep(faults.watch_lag_s)
                while faults.hang:
                    await faults._answers.wait()
                self._arrived.put_nowait(batch)
        except StoreError as error:
            self._arrived.put_nowait(error)
