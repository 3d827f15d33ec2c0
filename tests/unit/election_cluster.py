"""Controllers on the virtual loop, each with a small view, an election, and something that acts on its token."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

from chaos.worlds.faulty_store import FaultyStore
from chaos.worlds.loop import Kernel, NodeLoop
from controlplane.documents import Keys, LeaderDoc, decode
from controlplane.election import Election, State
from controlplane.signal import Signal
from controlplane.store import Delete, Put, Store, StoreError, Txn
from controlplane.store.memory import MemoryStore

KEYS = Keys("test")


class SmallView:
    """A watch, own beats, and what election asks for: the rules of DESIGN 4.2 in a few lines."""

    def __init__(self, store: Store, node: str) -> None:
        self.leader: LeaderDoc | None = None
        self.revisions: Mapping[str, int] = {}
        self.may_lead = True
        self.leadership = Signal()
        self.leader_moved_at = 0.0
        self._store = store
        self._key = KEYS.node(node)
        self._proof = -9.0  # when the newest returned beat was sent
        self._since = 0.0

    @property
    def current_for_s(self) -> float:
        now = asyncio.get_running_loop().time()
        return max(now - self._since, 1e-9) if now - self._proof < 1.0 else 0.0

    async def watch(self) -> None:
        while True:
            try:
                snapshot = await self._store.range(KEYS.prefix)
                self.revisions, self.leader = {}, None
                for kv in snapshot.items:
                    self._take(kv.key, kv.value, kv.mod_rev)
                async for batch in self._store.watch(KEYS.prefix, snapshot.rev + 1):
                    for event in batch.events:
                        if isinstance(event, Delete):
                            self._take(event.key, None, 0)
                        else:
                            self._take(event.key, event.value, event.mod_rev)
            except StoreError:
                await asyncio.sleep(0.2)

    def _take(self, key: str, value: bytes | None, mod_rev: int) -> None:
        self.revisions = {**self.revisions, key: mod_rev}
        if key == KEYS.leader:
            self.leader = decode(LeaderDoc, value) if value else None
            self.leadership.set()
        if key in (KEYS.leader, KEYS.leader_beat):
            self.leader_moved_at = asyncio.get_running_loop().time()
        elif key == self._key and value:
            if self.current_for_s == 0:
                self._since = asyncio.get_running_loop().time()
            self._proof = max(self._proof, float(value))

    async def beat(self) -> None:
        while True:
            sent = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(1.0):
                    await self._store.txn(Txn((), (Put(self._key, b"%.6f" % sent),)))
            except (StoreError, TimeoutError):
                pass
            await asyncio.sleep(0.4)


class Cluster:
    """Controllers over one memory store; `acts` is what each did with its token, each 50 ms."""

    def __init__(self, kernel: Kernel, *names: str) -> None:
        self.kernel = kernel
        self.memory = MemoryStore()
        self.stores: dict[str, FaultyStore] = {}
        self.views: dict[str, SmallView] = {}
        self.elections: dict[str, Election] = {}
        self.acts: list[tuple[float, str, int, int]] = []  # when told, who, token, revision (0 = refused)
        self.changes: list[tuple[float, str, State, str]] = []
        for name in names:
            self.start(name)

    def start(self, name: str) -> None:
        loop = self.kernel.loop(name, offset_s=1000.0 + len(self.stores), rate=1 + len(self.stores) / 1000)
        store = self.stores[name] = FaultyStore(self.memory, random.Random(name))
        store.latency_s = 0.004
        view = self.views[name] = SmallView(store, name)
        rng = random.Random(f"{name} {self.kernel.now}")
        told: list[tuple[float, str, State, str]] = self.changes
        self.elections[name] = Election(
            store,
            KEYS,
            name,
            lambda: f"{rng.getrandbits(64):x}",
            view,
            lambda state, why: told.append((self.kernel.now, name, state, why)),
        )
        for part in (view.watch(), view.beat(), self.elections[name].run(), self._act(name)):
            loop.create_task(part)

    async def _act(self, name: str) -> None:
        """A committer: writes something under the fence whenever the election says that it leads."""
        election, store = self.elections[name], self.stores[name]
        while True:
            token = election.token
            if token is not None:
                try:
                    result = await store.txn(Txn(election.compares(), (Put(KEYS.service("www"), name.encode()),)))
                except StoreError:
                    pass
                else:
                    self.acts.append((self.kernel.now, name, token, result.rev if result.ok else 0))
                    if not result.ok:
                        election.depose(token)
            await asyncio.sleep(0.05)

    def token(self, name: str) -> int | None:
        return self.loop(name).ask(lambda: self.elections[name].token)

    def loop(self, name: str) -> NodeLoop:
        return self.kernel.loop(name)

    def leaders(self) -> list[str]:
        """Of those that run."""
        return [n for n, e in self.elections.items() if e.state is State.LEADING and not self.loop(n).paused]

    def kill(self, name: str) -> None:
        self.loop(name).kill()
        del self.elections[name]

    def leader(self, within_s: float = 5.0) -> str:
        """Runs until exactly one leads, and returns its name."""
        end = self.kernel.now + within_s
        while self.kernel.now < end:
            if len(self.leaders()) == 1:
                return self.leaders()[0]
            self.kernel.run_for(0.01)
        raise AssertionError(f"leaders after {within_s} s: {self.leaders()}")

    def check(self) -> None:
        """At no time were there two: accepted acts have rising tokens, and one node a token."""
        accepted = [(token, name) for rev, token, name in sorted((r, t, n) for _, n, t, r in self.acts) if rev]
        assert accepted
        assert [token for token, _ in accepted] == sorted(token for token, _ in accepted)
        assert len({token for token, _ in accepted}) == len(set(accepted))
