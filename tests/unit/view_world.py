"""A store, one view on the node "n1", and vantages that report as they are told: in virtual time."""

from __future__ import annotations

import random

from msgspec.structs import replace

from chaos.worlds.faulty_store import FaultyStore
from chaos.worlds.loop import Kernel, NodeLoop
from controlplane.documents import Keys, NodeDoc, encode
from controlplane.store import Put, Txn
from controlplane.store.memory import MemoryStore
from controlplane.view import View
from policies.frame import watched
from policies.topology import Override
from policies.world import Answer, Desired, SiteState, Slice
from probes.target import Beat, Health, Observation, Shard
from tests.unit.policy_world import one_service


class Fixture:
    """A store, one view on the node "n1", and vantages that report as they are told."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.keys = Keys("test")
        self.store = MemoryStore()
        self.line = FaultyStore(self.store, random.Random(1))
        self.config = replace(one_service(), revision=1)
        self.node: NodeLoop = kernel.loop("n1")
        self.wall = 1000.0
        me = NodeDoc("n1", "a", ("controller",), "1", "run-1", 0, 0.0)
        self.view = View(self.line, "test", me, lambda: self.wall + kernel.now)
        self.n = 0
        self.put(self.keys.config, encode(self.config))

    def start(self) -> None:
        self.node.create_task(self.view.run())
        self.kernel.run_for(0.5)

    def put(self, key: str, value: bytes) -> int:
        return self.store.apply(Txn((), (Put(key, value),))).rev

    def report(
        self, site: str, health: Health = Health.UP, run: str = "r", blind: bool = False, n: int | None = None
    ) -> None:
        """The vantage of `site` says so of every target, in one shard, and beats."""
        self.n += 1
        number = n or self.n
        rows = watched(self.view.frames["www"], None) if self.view.frames else ()
        seen = tuple(Observation(row.id, health, health.value.lower(), health is Health.UP) for row in rows)
        shard = Shard(site, run, number, seen)
        beat = Beat(site, run, self.n, {"all": number}, blind, self.wall + self.kernel.now)
        puts = (
            Put(self.keys.shard(site, "p", "all"), encode(shard)),
            Put(self.keys.beat(site, "p"), encode(beat)),
        )
        self.store.apply(Txn((), puts))

    def beat(self, site: str, n: int, shard: int, run: str = "r") -> None:
        beat = Beat(site, run, n, {"all": shard}, False, self.wall + self.kernel.now)
        self.put(self.keys.beat(site, "p"), encode(beat))

    def slice(self) -> Slice:
        self.kernel.run_for(0.0)
        found: list[Slice] = []
        self.node.call_soon(lambda: found.append(self.view.slice("www")))
        self.kernel.run_for(0.0)
        return found[0]

    def ask(self, name: str) -> object:
        """A property of the view, read on its own node."""
        found: list[object] = []
        self.node.call_soon(lambda: found.append(getattr(self.view, name)))
        self.kernel.run_for(0.0)
        return found[0]

    def votes(self, site: str) -> list[int]:
        """What the vantage of `site` says of each target."""
        s = self.slice()
        return list(s.votes[s.vantages.index(site) :: len(s.vantages)])


def desired(generation: int, address: str = "10.0.0.97") -> Desired:
    return Desired(
        "www",
        generation,
        {"world": {"a": 100}},
        (Answer("world", "A", address, "a", 100),),
        {"a": SiteState("up", addresses=(address,))},
        name="w0.example.org",
    )


def override(id_: str, verb: str = "out", for_s: float | None = None) -> Override:
    return Override(id_, verb, False, "drain", ("a",), (), "ana", "test", "", int(id_[3:]), for_s)
