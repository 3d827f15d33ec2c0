"""Several failoverd processes over a real three-member etcd, whose leader is killed, frozen or cut off; and a scribe
that keeps every event of the store, and judges who was allowed to write."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from chaos.worlds.servers.etcd import Address, EtcdCluster, EtcdMember
from chaos.worlds.servers.process import free_port
from controlplane.documents import Keys, LeaderBeat, LeaderDoc, decode
from controlplane.operator import Operator
from controlplane.store import KV, Delete, Unavailable
from controlplane.store.etcd import EtcdStore
from policies.topology import Config
from policies.world import Desired
from tests.real.failoverd_world import SITES, Failoverd, World, until
from tests.real.proxies import FROM, TO, Proxy, Switchboard

T = TypeVar("T")
KEYS = Keys("real")
FAULTS = ("killed", "frozen", "cut off", "killed with etcd's leader")


class Scribe:
    """Watches the store from outside, on a loop and a thread of its own. `events`: (monotonic time, event)."""

    def __init__(self, urls: Sequence[str]) -> None:
        self.events: list[tuple[float, KV | Delete]] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scribe", daemon=True)
        self._thread.start()
        self._urls = urls
        self.run(self._open())

    def run(self, main: Coroutine[Any, Any, T], within_s: float = 20.0) -> T:
        return asyncio.run_coroutine_threadsafe(main, self._loop).result(within_s)

    async def _open(self) -> None:
        self.store = EtcdStore(self._urls, rng=random.Random("scribe"))
        there = await self.store.range(KEYS.prefix)
        self.events = [(time.monotonic(), item) for item in sorted(there.items, key=lambda item: item.mod_rev)]
        self._task = asyncio.create_task(self._watch(there.rev + 1))

    async def _watch(self, rev: int) -> None:
        while True:
            try:
                async for batch in self.store.watch(KEYS.prefix, rev):
                    now = time.monotonic()
                    self.events += [(now, event) for event in batch.events]
                    rev = max(rev, batch.rev + 1)
            except Unavailable:
                await asyncio.sleep(0.05)

    async def apply(self, config: Config) -> None:
        await Operator(self.store, KEYS, random.Random("operator")).apply_config(config, (), expect=0)

    # --- what happened

    def commits(self, since: float = 0.0) -> list[tuple[float, Desired]]:
        """What was written as desired, and when it was seen."""
        found = [(at, e) for at, e in list(self.events) if at >= since and e.key.startswith(KEYS.desired)]
        return [(at, decode(Desired, e.value)) for at, e in found if isinstance(e, KV)]

    def beats(self, node: str) -> list[float]:
        """When a leader's beats of this node were seen."""
        beats = [(at, e) for at, e in list(self.events) if e.key == KEYS.leader_beat and isinstance(e, KV)]
        return [at for at, e in beats if decode(LeaderBeat, e.value).node == node]

    def check(self) -> int:
        """Whoever wrote desired held the leader key, and generations never went back. Returns how many commits."""
        holder, generations, count = 0, dict[str, int](), 0
        for _, event in list(self.events):
            if event.key == KEYS.leader:
                holder = event.mod_rev if isinstance(event, KV) else 0
                assert isinstance(event, Delete) or decode(LeaderDoc, event.value).node
            elif event.key.startswith(KEYS.desired) and isinstance(event, KV):
                desired = decode(Desired, event.value)
                count += 1
                assert desired.token == holder, f"{desired.decision} by token {desired.token}, the leader has {holder}"
                before = generations.get(desired.service, 0)
                assert desired.generation >= before, f"{desired.decision}: generation {desired.generation} < {before}"
                generations[desired.service] = desired.generation
        assert count, "nothing was committed: nothing was checked"
        return count

    def close(self) -> None:
        async def stop() -> None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            await self.store.aclose()

        self.run(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()


class Rivals(World):
    """Every site has a vantage; `controllers` can lead. Each failoverd reaches etcd through proxies of its own."""

    def __init__(self, directory: Path, controllers: Sequence[str] = tuple(SITES)) -> None:
        super().__init__(directory)
        # A soak would double with each failover, of which there are many here.
        self.config = self.config.replace("soak: 1s", "soak: 0")
        members = {name: Address("127.0.0.1", free_port(), free_port()) for name in ("e1", "e2", "e3")}
        self.cluster = EtcdCluster(directory / "three", members)
        self.board = Switchboard()
        self.lines: dict[str, list[Proxy]] = {}
        self.scribe: Scribe | None = None
        for site in SITES:
            self.lines[site] = [self.board.proxy(address.client_port) for address in members.values()]
            urls = ",".join(f"http://127.0.0.1:{line.port}" for line in self.lines[site])
            roles = "vantage,agent,api" + (",controller" if site in controllers else "")
            self.nodes[site] = Failoverd(site, urls, directory, "--roles", roles)

    def start(self) -> Rivals:
        self.cluster.start()
        for node in self.nodes.values():
            node.start()
        self.wait_for_store()
        self.scribe = Scribe(self.cluster.urls)
        self.apply()
        self.wait_until_calm()
        return self

    @property
    def book(self) -> Scribe:
        assert self.scribe is not None, "not started"
        return self.scribe

    def wait_until_calm(self) -> None:
        """Every node is ready, every site serves or could, and the first one does."""

        def calm() -> bool:
            if not all(node.ready for node in self.nodes.values()):
                return False
            standing = self.nodes["site-a"].status().get("services", {}).get("www", {}).get("standing", {})
            return len(standing) == len(SITES) and all(each["rule"] == "ready" for each in standing.values())

        until("calm", calm, within_s=60)
        self.wait_until_served()

    def strike(self, fault: str, leader: Failoverd) -> tuple[float, EtcdMember | None]:
        """The leader's web service fails, and the fault hits its failoverd. Returns when, and the member killed."""
        victim = self.cluster.leader() if fault == FAULTS[3] else None
        self.webs[leader.site].up = False
        at = time.monotonic()
        if fault == "frozen":
            leader.process.freeze()
        elif fault == "cut off":
            for line in self.lines[leader.site]:
                self.board.run(line.hold({("*", TO), ("*", FROM)}))
        else:
            leader.process.kill()
        if victim is not None:
            victim.kill()
        return at, victim

    def heal(self, leader: Failoverd, victim: EtcdMember | None) -> None:
        if victim is not None:
            victim.restart()
            victim.ready()
        for line in self.lines[leader.site]:
            self.board.run(line.hold(set()))
        leader.process.thaw()
        if not leader.process.alive:
            leader.start()
        self.webs[leader.site].up = True

    def first_commit(self, since: float, not_by: int) -> float:
        """Seconds from `since` until a leader with another token than `not_by` has committed."""

        def found() -> list[float]:
            return [at for at, desired in self.book.commits(since) if desired.token != not_by]

        until("a new leader's first commit", lambda: bool(found()), within_s=40)
        return found()[0] - since

    def token(self) -> int:
        """Of the last commit."""
        return self.book.commits()[-1][1].token

    def take_over(self, fault: str, look: Callable[[], None] = lambda: None) -> float:
        """One fault, from a calm cluster to a calm one. Returns the seconds to the new leader's first commit."""
        leader = self.wait_for_leader()
        old = self.token()
        at, victim = self.strike(fault, leader)
        took_s = self.first_commit(at, old)
        look()
        self.heal(leader, victim)
        self.wait_until_calm()
        return took_s

    def close(self) -> None:
        super().close()
        if self.scribe is not None:
            self.scribe.close()
        self.cluster.stop()
        self.board.close()
