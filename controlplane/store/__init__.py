"""The Store port: a small linearizable key-value store with transactions and watches. No leases.

Adapters: `memory` (tests, `failoverctl dev`) and `etcd`. Both pass tests/contract/store_contract.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from msgspec import Struct

MAX_OPS = 128  # comparisons, and operations, in one transaction: etcd's --max-txn-ops


class KV(Struct, frozen=True):
    key: str
    value: bytes
    mod_rev: int


class Compare(Struct, frozen=True):
    """Exactly one of `mod_rev` (0 = the key is absent) and `value`."""

    key: str
    mod_rev: int | None = None
    value: bytes | None = None


class Put(Struct, frozen=True):
    key: str
    value: bytes


class Delete(Struct, frozen=True):
    """In a transaction: delete the key. In a Batch: the key was deleted, at `mod_rev`."""

    key: str
    mod_rev: int = 0


class Txn(Struct, frozen=True):
    compare: tuple[Compare, ...]
    then: tuple[Put | Delete, ...]


class TxnResult(Struct, frozen=True):
    ok: bool
    rev: int


class Snapshot(Struct, frozen=True):
    rev: int
    items: tuple[KV, ...]


class Batch(Struct, frozen=True):
    """Events of one or more whole revisions, in order. No events = progress: all up to `rev` was delivered."""

    events: tuple[KV | Delete, ...]
    rev: int


class StoreError(Exception):
    """Base of what a store raises."""


class Unavailable(StoreError):
    """Not sent: safe to try again."""


class OutcomeUnknown(StoreError):
    """Sent, no reply: re-read, look for your own id."""


class Compacted(StoreError):
    """The revision is gone. Take a snapshot, watch from its rev + 1."""


class Rewound(StoreError):
    """The store's revision is below one that was seen: restored from a backup. Take a snapshot."""


class Store(Protocol):
    """Every read is linearizable."""

    async def get(self, key: str) -> KV | None: ...

    async def range(self, prefix: str) -> Snapshot: ...

    async def txn(self, txn: Txn) -> TxnResult: ...

    def watch(self, prefix: str, from_rev: int) -> AsyncIterator[Batch]:
        """All events at `from_rev` and later. Ends only by raising: Unavailable (resume at the last event's
        revision + 1), Compacted or Rewound (start from a snapshot)."""
        ...


def check_txn(txn: Txn) -> None:
    """Raises ValueError for what etcd would refuse: a key written twice, too many operations."""
    if max(len(txn.compare), len(txn.then)) > MAX_OPS:
        raise ValueError(f"over {MAX_OPS} operations in one transaction")
    for compare in txn.compare:
        if (compare.mod_rev is None) == (compare.value is None):
            raise ValueError(f"compare {compare.key}: exactly one of mod_rev and value")
    written: set[str] = set()
    for op in txn.then:
        if op.key in written:
            raise ValueError(f"{op.key} is written twice in one transaction")
        written.add(op.key)
