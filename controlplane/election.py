"""Fenced leadership over a Store (DESIGN 4.8). No leases: silence is judged on the candidate's own clock, and a
wrong judgement is harmless, because everything that a leader does is compared with its token.

    state      event                                                      -> state
    FOLLOWING  leader key absent, view current                            -> attempt
    FOLLOWING  leader key and beat unmoved for 2 s, view current for 1 s  -> attempt
    FOLLOWING  leader key names an own attempt that was given up          -> LEADING
    attempt    won -> LEADING    lost -> FOLLOWING    outcome unknown     -> RESOLVING
    RESOLVING  leader key read: it names the attempt -> LEADING    else   -> FOLLOWING
    LEADING    beat refused, newer leader key seen, or told by a commit   -> FOLLOWING
    LEADING    view not current for 2 s (acts no more)                    -> FOLLOWING
    LEADING    may not lead any more: deletes its keys                    -> FOLLOWING
    any        stop(): a leader deletes its keys                          -> STOPPED

The token is the mod revision of the leader key's acquisition; it is written nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Protocol

import msgspec

from controlplane.documents import Keys, LeaderBeat, LeaderDoc, SchemaTooNew, decode, encode
from controlplane.patience import Patience
from controlplane.signal import Signal
from controlplane.store import KV, Compare, Delete, Put, Store, StoreError, Txn, TxnResult, Unavailable

BEAT_S = 0.4  # between a leader's beats, and between a candidate's attempts
SILENCE_S = 2.0  # without a beat: the leader is gone
CURRENT_S = 1.0  # a thief's view must have been current for this long
RESIGN_S = 2.0  # without a current view a leader stops acting
TRY_S = 1.0  # patience with one call
TICK_S = 0.1
GIVEN_UP = 8  # attempts that are remembered, should they land late


class State(StrEnum):
    FOLLOWING = "following"
    RESOLVING = "resolving"
    LEADING = "leading"
    STOPPED = "stopped"


class LeaderView(Protocol):
    """What election asks of a controller's view."""

    @property
    def leader(self) -> LeaderDoc | None: ...

    @property
    def leadership(self) -> Signal:
        """Set when the leader key moves."""
        ...

    @property
    def leader_moved_at(self) -> float:
        """When the leader key or its beat moved last, as seen here: a reading of the loop's clock."""
        ...

    @property
    def revisions(self) -> Mapping[str, int]:
        """Key -> mod revision; absent = 0."""
        ...

    @property
    def current_for_s(self) -> float:
        """How long the view has been current without a break; 0 = it is not (a stalled loop's is not)."""
        ...

    @property
    def may_lead(self) -> bool:
        """False while the wall clock is suspect, or a document cannot be read."""
        ...


class Election:
    """One controller's candidacy. `run_id` makes a random id for each attempt, by which an unknown outcome is
    recognised; `on_change` is told of each new state and why."""

    def __init__(
        self,
        store: Store,
        keys: Keys,
        node: str,
        run_id: Callable[[], str],
        view: LeaderView,
        on_change: Callable[[State, str], None] | None = None,
    ) -> None:
        self.state = State.FOLLOWING
        self.why = "starting"
        self.changed = Signal()  # of state
        self._store = store
        self._keys = keys
        self._node = node
        self._run_id = run_id
        self._view = view
        self._on_change = on_change
        self._token = 0
        self._mine = b""  # the leader document of the present attempt or leadership
        self._n = 0
        self._beat_due = 0.0
        self._current_at = 0.0  # when the view was last seen current
        self._following_since = 0.0
        self._again_at = 0.0
        self._given_up: list[str] = []
        self._stopping = False
        self._ended: asyncio.Event | None = None  # while run() runs

    @property
    def token(self) -> int | None:
        """The token while this controller leads and may act on it, else None.

        Judged when asked: a process that was paused sees None before its own loops had a turn.
        """
        if self.state is not State.LEADING or self._lost_view_for_s() >= RESIGN_S or self._newer():
            return None
        return self._token

    def compares(self) -> tuple[Compare, ...]:
        """What every effect of this leader must compare in the store. The document is compared too: in a store
        that was restored from a backup, a revision may come up a second time."""
        return (
            Compare(self._keys.leader, mod_rev=self._token),
            Compare(self._keys.leader, value=self._mine),
        )

    def depose(self, token: int) -> None:
        """Told by whoever commits: somebody else holds the leader key. Ignored for an older token."""
        if self.state is State.LEADING and token == self._token:
            self._follow("deposed: a commit was refused")

    async def run(self) -> None:
        """Stand for election until stop() or cancelled. A cancelled leader stops acting, and leaves its keys
        to be found silent."""
        now = _now()
        self._following_since = self._again_at = self._current_at = now
        self._ended = asyncio.Event()
        try:
            while not self._stopping:
                count = self._view.leadership.count
                await self._step()
                await self._view.leadership.wait(self._pause_s(), count)
            if self.state is State.LEADING:
                await self._release("stopped")
        finally:
            self._enter(State.STOPPED, self.why if self._stopping else "cancelled")
            self._ended.set()

    async def stop(self) -> None:
        """End run() cleanly: a leader deletes its keys, so that another can follow at once."""
        self._stopping = True
        if self._ended is not None:
            self._view.leadership.set()  # run() waits for it
            await self._ended.wait()

    # --- one step ---

    async def _step(self) -> None:
        if self.state is State.RESOLVING:
            await self._resolve()
        elif self.state is State.LEADING:
            await self._lead()
        else:
            await self._stand()

    async def _lead(self) -> None:
        if self._lost_view_for_s() >= RESIGN_S:
            self._follow(f"resigned: view not current for {RESIGN_S:g} s")
        elif self._newer():
            self._follow("deposed: there is a newer leader")
        elif not self._view.may_lead:
            await self._release("resigned: may not lead")
        elif _now() >= self._beat_due:
            self._beat_due = _now() + BEAT_S
            try:
                result = await self._write(self.compares(), (self._next_beat(),))
            except (StoreError, TimeoutError):
                self._beat_due = 0.0  # whether it was written or not: the next one will say
            else:
                if not result.ok:
                    self._follow("deposed: the beat was refused")

    async def _stand(self) -> None:
        now, view = _now(), self._view
        seen = (view.revisions.get(self._keys.leader, 0), view.revisions.get(self._keys.leader_beat, 0))
        silent_s = now - self._leader_moved_at()
        own = view.leader is not None and view.leader.run in self._given_up
        if seen[0] and silent_s < SILENCE_S and not own:
            return
        self._lost_view_for_s()
        if not view.may_lead or view.current_for_s <= 0 or now < self._again_at:
            return
        if seen[0] == 0:
            await self._attempt((Compare(self._keys.leader, mod_rev=0),), "nobody led")
        elif view.leader is not None and own:
            self._mine = encode(view.leader)
            self._won(seen[0], "an earlier attempt had succeeded after all")
        elif silent_s >= SILENCE_S and view.current_for_s >= CURRENT_S:
            both = (
                Compare(self._keys.leader, mod_rev=seen[0]),
                Compare(self._keys.leader_beat, mod_rev=seen[1]),
            )
            await self._attempt(both, f"the leader was silent for {silent_s:.1f} s")

    async def _attempt(self, compare: tuple[Compare, ...], why: str) -> None:
        run = self._run_id()
        self._mine = encode(LeaderDoc(self._node, run))
        self._given_up = [*self._given_up, run][-GIVEN_UP:]  # until it is known to have failed
        self._again_at = _now() + BEAT_S
        try:
            result = await self._write(compare, (Put(self._keys.leader, self._mine), self._next_beat()))
        except Unavailable:
            self._given_up.remove(run)
        except (StoreError, TimeoutError):
            self._enter(State.RESOLVING, f"{why}; outcome of the attempt unknown")
        else:
            if result.ok:
                self._won(result.rev, why)
            else:
                self._given_up.remove(run)

    async def _resolve(self) -> None:
        """Read what became of the attempt. It may still land after this: then it is found in the view."""
        try:
            async with asyncio.timeout(TRY_S):
                kv = await self._store.get(self._keys.leader)
        except (StoreError, TimeoutError):
            return
        if kv is not None and kv.value == self._mine:
            self._won(kv.mod_rev, "the attempt had succeeded")
        else:
            self._again_at = _now() + BEAT_S
            self._enter(State.FOLLOWING, f"the attempt had not succeeded: {_holder(kv)}")

    async def _release(self, why: str) -> None:
        """Stop acting, then delete the keys if they still are our own; whether that worked does not matter."""
        compares = self.compares()
        self._follow(why)
        try:
            await self._write(compares, (Delete(self._keys.leader), Delete(self._keys.leader_beat)))
        except (StoreError, TimeoutError) as error:
            self.why = f"{why}; keys left behind: {error}"

    # --- inside ---

    def _won(self, token: int, why: str) -> None:
        self._token = token
        self._given_up.clear()
        self._beat_due = _now() + BEAT_S
        self._enter(State.LEADING, why)

    def _follow(self, why: str) -> None:
        self._following_since = _now()
        self._enter(State.FOLLOWING, why)

    def _enter(self, state: State, why: str) -> None:
        changed = state is not self.state
        self.state, self.why = state, why
        if changed:
            self.changed.set()
        if changed and self._on_change is not None:
            self._on_change(state, why)

    def _lost_view_for_s(self) -> float:
        """Since the view was last seen current."""
        now = _now()
        if self._view.current_for_s > 0:
            self._current_at = now
        return now - self._current_at

    def _newer(self) -> bool:
        """The view may not show the own acquisition yet, but a later one ends it."""
        return self._view.revisions.get(self._keys.leader, 0) > self._token

    def _leader_moved_at(self) -> float:
        """As far as it counts for a candidate."""
        return max(self._following_since, self._view.leader_moved_at)

    def _pause_s(self) -> float:
        """Until something may be due, unless the leader's keys move before that."""
        if self.state is State.LEADING:
            return max(self._beat_due - _now(), TICK_S / 4)
        leader = self._view.leader
        if self.state is not State.FOLLOWING or leader is None or leader.run in self._given_up:
            return TICK_S
        silent_at = self._leader_moved_at() + SILENCE_S
        return silent_at - _now() if silent_at > _now() else TICK_S

    def _next_beat(self) -> Put:
        self._n += 1
        return Put(self._keys.leader_beat, encode(LeaderBeat(self._node, self._n)))

    async def _write(self, compare: tuple[Compare, ...], then: tuple[Put | Delete, ...]) -> TxnResult:
        with Patience(TRY_S):
            return await self._store.txn(Txn(compare, then))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _holder(kv: KV | None) -> str:
    if kv is None:
        return "nobody leads"
    try:
        return f"{decode(LeaderDoc, kv.value).node} leads"
    except (msgspec.DecodeError, SchemaTooNew):
        return "an unreadable document is there"
