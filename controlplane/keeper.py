"""What an agent knows of one driver, and one pass over it: what is not known to be applied, and each second all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping

from msgspec import Struct

from controlplane.calls import bug, say
from controlplane.documents import Applied
from controlplane.drivers import Entry
from controlplane.lens import Lens
from controlplane.notes import Note
from controlplane.sync import READ_BACK_S, Sync
from policies.topology import PoolDriver
from policies.world import Desired

log = logging.getLogger(__name__)

PROBE_WRITE_S = 30.0


class Kept(Struct, frozen=True):
    """What one pass did. changed: what is reported is not what it was; written: answers are others now."""

    wake_in_s: float
    notes: tuple[Note, ...]
    changed: bool
    written: bool


class Keeper:
    """`entry`: the driver in the configuration; `site`: where it is; `lens`: what it can be told."""

    def __init__(self, entry: Entry, site: str, sync: Sync, lens: Lens) -> None:
        self.entry, self.site, self.sync, self.lens = entry, site, sync, lens
        self.name = entry.name
        self.applied: dict[str, Applied] = {}
        self.n = 0  # documents written
        self._full_at = -READ_BACK_S  # when everything was read back last
        self._proved_at = -2 * PROBE_WRITE_S
        self._unproven = ""  # why the last proof failed
        self._stuck = ""  # what has failed for long
        self._broken = ""  # what the last pass ended with, if it did not end well

    @property
    def pool(self) -> bool:
        return isinstance(self.entry, PoolDriver)

    @property
    def unwritable(self) -> str:
        """Why it cannot be changed now, as far as that is known, or ""."""
        return self._broken or self._stuck or self._unproven

    def broke(self, error: Exception) -> None:
        """A pass ended in the middle: what was said before is not known any more, and must not look well."""
        self._broken = bug(error)
        self.applied = {
            s: Applied(a.generation, "terminal", self._broken, a.decision, adoption=a.adoption)
            for s, a in self.applied.items()
        }

    async def step(
        self, wanted: Mapping[str, Desired], incarnation: str, adopted: Collection[str], adoption: int
    ) -> Kept:
        """One pass. `wanted`: service -> desired through the lens; the rest: see Sync.bring. Never raises for what
        the driver does."""
        started = _now()
        todo: Mapping[str, Desired] = {}
        if not self.sync.calm(wanted):
            todo = {s: d for s, d in wanted.items() if self._missing(d)}
        if started >= self._full_at + READ_BACK_S:
            self._full_at = started
            todo = {**todo, **wanted} if todo else wanted
        before = (self.applied, self.unwritable, dict(self.sync.old_until))
        hindered = self._stuck or self._unproven
        done = await self.sync.bring(todo, incarnation, adopted, adoption)
        if done.applied != self.applied:
            self.applied = {s: a for s, a in self.applied.items() if s in wanted} | done.applied
        before_stuck, self._stuck = self._stuck, self.sync.stuck
        if before_stuck and not self._stuck:
            self._proved_at = -2 * PROBE_WRITE_S  # what the last proof said may be over as well
        # A proof may take its time: writes that are being tried go first, for a while.
        trying = any(a.result == "transient" for a in done.applied.values())
        if not trying or self._proof_age_s() >= 2 * PROBE_WRITE_S:
            await self._prove()
        self._broken = ""
        return Kept(
            wake_in_s=min(done.wake_in_s, max(0.0, self._full_at + READ_BACK_S - _now())),
            notes=(*done.notes, *self._news(hindered)),
            changed=before != (self.applied, self.unwritable, self.sync.old_until),
            written=any(note.kind in ("applied", "repaired") for note in done.notes),
        )

    def _missing(self, desired: Desired) -> bool:
        """Not known to be applied."""
        done = self.applied.get(desired.service)
        return (
            done is None
            or done.result != "ok"
            or done.generation != desired.generation
            or done.decision != desired.stamp
        )

    def _proof_age_s(self) -> float:
        """Since it was last asked whether a write would be accepted."""
        return _now() - self._proved_at

    async def _prove(self) -> None:
        """Every 30 s: would a write be accepted?"""
        if self._proof_age_s() < PROBE_WRITE_S:
            return
        self._proved_at = _now()
        self._unproven = ""
        try:
            async with asyncio.timeout(self.sync.driver.capabilities.patience_s):
                await self.sync.driver.probe_write()
        except (OSError, TimeoutError) as error:
            self._unproven = str(error) or say("write", error)
        except Exception as error:
            log.exception("%s: no proof that it can be written", self.name)
            self._unproven = bug(error)

    def _news(self, before: str) -> list[Note]:
        """When it begins and when it ends; what is wrong may be worded in other ways meanwhile."""
        if bool(before) == bool(self.unwritable):
            return []
        kind = "alarm" if self.unwritable else "cleared"
        return [Note(kind, "", self.name, f"unwritable (at {self.site}): {self.unwritable or before}")]


def _now() -> float:
    return asyncio.get_running_loop().time()
