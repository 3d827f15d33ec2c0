"""Which service's votes depend on what, and the votes themselves. Clock readings come in as values."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.view.eyes import Eye
from policies.frame import Frame, Watched, frames, target_id, watched
from policies.topology import Config
from policies.world import Desired, Vote
from probes.target import Beat, Shard

_OWN = int(Vote.OWN)
FOREVER = float("inf")


class Votes:
    """`dirty`: services of which an input changed. One vote a site: where a site has several vantages, the first
    that is fresh and sees speaks for it."""

    def __init__(self) -> None:
        self.eyes: dict[str, Eye] = {}  # "<site>/<prober>"
        self.frames: dict[str, Frame] = {}
        self.rows: dict[str, tuple[Watched, ...]] = {}
        self.vantages: tuple[str, ...] = ()  # the columns: every site, sorted
        self.dirty: set[str] = set()
        self._services_of: dict[str, set[str]] = {}  # target id -> services
        self._columns: list[tuple[str, Eye | None]] = []
        self._cast: dict[str, tuple[bytes, dict[str, str]]] = {}

    def configure(self, config: Config | None, desired: Mapping[str, Desired]) -> None:
        self.frames = frames(config) if config else {}
        self.vantages = tuple(sorted(config.sites)) if config else ()
        self.rows, self._services_of = {}, {}
        self._choose()
        for service in self.frames:
            self.index(service, desired.get(service))
        self.touch_all()

    def index(self, service: str, desired: Desired | None) -> None:
        """The service's desired changed: it may now watch other addresses."""
        frame = self.frames.get(service)
        if frame is None:
            return
        rows = watched(frame, desired)
        if rows != self.rows.get(service):
            self.rows[service] = rows
            for row in rows:
                self._services_of.setdefault(row.id, set()).add(service)
        self.touch(service)

    def touch(self, service: str) -> None:
        self._cast.pop(service, None)
        if service in self.frames:
            self.dirty.add(service)

    def touch_all(self) -> None:
        self._cast.clear()
        self.dirty.update(self.frames)

    def moved(self, name: str, at: float | None) -> None:
        """A vantage's beat moved, at `at` on the own clock; None: it is gone."""
        self._eye(name).moved_at = at

    def see(self, name: str, beat: Beat | None, shards: Mapping[str, Shard], now: float, freshness_s: float) -> None:
        """A vantage's documents are these now; without any it is forgotten."""
        eye = self._eye(name)
        was_blind = eye.blind
        for target in eye.take(beat, shards, now):
            for service in self._services_of.get(target, ()):
                self.touch(service)
        if beat is None and not shards:
            del self.eyes[name]
            self._choose()
            self.touch_all()
        elif eye.look(now, freshness_s) or eye.blind != was_blind:
            self._choose()
            self.touch_all()

    def look(self, now: float, freshness_s: float) -> None:
        """Whose beat has stopped moving by now?"""
        changed = [eye.look(now, freshness_s) for eye in self.eyes.values()]
        if any(changed):
            self._choose()
            self.touch_all()

    def next_end(self, freshness_s: float) -> float:
        """When the next vantage will be silent, if its beat does not move again."""
        ends = [eye.moved_at + freshness_s for eye in self.eyes.values() if eye.fresh and eye.moved_at is not None]
        return min(ends, default=FOREVER)

    def cast(self, service: str) -> tuple[bytes, dict[str, str]]:
        """Slice.votes and Slice.reasons of a service."""
        found = self._cast.get(service)
        if found is not None:
            return found
        votes, reasons = bytearray(), {}
        for row in self.rows[service]:
            for site, eye in self._columns:
                own = site == row.site
                if eye is None:
                    byte, reason = _OWN if own else 0, "silent"
                else:
                    byte, reason = eye.vote(row.id, own)
                votes.append(byte)
                if reason:
                    reasons[f"{site}/{row.id}"] = reason
        found = self._cast[service] = bytes(votes), reasons
        return found

    def lag_s(self, service: str) -> dict[str, float | None]:
        """Site -> the least lag of its copy that a seeing vantage reports, seconds; None: not known."""
        spec = self.frames[service].spec
        if spec.data is None:
            return {}
        lags: dict[str, float | None] = {}
        for site in sorted(spec.endpoints):
            ids = [target_id(service, site, spec.data.check.name, a) for a in spec.endpoints[site]]
            seen = [eye.observations.get(id_) for _, eye in self._columns if eye and eye.voting for id_ in ids]
            lags[site] = min((o.lag_s for o in seen if o and o.lag_s is not None), default=None)
        return lags

    def _eye(self, name: str) -> Eye:
        if name not in self.eyes:
            self.eyes[name] = Eye(*name.split("/", 1))
            self._choose()
        return self.eyes[name]

    def _choose(self) -> None:
        """Who speaks for each site."""
        speakers: dict[str, Eye] = {}
        for name in sorted(self.eyes):
            eye = self.eyes[name]
            best = speakers.get(eye.site)
            if best is None or (eye.voting, eye.fresh) > (best.voting, best.fresh):
                speakers[eye.site] = eye
        self._columns = [(site, speakers.get(site)) for site in self.vantages]
