"""A Store in this process's memory, for tests and `failoverctl dev`. It behaves like a one-node etcd 3.4.

One object is shared by all nodes, which may live on several event loops of one thread: a watch is woken on the
loop on which it was made, by a callback, never inside the transaction. The history is pulled, not pushed, so a
slow watcher costs nothing, and one that falls behind what is kept is told that it is Compacted.
"""

from __future__ import annotations

import asyncio

from msgspec import Struct

from controlplane.store import (
    KV,
    Batch,
    Compacted,
    Compare,
    Delete,
    Put,
    Rewound,
    Snapshot,
    Txn,
    TxnResult,
    check_txn,
)

HISTORY = 10_000  # revisions kept for watches that come back
BATCH_EVENTS = 1_000  # a batch ends with the revision that reaches this

Event = KV | Delete


class Backup(Struct, frozen=True):
    """All that a restore brings back: the store as it was at `rev`."""

    rev: int
    data: dict[str, KV]
    log: tuple[tuple[Event, ...], ...]
    compacted: int


class MemoryStore:
    """Implements Store. `rev` counts transactions that wrote something; an empty store is at 1, as in etcd."""

    def __init__(self, history: int = HISTORY) -> None:
        self.rev = 1
        self._data: dict[str, KV] = {}
        self._log: list[tuple[Event, ...]] = [()]  # the events of each revision from _compacted to rev
        self._compacted = 1
        self._history = history
        self._restores = 0
        self._progress = 0
        self._waiting: dict[int, tuple[str, asyncio.Future[None]]] = {}
        self._tickets = 0

    # --- Store ---

    async def get(self, key: str) -> KV | None:
        await asyncio.sleep(0)  # a request travels: others may come first
        return self._data.get(key)

    async def range(self, prefix: str) -> Snapshot:
        await asyncio.sleep(0)
        keys = sorted(key for key in self._data if key.startswith(prefix))
        return Snapshot(self.rev, tuple(self._data[key] for key in keys))

    async def txn(self, txn: Txn) -> TxnResult:
        """Raises ValueError, as etcd refuses them, for a key written twice and for over MAX_OPS operations."""
        check_txn(txn)
        await asyncio.sleep(0)
        return self.apply(txn)

    def watch(self, prefix: str, from_rev: int) -> MemoryWatch:
        """from_rev may be up to rev + 1: to ask for more is to have seen a revision that is gone (Rewound)."""
        if from_rev < 1:
            raise ValueError(f"a watch starts at revision 1 or later, not {from_rev}")
        return MemoryWatch(self, prefix, from_rev)

    # --- what only memory has ---

    def apply(self, txn: Txn) -> TxnResult:
        """A transaction at once, outside any event loop: for wrappers and simulated worlds."""
        check_txn(txn)
        if not all(self._holds(compare) for compare in txn.compare):
            return TxnResult(False, self.rev)
        rev = self.rev + 1
        events: list[Event] = []
        for op in txn.then:
            if isinstance(op, Put):
                entry = self._data[op.key] = KV(op.key, op.value, rev)
                events.append(entry)
            elif self._data.pop(op.key, None) is not None:
                events.append(Delete(op.key, rev))
        if events:
            self.rev = rev
            self._log.append(tuple(events))
            if len(self._log) >= 2 * self._history:
                self.compact(rev - self._history + 1)
            self._wake(events)
        return TxnResult(True, self.rev)

    def compact(self, rev: int) -> None:
        """Forget the events before `rev`: a watch from an older revision, new or running, raises Compacted."""
        if rev > self.rev:
            raise ValueError(f"revision {rev} is still to come, the store is at {self.rev}")
        if rev > self._compacted:
            del self._log[: rev - self._compacted]
            self._compacted = rev
            self._wake(None)

    def request_progress(self) -> None:
        """Every watch that has delivered all it had says so, with an empty batch."""
        self._progress += 1
        self._wake(None)

    def snapshot(self) -> Backup:
        return Backup(self.rev, dict(self._data), tuple(self._log), self._compacted)

    def restore(self, backup: Backup) -> None:
        """Go back to a backup, revision and all. Running watches raise Rewound, where a real etcd would break
        the connections, and stay silent on a watch from a revision that is not there any more."""
        self.rev, self._data, self._log = backup.rev, dict(backup.data), list(backup.log)
        self._compacted = backup.compacted
        self._restores += 1
        self._wake(None)

    # --- inside ---

    def _holds(self, compare: Compare) -> bool:
        entry = self._data.get(compare.key)
        if compare.value is not None:
            return entry is not None and entry.value == compare.value
        return (entry.mod_rev if entry else 0) == compare.mod_rev

    def _wake(self, events: list[Event] | None) -> None:
        """Send word to those who wait for one of these events (None: to all)."""
        for ticket, (prefix, waiter) in list(self._waiting.items()):
            if events is None or any(event.key.startswith(prefix) for event in events):
                del self._waiting[ticket]
                loop = waiter.get_loop()
                if not loop.is_closed():  # a killed node's
                    loop.call_soon(_release, waiter)


class MemoryWatch:
    """One watch: an asynchronous iterator of batches. A cancelled `__anext__` loses nothing; an error is final."""

    def __init__(self, store: MemoryStore, prefix: str, from_rev: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._prefix = prefix
        self._next = from_rev
        self._restores = store._restores
        self._progress = store._progress
        self._error: Exception | None = None
        if from_rev > store.rev + 1:
            self._error = Rewound(f"from revision {from_rev}, but the store is at {store.rev}")
        self._closed = False

    def __aiter__(self) -> MemoryWatch:
        return self

    async def __anext__(self) -> Batch:
        store = self._store
        while True:
            if self._closed:
                raise StopAsyncIteration
            batch = self._pull()
            if batch is not None:
                return batch
            waiter: asyncio.Future[None] = self._loop.create_future()
            store._tickets += 1
            ticket = store._tickets
            store._waiting[ticket] = (self._prefix, waiter)
            try:
                await waiter
            finally:
                store._waiting.pop(ticket, None)

    async def aclose(self) -> None:
        self._closed = True

    def _pull(self) -> Batch | None:
        """What there is to say now, if anything. Raises Rewound or Compacted, and from then on always."""
        store = self._store
        if self._error is None and self._restores != store._restores:
            self._error = Rewound(f"the store was restored from a backup at revision {store.rev}")
        if self._error is None and self._next < store._compacted:
            self._error = Compacted(f"revision {self._next} is gone, the first that is left is {store._compacted}")
        if self._error is not None:
            raise self._error
        events: list[Event] = []
        rev = self._next - 1
        for entry in store._log[self._next - store._compacted :]:
            rev += 1
            events.extend(event for event in entry if event.key.startswith(self._prefix))
            if len(events) >= BATCH_EVENTS:
                break
        self._next = rev + 1
        if not events and self._progress == store._progress:
            return None
        self._progress = store._progress
        return Batch(tuple(events), rev)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
