"""What a leader does beside deciding: ends of overrides, timers that must outlive it, keys that fell silent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from controlplane.documents import OverridesRev, OverrideTimers
from controlplane.fence import Committed, commit, encode_with
from controlplane.store import Compare, Delete, Put, Store
from controlplane.view import View
from controlplane.view.mirror import decision_number

TIMERS_S = 60.0  # what is left of overrides is written at least this often
SWEEP_S = 60.0  # between looks for what to sweep
SILENT_S = 3600.0  # a vantage, node or writer that was silent for so long is swept
KEPT_DECISIONS = 1000
SPARE_DECISIONS = 50  # so that not every decision has to delete one
DELETES = 100  # a transaction
RETRY_S = 1.0


def override_timers(view: View) -> OverrideTimers:
    """What is left of every override that ends, seconds."""
    left = {override.id: view.override_left_s(override.id) for override in view.overrides}
    return OverrideTimers({id_: left_s for id_, left_s in left.items() if left_s is not None})


def silent_keys(view: View, for_s: float) -> list[str]:
    """Keys of vantages (beat and shards), nodes, and what writers reported, that did not move for so long, sorted."""
    silent = _silent_reports(view, for_s)
    for key in sorted(view.mirror.revisions):
        if not key.startswith((view.keys.vantages, view.keys.nodes)):
            continue
        where = view.mirror.vantage(key)
        beat = f"{view.keys.vantages}{where[0]}/beat" if where else key  # a shard moves only when it changes
        if view.age_s(key) >= for_s and (beat not in view.revisions or view.age_s(beat) >= for_s):
            silent.append(key)
    return sorted(silent)


def _silent_reports(view: View, for_s: float) -> list[str]:
    """Of a writer and driver all at once: only the first shard is renewed though nothing happens."""
    groups: dict[str, list[str]] = {}
    for key in view.mirror.revisions:
        if key.startswith(view.keys.applied):
            groups.setdefault(key.rpartition("/")[0], []).append(key)
    return [key for keys in groups.values() if min(map(view.age_s, keys)) >= for_s for key in keys]


class Chores:
    """Every write is fenced with the leader's token, like a commit."""

    def __init__(self, store: Store, view: View, nonce: Callable[[], str]) -> None:
        self._store = store
        self._view = view
        self._nonce = nonce
        self._swept_at: float | None = None

    async def run(self, leading: tuple[Compare, ...]) -> float:
        """Do what is due, under the comparisons of Election.compares(); returns the seconds until more is due."""
        now = asyncio.get_running_loop().time()
        done = await self._end_overrides(leading) and await self._write_timers(leading)
        if self._swept_at is None or now - self._swept_at >= SWEEP_S:
            self._swept_at = now
            done = await self._sweep(leading) and done
        if not done:
            return RETRY_S
        due = [self._swept_at + SWEEP_S - now]
        if self._timed():
            due.append(TIMERS_S - self._view.age_s(self._view.keys.timers_overrides))
        return max(RETRY_S, min(due))

    def _timed(self) -> bool:
        return any(override.for_s is not None for override in self._view.overrides)

    async def _end_overrides(self, leading: tuple[Compare, ...]) -> bool:
        """Delete those that are over, in the way every change of overrides is made: under overrides/rev."""
        view, keys = self._view, self._view.keys
        standing = {override.id for override in view.overrides}
        over = [id_ for id_ in sorted(view.mirror.overrides) if id_ not in standing]
        rev = view.mirror.overrides_rev
        if not over or rev is None:
            return True
        then: list[Put | Delete] = [
            Put(keys.overrides_rev, _rewrite(view, keys.overrides_rev, OverridesRev(rev.next_id, self._nonce()))),
            Put(keys.timers_overrides, _rewrite(view, keys.timers_overrides, override_timers(view))),
            *(Delete(keys.override(id_)) for id_ in over[:DELETES]),
        ]
        compare = [Compare(keys.overrides_rev, mod_rev=view.revisions.get(keys.overrides_rev, 0))]
        return isinstance(await commit(self._store, leading, compare, then), Committed)

    async def _write_timers(self, leading: tuple[Compare, ...]) -> bool:
        view, key = self._view, self._view.keys.timers_overrides
        if not self._timed() or (view.mirror.timers and view.age_s(key) < TIMERS_S):
            return True
        compare = [Compare(key, mod_rev=view.revisions.get(key, 0))]
        put = Put(key, _rewrite(view, key, override_timers(view)))
        return isinstance(await commit(self._store, leading, compare, [put]), Committed)

    async def _sweep(self, leading: tuple[Compare, ...]) -> bool:
        """Silent vantages, nodes and writers; decisions beyond those that are kept."""
        view, keys = self._view, self._view.keys
        gone = silent_keys(view, SILENT_S)
        kept = sorted(view.mirror.decisions, key=decision_number)
        if len(kept) >= KEPT_DECISIONS + SPARE_DECISIONS:
            gone += [keys.decision(id_) for id_ in kept[:-KEPT_DECISIONS]]
        for i in range(0, len(gone), DELETES):
            batch = gone[i : i + DELETES]
            compare = [Compare(key, mod_rev=view.revisions.get(key, 0)) for key in batch]
            outcome = await commit(self._store, leading, compare, [Delete(key) for key in batch])
            if not isinstance(outcome, Committed):
                return False
        return True


def _rewrite(view: View, key: str, document: OverridesRev | OverrideTimers) -> bytes:
    return encode_with(document, view.mirror.unknown.get(key))
