"""One driver brought to one set of desired: read back, compare, write, read back again (DESIGN 4.8, 4.9).

Level-based: a pass looks at what is there and applies the difference, however it got there. What a lost reply
did, who won a race and whether a name was edited by hand all show in the same way, when the fence is read.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from controlplane.calls import Calls, say
from controlplane.dns.fencing import WRITABLE, Relation, relation
from controlplane.dns.table import fence_name
from controlplane.documents import Applied
from controlplane.drivers import Actual, Change, Driver, Fence, Result
from controlplane.notes import Alarms, Note, written
from controlplane.store import StoreError
from policies.world import Answer, Desired

READ_BACK_S = 1.0
READ_ALL_S = 5.0  # patience with a read of all desired, which may be ten thousand
TERMINAL_S = 10.0  # until a refused write is tried again
DEPUTY_S = 2.0  # how long a generation may stay unapplied before the deputy writes it
STUCK_S = 5.0  # how long tries may fail before somebody has to look
FIRST_RETRY_S = 0.1  # doubled with each failed pass, up to READ_BACK_S

Reread = Callable[[], Awaitable[Mapping[str, Desired]]]
# Told of each attempt to write, by service: what was wanted, what became of it, and the seconds that it took.
OnWrite = Callable[[Mapping[str, Change], Mapping[str, Applied], float], None]


class Pass(Struct, frozen=True):
    """What one pass found and did, by service; when the next one is due, if nothing happens before."""

    applied: dict[str, Applied]
    notes: tuple[Note, ...]
    wake_in_s: float


def order(answers: Iterable[Answer]) -> tuple[tuple[str, str, str, int], ...]:
    """Answers as they can be told apart by asking: which site an address is at is not in the DNS."""
    return tuple(sorted((a.region, a.rtype, a.address, a.weight) for a in answers))


def differs(desired: Desired, actual: Actual) -> bool:
    return actual.ttl_s != desired.ttl_s or order(actual.answers) != order(desired.answers)


class Sync:
    """One writer of one driver. `turn`: 0 = the home agent, 1 = its first deputy, ...; `run`: random per start
    of the process; `reread`: a linearizable read of desired as this driver can express it, which may raise
    StoreError. `driver` may be replaced by another one of the same server between two passes."""

    def __init__(self, driver: Driver, run: str, turn: int, reread: Reread, rng: random.Random) -> None:
        self.driver, self.turn = driver, turn
        self.on_write: OnWrite = _unheard
        self.old_until: dict[str, float] = {}  # service -> when the TTL of its last other answer is over
        self._run, self._reread, self._rng = run, reread, rng
        self._calls = Calls()
        self._incarnation = ""
        self._writes = 0
        self._failed = ""  # why something in this pass did
        self._failures = 0  # passes in a row
        self._failing_since = 0.0
        self._since: dict[str, tuple[int, float]] = {}  # service -> generation seen unapplied, and since when
        self._served: dict[str, Actual | None] = {}
        self._well: dict[str, tuple[Desired, Actual, Applied]] = {}  # found as desired; so it is as long as both stay
        self._calm: Mapping[str, Desired] | None = None
        self._doubted = False  # something, in this pass
        self._basis: tuple[str, int, Collection[str]] = ("", 0, ())  # of that
        self._last: dict[str, Desired] = {}  # applied by this writer: never to be undercut
        self._held: dict[str, tuple[tuple[int, str], float, Applied]] = {}  # terminal: what, until when
        self._ahead: dict[str, tuple[Fence, int]] = {}  # confirmed by a linearizable read
        self._alarms = Alarms()
        self._adopted: Collection[str] = ()
        self._adoption = 0
        self._ours: dict[str, int] = {}  # service -> the adoption under which its fence was ours

    def remember(self, ours: Mapping[str, int]) -> None:
        """What a former process of this writer has reported: service -> Applied.adoption."""
        self._ours = {**ours, **self._ours}

    async def bring(
        self, wanted: Mapping[str, Desired], incarnation: str, adopted: Collection[str] = (), adoption: int = 0
    ) -> Pass:
        """One pass over `wanted` (service -> desired with a name). Never raises for what a driver does.

        adopted: incarnations whose records may be taken over; adoption: the revision of that. Each adoption takes a
        record over once: two clusters that adopted each other do not fight.

        `wanted` is not changed any more: what is wanted else is another mapping."""
        now = _now()
        self._adopted, self._adoption = [name for name in adopted if name != incarnation], adoption
        if incarnation != self._incarnation:
            self._incarnation = incarnation
            self._last, self._held, self._ahead = {}, {}, {}
        basis = (incarnation, adoption, self._adopted)
        if self._basis != basis:
            self._basis, self._well, self._calm = basis, {}, None
        if not self.calm(wanted):
            for service, desired in wanted.items():
                self._date(service, desired, now)
        self._calm, self._doubted, self._failed = None, False, ""
        applied: dict[str, Applied] = {}
        notes: list[Note] = []
        for part in _batches(wanted, self.driver.capabilities.batch):
            if applied:
                await asyncio.sleep(0)  # ten thousand names must not hold the loop
            found, told = await self._part(part)
            applied |= found
            notes += told
        if not self._doubted:
            self._calm, self._failures = wanted, 0
            return Pass(applied, (), READ_BACK_S)
        notes += self._alarms.look(self.driver.name, applied)
        for service, said in applied.items():
            if said.result == "ok":
                self._since.pop(service, None)
            adoption = self._ours.get(service, 0)
            if adoption and said.adoption != adoption:
                applied[service] = replace(said, adoption=adoption)
        if self._failed and not self._failures:
            self._failing_since = now
        self._failures = self._failures + 1 if self._failed else 0
        return Pass(applied, tuple(notes), self._wake_in_s(applied))

    def calm(self, wanted: Mapping[str, Desired]) -> bool:
        """Was all of this very mapping found as it should be, when it was looked at last?"""
        return self._calm is wanted

    @property
    def stuck(self) -> str:
        """What has failed in every pass for long by now, or "". What needs somebody to look (`terminal`, ...) is not
        in it: that is said at once."""
        return self._failed if self._failures and _now() - self._failing_since >= STUCK_S else ""

    # ---- one batch

    async def _part(self, wanted: Mapping[str, Desired]) -> tuple[dict[str, Applied], list[Note]]:
        try:
            actual, bugs = await self._read(wanted.values())
        except (OSError, TimeoutError) as error:
            self._failed = reason = say("read", error)
            gone = isinstance(error, ConnectionRefusedError | FileNotFoundError)
            for service, desired in wanted.items():
                self._doubt(service, desired)
            return {s: Applied(0, "transient", reason, gone=gone) for s in wanted}, []
        broken: dict[str, Applied] = {}
        if bugs:
            broken = {s: Applied(0, "terminal", bugs[d.name], d.stamp) for s, d in wanted.items() if d.name in bugs}
        well: dict[str, Applied] = {}
        unsettled: dict[str, Desired] = {}
        for service, desired in wanted.items():
            known, found = self._well.get(service), actual.get(desired.name)
            if known is not None and known[0] is desired and known[1] == found:
                well[service] = known[2]
                continue
            self._doubt(service, desired)
            if service not in broken:
                unsettled[service] = desired
                self._look(service, found)
        if not unsettled and not broken:
            return well, []
        judged = {s: self._judge(d, actual.get(d.name)) for s, d in unsettled.items()}
        judged |= await self._confirm(unsettled, actual, judged)
        changes = {s: j for s, j in judged.items() if isinstance(j, Change)}
        applied = well | broken | {s: j for s, j in judged.items() if isinstance(j, Applied)}
        if not changes:
            return applied, []
        begun = _now()
        became, notes = await self._write(changes)
        self.on_write(changes, became, _now() - begun)
        return applied | became, notes

    async def _read(self, wanted: Iterable[Desired]) -> tuple[Mapping[str, Actual], Mapping[str, str]]:
        return await self._calls.read(self.driver, [desired.name for desired in wanted])

    def _judge(self, desired: Desired, actual: Actual | None) -> Applied | Change:
        """What to say, or what to write."""
        service = desired.service
        found = actual.fence if actual else None
        generation = found.generation if found else 0
        mine = self._mine(desired)
        adopted = self._adoptable(service)
        last = self._last.get(service)
        if (
            last is not None
            and relation(self._mine(last), mine) is Relation.AHEAD
            and relation(found, self._mine(last)) in WRITABLE
        ):
            reason = f"generation {last.generation} was applied before"
            return Applied(generation, "ahead", reason, desired.stamp, last.generation, last.answers)
        match relation(found, mine, adopted):
            case Relation.MANUAL | Relation.FOREIGN as why:
                assert found is not None
                return Applied(generation, why.value, found.text(), desired.stamp)
            case Relation.IMPLAUSIBLE:
                assert found is not None
                return Applied(0, "terminal", _implausible(desired, found), desired.stamp)
            case Relation.AHEAD:
                assert actual is not None and found is not None
                return Applied(generation, "ahead", found.text(), desired.stamp, generation, actual.answers)
            case Relation.SAME:
                assert actual is not None
                if not differs(desired, actual):
                    return self._ok(desired, actual)
                if self.turn:
                    reason = "differs from desired: its home agent repairs that"
                    return Applied(generation, "transient", reason, desired.stamp)
            case _:
                if self._waits(service):
                    reason = "left to the home agent for now"
                    return Applied(generation, "transient", reason, desired.stamp)
        held = self._held.get(service)
        if held is not None and held[0] == _id(desired) and _now() < held[1]:
            return held[2]
        return Change(desired, found, mine, found is not None and found.incarnation in adopted)

    def _adoptable(self, service: str) -> Collection[str]:
        """A record that was ours under this very adoption, and is not any more, was taken away since."""
        return () if self._ours.get(service) == self._adoption else self._adopted

    def _ok(self, desired: Desired, actual: Actual) -> Applied:
        self._last[desired.service] = desired
        closed = {a.site for a in desired.answers} - {a.site for a in desired.answers if a.weight > 0}
        sessions = {site: n for site, n in sorted(actual.sessions.items()) if site in closed}
        adoption = self._ours.get(desired.service, 0)
        said = Applied(desired.generation, "ok", "", desired.stamp, sessions=sessions, adoption=adoption)
        self._well[desired.service] = (desired, actual, said)
        return said

    async def _confirm(
        self, wanted: dict[str, Desired], actual: Mapping[str, Actual], judged: Mapping[str, Applied | Change]
    ) -> dict[str, Applied | Change]:
        """A fence that is ahead of desired is news of a newer desired, unless a linearizable read shows none."""
        again: dict[str, Applied | Change] = {}
        open_ = []
        for service, said in judged.items():
            if isinstance(said, Applied) and said.result == "ahead":
                fence = Fence(self._incarnation, said.ahead_generation, said.reason)
                if self._ahead.get(service) != (fence, wanted[service].generation):
                    open_.append((service, fence))
        if not open_:
            return again
        try:
            async with asyncio.timeout(READ_ALL_S):
                fresh = await self._reread()
        except (StoreError, TimeoutError) as error:
            self._failed = reason = say("cannot tell whether desired is older", error)
            return {service: Applied(fence.generation, "transient", reason) for service, fence in open_}
        for service, fence in open_:
            newer = fresh.get(service)
            if newer is not None and newer.name == wanted[service].name:
                wanted[service] = newer
                again[service] = self._judge(newer, actual.get(newer.name))
                self._since[service] = (newer.generation, self._since[service][1])
            said = again.get(service, judged[service])
            if isinstance(said, Applied) and said.result == "ahead":
                self._ahead[service] = (fence, wanted[service].generation)
        return again

    async def _write(self, changes: Mapping[str, Change]) -> tuple[dict[str, Applied], list[Note]]:
        """Write, then let what is read back decide: a reply that was lost, or came from a server that did not
        mean it, makes no difference."""
        lost = ""
        results: Mapping[str, tuple[Result, str]] = {}
        try:
            results = await self._calls.apply(self.driver, list(changes.values()))
        except (OSError, TimeoutError) as error:
            lost = say("write", error)
        try:
            after, bugs = await self._read([change.desired for change in changes.values()])
        except (OSError, TimeoutError) as error:
            self._failed = lost = lost or say("read back", error)
            return {s: Applied(0, "transient", lost, c.desired.stamp) for s, c in changes.items()}, []
        applied: dict[str, Applied] = {}
        notes: list[Note] = []
        for service, change in changes.items():
            name = change.desired.name
            result, reason = results.get(name, (Result.TRANSIENT, lost or "no result"))
            if name in bugs:
                result, reason = Result.TERMINAL, bugs[name]
            actual = after.get(name)
            applied[service] = said = self._outcome(change, actual, result, reason)
            if said.result == "ok":
                again = relation(change.expect, change.fence) is Relation.SAME
                notes.append(written(self.driver.name, change.desired, again))
        return applied, notes

    def _outcome(self, change: Change, actual: Actual | None, result: Result, reason: str) -> Applied:
        desired = change.desired
        self._look(desired.service, actual)
        found = actual.fence if actual else None
        if actual is not None and found == change.fence:
            if not differs(desired, actual):
                self._held.pop(desired.service, None)
                return self._ok(desired, actual)
            if result is Result.DONE:  # else the driver knows better why; a lost write may have been done in part
                result, reason = Result.TERMINAL, "was written, and reads back differently"
        elif result is Result.DONE:
            result, reason = Result.FENCED, f"overwritten: {found.text() if found else 'no fence'}"
        generation = found.generation if found else 0
        said = Applied(generation, result.value, reason, desired.stamp)
        if result is Result.TERMINAL:
            self._held[desired.service] = (_id(desired), _now() + TERMINAL_S, said)
        else:
            self._failed = f"{desired.service}: {reason or result.value}"
        return said

    # ---- memory

    def _mine(self, desired: Desired) -> Fence:
        self._writes += 1
        op = f"{desired.stamp}.{self._run}-{self._writes}"
        return Fence(self._incarnation, desired.generation, op)

    def _date(self, service: str, desired: Desired, now: float) -> None:
        """Since when has this generation not been seen applied?"""
        known = self._well.get(service)
        if known is not None and known[0] is desired:
            return
        if self._since.get(service, (-1, 0.0))[0] != desired.generation:
            self._since[service] = (desired.generation, now)

    def _doubt(self, service: str, desired: Desired) -> None:
        """It may not be as it was found before."""
        self._doubted = True
        self._well.pop(service, None)
        self._date(service, desired, _now())

    def _waits(self, service: str) -> bool:
        """A deputy whose turn has not come."""
        return self._turn_in_s(service) > 0

    def _turn_in_s(self, service: str) -> float:
        return self._since[service][1] + self.turn * DEPUTY_S - _now()

    def _look(self, service: str, actual: Actual | None) -> None:
        """Count the TTL of an answer from when this server is first seen not to give it any more."""
        if actual is not None and actual.fence is not None and actual.fence.incarnation == self._incarnation:
            self._ours[service] = self._adoption
        new = service not in self._served
        before = self._served.get(service)
        self._served[service] = actual
        if new:
            # Written before this process began, nobody knows when: its predecessor may have just gone.
            old_s = float(actual.ttl_s) if actual else 0.0
        elif before is not None and (actual is None or _told(before) != _told(actual)):
            old_s = float(before.ttl_s)
        else:
            return
        if old_s > 0:
            self.old_until[service] = max(self.old_until.get(service, 0.0), _now() + old_s)

    def _wake_in_s(self, applied: Mapping[str, Applied]) -> float:
        if self._failures:
            wait_s: float = min(FIRST_RETRY_S * 2.0 ** min(self._failures - 1, 9), READ_BACK_S)
            return wait_s * (0.75 + 0.5 * self._rng.random())
        turns = [self._turn_in_s(s) for s, a in applied.items() if a.result != "ok" and self._waits(s)]
        return min([READ_BACK_S, *turns])


def _batches(wanted: Mapping[str, Desired], size: int) -> Iterable[Mapping[str, Desired]]:
    if len(wanted) <= size:
        return [wanted] if wanted else []
    services = list(wanted)
    return [{s: wanted[s] for s in services[start : start + size]} for start in range(0, len(services), size)]


def _unheard(changes: Mapping[str, Change], applied: Mapping[str, Applied], took_s: float) -> None:
    """Nobody wants to know."""


def _told(actual: Actual) -> tuple[int, tuple[tuple[str, str, str, int], ...]]:
    return actual.ttl_s, order(actual.answers)


def _implausible(desired: Desired, found: Fence) -> str:
    # What has no TTL is a pool, and its fence a line in a file of its site's.
    where = f"TXT {fence_name(desired.name)}" if desired.ttl_s else f"the fence of {desired.name}"
    return f"{where} says {found.text()}, which is far beyond generation {desired.generation}: remove it"


def _id(desired: Desired) -> tuple[int, str]:
    return desired.generation, desired.stamp


def _now() -> float:
    return asyncio.get_running_loop().time()
