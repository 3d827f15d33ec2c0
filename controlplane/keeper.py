"""What an agent knows of one driver, and one pass over it: what is not known to be applied, and each second all."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from msgspec import Struct

from controlplane.documents import Applied
from controlplane.lens import Lens
from controlplane.sync import CALL_S, READ_BACK_S, Note, Sync
from policies.topology import DnsDriver, PoolDriver
from policies.world import Desired

PROBE_WRITE_S = 30.0


class Kept(Struct, frozen=True):
    """What one pass did. changed: what is reported is not what it was; written: answers are others now."""

    wake_in_s: float
    notes: tuple[Note, ...]
    changed: bool
    written: bool


class Keeper:
    """`entry`: the driver in the configuration; `site`: where it is; `lens`: what it can be told."""

    def __init__(self, entry: DnsDriver | PoolDriver, site: str, sync: Sync, lens: Lens) -> None:
        self.entry, self.site, self.sync, self.lens = entry, site, sync, lens
        self.name = entry.name
        self.applied: dict[str, Applied] = {}
        self.unwritable = ""
        self.n = 0  # documents written
        self._full_at = -READ_BACK_S  # when everything was read back last
        self._proved_at = -2 * PROBE_WRITE_S

    @property
    def pool(self) -> bool:
        return isinstance(self.entry, PoolDriver)

    async def step(
        self, wanted: Mapping[str, Desired], incarnation: str, adopted: Collection[str], adoption: int
    ) -> Kept:
        """One pass. `wanted`: service -> desired through the lens; the rest: see Sync.bring. Never raises for what
        the driver does."""
        started = _now()
        todo = {s: d for s, d in wanted.items() if self._missing(d)}
        if started >= self._full_at + READ_BACK_S:
            self._full_at = started
            todo |= wanted
        before = (self.applied, self.unwritable, dict(self.sync.old_until))
        done = await self.sync.bring(todo, incarnation, adopted, adoption)
        self.applied = {s: a for s, a in self.applied.items() if s in wanted} | done.applied
        notes = list(done.notes)
        # A proof may take its time: writes that are being tried go first, for a while.
        trying = any(a.result == "transient" for a in done.applied.values())
        if not trying or self._proof_age_s() >= 2 * PROBE_WRITE_S:
            notes += await self._prove()
        return Kept(
            wake_in_s=min(done.wake_in_s, max(0.0, self._full_at + READ_BACK_S - _now())),
            notes=tuple(notes),
            changed=before != (self.applied, self.unwritable, self.sync.old_until),
            written=any(note.kind in ("applied", "repaired") for note in done.notes),
        )

    def _missing(self, desired: Desired) -> bool:
        """Not known to be applied."""
        done = self.applied.get(desired.service)
        return done is None or (done.result, done.generation, done.decision) != (
            "ok",
            desired.generation,
            desired.stamp,
        )

    def _proof_age_s(self) -> float:
        """Since it was last asked whether a write would be accepted."""
        return _now() - self._proved_at

    async def _prove(self) -> list[Note]:
        """Every 30 s: would a write be accepted?"""
        if self._proof_age_s() < PROBE_WRITE_S:
            return []
        self._proved_at = _now()
        before, self.unwritable = self.unwritable, ""
        try:
            async with asyncio.timeout(CALL_S):
                await self.sync.driver.probe_write()
        except (OSError, TimeoutError) as error:
            self.unwritable = str(error) or type(error).__name__
        if self.unwritable == before:
            return []
        kind = "alarm" if self.unwritable else "cleared"
        return [Note(kind, "", self.name, f"unwritable: {self.unwritable or before}")]


def _now() -> float:
    return asyncio.get_running_loop().time()
