"""The store's members: who of them leads, and from where the store can be used now.

A model of etcd from outside: a leader that reaches a majority both ways serves; if it is lost, calls stall until the
others have elected another one.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from msgspec import Struct

from chaos.worlds.loop import Kernel
from chaos.worlds.sim.network import Network, Undo

ELECTION_S = (1.6, 2.4)  # writes stalled for 2.0 s in most of 16 tries with a real etcd

HEARTBEAT_S = 1.0  # etcd's election timeout: one that is heard later than this is not followed
PLAIN_S = 0.5


class Way(Struct, frozen=True):
    """From a node to the store and back, with what the members have to tell each other. loss: of packets.

    plain: nobody's patience can end before a reply."""

    rtt_s: float
    loss: float
    plain: bool


class Members:
    """`names`: the sites where they are. `changed` is called when another one leads."""

    def __init__(
        self,
        names: Sequence[str],
        network: Network,
        kernel: Kernel,
        rng: random.Random,
        changed: Callable[[], None],
    ) -> None:
        self.names = tuple(names)
        self.leader = rng.choice(self.names)
        self.terms = 1  # leaders so far
        self._network, self._kernel, self._rng, self._changed = network, kernel, rng, changed
        self._dead: Counter[str] = Counter()
        self._refusing = 0
        self._electing = False
        self._ways: dict[str, Way | None] = {}

    @property
    def refusing(self) -> bool:
        """Connections are refused everywhere: what was not sent was not done."""
        return self._refusing > 0

    def way(self, site: str) -> Way | None:
        """None: the store does not answer there."""
        if site not in self._ways:
            self._ways[site] = self._look(site)
        return self._ways[site]

    def kill(self, name: str) -> Undo:
        """The process of one member dies, or stands still."""
        self._dead[name] += 1
        self.look()

        def undo() -> None:
            self._dead[name] -= 1
            self.look()

        return undo

    def refuse(self) -> Undo:
        self._refusing += 1
        self.look()

        def undo() -> None:
            self._refusing -= 1
            self.look()

        return undo

    def look(self) -> None:
        """Something has changed: is there still a leader? Tells of every change, also of the network's."""
        self._ways.clear()
        if self.leader and not self._could_lead(self.leader):
            self.leader = ""
        if not self.leader and not self._electing and self._candidates():
            self._electing = True
            self._kernel.at(self._kernel.now + self._rng.uniform(*ELECTION_S), self._elect)
        self._changed()

    def _elect(self) -> None:
        self._electing = False
        candidates = self._candidates()
        if candidates and not self.leader:
            self.leader = self._rng.choice(candidates)
            self.terms += 1
        self.look()

    def _candidates(self) -> list[str]:
        return [name for name in self.names if self._could_lead(name)]

    def _could_lead(self, name: str) -> bool:
        followers = [other for other in self.names if self._alive(other) and self._hears(name, other)]
        return self._alive(name) and len(followers) > len(self.names) // 2

    def _hears(self, name: str, other: str) -> bool:
        path = self._network.path(name, other)
        return path.works and path.rtt_s < HEARTBEAT_S

    def _alive(self, name: str) -> bool:
        return not self._dead[name] and self._network.on(name)

    def _look(self, site: str) -> Way | None:
        if self.refusing or not self.leader:
            return None
        path, leader = self._network.path, self.leader
        near = [(path(site, name), path(name, leader)) for name in self.names if self._alive(name)]
        usable = [(one, two) for one, two in near if one.works and two.works]
        if not usable:
            return None
        first, second = min(usable, key=lambda ways: ways[0].rtt_s + ways[1].rtt_s)
        others = [path(leader, name) for name in self.names if name != leader and self._alive(name)]
        copied = sorted(each.rtt_s for each in others if each.works)[: len(self.names) // 2]
        rtt_s = first.rtt_s + second.rtt_s + max(copied, default=0.0)
        loss = 1 - (1 - first.loss) * (1 - second.loss)
        return Way(rtt_s, loss, plain=not loss and rtt_s < PLAIN_S)
