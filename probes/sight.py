"""Could this vantage see while a target was silent? Pure: no clock, no I/O.

Damping leaves a gap in which some target has failed `fall` times and the vantage is not yet known to be blind: two
vantages that go dark together would agree, in that gap, that a healthy site is down. So silence makes a target DOWN
only where a reference answered in its midst: to a probe that began after the target's last silent probe had surely
been lost (its time-out half over, or its result in), and not after the one began that makes it DOWN. The first bound
is for a vantage that goes dark, the second for one whose sight comes back.

The references are asked when a result is silent, not waited for: they have a whole time-out to answer, so this costs
no time, whatever their interval. One look around serves all targets that fall silent at about that time.
"""

from __future__ import annotations

from math import inf


class Look:
    """Did a reference answer a probe that began at `since_s` or later? `seen_s`: when the first of those began, inf
    until one has answered. A probe keeps the look that is the latest when it begins."""

    __slots__ = ("seen_s", "since_s")

    def __init__(self, since_s: float, seen_s: float = inf) -> None:
        self.since_s = since_s
        self.seen_s = seen_s

    @property
    def answered(self) -> bool:
        return self.seen_s < inf

    def answer(self, began_s: float) -> None:
        """A reference answered a probe that began then."""
        if began_s >= self.since_s:
            self.seen_s = min(self.seen_s, began_s)

    def shows(self, since_s: float, began_s: float) -> bool:
        """Was there sight between `since_s` and `began_s`?"""
        return since_s <= self.since_s and self.seen_s <= began_s


class Sight:
    """What the references' answers prove."""

    def __init__(self) -> None:
        self.look = Look(-inf)
        self._answered_s = -inf  # start of the latest probe of a reference that was answered

    def answered(self, began_s: float, look: Look) -> None:
        """A reference answered a probe that began then, while `look` was the latest."""
        self._answered_s = max(self._answered_s, began_s)
        look.answer(began_s)
        self.look.answer(began_s)

    def covers(self, since_s: float) -> bool:
        """Will the latest look tell whether there was sight since then? If not, references have to be asked."""
        if self.look.since_s < since_s <= self._answered_s:
            self.look = Look(self._answered_s, self._answered_s)
        return since_s <= self.look.since_s

    def asked(self, began_s: float) -> None:
        """References are being probed, from then on."""
        self.look = Look(began_s)
