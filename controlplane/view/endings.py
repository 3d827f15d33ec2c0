"""Which overrides have not ended. Clock readings come in as values."""

from __future__ import annotations

from controlplane.view.mirror import Mirror
from controlplane.view.pulse import FOREVER
from policies.topology import Override


class Endings:
    """`standing`: those that had not ended when `expire` was called last, by id; `next_at`: when the next one ends.
    All times are readings of the own clock."""

    def __init__(self, mirror: Mirror) -> None:
        self.standing: tuple[Override, ...] = ()
        self.next_at = FOREVER
        self._mirror = mirror

    def expire(self, now: float, arrived: dict[str, float]) -> None:
        """`arrived`: key -> when its copy came."""
        overrides = self._mirror.overrides
        ends = {id_: self.at(overrides[id_], now, arrived) for id_ in sorted(overrides)}
        self.standing = tuple(overrides[id_] for id_, end in ends.items() if end > now)
        self.next_at = min((end for end in ends.values() if end > now), default=FOREVER)

    def at(self, override: Override, now: float, arrived: dict[str, float]) -> float:
        """When it ends; what the leader last wrote of it goes first. FOREVER: it has no end."""
        keys, timers = self._mirror.keys, self._mirror.timers
        left_s = timers.left_s.get(override.id) if timers else None
        if left_s is not None:
            return arrived.get(keys.timers_overrides, now) + left_s
        if override.for_s is None:
            return FOREVER
        return arrived.get(keys.override(override.id), now) + override.for_s
