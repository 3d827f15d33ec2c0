"""fenced: nobody but the holder of the leader key commits, no generation goes back, nothing newer is overwritten
(DESIGN 4.8). Pure."""

from __future__ import annotations

from math import inf

from msgspec import Struct
from msgspec.structs import replace

from chaos.history import Answered, Committed, Edited, Faulted, History, Operated, Rewound, Wrote
from chaos.report import Invariant
from chaos.scenario import Scenario
from chaos.trace import Findings, hands_off
from controlplane.dns import DRIVERS


def fenced(scenario: Scenario, history: History) -> Invariant:
    """Checks every commit, every write that reached a name server, and every fence that one shows."""
    found = Findings("fenced", "no commit and no write of a name server is recorded")
    store, servers = _Store(found), _Servers(scenario, history, found)
    for record in history.records:
        if isinstance(record, Committed):
            store.commit(record)
        elif isinstance(record, Rewound):
            store.rewind(record)
            servers.rewind()
        else:
            servers.take(record)
    return found.invariant()


class _Store:
    def __init__(self, found: Findings) -> None:
        self._found = found
        self._generation: dict[str, int] = {}  # service -> what stands there
        self._states: list[tuple[float, dict[str, int]]] = []  # from when on it was what

    def commit(self, record: Committed) -> None:
        self._found.looked()
        decision, at = record.decision, record.at
        who = f"{decision.id} of {decision.service} by {decision.node}"
        if record.holder_token != decision.token or record.holder != decision.node:
            holder = f"{record.holder} with token {record.holder_token}" if record.holder else "nobody"
            self._found.wrong(
                at, f"{who} was committed with token {decision.token}, while {holder} held the leader key"
            )
        self._order(record, who)
        self._generation[decision.service] = decision.desired.generation
        self._states.append((at, dict(self._generation)))

    def _order(self, record: Committed, who: str) -> None:
        decision, at = record.decision, record.at
        held = self._generation.get(decision.service)
        if held is None:
            return
        made, read = decision.desired.generation, decision.input.desired
        if read is None or read.generation != held:
            seen = read.generation if read else 0
            self._found.wrong(at, f"{who} was decided from generation {seen}, while {held} stood in the store")
        if decision.new_generation and made <= held:
            self._found.wrong(at, f"{who} made generation {made}, though {held} was there already")
        elif not decision.new_generation and made != held:
            self._found.wrong(at, f"{who} made no new generation, and yet went from {held} to {made}")

    def rewind(self, record: Rewound) -> None:
        """The store is what it was then, whatever it was between then and now."""
        past = [state for at, state in self._states if at <= record.to]
        self._generation = dict(past[-1]) if past else {}
        self._states.append((record.at, dict(self._generation)))


class _Fence(Struct):
    """What stood at a name after the last write that we know of. incarnation "" = nothing known."""

    incarnation: str = ""
    generation: int = 0
    decision: str = ""
    hands_off: str = ""  # manual | foreign: what may not be overwritten
    shown: int | None = None
    rewound: bool = False  # the store has been, since


class _Servers:
    def __init__(self, scenario: Scenario, history: History, found: Findings) -> None:
        self._scenario = scenario
        self._found = found
        self._fences: dict[tuple[str, str], _Fence] = {}
        self._fenced_at: dict[tuple[str, str], tuple[float, str]] = {}
        self._adopted_at = _adopted_at(scenario, history)
        self._forgetful = {driver.site for driver in history.config.dns if DRIVERS[driver.driver].in_process}

    def rewind(self) -> None:
        for fence in self._fences.values():
            fence.rewound = True

    def take(self, record: object) -> None:
        if isinstance(record, Wrote):
            self._write(record)
        elif isinstance(record, Edited):
            off = hands_off(self._scenario, record)
            kind = ("manual" if record.manual else "foreign") if off else ""
            self._fences[record.server, record.service] = _Fence(hands_off=kind)
            self._fenced_at.pop((record.server, record.service), None)
        elif isinstance(record, Answered) and "/" not in record.server:
            self._answer(record)

    def _write(self, record: Wrote) -> None:
        self._found.looked()
        key = (record.server, record.service)
        if record.result != "ok":
            if record.result == "fenced":
                self._fenced_at[key] = (record.at, record.writer)
            return
        self._fenced_at.pop(key, None)
        what = f"{record.service} at {record.server}: {record.writer} wrote generation {record.generation}"
        fence = self._fences.get(key, _Fence())
        if record.server in self._forgetful and not record.held_generation and not record.held_op:
            # It died with its process, and what somebody had put there by hand with it. After a restore nobody may be
            # left who knows what the store had after the backup, either.
            fence = _Fence() if fence.rewound else replace(fence, hands_off="")
        if fence.hands_off == "manual" or record.held_op.startswith("manual"):
            self._found.wrong(record.at, f"{what} over a fence that was put there by hand")
        elif fence.hands_off == "foreign" and record.at < self._adopted_at:
            self._found.wrong(record.at, f"{what} over a foreign fence that nobody has adopted")
        self._order(record, fence, what)
        self._fences[key] = _Fence(
            record.incarnation, record.generation, _decision(record.op), shown=max(record.generation, fence.shown or 0)
        )

    def _order(self, record: Wrote, fence: _Fence, what: str) -> None:
        known = fence.incarnation == record.incarnation
        held = max(record.held_generation, fence.generation if known else 0)
        if record.generation < held:
            self._found.wrong(record.at, f"{what} over generation {held}")
        elif record.generation == held:
            stood = _decision(record.held_op) if record.held_generation == held and record.held_op else fence.decision
            if stood and stood != _decision(record.op):
                self._found.wrong(record.at, f"{what} of {_decision(record.op)} over the same generation of {stood}")

    def _answer(self, record: Answered) -> None:
        key = (record.server, record.service)
        fence = self._fences.setdefault(key, _Fence())
        if record.generation is None or not record.reachable:
            return
        if fence.hands_off == "foreign":
            return
        self._found.looked()
        if fence.shown is not None and record.generation < fence.shown:
            text = f"{record.service} at {record.server}: shows generation {record.generation} after {fence.shown}"
            self._found.wrong(record.at, text)
        elif key in self._fenced_at and self._fenced_at[key][0] == record.at and record.generation != fence.shown:
            text = (
                f"{record.service} at {record.server}: changed by an update of {self._fenced_at[key][1]} it had refused"
            )
            self._found.wrong(record.at, text)
        fence.shown = max(record.generation, fence.shown or 0)


def _adopted_at(scenario: Scenario, history: History) -> float:
    """From when foreign fences may be overwritten: an adoption is in force before its command has ended, and gives us
    what is there when it begins; all foreign fences of a scenario are one cluster's. inf: never."""
    began = {record.index: record.at for record in history.records if isinstance(record, Faulted) and record.began}
    edits = [r for r in history.records if isinstance(r, Edited) and not r.manual]
    edited_s = min((edit.at for edit in edits if hands_off(scenario, edit)), default=inf)
    ended = [r for r in history.records if isinstance(r, Operated) and r.argv[:1] == ("adopt",) and r.code == 0]
    return min((at for r in ended if (at := began.get(r.index, r.at)) >= edited_s), default=inf)


def _decision(op: str) -> str:
    """The stamp of the decision that an `op` begins with."""
    return op.partition(".")[0]
