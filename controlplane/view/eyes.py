"""What each vantage says: which of its shards may be used, and what changed. Clock readings come in as values."""

from __future__ import annotations

from collections.abc import Mapping

from policies.world import Vote
from probes.target import Beat, Health, Observation, Shard

# Plain integers: this runs for every target and vantage of a pass, and IntFlag's operators are ten times slower.
_HEALTH = {Health.UP: int(Vote.UP), Health.DOWN: int(Vote.DOWN), Health.UNKNOWN: 0}
_FRESH, _BLIND, _ANSWERED, _OWN = int(Vote.FRESH), int(Vote.BLIND), int(Vote.ANSWERED), int(Vote.OWN)


class Eye:
    """One vantage (DESIGN 4.2). A shard counts only at exactly the number in the latest beat of the same run,
    and the beat only while it keeps moving as seen on the judge's own clock; all else is silence."""

    def __init__(self, site: str, prober: str) -> None:
        self.site = site
        self.prober = prober
        self.beat: Beat | None = None
        self.moved_at: float | None = None  # own clock; None: never seen moving
        self.fresh = False
        self.observations: dict[str, Observation] = {}  # target id -> what the usable shards say
        self.changed_at: dict[str, float] = {}  # target id -> own clock, when its health last changed
        self._usable: dict[str, Shard] = {}

    @property
    def blind(self) -> bool:
        return self.beat is not None and self.beat.blind

    @property
    def voting(self) -> bool:
        return self.fresh and not self.blind

    def take(self, beat: Beat | None, shards: Mapping[str, Shard], now: float) -> set[str]:
        """The latest documents, seen at `now`. Returns the targets whose observation changed."""
        self.beat = beat
        usable: dict[str, Shard] = {}
        if beat is not None:
            for name, n in beat.shards.items():
                shard = shards.get(name)
                if shard is not None and shard.run == beat.run and shard.n == n:
                    usable[name] = shard
        if len(usable) == len(self._usable) and all(self._usable.get(name) is s for name, s in usable.items()):
            return set()
        known, self._usable = self._usable, usable
        gone = [shard for name, shard in known.items() if usable.get(name) is not shard]
        before = {o.target: o for shard in gone for o in shard.observations}
        after = {
            o.target: o
            for name in sorted(usable)
            if known.get(name) is not usable[name]
            for o in usable[name].observations
        }
        if any(target not in after for target in before) or any(
            t not in before and t in self.observations for t in after
        ):
            # Some went, or moved to another shard: look at all of them.
            before, self.observations = self.observations, {}
            after = {o.target: o for name in sorted(usable) for o in usable[name].observations}
        self.observations.update(after)
        return self._changed(before, after, now)

    def _changed(self, before: Mapping[str, Observation], after: Mapping[str, Observation], now: float) -> set[str]:
        changed = {target for target, o in after.items() if before.get(target) != o}
        for target in changed:
            if target not in before or before[target].health is not after[target].health:
                self.changed_at[target] = now
        for target in before:
            if target not in after:
                changed.add(target)
                self.changed_at.pop(target, None)
        return changed

    def look(self, now: float, freshness_s: float) -> bool:
        """Update `fresh`; True if it changed."""
        fresh = self.moved_at is not None and now - self.moved_at < freshness_s
        changed, self.fresh = fresh != self.fresh, fresh
        return changed

    def vote(self, target: str, own: bool) -> tuple[int, str]:
        """The byte (Vote) and, unless it is a plain UP, the reason."""
        byte = _OWN if own else 0
        if not self.fresh:
            return byte, "silent"
        byte |= _FRESH
        if self.blind:
            return byte | _BLIND, "blind"
        seen = self.observations.get(target)
        if seen is None:
            return byte, "not probed yet"
        byte |= _HEALTH[seen.health]
        if seen.replies:
            byte |= _ANSWERED
        return byte, "" if seen.health is Health.UP else seen.reason or seen.health.value
