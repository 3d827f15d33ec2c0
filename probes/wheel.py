"""Who is due when (DESIGN 4.1): intervals from start to start, with jitter; fast re-checks; never two probes of one
target at once. Pure: time goes in as a float (seconds of the caller's clock), ids come out.

First starts are spread over the interval by the golden ratio: however many targets come and go, they are never
bunched. The jitter of a target's probes is a sequence that begins with a hash of its id and of the wheel's salt (the
vantage's site): equal inputs give equal times, and two vantages do not knock at the same door in step.
"""

from __future__ import annotations

import heapq
from hashlib import blake2b

_GOLDEN = 0.6180339887498949
_FACTOR, _STEP = 6364136223846793005, 1442695040888963407  # Knuth's generator (MMIX), modulo 2**64


class _Entry:
    __slots__ = ("began_s", "drawn", "due_s", "fast_interval_s", "interval_s", "jitter")

    def __init__(self, interval_s: float, fast_interval_s: float, jitter: float, seed: int) -> None:
        self.interval_s = interval_s
        self.fast_interval_s = fast_interval_s
        self.jitter = jitter
        self.began_s = 0.0
        self.drawn = seed  # of its jitter, the last number
        self.due_s: float | None = None  # None: running

    def next_interval_s(self) -> float:
        """With jitter: another one each time."""
        self.drawn = (self.drawn * _FACTOR + _STEP) % 2**64
        return self.interval_s * (1.0 + self.jitter * (self.drawn / 2**63 - 1.0))


class Wheel:
    def __init__(self, salt: str = "") -> None:
        self._salt = salt
        self._entries: dict[str, _Entry] = {}
        self._heap: list[tuple[float, int, str]] = []  # (due, order, id); an entry that has moved on is skipped
        self._order = 0
        self._added = 0

    def __contains__(self, id_: str) -> bool:
        return id_ in self._entries

    def add(self, id_: str, interval_s: float, fast_interval_s: float, jitter: float, now_s: float) -> None:
        """A target, new or known, that is not running: first due somewhere in the next interval."""
        seed = int.from_bytes(blake2b(f"{self._salt}/{id_}".encode(), digest_size=8).digest())
        entry = _Entry(interval_s, fast_interval_s, jitter, seed)
        self._entries[id_] = entry
        self._added += 1
        self._schedule(id_, entry, now_s + interval_s * (self._added * _GOLDEN % 1.0))

    def retune(self, id_: str, interval_s: float, fast_interval_s: float, jitter: float) -> None:
        """Other intervals, from the next probe on."""
        entry = self._entries[id_]
        entry.interval_s, entry.fast_interval_s, entry.jitter = interval_s, fast_interval_s, jitter

    def remove(self, id_: str) -> None:
        del self._entries[id_]

    def pop(self, now_s: float) -> list[str]:
        """Those that are due, in order. They are running from now on, until `ended`."""
        due = []
        while self._heap and self._heap[0][0] <= now_s:
            due_s, _, id_ = heapq.heappop(self._heap)
            entry = self._entries.get(id_)
            if entry is not None and entry.due_s == due_s:
                entry.began_s, entry.due_s = now_s, None
                due.append(id_)
        return due

    def ended(self, id_: str, now_s: float, fast: bool) -> None:
        """The probe has ended: the next is due an interval after its start, but not before now."""
        entry = self._entries[id_]
        # Fast re-checks have no jitter: the bound on detection counts them in full.
        interval_s = entry.fast_interval_s if fast else entry.next_interval_s()
        self._schedule(id_, entry, max(now_s, entry.began_s + interval_s))

    def hasten(self, id_: str, now_s: float) -> None:
        """If it is waiting: due as soon as a fast interval since its last start is over, unless it is due earlier."""
        entry = self._entries[id_]
        due_s = max(now_s, entry.began_s + entry.fast_interval_s)
        if entry.due_s is not None and due_s < entry.due_s:
            self._schedule(id_, entry, due_s)

    def next_s(self) -> float | None:
        """When the next one is due; None if none is waiting."""
        while self._heap:
            due_s, _, id_ = self._heap[0]
            entry = self._entries.get(id_)
            if entry is not None and entry.due_s == due_s:
                return due_s
            heapq.heappop(self._heap)
        return None

    def _schedule(self, id_: str, entry: _Entry, due_s: float) -> None:
        entry.due_s = due_s
        self._order += 1
        heapq.heappush(self._heap, (due_s, self._order, id_))
