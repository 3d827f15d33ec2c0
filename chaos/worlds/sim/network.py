"""Who reaches whom, and how fast: links between sites, witnesses, clients and the rest of the world.

Every disturbance is counted, so that two that overlap on one link end it only when both have ended.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

from msgspec import Struct

from chaos.scenario import CLIENTS, EVERYTHING

OUTSIDE = "outside"  # where references beside the sites are
LAN_S = 0.0002  # one way, within a site
WAN_S = (0.002, 0.015)  # one way, between two ends: drawn once for each pair
RESEND_S = 0.2  # TCP's first pause before it sends again; doubled each time (RFC 6298)
MOST_SENDS = 7

Undo = Callable[[], None]
Link = tuple[str, str]  # from, to
Key = TypeVar("Key")


class Path(Struct, frozen=True):
    """From one end to another and back. there, back: does anything pass; loss: of packets, either way, 0 to 1."""

    there: bool
    back: bool
    rtt_s: float
    loss: float

    @property
    def works(self) -> bool:
        return self.there and self.back


class Network:
    """`ends`: sites and witnesses. `changed` is called after every change."""

    def __init__(self, ends: Iterable[str], seed: str, changed: Callable[[], None]) -> None:
        self.ends = (*ends, CLIENTS, OUTSIDE)
        self._seed, self._changed = seed, changed
        self._cuts: Counter[Link] = Counter()
        self._off: Counter[str] = Counter()
        self._losses: dict[int, tuple[frozenset[Link], float]] = {}
        self._delays: dict[int, tuple[frozenset[Link], float]] = {}
        self._next = 0
        self._wires: dict[Link, float] = {}
        self._paths: dict[Link, Path] = {}

    # --- looking ---

    def path(self, one: str, other: str) -> Path:
        """As it is now. Unknown names (a site that a new configuration brings) are ends like others."""
        found = self._paths.get((one, other))
        if found is None:
            found = self._paths[one, other] = self._look(one, other)
        return found

    def on(self, end: str) -> bool:
        """Has it power?"""
        return not self._off[end]

    def _look(self, one: str, other: str) -> Path:
        up = self.on(one) and self.on(other)
        if one == other:
            return Path(up, up, 2 * LAN_S, 0.0)
        there, back = (one, other), (other, one)
        rtt_s = 2 * self._wire_s(one, other) + sum(2 * s for links, s in self._delays.values() if there in links)
        kept = 1.0
        for links, rate in self._losses.values():
            if there in links:
                kept *= (1 - rate) ** 2
        return Path(up and not self._cuts[there], up and not self._cuts[back], rtt_s, 1 - kept)

    def _wire_s(self, one: str, other: str) -> float:
        pair = (min(one, other), max(one, other))
        if pair not in self._wires:
            self._wires[pair] = random.Random(f"{self._seed}/wire/{pair[0]}/{pair[1]}").uniform(*WAN_S)
        return self._wires[pair]

    # --- disturbing ---

    def cut(self, one: str, other: str, both: bool = True) -> Undo:
        """ "*" is all but the other end."""
        links = list(self._links(one, other))
        if both:
            links += [(there, here) for here, there in links]
        return self._counted(self._cuts, links)

    def power_off(self, end: str) -> Undo:
        return self._counted(self._off, [end])

    def lose(self, one: str, other: str, rate: float) -> Undo:
        """Each packet, either way, with this chance."""
        return self._noted(self._losses, one, other, rate)

    def slow(self, one: str, other: str, by_s: float) -> Undo:
        """Each packet, either way."""
        return self._noted(self._delays, one, other, by_s)

    def _links(self, one: str, other: str) -> list[Link]:
        """Of each pair in one direction."""
        if EVERYTHING not in (one, other):
            return [(one, other)]
        if one == EVERYTHING:
            return [(end, other) for end in self.ends if end != other]
        return [(one, end) for end in self.ends if end != one]

    def _counted(self, counter: Counter[Key], keys: Iterable[Key]) -> Undo:
        held = list(keys)
        counter.update(held)
        self._turn()

        def undo() -> None:
            counter.subtract(held)
            self._turn()

        return undo

    def _noted(self, notes: dict[int, tuple[frozenset[Link], float]], one: str, other: str, much: float) -> Undo:
        links = self._links(one, other)
        self._next += 1
        mine = self._next
        notes[mine] = (frozenset([*links, *((there, here) for here, there in links)]), much)
        self._turn()

        def undo() -> None:
            del notes[mine]
            self._turn()

        return undo

    def _turn(self) -> None:
        self._paths.clear()
        self._changed()


def resent_s(loss: float, rng: random.Random) -> float:
    """How much longer a message over TCP takes where packets get lost."""
    late_s, pause_s = 0.0, RESEND_S
    for _ in range(MOST_SENDS):
        if rng.random() >= loss:
            break
        late_s, pause_s = late_s + pause_s, 2 * pause_s
    return late_s
