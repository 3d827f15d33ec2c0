"""The clock side of the view: own beats, what their return proves, stalls, and other nodes' wall clocks.

An event that comes late (after a stall, a cut, a slow watch) must not pass for news. So an event is dated not by
when it came but by when the newest own beat before it *in the stream* was sent (`floor`): it cannot be older than
that, and a controller that is cut off or asleep sends no beats.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec.structs import replace

from controlplane.documents import NodeDoc

BEAT_S = 0.4  # between own beats
PROOF_S = 1.0  # a view is current while its newest returned beat was sent less than this ago
SUSPECT_S = 5.0  # wall clocks that differ by more raise clock_suspect
FOREVER = float("inf")


class Pulse:
    """All times are readings of the running loop's clock. `me`: the node's beat; n and wall_s are filled in here."""

    def __init__(self, me: NodeDoc, wall: Callable[[], float]) -> None:
        self.me = me
        self.freshness_s = 3.0  # until a configuration says otherwise
        self.floor: float | None = None  # when the newest own beat that came back was sent
        self.now: Callable[[], float] = _running_clock
        self._wall = wall
        self._sent: dict[int, float] = {}  # own beats under way
        self._current_since = FOREVER
        self._ticked_at: float | None = None
        self._hold_until = -FOREVER
        self._leads: dict[str, float] = {}  # by how much another clock was ahead when its beat came, by source

    def start(self) -> None:
        """Here it runs from now on. (To ask for the running loop each time costs more than to read its clock.)"""
        self.now = asyncio.get_running_loop().time

    def beat(self, unreadable: str) -> NodeDoc:
        """The next beat, to be written at once."""
        now = self.now()
        self.me = replace(self.me, n=self.me.n + 1, wall_s=self._wall(), unreadable=unreadable)
        self._sent = {n: at for n, at in self._sent.items() if now - at < 2 * PROOF_S}
        self._sent[self.me.n] = now
        return self.me

    def returned(self, beat: NodeDoc) -> None:
        """An own beat came back as a watch event."""
        sent = self._sent.pop(beat.n, None) if beat.run == self.me.run else None
        if sent is None:
            return
        if not self.timely:
            self._current_since = self.now()
        self.floor = sent if self.floor is None else max(sent, self.floor)

    @property
    def timely(self) -> bool:
        """Is the watch up to date? (`current` also looks at stalls.)"""
        return self.floor is not None and self.now() - self.floor < PROOF_S

    @property
    def current(self) -> bool:
        now = self.now()
        if self.floor is None or now - self.floor >= PROOF_S or now < self._hold_until or self._ticked_at is None:
            return False
        return now - self._ticked_at <= self.freshness_s  # else: stalled, and the tick that notices did not run yet

    @property
    def current_for_s(self) -> float:
        """How long without a break; 0 when not current."""
        return self.now() - max(self._current_since, self._hold_until) if self.current else 0.0

    def tick(self) -> None:
        """To be called several times in each freshness window. After a stall longer than that: hold for one."""
        now = self.now()
        if self._ticked_at is not None and now - self._ticked_at > self.freshness_s:
            self._hold_until = now + self.freshness_s
        self._ticked_at = now

    def hold(self, for_s: float) -> None:
        """Not current for so long: what the last beat proved was about a store with another history."""
        self._hold_until = max(self._hold_until, self.now() + for_s)

    def heard(self, source: str, wall_s: float) -> None:
        """Another node's wall clock, as its beat comes in. Late news would look like a slow clock."""
        if self.timely:
            self._leads[source] = wall_s - self._wall()

    def forget(self, source: str) -> None:
        self._leads.pop(source, None)

    @property
    def clock_lead_s(self) -> float:
        """How far the median of the wall clocks in the beats, own one included, is ahead of the own one."""
        leads = sorted([0.0, *self._leads.values()])
        middle = len(leads) // 2
        return leads[middle] if len(leads) % 2 else (leads[middle - 1] + leads[middle]) / 2

    @property
    def clock_suspect(self) -> bool:
        return abs(self.clock_lead_s) > SUSPECT_S


def _running_clock() -> float:
    return asyncio.get_running_loop().time()
