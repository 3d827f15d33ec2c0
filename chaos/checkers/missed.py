"""A failover that never came, where the bound says that it had to (DESIGN 10). Pure."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

from chaos.checkers.accidents import ASKED_S, PARTLY, Accident, silent_s
from chaos.history import Committed, History
from chaos.loads import OPEN, Rooms
from chaos.measure import KEEPS, Run, can_move, runs, touches
from chaos.scenario import Scenario
from chaos.trace import Span, Timed, by_time, left, share, spans
from policies.timing import worst_cases


class Missed(Struct, frozen=True):
    at: float  # when it ought to have been over
    text: str


class _Made(Struct, frozen=True):
    record: Committed
    might: bool  # somebody had room for more, and nothing forbade it


def missed(scenario: Scenario, history: History) -> Iterator[Missed]:
    """Clients that keep TTLs failed at one site for longer than the worst case, by one accident that lasted, while
    another site might have taken them; and nothing was moved."""
    all_, made = spans(scenario, history), _made(history)
    seen: set[tuple[str, str, int]] = set()
    for run in runs(history):
        for site in run.sites:
            cause = _cause(run, site, all_)
            key = (run.service, site, -1 if cause is None else cause.index)
            if run.resolver == KEEPS and cause is not None and key not in seen:
                due_s = _due_s(scenario, history, run, site, cause, all_, made.get(run.service, []))
                if due_s is not None:
                    seen.add(key)
                    text = f"{run.service} never left {site}, where its clients in {run.region} fail from"
                    yield Missed(due_s, f"{text} {run.from_s:.1f}s on for want of a failover, though others have room")


def _made(history: History) -> dict[str, list[_Made]]:
    """By service, in the order of time."""
    timed, rooms = Timed(history), Rooms(history.config)
    found: dict[str, list[_Made]] = {}
    for _, records in by_time(history):
        now = [record for record in records if isinstance(record, Committed)]
        for record in now:
            rooms.take(record.decision)
        for record in now:
            might = can_move(record.decision, rooms, timed, record.at)
            found.setdefault(record.decision.service, []).append(_Made(record, might))
    return found


def _cause(run: Run, site: str, all_: list[Span]) -> Span | None:
    """What all its requests fail of, if it is always the same."""
    if run.sites != {site}:
        return None
    causes = [s for s in all_ if touches(s.fault, run.service, site) and s.from_s <= run.from_s < s.to_s]
    return causes[-1] if causes and causes[-1].fault.verb not in PARTLY else None


def _due_s(
    scenario: Scenario, history: History, run: Run, site: str, cause: Span, all_: list[Span], made: list[_Made]
) -> float | None:
    """When clients were to get through at the latest; None: they did, or the bound says nothing of it."""
    earlier = [one for one in made if one.record.at <= cause.from_s]
    config = Timed(history).at(cause.from_s)
    if not earlier or run.service not in config.services:
        return None
    case = worst_cases(config)[run.service]
    begun = earlier[-1].record.decision
    spec = config.services[run.service]
    if len(set(begun.input.vantages) - {site}) < spec.policy.quorum.min_vantages:
        return None
    goes_to = [s for s, state in begun.desired.sites.items() if s != site and state.rule in OPEN]
    accident = Accident(run.service, site, cause.from_s, [cause], goes_to)
    usual_s = case.worst_case_s + scenario.transfer_s + ASKED_S + silent_s(history, run.service, cause.from_s)
    why, later = accident.outside(all_, cause.from_s + usual_s)
    due_s = cause.from_s + usual_s + later * case.takeover_s
    if why or min(run.to_s, history.duration_s, cause.to_s) <= due_s:
        return None
    meanwhile = [earlier[-1], *(one for one in made if cause.from_s < one.record.at <= due_s)]
    stayed = all(share(one.record.decision.desired.shares, run.region, site) for one in meanwhile)
    judged = any(site in left(one.record.decision) for one in meanwhile[1:])  # as a failover
    return due_s if stayed and not judged and all(one.might for one in meanwhile) else None
