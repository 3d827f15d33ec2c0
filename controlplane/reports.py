"""What an agent says in the store of what it did: applied/<writer>/<site>/<driver>/<shard> (DESIGN 5).

Services are spread over shards, each a document of its own, because a value of the store may not grow without bound.
The first shard of a driver is renewed though nothing happens: who reads it must see that its writer is alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import Any
from zlib import crc32

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from controlplane.dns.checker import Checker
from controlplane.documents import Applied, AppliedDoc, Keys, Seen, decode, encode
from controlplane.keeper import Keeper
from controlplane.store import Delete, Put, Store, Txn

SHARD_SERVICES = 200  # on average at most; hashing makes it some more or fewer
REFRESH_S = 10.0
SESSIONS_S = 1.0  # between two documents that differ in sessions alone
TXN_BYTES = 512 * 1024  # etcd takes 1.5 MiB
TXN_OPS = 32  # etcd takes 128
CALL_S = 2.0
FOREVER = float("inf")

Place = tuple[str, str]  # site, driver


class _Written(Struct, frozen=True):
    """`content`: what of a document is news at once."""

    content: tuple[Any, ...]
    sessions: tuple[Any, ...]
    at: float


def spread(services: Collection[str]) -> list[list[str]]:
    """Services by shard; the same service is in the same shard as long as there are as many of them."""
    count = max(1, -(-len(services) // SHARD_SERVICES))
    shards: list[list[str]] = [[] for _ in range(count)]
    for service in services:
        shards[crc32(service.encode()) % count].append(service)
    return shards


class Reports:
    """The documents of one writer. `run`: random per start of the process."""

    def __init__(self, store: Store, keys: Keys, writer: str, run: str) -> None:
        self._store, self._keys, self._writer, self._run = store, keys, writer, run
        self._written: dict[str, _Written] = {}
        self._there: set[str] = set()  # keys of ours that stand in the store
        self.due_at = 0.0  # when write() has something to do again, though nothing changes

    async def look(self) -> dict[Place, dict[str, int]]:
        """What stands there of ours, whoever wrote it: Applied.adoption by service. From now on everything counts as
        not written: the store may have been restored. Raises StoreError."""
        snapshot = await self._store.range(f"{self._keys.applied}{self._writer}/")
        self._written, self._there = {}, {item.key for item in snapshot.items}
        ours: dict[Place, dict[str, int]] = {}
        for item in snapshot.items:
            try:
                document = decode(AppliedDoc, item.value)
            except (ValueError, msgspec.DecodeError):
                continue  # of a newer version, or nothing of ours: it is written anew, or swept
            found = ours.setdefault((document.site, document.driver), {})
            found |= {service: done.adoption for service, done in document.services.items() if done.adoption}
            await asyncio.sleep(0)
        return ours

    async def write(self, keepers: Sequence[Keeper], checkers: Iterable[Checker], expected: Collection[Place]) -> int:
        """Write what changed, and renew what is due; delete what is left of drivers that are not `expected` here, and
        of shards that are not needed any more. Returns the bytes written. Raises StoreError or TimeoutError: what was
        not written is written next time."""
        asked = list(checkers)
        claimed: set[str] = set()
        size, batch = 0, _Batch()
        self.due_at = asyncio.get_running_loop().time() + REFRESH_S
        wanted = dict.fromkeys(expected, -1)  # -1: not open (yet), left alone
        for keeper in keepers:
            applied = keeper.applied
            shards = spread(applied)
            wanted[keeper.site, keeper.name] = len(shards)
            for shard, services in enumerate(shards):
                if shard:
                    await asyncio.sleep(0)  # ten thousand services must not hold the loop
                mine = {service: applied[service] for service in services}
                seen = {} if keeper.pool else _seen(asked, claimed, services)
                size += await self._shard(keeper, shard, mine, seen, batch)
            if not keeper.pool:
                claimed.update(applied)
        for key in sorted(self._there):
            if self._stale(key, wanted):
                batch.add(Delete(key), 0)
                if batch.full:
                    await self._send(batch)
        await self._send(batch)
        return size

    async def _shard(
        self, keeper: Keeper, shard: int, mine: dict[str, Applied], seen: dict[str, tuple[Seen, ...]], batch: _Batch
    ) -> int:
        """Add one document to the batch if it is due; returns its size."""
        now = asyncio.get_running_loop().time()
        key = self._keys.applied_by(self._writer, keeper.site, keeper.name, shard)
        until = {s: at for s in mine if (at := keeper.sync.old_until.get(s, now)) > now}
        sessions = tuple((s, done.sessions) for s, done in mine.items() if done.sessions)
        still = {s: replace(done, sessions={}) if done.sessions else done for s, done in mine.items()}
        content = (still, seen, until, keeper.unwritable)
        before = self._written.get(key)
        if before is not None and before.content == content:
            # Compared as due_at is worked out: a difference could round to the other side of it, for ever.
            renew = shard == 0 and now >= before.at + REFRESH_S
            if not renew and (before.sessions == sessions or now < before.at + SESSIONS_S):
                again_s = SESSIONS_S if before.sessions != sessions else REFRESH_S if shard == 0 else FOREVER
                self.due_at = min(self.due_at, before.at + again_s, *until.values())
                return 0
        self.due_at = min(self.due_at, now + REFRESH_S, *until.values())
        keeper.n += 1
        document = AppliedDoc(
            site=keeper.site,
            driver=keeper.name,
            writer=self._writer,
            run=self._run,
            n=keeper.n,
            services=mine,
            seen=seen,
            old_ttl_left_s={service: at - now for service, at in until.items()},
            unwritable=keeper.unwritable,
            shard=shard,
        )
        value = encode(document)
        if batch.full or batch.size + len(value) > TXN_BYTES:
            await self._send(batch)
        batch.add(Put(key, value), len(value))
        batch.written[key] = _Written(content, sessions, now)
        return len(value)

    def _stale(self, key: str, wanted: dict[Place, int]) -> bool:
        parts = key.removeprefix(f"{self._keys.applied}{self._writer}/").split("/")
        if len(parts) != 3 or not parts[2].isdecimal():
            return True
        count = wanted.get((parts[0], parts[1]), 0)
        return count >= 0 and int(parts[2]) >= count

    async def _send(self, batch: _Batch) -> None:
        if not batch.then:
            return
        async with asyncio.timeout(CALL_S):
            await self._store.txn(Txn((), tuple(batch.then)))
        self._written |= batch.written
        self._there |= batch.written.keys()
        for op in batch.then:
            if isinstance(op, Delete):
                self._there.discard(op.key)
                self._written.pop(op.key, None)
        batch.clear()


class _Batch:
    """One transaction's worth."""

    def __init__(self) -> None:
        self.then: list[Put | Delete] = []
        self.written: dict[str, _Written] = {}
        self.size = 0

    @property
    def full(self) -> bool:
        return len(self.then) >= TXN_OPS

    def add(self, op: Put | Delete, size: int) -> None:
        self.then.append(op)
        self.size += size

    def clear(self) -> None:
        self.then, self.written, self.size = [], {}, 0


def _seen(asked: Sequence[Checker], claimed: set[str], services: Sequence[str]) -> dict[str, tuple[Seen, ...]]:
    """What was seen of a service stands in one document of an agent: that of the first name server that has it."""
    seen: dict[str, tuple[Seen, ...]] = {}
    for service in services:
        if service not in claimed:
            rows = tuple(checker.seen[service] for checker in asked if service in checker.seen)
            if rows:
                seen[service] = rows
    return seen
