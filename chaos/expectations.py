"""What a scenario expects, held against a history: one Met for each condition (DESIGN 8). Pure.

Expectations speak of what clients are told by asking the name servers that they can reach, and of what they then had.
What had nothing to look at is not met.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from chaos.history import Answered, Committed, Configured, Edited, Faulted, History, Operated, Wrote
from chaos.measure import KEEPS, outages
from chaos.report import Met
from chaos.scenario import Condition, Expect, Scenario
from chaos.trace import SIM, Board, broken, by_time, hands_off, spans, words
from chaos.writing import expect_text

NOTHING = "no reachable name server to look at"
UNSEEN_S = 30.0  # `during` may have nothing to look at for so long; or for the TTL, if that is more
AS_IT_WAS = (Answered, Committed, Configured, Edited, Wrote)  # records that can change what a condition sees


class Look(Struct, frozen=True):
    """From now on a condition holds (True) or not, or there is nothing to look at (None); what was seen."""

    at: float
    holds: bool | None
    seen: str


def met(scenario: Scenario, history: History) -> tuple[Met, ...]:
    """In the order of the file; `always` is the checkers'. Then what operators' commands were to end with."""
    asked = [expect for expect in scenario.expect if expect.kind in ("by", "during", "after_heal")]
    looks = _Looks(scenario, history, [condition for expect in asked for condition in expect.conditions])
    found: list[Met] = []
    for expect in scenario.expect:
        if expect.kind == "outage":
            found += _outage(expect, history)
        elif expect.kind != "always":
            found += [_condition(expect, condition, looks, scenario, history) for condition in expect.conditions]
    return (*found, *_operators(scenario, history), *_unbegun(scenario, history))


# ---- what name servers answer


class _Looks:
    """Every condition at every instant at which something changed."""

    def __init__(self, scenario: Scenario, history: History, conditions: Sequence[Condition]) -> None:
        self._looks: dict[Condition, list[Look]] = {condition: [] for condition in conditions}
        board = Board(history.config, history.world == SIM)
        for at, records in by_time(history):
            for record in records:
                board.take(record, isinstance(record, Edited) and hands_off(scenario, record))
            if any(isinstance(record, AS_IT_WAS) for record in records):
                for condition, looks in self._looks.items():
                    looks.append(Look(at, *look(board, condition)))

    def over(self, condition: Condition, from_s: float, to_s: float) -> list[Look]:
        """What was there at from_s, and every change up to to_s."""
        looks = self._looks[condition]
        first = max(0, bisect_right(looks, from_s, key=lambda look: look.at) - 1)
        return [one for one in looks[first:] if one.at <= to_s]


def look(board: Board, condition: Condition) -> tuple[bool | None, str]:
    """Does it hold now (None: there is nothing to look at), and what is seen."""
    if condition.kind == "converged":
        behind = [(service, *row) for service in board.services() for row in board.behind(service)]
        wrong = [f"{server} answers {service} with {differs}" for service, server, differs in behind if differs]
        if not behind:
            return None, NOTHING
        return bool(wrong) == condition.never, "; ".join(wrong) or "all agree"
    told = board.sites(condition.service)
    if not told:
        return None, f"{NOTHING} for {condition.service}"
    if condition.kind == "answer":
        fits = [frozenset(condition.sites) == sites for sites in told.values()]
    else:
        fits = [set(condition.sites) <= sites for sites in told.values()]
    holds = not any(fits) if condition.never else all(fits)
    return holds, "; ".join(f"{server} answers {words(sites)}" for server, sites in sorted(told.items()))


def _condition(expect: Expect, condition: Condition, looks: _Looks, scenario: Scenario, history: History) -> Met:
    text = _text(expect, condition)
    healed_s = scenario.healed_s if expect.kind == "after_heal" else 0.0
    from_s = expect.from_s + healed_s
    to_s = expect.to_s if expect.kind == "during" else from_s
    if to_s > history.duration_s:
        return Met(text, False, None, f"the history ends before, at {history.duration_s:g}s")
    if expect.kind == "during":
        return _during(text, looks.over(condition, from_s, to_s), from_s, to_s, _unseen_s(condition, scenario))
    if expect.kind == "after_heal" and not condition.never and (silent := _silent(condition, scenario, history, to_s)):
        return Met(text, False, None, silent)
    return _by(text, looks.over(condition, float("-inf"), to_s))


def _by(text: str, looks: Sequence[Look]) -> Met:
    if not looks or looks[-1].holds is None:
        return Met(text, False, None, looks[-1].seen if looks else NOTHING)
    if not looks[-1].holds:
        return Met(text, False, None, looks[-1].seen)
    since = len(looks) - 1
    while since > 0 and looks[since - 1].holds:
        since -= 1
    return Met(text, True, round(looks[since].at, 3), f"since {looks[since].at:.1f}s")


def _during(text: str, looks: Sequence[Look], from_s: float, to_s: float, unseen_s: float) -> Met:
    seen = [one for one in looks if one.holds is not None]
    if not seen:
        return Met(text, False, None, looks[-1].seen if looks else NOTHING)
    wrong = next((one for one in seen if not one.holds), None)
    if wrong is not None:
        at = max(wrong.at, from_s)
        return Met(text, False, round(at, 3), f"at {at:.1f}s {wrong.seen}")
    since: float | None = from_s if looks[0].at > from_s else None  # from when on there is nothing to look at
    for at, holds in [*((max(one.at, from_s), one.holds) for one in looks), (to_s, True)]:
        if holds is None:
            since = at if since is None else since
        elif since is not None:
            if at - since > unseen_s:
                return Met(text, False, round(since, 3), f"from {since:.1f}s to {at:.1f}s {NOTHING}")
            since = None
    return Met(text, True, None, f"{len(seen)} looks")


def _unseen_s(condition: Condition, scenario: Scenario) -> float:
    services = scenario.config.services
    asked = [services[condition.service]] if condition.service in services else services.values()
    return max([UNSEEN_S, *(spec.dns.ttl_s for spec in asked if spec.dns is not None)])


def _silent(condition: Condition, scenario: Scenario, history: History, at: float) -> str:
    """Who does not answer at a moment, though nothing is broken any more."""
    board = Board(history.config)
    for record in history.records:
        if record.at <= at:
            board.take(record)
    excused = broken(spans(scenario, history), at)
    asked = [condition.service] if condition.service else board.services()
    found = [(service, *row) for service in asked for row in board.silent(service, excused)]
    return "; ".join(f"{server} gives clients in {region} no answer for {service}" for service, server, region in found)


def _text(expect: Expect, condition: Condition) -> str:
    if expect.text and len(expect.conditions) == 1:
        return expect.text
    return expect_text(replace(expect, conditions=(condition,)))


# ---- what clients had


def _outage(expect: Expect, history: History) -> list[Met]:
    found: list[Met] = []
    had = [outage for outage in outages(history) if outage.resolver == KEEPS]
    for service, limit_s in expect.outages.items():
        text = expect_text(replace(expect, outages={service: limit_s}))
        mine = [outage for outage in had if outage.service == service]
        if not mine:
            found.append(Met(text, False, None, f"no client of {service} whose resolver keeps TTLs"))
            continue
        worst = max(mine, key=lambda outage: outage.longest_s)
        where = f" in {worst.region}" if worst.longest_s else ""
        found.append(Met(text, worst.longest_s <= limit_s, worst.began_s, f"{worst.longest_s:.1f}s{where}"))
    return found


def _unbegun(scenario: Scenario, history: History) -> list[Met]:
    """Faults that were to begin and never did: without them nothing was shown."""
    began = {record.index for record in history.records if isinstance(record, Faulted) and record.began}
    return [
        Met(f"{fault.text or fault.verb} at {fault.at_s:g}s begins", False, None, "it never began")
        for index, fault in enumerate(scenario.faults)
        if index not in began and fault.verb != "operator" and not history.stopped  # commands have their own line
    ]


def _operators(scenario: Scenario, history: History) -> list[Met]:
    """Every operator's command ends, with the exit code that is expected."""
    ended = {record.index: record for record in history.records if isinstance(record, Operated)}
    found: list[Met] = []
    for index, fault in enumerate(scenario.faults):
        if fault.verb != "operator":
            continue
        text = f"{fault.text or ' '.join(fault.argv)} ends with {fault.code}"
        record = ended.get(index)
        if record is None:
            found.append(Met(text, False, None, "it never ended, or was never run"))
        else:
            said = " ".join(record.said.split())[-200:]
            found.append(Met(text, record.code == fault.code, record.at, f"exit code {record.code}: {said}"))
    return found
