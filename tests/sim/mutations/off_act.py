"""Switches for what stands in controlplane/: fences, leadership, the view, agents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from math import inf
from typing import Any

from msgspec.structs import replace

import controlplane.api.mutations
import controlplane.leader
from controlplane import election, fence, sync
from controlplane.agent import Agent
from controlplane.dns import fencing
from controlplane.dns.fencing import Relation, refusal
from controlplane.dns.table import Table
from controlplane.drivers import Actual, Change, Result
from controlplane.fence import Committed, Outcome
from controlplane.store import KV, Compare, Delete, Put, Store, Txn, TxnResult
from controlplane.sync import Sync, differs
from controlplane.view import View
from controlplane.view.claims import Claims
from controlplane.view.eyes import Eye
from controlplane.view.pulse import Pulse
from policies.safety import Preflight
from policies.world import Slice
from tests.sim.mutations.swap import Reached, everywhere, swapped

Commit = Callable[..., Awaitable[Outcome]]


class _Unfenced:
    """A store to which the comparisons of the leader key are not sent."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key

    async def get(self, key: str) -> KV | None:
        return await self._store.get(key)

    async def txn(self, txn: Txn) -> TxnResult:
        return await self._store.txn(Txn(tuple(c for c in txn.compare if c.key != self._key), txn.then))


def token() -> AbstractContextManager[Reached]:
    """Commits do not compare the leader key."""

    def make(commit: Commit) -> Commit:
        async def off(
            store: Store, leading: Sequence[Compare], compare: Sequence[Compare], then: Sequence[Put | Delete]
        ) -> Outcome:
            return await commit(_Unfenced(store, leading[0].key), leading, compare, then)

        return off

    return swapped(controlplane.leader, "commit", make)


def what_was_read() -> AbstractContextManager[Reached]:
    """Commits compare the leader key alone, and nothing that the decision was made from."""

    def make(commit: Commit) -> Commit:
        async def off(
            store: Store, leading: Sequence[Compare], compare: Sequence[Compare], then: Sequence[Put | Delete]
        ) -> Outcome:
            return await commit(store, leading, (), then)

        return off

    return swapped(controlplane.leader, "commit", make)


def unknown_outcome() -> AbstractContextManager[Reached]:
    """No reply to a commit is taken for a yes."""

    def make(_: object) -> Commit:
        async def off(store: Store, then: Sequence[Put | Delete]) -> Outcome:
            return Committed(0)

        return off

    return swapped(fence, "_look_for", make)


def _relation(taken: Relation) -> AbstractContextManager[Reached]:
    """Fences of this relation count as older ones."""

    def make(relation: Callable[..., Relation]) -> Callable[..., Relation]:
        def off(*args: Any) -> Relation:
            found = relation(*args)
            return Relation.OLDER if found is taken else found

        return off

    return everywhere(fencing.relation, make)


def order() -> AbstractContextManager[Reached]:
    return _relation(Relation.AHEAD)


def order_in_agents() -> AbstractContextManager[Reached]:
    """Agents write over what is newer, if their driver lets them."""

    def make(relation: Callable[..., Relation]) -> Callable[..., Relation]:
        def off(*args: Any) -> Relation:
            found = relation(*args)
            return Relation.OLDER if found is Relation.AHEAD else found

        return off

    return swapped(sync, "relation", make)


def order_in_drivers() -> AbstractContextManager[Reached]:
    """Drivers compare, and refuse no order."""
    return everywhere(refusal, lambda _: lambda change: "")


def foreign() -> AbstractContextManager[Reached]:
    return _relation(Relation.FOREIGN)


def manual() -> AbstractContextManager[Reached]:
    return _relation(Relation.MANUAL)


def compare_and_set() -> AbstractContextManager[Reached]:
    """A name server takes an update whatever its fence is by now."""

    def make(_: object) -> Callable[[Table, Change], tuple[Result, str]]:
        def off(self: Table, change: Change) -> tuple[Result, str]:
            if refused := refusal(change):
                return Result.FENCED, refused
            self.edit(change.desired.name, Actual(change.fence, change.desired.ttl_s, change.desired.answers))
            return Result.DONE, ""

        return off

    return swapped(Table, "apply", make)


def deputy() -> AbstractContextManager[Reached]:
    """The turn of who is not at home never comes."""

    def make(turn_in_s: Callable[[Sync, str], float]) -> Callable[[Sync, str], float]:
        def off(self: Sync, service: str) -> float:
            return 3600.0 if self.turn else turn_in_s(self, service)

        return off

    return swapped(Sync, "_turn_in_s", make)


def standing_still() -> AbstractContextManager[Reached]:
    """An agent works on with what it knows, cut off from the store or not."""

    def make(_: object) -> Callable[[Agent], Awaitable[bool]]:
        async def off(self: Agent) -> bool:
            return self._routes is not None and bool(self._source.incarnation)

        return off

    return swapped(Agent, "_ready", make)


def repair() -> AbstractContextManager[Reached]:
    """Answers under the right fence are never looked at."""
    return everywhere(differs, lambda _: lambda desired, actual: False)


def takeover_of_answers() -> AbstractContextManager[Reached]:
    """What agents say of fences that are ahead is not heard."""
    return swapped(Claims, "highest", lambda _: lambda self, service, desired, config: None)


def _slice(change: Callable[[Slice], Slice]) -> AbstractContextManager[Reached]:
    def make(slice_: Callable[[View, str], Slice]) -> Callable[[View, str], Slice]:
        return lambda self, service: change(slice_(self, service))

    return swapped(View, "slice", make)


def rewound_waits() -> AbstractContextManager[Reached]:
    """A restored store is like any other."""
    return _slice(lambda slice_: replace(slice_, rewound=False))


def freeze() -> AbstractContextManager[Reached]:
    return _slice(lambda slice_: replace(slice_, freeze=""))


def current() -> AbstractContextManager[Reached]:
    """Any own beat that comes back counts as one that was just sent."""

    def make(returned: Callable[[Pulse, Any], None]) -> Callable[[Pulse, Any], None]:
        def off(self: Pulse, beat: Any) -> None:
            self._sent[beat.n] = self.now()
            returned(self, beat)

        return off

    return swapped(Pulse, "returned", make)


def resigning() -> AbstractContextManager[Reached]:
    """A leader without a current view stays leader."""
    return swapped(election, "RESIGN_S", lambda _: inf)


def clock_suspect() -> AbstractContextManager[Reached]:
    return swapped(Pulse, "clock_suspect", lambda _: property(lambda self: False))


def moving_beat() -> AbstractContextManager[Reached]:
    """A beat that was seen moving once is fresh for ever."""

    def make(_: object) -> Callable[[Eye, float, float], bool]:
        def off(self: Eye, now: float, freshness_s: float) -> bool:
            fresh = self.moved_at is not None
            changed, self.fresh = fresh != self.fresh, fresh
            return changed

        return off

    return swapped(Eye, "look", make)


def listed_shards() -> AbstractContextManager[Reached]:
    """Every shard of a vantage counts, whatever run and number its beat names."""

    def make(take: Callable[..., set[str]]) -> Callable[..., set[str]]:
        def off(self: Eye, beat: Any, shards: Any, now: float) -> set[str]:
            if beat is None:
                return take(self, beat, shards, now)
            taken = {name: replace(shard, run=beat.run) for name, shard in shards.items()}
            return take(self, replace(beat, shards={n: s.n for n, s in taken.items()}), taken, now)

        return off

    return swapped(Eye, "take", make)


def preflight() -> AbstractContextManager[Reached]:
    """Guards say what they see, and refuse nothing."""

    def make(preflight: Callable[..., Preflight]) -> Callable[..., Preflight]:
        def off(*args: Any) -> Preflight:
            found = preflight(*args)
            findings = tuple(replace(f, level="warning") if f.level == "refused" else f for f in found.findings)
            return replace(found, findings=findings, refused=False)

        return off

    return swapped(controlplane.api.mutations, "preflight", make)
