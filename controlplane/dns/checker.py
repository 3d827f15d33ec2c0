"""Keeps asking one authoritative server about the services it answers for, and remembers what it said."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from controlplane.calls import bug
from controlplane.dns.ask import Ask
from controlplane.dns.questions import Probe
from controlplane.dns.verify import verify
from controlplane.documents import Seen
from policies.world import Desired

AGAIN_S = 20.0  # one that agrees; its own agent reads it back each second anyway
BESIDE_AGAIN_S = 60.0  # one that only the zone names: nobody else reads it back, and its records come by transfer
SILENT_S = 2.0  # one that did not answer
FIRST_S, LAST_S = 0.1, 1.0  # one that disagrees: doubled from first to last
NEWS_AT_ONCE = 200  # services asked about in one round
SETTLED_AT_ONCE = 20


class Checker:
    """`seen`: service -> what the server said last. `beside`: only the zone's NS set names it."""

    def __init__(self, server: str, ask: Ask, beside: bool = False) -> None:
        self.server = server
        self._again_s = BESIDE_AGAIN_S if beside else AGAIN_S
        self.seen: dict[str, Seen] = {}
        self._ask = ask
        self._asked: dict[str, tuple[int, str, str]] = {}  # what was compared
        self._at: dict[str, float] = {}  # when to ask again
        self._tries: dict[str, int] = {}
        self._quiet: tuple[Mapping[str, Desired] | None, float] = (None, 0.0)  # nothing is due for it before then

    async def step(
        self, wanted: Mapping[str, Desired], incarnation: str, probes: Sequence[Probe]
    ) -> tuple[float, list[str]]:
        """One round. Returns after how many seconds the next is due, and the services whose `seen` changed. `wanted`
        is not changed any more: what is wanted else is another mapping."""
        now = asyncio.get_running_loop().time()
        if self._quiet[0] is wanted and now < self._quiet[1]:
            return self._quiet[1] - now, []
        for service in [s for s in self._asked if s not in wanted]:
            for memory in (self.seen, self._asked, self._at, self._tries):
                memory.pop(service, None)
        news: list[Desired] = []
        old: list[Desired] = []
        for service, desired in wanted.items():
            asked = (desired.generation, desired.stamp, desired.name)
            if self._asked.get(service) != asked:
                self._asked[service], self._at[service], self._tries[service] = asked, now, 0
            if self._at[service] <= now:
                seen = self.seen.get(service)
                (old if seen and seen.agrees and not self._tries[service] else news).append(desired)
        due = news[:NEWS_AT_ONCE] + old[:SETTLED_AT_ONCE]
        changed = []
        if due:
            seen_now = await verify(self._ask, self.server, due, incarnation, probes)
            for service, seen in seen_now.items():
                before = self.seen.get(service)
                if seen.generation is None and before is not None and before.generation is not None:
                    # It has just fallen silent: then what it said of the others is old news too.
                    self._at = {s: min(at, now) for s, at in self._at.items()}
                self._plan(service, seen)
                if self.seen.get(service) != seen:
                    self.seen[service] = seen
                    changed.append(service)
        now = asyncio.get_running_loop().time()
        next_at = min((self._at[s] for s in wanted), default=now + AGAIN_S)
        self._quiet = (wanted, next_at)
        # What is left over of a round that was too large waits a moment: others want the loop too.
        return max(next_at - now, FIRST_S), changed

    def broke(self, error: Exception) -> None:
        """A round ended in the middle: nothing that was seen before is known to be so still. All is asked again."""
        self.seen = {s: replace(seen, agrees=False, reason=bug(error)) for s, seen in self.seen.items()}
        self._at = dict.fromkeys(self._at, asyncio.get_running_loop().time())
        self._quiet = (None, 0.0)

    def _plan(self, service: str, seen: Seen) -> None:
        now = asyncio.get_running_loop().time()
        if seen.agrees:
            self._tries[service], self._at[service] = 0, now + self._again_s
        elif seen.generation is None:
            self._at[service] = now + SILENT_S
        else:
            self._at[service] = now + min(FIRST_S * 2.0 ** min(self._tries[service], 9), LAST_S)
            self._tries[service] += 1
