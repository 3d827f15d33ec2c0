"""Three real etcd members whose links can be cut, and clients that keep books while it happens.

Members reach each other, and clients reach them, through proxies of this process (proxies.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from chaos.worlds.servers.etcd import Address, EtcdCluster, Tls
from chaos.worlds.servers.process import free_port
from controlplane.store import (
    KV,
    Batch,
    Compacted,
    Delete,
    OutcomeUnknown,
    Put,
    Rewound,
    Store,
    StoreError,
    Txn,
    Unavailable,
)
from controlplane.store.etcd import Credentials, EtcdStore
from tests.real.proxies import FROM, HOST, TO, Proxy, Switchboard

# --- the world ----------------------------------------------------------------------------------------


class World:
    """Members "a", "b", "c". A client's first endpoint is that of `first`, the next ones follow in order."""

    def __init__(
        self, directory: Path, *, quota_bytes: int = 0, extra: Sequence[str] = (), tls: Tls | None = None
    ) -> None:
        self.board = Switchboard()
        self.peers: dict[str, Proxy] = {}
        self.clients: dict[str, Proxy] = {}
        members = {}
        for name in "abc":
            client_port, peer_port = free_port(), free_port()
            self.peers[name], self.clients[name] = self.board.proxy(peer_port), self.board.proxy(client_port)
            via = f"{HOST}:{self.peers[name].port}"
            members[name] = Address(HOST, client_port, peer_port, peer_via=via, tls=tls)
        self.scheme = "https" if tls else "http"
        self.cluster = EtcdCluster(directory, members, quota_bytes=quota_bytes, extra=extra)
        self.directory = directory
        self._ids: dict[str, str] = {}
        self._prefixes = itertools.count(1)

    def __enter__(self) -> World:
        try:
            self.cluster.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self.cluster.stop()
        self.board.close()

    def prefix(self) -> str:
        """A place in the store where nothing stands."""
        return f"/real/{next(self._prefixes)}/"

    def urls(self, first: str = "a") -> list[str]:
        at = "abc".index(first)
        return [f"{self.scheme}://{HOST}:{self.clients[name].port}" for name in "abc"[at:] + "abc"[:at]]

    def store(self, first: str = "a", credentials: Credentials | None = None) -> EtcdStore:
        return EtcdStore(self.urls(first), credentials, rng=random.Random(first))

    # --- faults ---

    def hold_peers(self, name: str, *, hears: bool = False, is_heard: bool = False) -> None:
        """Cut the member off from the other two. hears: they still reach it; is_heard: it still reaches them."""
        me = self._id(name)
        for other, proxy in self.peers.items():
            held: set[tuple[str, str]] = set()
            # A message goes out in a request of one's own, or in the answer to somebody who dialled.
            mine, theirs = ((TO, FROM), ("*", "*")) if other == name else ((FROM, TO), (me, me))
            if not hears:
                held.add((theirs[0], mine[0]))
            if not is_heard:
                held.add((theirs[1], mine[1]))
            self.board.run(proxy.hold(held))

    def heal_peers(self) -> None:
        for proxy in self.peers.values():
            self.board.run(proxy.hold(set()))

    def hold_client(self, name: str, *ways: str) -> None:
        self.board.run(self.clients[name].hold({("*", way) for way in ways}))

    def heal_client(self, name: str) -> None:
        self.board.run(self.clients[name].hold(set()))

    def sever_client(self, name: str) -> None:
        """Break every connection to it; what was held back is lost."""
        self.board.run(self.clients[name].sever())

    def _id(self, name: str) -> str:
        if name not in self._ids:
            self._ids[name] = f"{self.cluster.members[name].status()['header']['member_id']:x}"
        return self._ids[name]


# --- books --------------------------------------------------------------------------------------------


class Writer:
    """Writes operations of ever new ids, one after the other. A write that surely was not applied is repeated under
    the same id: if that was not true, the watcher sees the id twice. An unknown outcome is looked for by its id."""

    def __init__(self, store: Store, prefix: str, name: str) -> None:
        self.store, self.prefix, self.name = store, prefix, name
        self.done: list[str] = []  # surely applied
        self.unknown: list[str] = []  # and not found when looked for
        self.resolved = 0  # unknown, and found
        self.refused = 0
        self.stall_s = 0.0
        self.errors: list[str] = []
        self.stopping = False

    async def run(self, pause_s: float = 0.01) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        for number in itertools.count():
            if self.stopping:
                return
            key = f"{self.prefix}{self.name}/{number}"
            if await self._write(key):
                now = loop.time()
                self.stall_s, last = max(self.stall_s, now - last), now
            await asyncio.sleep(pause_s)

    async def _write(self, key: str) -> bool:
        while True:
            try:
                await self.store.txn(Txn((), (Put(key, self.name.encode()),)))
            except Unavailable as error:
                self.refused += 1
                self.errors.append(str(error))
                await asyncio.sleep(0.05)
            except OutcomeUnknown as error:
                self.errors.append(str(error))
                return await self._look_for(key)
            else:
                self.done.append(key)
                return True

    async def _look_for(self, key: str) -> bool:
        while True:
            try:
                found = await self.store.get(key)
            except StoreError:
                await asyncio.sleep(0.05)
                continue
            if found is None:
                self.unknown.append(key)
                return False
            self.resolved += 1
            self.done.append(key)
            return True


class Watcher:
    """Watches all below the prefix, as a View does: resumes after Unavailable, starts over when it must."""

    def __init__(self, store: Store, prefix: str, from_rev: int) -> None:
        self.store, self.prefix, self.next = store, prefix, from_rev
        self.events: list[KV | Delete] = []
        self.silence_s = 0.0
        self.breaks: list[str] = []
        self.snapshots: list[type[StoreError]] = []  # why it had to start over
        self.started_over_at = 0

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            watch = self.store.watch(self.prefix, self.next)
            try:
                async for batch in watch:
                    now = loop.time()
                    if batch.events:
                        self.silence_s, last = max(self.silence_s, now - last), now
                        self._take(batch)
            except (Compacted, Rewound) as error:
                self.snapshots.append(type(error))
                self.breaks.append(str(error))
                await self._start_over()
            except Unavailable as error:
                self.breaks.append(str(error))
                await asyncio.sleep(0.1)
            finally:
                await watch.aclose()  # type: ignore[attr-defined]

    def _take(self, batch: Batch) -> None:
        for event in batch.events:
            assert event.mod_rev >= self.next, f"{event} again, or out of order, before {self.next}"
        revisions = [event.mod_rev for event in batch.events]
        assert revisions == sorted(revisions)
        assert batch.rev == revisions[-1]
        self.events.extend(batch.events)
        self.next = batch.rev + 1

    async def _start_over(self) -> None:
        while True:
            try:
                snapshot = await self.store.range(self.prefix)
            except StoreError:
                await asyncio.sleep(0.1)
                continue
            known = {(event.key, event.mod_rev) for event in self.events}
            missed = [item for item in snapshot.items if (item.key, item.mod_rev) not in known]
            self.events.extend(sorted(missed, key=lambda item: item.mod_rev))
            self.next = self.started_over_at = snapshot.rev + 1
            return


class Books:
    """Two writers and a watcher: the watcher and the first writer use one client, the other writer another."""

    def __init__(self, world: World, first: str, other: str, credentials: Credentials | None = None) -> None:
        self.world = world
        self.prefix = world.prefix()
        self.stores = [world.store(first, credentials), world.store(other, credentials)]
        self.writers = [Writer(self.stores[0], self.prefix, "w1"), Writer(self.stores[1], self.prefix, "w2")]
        self.watcher: Watcher | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Books:
        start = await self.stores[0].range(self.prefix)
        self.start_rev = start.rev + 1
        self.watcher = Watcher(self.stores[0], self.prefix, self.start_rev)
        runs = [self.watcher.run(), *(writer.run() for writer in self.writers)]
        self._tasks = [asyncio.create_task(run) for run in runs]
        await self.more(10)
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for store in self.stores:
            await store.aclose()
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def more(self, writes: int, within_s: float = 40.0) -> None:
        """Until both writers have written so many more, and the watcher has seen it."""
        assert self.watcher is not None
        enough = [len(writer.done) + writes for writer in self.writers]
        await self.until(lambda: all(len(w.done) >= n for w, n in zip(self.writers, enough, strict=True)), within_s)
        last = {writer.done[-1] for writer in self.writers}
        await self.until(lambda: last <= {event.key for event in self._recent()}, within_s)

    async def until(self, holds: Callable[[], bool], within_s: float = 40.0) -> None:
        async with asyncio.timeout(within_s):
            while not holds():
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)

    async def settle(self) -> None:
        """Stop writing, and wait until the watcher has seen the last of it."""
        for writer in self.writers:
            writer.stopping = True
        await asyncio.gather(*self._tasks[1:])
        rev = (await self.stores[0].txn(Txn((), (Put(f"{self.prefix}end", b""),)))).rev
        await self.until(lambda: self.watcher is not None and self.watcher.next > rev)

    def _recent(self) -> list[KV | Delete]:
        assert self.watcher is not None
        return self.watcher.events[-2000:]

    # --- what must hold afterwards ---

    async def check(self) -> None:
        """Settles. Nothing lost, repeated or out of order; nothing applied twice; what was unknown is known."""
        await self.settle()
        assert self.watcher is not None
        history = await _history(self.stores[1], self.prefix, self.start_rev, self.watcher.next - 1)
        assert self.watcher.events == history
        self.check_operations(history)

    async def check_after_restore(self, before: int) -> None:
        """As `check`, for what came after the snapshot with which the watcher started over."""
        await self.settle()
        assert self.watcher is not None
        start = self.watcher.started_over_at
        assert start < before
        history = await _history(self.stores[1], self.prefix, start, self.watcher.next - 1)
        assert self.watcher.events[-len(history) :] == history

    def check_operations(self, history: Sequence[KV | Delete]) -> None:
        times: dict[str, int] = {}
        for event in history:
            times[event.key] = times.get(event.key, 0) + 1
        assert {key: n for key, n in times.items() if n > 1} == {}, "applied twice"
        for writer in self.writers:
            assert [key for key in writer.done if key not in times] == [], "said to be applied"
            for before, after in itertools.pairwise(writer.done):
                assert _number(before) < _number(after)

    def line(self, what: str) -> str:
        assert self.watcher is not None
        unknown = sum(w.resolved + len(w.unknown) for w in self.writers)
        applied = sum(w.resolved for w in self.writers)
        stalls = " / ".join(f"{writer.stall_s:.2f}" for writer in self.writers)
        return (
            f"{what:46} watch silent {self.watcher.silence_s:5.2f} s, writes stalled {stalls} s,"
            f" {sum(len(w.done) for w in self.writers)} written, {unknown} unknown of which {applied} applied,"
            f" {sum(w.refused for w in self.writers)} refused, {len(self.watcher.breaks)} watch errors"
        )


async def _history(store: EtcdStore, prefix: str, first: int, last: int) -> list[KV | Delete]:
    """What etcd itself says happened."""
    watch, events = store.watch(prefix, first), list[KV | Delete]()
    try:
        async with asyncio.timeout(20):
            while not events or events[-1].mod_rev < last:
                events.extend((await anext(watch)).events)
    finally:
        await watch.aclose()
    return events


def _number(key: str) -> int:
    return int(key.rsplit("/", 1)[1])


@contextlib.contextmanager
def thawed(world: World) -> Iterator[None]:
    """Whatever the test did, the members run and see each other afterwards."""
    try:
        yield
    finally:
        world.heal_peers()
        for name, member in world.cluster.members.items():
            world.heal_client(name)
            member.thaw()
            if not member.alive:
                member.start()
        world.cluster.ready()
