"""The memory store behind a network: one Line for each node's process, with all that can go wrong on the way.

While all is well a call costs one timer and one future: it takes effect as it is sent, and the reply takes its time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, cast

from chaos.worlds.loop import Kernel, NodeLoop
from chaos.worlds.sim.members import Members
from chaos.worlds.sim.messages import Messages
from chaos.worlds.sim.network import resent_s
from controlplane.documents import Keys
from controlplane.store import (
    KV,
    Batch,
    Compacted,
    Delete,
    OutcomeUnknown,
    Rewound,
    Snapshot,
    StoreError,
    Txn,
    TxnResult,
    Unavailable,
    check_txn,
)
from controlplane.store.memory import BATCH_EVENTS, MemoryStore

# As the etcd adapter has it (store/etcd/link.py, store.py, watch.py).
TXN_S = 1.0  # patience with a transaction that was sent
CALL_S = 10.0  # with a call for which nothing answers; a watch gives up then too
LATE_S = 13.0  # a connection over a link that was cut is given up: what waits in it for longer is never sent
AGAIN_S = (0.05, 0.3)  # until a connection is used again
MOST_WAITING = 256  # calls, before those that are over are forgotten
SEND_AGAIN_S = 1.0  # after a read that was lost


class SimStore(MemoryStore):
    """What the members hold. `told` hears of every transaction, as it is applied or refused."""

    def __init__(self, told: Callable[[Txn, TxnResult], None]) -> None:
        super().__init__()
        self.watches: dict[SimWatch, None] = {}
        self._told = told

    def apply(self, txn: Txn) -> TxnResult:
        result = super().apply(txn)
        self._told(txn, result)
        return result

    def entry(self, key: str) -> KV | None:
        return self._data.get(key)

    def under(self, prefix: str) -> Snapshot:
        data = self._data
        return Snapshot(self.rev, tuple(data[key] for key in sorted(data) if key.startswith(prefix)))

    def _wake(self, events: list[KV | Delete] | None) -> None:
        for watch in self.watches:
            if not watch.coming and (events is None or watch.concerns(events)):
                watch.poke()


class Call:
    """Under way, or waiting for a way. write: its outcome is unknown if no reply comes; unsent: nobody took it."""

    __slots__ = ("future", "late_s", "sent", "silent", "unsent", "work", "write")

    def __init__(self, work: Callable[[], object], write: bool, future: asyncio.Future[Any], sent: float) -> None:
        self.work, self.write, self.future, self.sent = work, write, future, sent
        self.silent = self.unsent = False
        self.late_s = 0.0  # of the reply


class Line:
    """Implements Store for one process at a site. `rng`: its own."""

    def __init__(
        self,
        store: SimStore,
        members: Members,
        messages: Messages,
        keys: Keys,
        site: str,
        loop: NodeLoop,
        rng: random.Random,
    ) -> None:
        self.commits = 0  # sent while messages are disturbed
        self._store, self._members, self._messages, self._keys = store, members, messages, keys
        self._site, self._loop, self._rng = site, loop, rng
        self._kernel: Kernel = loop.kernel
        self._waiting: list[Call] = []
        self._watches: dict[SimWatch, None] = {}

    # --- Store ---

    async def get(self, key: str) -> KV | None:
        return cast("KV | None", await self._call(lambda: self._store.entry(key)))

    async def range(self, prefix: str) -> Snapshot:
        return cast(Snapshot, await self._call(lambda: self._store.under(prefix)))

    async def txn(self, txn: Txn) -> TxnResult:
        way = self._members.way(self._site)
        if way is None or not way.plain or self._messages.rules:
            check_txn(txn)
            return cast(TxnResult, await self._troubled(lambda: self._store.apply(txn), txn))
        result = self._store.apply(txn)
        future: asyncio.Future[TxnResult] = self._loop.create_future()
        took_s = way.rtt_s * (1 + 0.5 * self._rng.random())
        self._loop.call_later(took_s, self._arrived, future, result, self._members.terms, None)
        return await future

    def watch(self, prefix: str, from_rev: int) -> SimWatch:
        if from_rev < 1:
            raise ValueError(f"a watch starts at revision 1 or later, not {from_rev}")
        watch = SimWatch(self, self._store, self._loop, prefix, from_rev)
        self._watches[watch] = self._store.watches[watch] = None
        watch.poke()
        return watch

    # --- disturbing ---

    def break_watches(self) -> None:
        """Running watches raise Unavailable once; new ones work."""
        for watch in list(self._watches):
            watch.break_off(Unavailable("connection lost"))

    def turn(self) -> None:
        """The ways to the store may be others now."""
        open_ = self._members.way(self._site) is not None
        if open_ and self._waiting:
            waiting, self._waiting = self._waiting, []
            for call in waiting:
                self._kernel.at(self._kernel.now + self._rng.uniform(*AGAIN_S), self._reach, call)
        for watch in list(self._watches):
            watch.turn(open_)

    def end(self) -> None:
        """The process is dead: nothing more is delivered to it. What it sent is on its way."""
        for watch in list(self._watches):
            self.forget(watch)

    def forget(self, watch: SimWatch) -> None:
        self._watches.pop(watch, None)
        self._store.watches.pop(watch, None)

    # --- for watches ---

    @property
    def disturbed(self) -> bool:
        return bool(self._messages.rules)

    @property
    def reached(self) -> bool:
        """Is there a way to the store now?"""
        return self._members.way(self._site) is not None

    def watch_lag_s(self) -> float | None:
        """How late events are now; None: nothing comes through."""
        way = self._members.way(self._site)
        if way is None:
            return None
        lag_s = way.rtt_s * (0.5 + 0.25 * self._rng.random())
        if way.loss:
            lag_s += resent_s(way.loss, self._rng)
        if self._messages.rules:
            lag_s += self._messages.late_s("watch", self._site)
        return lag_s

    def watch_lost(self) -> bool:
        return self._messages.lost("watch", self._site, self._rng)

    # --- inside ---

    async def _call(self, work: Callable[[], object]) -> object:
        """A read."""
        way = self._members.way(self._site)
        if way is None or not way.plain or self._messages.rules:
            return await self._troubled(work, None)
        future: asyncio.Future[object] = self._loop.create_future()
        took_s = way.rtt_s * (1 + 0.5 * self._rng.random())
        self._loop.call_later(took_s, self._arrived, future, work(), self._members.terms, work)
        return await future

    def _arrived(
        self, future: asyncio.Future[Any], result: object, term: int, again: Callable[[], object] | None
    ) -> None:
        """A reply, if there is still a way for it. again: how a read is repeated."""
        if future.done():
            return
        reached = self._members.way(self._site) is not None
        if reached and (term == self._members.terms or self._rng.random() < 0.5):
            future.set_result(result)
            return
        call = Call(again or _nothing, again is None, future, self._kernel.now)
        if again is not None:
            self._reach(call)
        self._bear(call)

    async def _troubled(self, work: Callable[[], object], txn: Txn | None) -> object:
        """A call where something may go wrong: `txn` None: a read."""
        call = Call(work, txn is not None, self._loop.create_future(), self._kernel.now)
        kinds = self._kinds(txn)
        late_s = max(self._messages.late_s(kind, self._site) for kind in kinds)
        lost = any(self._messages.lost(kind, self._site, self._rng) for kind in kinds)
        way = self._members.way(self._site)
        if way is not None and way.loss:
            late_s += resent_s(way.loss, self._rng)
        if txn is not None:
            call.silent = self._messages.lost("reply", self._site, self._rng)
            call.late_s = self._messages.late_s("reply", self._site)
        elif lost:
            late_s, lost = late_s + SEND_AGAIN_S, False
        call.unsent = self._members.refusing
        if not lost and late_s:
            call.sent += late_s  # it is held back, not waiting in a broken connection
            self._kernel.at(self._kernel.now + late_s, self._reach, call)
        elif not lost:
            self._reach(call)
        self._bear(call)
        return await call.future

    def _kinds(self, txn: Txn | None) -> tuple[str, ...]:
        keys = [op.key for op in txn.then] if txn else []
        if any(key.startswith((self._keys.desired, self._keys.decisions)) for key in keys):
            self.commits += 1
            return ("store", "commit")
        if any(key.startswith(self._keys.vantages) for key in keys):
            return ("store", "report")
        return ("store",)

    def _bear(self, call: Call) -> None:
        """Wait for it, with the adapter's patience."""
        self._loop.call_later(TXN_S if call.write and not call.unsent else CALL_S, self._give_up, call)

    def _reach(self, call: Call) -> None:
        """A request comes to the store, if there is a way; else it waits for one."""
        if self._over(call):
            return
        way = self._members.way(self._site)
        if way is None:
            if len(self._waiting) >= MOST_WAITING:
                self._waiting = [each for each in self._waiting if not self._over(each)]
            self._waiting.append(call)
            return
        call.unsent = False
        result = call.work()
        if call.silent or not self._loop.alive:
            return
        again = None if call.write else call.work
        self._loop.call_later(way.rtt_s + call.late_s, self._arrived, call.future, result, self._members.terms, again)

    def _over(self, call: Call) -> bool:
        """Nobody waits for it, and nothing of it is on the way any more."""
        lost = not call.write or call.unsent or self._kernel.now - call.sent > LATE_S
        return call.future.done() and lost

    def _give_up(self, call: Call) -> None:
        if not call.future.done():
            sent = call.write and not call.unsent
            call.future.set_exception(OutcomeUnknown("no reply") if sent else Unavailable("no member answers"))


def _nothing() -> None:
    """A transaction whose reply is lost: there is nothing more to do."""


class SimWatch:
    """A watch through a line. A cancelled `__anext__` loses nothing; an error is final."""

    def __init__(self, line: Line, store: SimStore, loop: NodeLoop, prefix: str, from_rev: int) -> None:
        self.prefix = prefix
        self._line, self._store, self._loop = line, store, loop
        self._next = from_rev
        self._shown = from_rev - 1  # revision up to which events have arrived here
        self._restores = store._restores
        self._error: StoreError | None = None
        if from_rev > store.rev + 1:
            self._error = Rewound(f"from revision {from_rev}, but the store is at {store.rev}")
        self._waiter: asyncio.Future[None] | None = None
        self.coming = False
        self._late_until = 0.0
        self._patience: asyncio.TimerHandle | None = None

    def concerns(self, events: list[KV | Delete]) -> bool:
        return any(event.key.startswith(self.prefix) for event in events)

    def poke(self) -> None:
        """There is news, which takes its time. What comes behind something that is late is late too."""
        if self.coming:
            return
        lag_s = self._line.watch_lag_s()
        if lag_s is None:
            return
        now = self._loop.kernel.now
        if not self._line.disturbed and now >= self._late_until:
            self.coming = True
            self._loop.call_later(lag_s, self._arrive, None)
        elif self._line.watch_lost():
            self.break_off(Unavailable("connection lost"))
        else:
            self._late_until = max(self._late_until, now + lag_s)
            self._loop.call_later(self._late_until - now, self._arrive, self._store.rev)

    def turn(self, open_: bool) -> None:
        """The way to the store may be another one."""
        if open_ and self._patience is not None:
            self._patience.cancel()
            self._patience = None
            self.poke()
        elif not open_ and self._patience is None:
            self._patience = self._loop.call_later(CALL_S, self.break_off, Unavailable("no member answers"))

    def break_off(self, error: StoreError) -> None:
        if self._error is None:
            self._error = error
        self._release()

    def __aiter__(self) -> SimWatch:
        return self

    async def __anext__(self) -> Batch:
        while True:
            batch = self._pull()
            if batch is not None:
                return batch
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def aclose(self) -> None:
        self._line.forget(self)
        if self._patience is not None:
            self._patience.cancel()

    def _arrive(self, rev: int | None) -> None:
        """Events up to `rev` are here; None: all that there are."""
        if rev is None:
            self.coming = False
        if not self._line.reached:  # cut meanwhile: it comes when there is a way again
            return
        error = self._ended()
        if error is not None:
            self.break_off(error)
            return
        self._shown = max(self._shown, self._store.rev if rev is None else rev)
        self._release()

    def _ended(self) -> StoreError | None:
        store = self._store
        if self._restores != store._restores:
            return Rewound(f"the store was restored from a backup at revision {store.rev}")
        if self._next < store._compacted:
            return Compacted(f"revision {self._next} is gone, {store._compacted} is the first that is left")
        return None

    def _release(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _pull(self) -> Batch | None:
        """What has arrived, if anything. Raises the error that ended it, and from then on always."""
        if self._error is not None:
            raise self._error
        if self._next > self._shown:
            return None
        self._error = self._ended()
        if self._error is not None:
            raise self._error
        store, events = self._store, list[KV | Delete]()
        first = self._next - store._compacted
        rev = self._next - 1
        for entry in store._log[first : self._shown - store._compacted + 1]:
            rev += 1
            for event in entry:
                if event.key.startswith(self.prefix):
                    events.append(event)
            if len(events) >= BATCH_EVENTS:
                break
        self._next = rev + 1
        return Batch(tuple(events), rev) if events else None
