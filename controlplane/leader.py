"""view -> decide -> commit (DESIGN 2, 4.8): what the controller that holds the leader key does.

A pass folds over the services in order of priority and decides those of which an input changed or a timer fell
due; what it wants written is committed in fenced transactions, forced moves first. Nothing is remembered between
passes that could not be read again: a new leader starts from its own warm view.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from controlplane.chores import Chores, override_timers
from controlplane.documents import DecisionDoc, GovernorDoc
from controlplane.fence import Committed, Conflict, Deposed, Outcome, commit, encode_with
from controlplane.notes import decision_of
from controlplane.signal import Signal
from controlplane.store import Compare, Delete, Put, Store
from controlplane.telemetry.context import traced
from controlplane.view import View
from policies.decide import decide_service, spend
from policies.frame import Frame
from policies.world import Carried, Slice, Step

SERVICES_A_COMMIT = 60
SLICE_S = 0.05  # of a pass, before others get a turn
IDLE_S = 60.0  # between passes when nothing falls due
STANDBY_S = 0.2  # how soon a leader notices that its view is current
FOLLOW_S = 1.0  # between looks whether this controller leads; of each election it is told
SETTLE_S = 1.0  # patience until an own commit is seen in the view
RETRY_S = 0.1


class Leadership(Protocol):
    """What Election offers. token: the mod revision of the leader key while this controller may act on it; changed: set
    when it wins or ends."""

    @property
    def token(self) -> int | None: ...

    @property
    def changed(self) -> Signal: ...

    def compares(self) -> tuple[Compare, ...]: ...

    def depose(self, token: int) -> None: ...


class Memo(Struct):
    """What a service's last decision was based on, beside what the view calls dirty."""

    rev: int
    room: dict[str, float]
    due_at: float


class Draft(Struct, frozen=True):
    """A step that wants to be written, and what it was decided from."""

    step: Step
    input: Slice
    carried: Carried
    read_rev: int
    rank: tuple[bool, bool]  # forced moves first, then other moves, then what only has to be remembered


class Basis(Struct, frozen=True):
    """What a whole pass is based on; a commit compares it."""

    token: int
    leading: tuple[Compare, ...]
    compare: tuple[Compare, ...]
    started_at: float
    carried: Carried


class Leader:
    """`wall` reads the wall clock (seconds since 1970), for people; `rng` makes nonces."""

    def __init__(
        self,
        store: Store,
        view: View,
        election: Leadership,
        rng: random.Random,
        wall: Callable[[], float],
        on_commit: Callable[[DecisionDoc, float, float], None] | None = None,
    ) -> None:
        self._store = store
        self._view = view
        self._election = election
        self._rng = rng
        self._wall = wall
        # Told of each committed decision, of the seconds since its pass began, and of those that the commit took.
        self._on_commit = on_commit
        self._chores = Chores(store, view, self._nonce)
        self._memo: dict[str, Memo] = {}
        self._redo: set[str] = set()  # what a commit did not write
        self._again = False  # there is something to write beside services
        self._led: int | None = None  # the token of the last pass
        self._last_id = 0
        self.passes = 0

    async def run(self) -> None:
        """Lead whenever this controller may; until cancelled."""
        while True:
            count, token = self._election.changed.count, self._election.token
            if token is None or not self._view.current:
                await self._election.changed.wait(FOLLOW_S if token is None else STANDBY_S, count)
                continue
            if token != self._led:
                self._memo.clear()
                self._led = token
            wake_s = await self._pass(token)
            if self._election.token != token:
                continue
            chores_s = await self._chores.run(self._election.compares())
            await self._rest(min(wake_s, chores_s))

    async def _rest(self, for_s: float) -> None:
        """Until an input changes, something falls due, or this controller may no longer lead."""
        until = _now() + for_s
        if self._redo or self._again:
            await asyncio.sleep(RETRY_S)
            return
        while self._election.token == self._led and not self._view.votes.dirty:
            left_s = until - _now()
            if left_s <= 0:
                return
            await self._view.changed(min(left_s, 1.0))

    # --- a pass -----------------------------------------------------------------------------------------

    async def _pass(self, token: int) -> float:
        """Decide what has to be decided, commit it; returns the seconds until something falls due."""
        self.passes += 1
        view = self._view
        dirty = view.take_dirty() | self._redo
        self._redo, self._again = set(), False
        basis = self._basis(token)
        drafts: list[Draft] = []
        carried = basis.carried
        frames, turn = view.frames, _now()
        for service, frame in frames.items():
            carried = self._visit(service, frame, carried, dirty, drafts)
            if _now() - turn > SLICE_S:
                await asyncio.sleep(0)
                turn = _now()
                if view.frames is not frames:  # a new configuration, on which nothing of this would be committed
                    self._redo.update(view.frames)
                    return 0.0
        drafts.sort(key=lambda draft: draft.rank)
        await self._commit_all(basis, carried, drafts)
        for gone in [service for service in self._memo if service not in frames]:
            del self._memo[gone]
        due_at = min((memo.due_at for memo in self._memo.values()), default=_now() + IDLE_S)
        return max(0.0, min(IDLE_S, due_at - _now()))

    def _basis(self, token: int) -> Basis:
        view = self._view
        compare = tuple(
            Compare(key, mod_rev=view.revisions.get(key, 0)) for key in (view.keys.config, view.keys.overrides_rev)
        )
        return Basis(token, self._election.compares(), compare, _now(), view.carried())

    def _visit(self, service: str, frame: Frame, carried: Carried, dirty: set[str], drafts: list[Draft]) -> Carried:
        """One step of the fold: decide, or pass by a service for which nothing has changed."""
        view, now = self._view, _now()
        rev = view.revisions.get(view.keys.service(service), 0)
        memo = self._memo.get(service)
        if (
            memo is not None
            and service not in dirty
            and now < memo.due_at
            and memo.rev == rev
            and memo.room == carried.room
        ):
            desired = view.desired.get(service)
            return spend(frame, desired, carried) if desired else carried
        slice_ = view.slice(service)
        step = decide_service(frame, slice_, carried)
        due_at = now + (IDLE_S if step.wake_in_s is None else step.wake_in_s)
        self._memo[service] = Memo(rev, carried.room, due_at)
        if step.desired is not None:
            forced = any(event.forced for event in step.events)
            rank = (not (forced and step.new_generation), not step.new_generation)
            drafts.append(Draft(step, slice_, carried, rev, rank))
        return step.carried

    # --- commits ----------------------------------------------------------------------------------------

    async def _commit_all(self, basis: Basis, carried: Carried, drafts: list[Draft]) -> None:
        """In batches; what was not written is decided anew."""
        batches = [drafts[i : i + SERVICES_A_COMMIT] for i in range(0, len(drafts), SERVICES_A_COMMIT)]
        more = self._timers(carried, moved=carried.moved != basis.carried.moved, committing=bool(drafts))
        if more and not batches:
            batches = [[]]
        seen_rev = 0
        for n, batch in enumerate(batches):
            extra = more if n == 0 else []
            outcome = await self._commit(basis, batch, extra)
            if isinstance(outcome, Committed):
                seen_rev = outcome.rev
                continue
            for late in batches[n:]:
                self._redo.update(draft.input.service for draft in late)
            self._again = bool(extra)
            if isinstance(outcome, Deposed):
                self._election.depose(basis.token)
            break
        if seen_rev:
            await self._seen(seen_rev)

    async def _commit(self, basis: Basis, batch: list[Draft], extra: list[tuple[Compare, Put]]) -> Outcome:
        if self._election.token != basis.token or not self._view.current:
            return Conflict("may not act any more")
        keys = self._view.keys
        compare = [*basis.compare, *(compare for compare, _ in extra)]
        stories: list[Put | Delete] = []
        states: list[Put | Delete] = []
        decisions: list[DecisionDoc] = []
        for draft in batch:
            document = self._document(basis, draft)
            key = keys.service(document.service)
            compare.append(Compare(key, mod_rev=draft.read_rev))
            states.append(Put(key, encode_with(document.desired, self._view.mirror.unknown.get(key))))
            if document.id:
                compare.append(Compare(keys.decision(document.id), mod_rev=0))
                stories.append(Put(keys.decision(document.id), encode_with(document, None)))
                decisions.append(document)
        then = [*stories, *states, *(put for _, put in extra)]
        begun = _now()
        outcome = await commit(self._store, basis.leading, compare, then)
        if isinstance(outcome, Committed) and self._on_commit:
            took_s, commit_s = _now() - basis.started_at, _now() - begun
            for document in decisions:
                self._on_commit(document, took_s, commit_s)
        return outcome

    def _document(self, basis: Basis, draft: Draft) -> DecisionDoc:
        """The decision's record; without id if it need not be told (a timer written, a verdict without effect)."""
        step = draft.step
        assert step.desired is not None
        before = draft.input.desired.refused if draft.input.desired else ""
        refused = step.desired.refused not in (before, "hold")  # a rate limit that is met is no news
        id_ = self._next_id() if step.events or step.new_generation or refused else ""
        # A generation keeps the id of the decision that made it: that is what the fence in DNS says.
        nonce = self._nonce()
        made = {"decision": id_, "nonce": nonce} if step.new_generation else {}
        document = DecisionDoc(
            id=id_,
            nonce=nonce,
            service=draft.input.service,
            at=datetime.fromtimestamp(self._wall(), UTC).isoformat(timespec="milliseconds"),
            node=self._view.pulse.me.node,
            token=basis.token,
            config_rev=step.desired.config_rev,
            input=draft.input,
            carried=draft.carried,
            desired=replace(step.desired, token=basis.token, **made),
            events=step.events,
            refused=step.refused,
            new_generation=step.new_generation,
        )
        return traced(document) if step.new_generation else document

    def _timers(self, carried: Carried, moved: bool, committing: bool) -> list[tuple[Compare, Put]]:
        """What has to outlive this leader, beside desired: the governor's window, overrides, the rewound mark."""
        view, keys = self._view, self._view.keys
        found: list[tuple[Compare, Put]] = []
        old = view.mirror.governor
        rewound = view.rewound or self._ahead()
        if committing or moved or rewound != (old.rewound if old else ""):
            key = keys.timers_governor
            new = GovernorDoc(carried.moved, carried.window_left_s, rewound, view.highest_rev)
            value = encode_with(new, view.mirror.unknown.get(key))
            found.append((Compare(key, mod_rev=view.revisions.get(key, 0)), Put(key, value)))
        if committing and any(o.for_s is not None for o in view.overrides):
            key = keys.timers_overrides
            value = encode_with(override_timers(view), view.mirror.unknown.get(key))
            found.append((Compare(key, mod_rev=view.revisions.get(key, 0)), Put(key, value)))
        return found

    def _ahead(self) -> str:
        for service in self._view.claimed_ahead():
            ahead = self._view.ahead(service)
            if ahead is not None and not self._inherits(service, ahead.generation):
                return f"{service} is served generation {ahead.generation}, which this store does not know"
        return ""

    def _inherits(self, service: str, generation: int) -> bool:
        """Has the service a name that another one had before, and is that the generation found? Then nothing was
        lost: the name goes on from there. So it is where this store tells the decision itself."""
        desired, decisions = self._view.desired, self._view.mirror.decisions
        name = desired[service].name if service in desired else ""
        if any(d.name == name and d.generation >= generation for s, d in desired.items() if s != service):
            return True
        made_by = self._view.ahead_by(service)
        told = {stamp: decisions.get(decision_of(stamp)) for stamp in made_by}
        return bool(told) and all(doc is not None and doc.desired.stamp == stamp for stamp, doc in told.items())

    async def _seen(self, rev: int) -> None:
        """Wait until the view shows an own commit, so that the next pass does not decide from before it."""
        until = _now() + SETTLE_S
        while self._view.mirror.rev < rev and _now() < until:
            await self._view.batches.wait(until - _now())

    def _next_id(self) -> str:
        """Last seen + 1; the commit compares that there is none of that name."""
        self._last_id = max(self._last_id, self._view.mirror.last_decision) + 1
        return f"d-{self._last_id}"

    def _nonce(self) -> str:
        return f"{self._rng.getrandbits(64):016x}"


def _now() -> float:
    return asyncio.get_running_loop().time()
