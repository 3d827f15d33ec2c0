"""What a history says of each failover and of what clients had (DESIGN 10). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from msgspec import Struct

from chaos.history import Answered, Asked, Committed, Edited, History, Served
from chaos.loads import WORTH, Rooms, demand, spare
from chaos.report import Failover, Outage
from chaos.scenario import Fault, Scenario
from chaos.sights import SILENCING, Sights, ballots
from chaos.told import primary
from chaos.trace import Timed, by_time, hands_off, left, spans
from controlplane.documents import DecisionDoc
from policies.frame import frames
from policies.timing import worst_cases
from policies.topology import Config

KEEPS = "keeps"
UNDER_WAY_S = 1.0  # that a probe which passes may take
AT_SITES = ("cut", "cut_one_way", "loss", "slow")  # faults between two ends
AT_SERVICES = ("stop", "flaky", "reset", "bandwidth", "slow", "lag")


class Run(Struct, frozen=True):
    """One run of failed requests of one client: from its first to the next good one (inf: none came). sites: whom it
    asked meanwhile."""

    client: str
    service: str
    region: str
    resolver: str
    from_s: float
    to_s: float
    sites: frozenset[str]


def touches(fault: Fault, service: str, site: str) -> bool:
    """Can this fault be why clients fail with a service at a site?"""
    if fault.service:
        return (fault.service, fault.site) == (service, site) and fault.verb in AT_SERVICES
    if fault.verb == "power_off":
        return fault.site == site
    return fault.verb in AT_SITES and not fault.message and site in (fault.one, fault.other)


def runs(history: History) -> list[Run]:
    """From the scenario's start on; a run that lasts to the end has no end."""
    found: list[Run] = []
    open_: dict[tuple[str, str], tuple[Served, set[str]]] = {}
    for record in history.records:
        if not isinstance(record, Served):
            continue
        key = (record.client, record.service)
        if record.error:
            first, sites = open_.setdefault(key, (record, set()))
            sites.add(record.site)
        elif key in open_:
            first, sites = open_.pop(key)
            found += _run(first, record.at, sites)
    for first, sites in open_.values():
        found += _run(first, inf, sites)
    return found


def _run(first: Served, to_s: float, sites: set[str]) -> list[Run]:
    """What was over before the start does not count."""
    began = max(0.0, first.at)
    run = Run(first.client, first.service, first.region, first.resolver, began, to_s, frozenset(sites))
    return [run] if to_s > began else []


def outages(history: History) -> tuple[Outage, ...]:
    """By service, region and kind of resolver: the requests of all such clients, and their longest run of failures."""
    kinds: dict[tuple[str, str], tuple[str, str]] = {}
    for record in history.records:
        if isinstance(record, Served):
            kinds.setdefault((record.client, record.service), (record.region, record.resolver))
    requests: dict[tuple[str, str, str], tuple[int, int]] = {}
    for (_, service), (region, resolver) in kinds.items():
        requests.setdefault((service, region, resolver), (0, 0))
    for record in history.records:
        if isinstance(record, Asked) and (record.client, record.service) in kinds:
            region, resolver = kinds[record.client, record.service]
            key = (record.service, region, resolver)
            asked, failed = requests.get(key, (0, 0))
            requests[key] = (asked + record.requests, failed + record.failed)
    longest: dict[tuple[str, str, str], Run] = {}
    for run in runs(history):
        key = (run.service, run.region, run.resolver)
        if key not in longest or length_s(run, history) > length_s(longest[key], history):
            longest[key] = run
    found: list[Outage] = []
    for (service, region, resolver), (asked, failed) in sorted(requests.items()):
        worst = longest.get((service, region, resolver))
        longest_s, began_s = (round(length_s(worst, history), 3), worst.from_s) if worst else (0.0, None)
        found.append(
            Outage(
                service=service,
                region=region,
                resolver=resolver,
                requests=asked,
                failed=failed,
                longest_s=longest_s,
                began_s=began_s,
            )
        )
    return tuple(found)


def length_s(run: Run, history: History) -> float:
    return min(run.to_s, history.duration_s) - run.from_s


# ---- failovers


def failovers(scenario: Scenario, history: History) -> tuple[Failover, ...]:
    """Every move of a service away from a site that failed, in the order of time."""
    return tuple(_Measure(scenario, history).all())


def can_move(decision: DecisionDoc, rooms: Rooms, timed: Timed, at: float) -> bool:
    """Might it have moved more of what is at a site that is down? Not in a freeze, not against an override, and not
    where nobody who takes any traffic has room."""
    config = timed.of(decision, at)
    wait = decision.input.freeze or decision.input.rewound or decision.input.ahead or decision.desired.overrides
    if wait or decision.service not in config.services:
        return False
    rooms.config = config
    least = WORTH * demand(config, decision.service) + rooms.coarse(decision.service)
    free = spare(config, decision, rooms.left(decision.service))
    return any(room > least and decision.desired.sites[site].verdict == "up" for site, room in free.items())


class _Measure:
    def __init__(self, scenario: Scenario, history: History) -> None:
        self._scenario = scenario
        self._history = history
        self._timed = Timed(history)
        self._sights = Sights(scenario, history)
        self._spans = spans(scenario, history)
        self._runs = [run for run in runs(history) if run.resolver == KEEPS]
        self._clients = {record.service for record in history.records if isinstance(record, Served)}
        self._turned: dict[tuple[str, str], Committed] = {}  # service, site -> what called it down
        self._stalled: set[tuple[str, str]] = set()  # called down, but had to go on
        self._rooms = Rooms(history.config)

    def all(self) -> Iterator[Failover]:
        for _, records in by_time(self._history):
            made = [record for record in records if isinstance(record, Committed)]
            for record in made:
                self._rooms.take(record.decision)
            for record in made:
                self._note(record)
                if record.at >= 0 and record.decision.input.desired is not None:
                    yield from (self._failover(record, site) for site in left(record.decision))

    def _note(self, record: Committed) -> None:
        """Since when a site is down, and whether anything but the governor has had to keep traffic there."""
        decision = record.decision
        had_to = decision.desired.refused != "governor" and not can_move(decision, self._rooms, self._timed, record.at)
        for site, state in decision.desired.sites.items():
            key = (decision.service, site)
            if state.verdict != "down":
                self._turned.pop(key, None)
                self._stalled.discard(key)
            elif key not in self._turned:
                self._turned[key] = record
            if state.verdict == "down" and site not in left(decision) and had_to:
                self._stalled.add(key)

    def _failover(self, record: Committed, site: str) -> Failover:
        decision, at = record.decision, record.at
        config = self._timed.of(decision, at)
        case = worst_cases(config)[decision.service]
        turned = self._turned.get((decision.service, site), record)
        began_s = None if (decision.service, site) in self._stalled else self._last_pass(turned, config, site)
        fault_s = self._fault_s(decision.service, site, at, began_s)
        seen = self._sights.any and turned is record
        if began_s is None and not seen and (decision.service, site) not in self._stalled:
            began_s = fault_s
        applied_s = self._applied_s(record, config)
        hit = [
            run for run in self._runs if run.service == decision.service and self._hit(run, site, fault_s, applied_s)
        ]
        known = decision.service in self._clients
        ends = max((min(run.to_s, self._history.duration_s) for run in hit), default=applied_s)
        return Failover(
            service=decision.service,
            left=site,
            at_s=at,
            fault_at_s=fault_s,
            detect_s=None if began_s is None else round(at - began_s, 3),
            decide_s=None,
            apply_s=None if applied_s is None else round(applied_s - at, 3),
            ttl_s=None if applied_s is None or ends is None or not known else round(max(0.0, ends - applied_s), 3),
            outage_s=round(max((length_s(run, self._history) for run in hit), default=0.0), 3) if known else None,
            worst_case_s=round(case.worst_case_s + self._scenario.transfer_s, 3),
            bounds={
                "detect_s": case.detect_s,
                "publish_s": case.publish_s,
                "takeover_s": case.takeover_s,
                "decide_s": case.decide_s,
                "apply_s": case.apply_s + self._scenario.transfer_s,
                "ttl_s": case.ttl_s,
            },
        )

    def _last_pass(self, turned: Committed, config: Config, site: str) -> float | None:
        """The last probe that passed, as seen by the latest of the voters that made the quorum: of the target that
        was down first, the voter with which there were enough. With `at_least`, of the target with which too few were
        left."""
        frame = frames(config)[turned.decision.service]
        own: list[float] = []
        mine: list[float] = []
        watched = 0
        for ballot in ballots(frame, turned.decision):
            if ballot.row.site != site:
                continue
            watched += not ballot.row.own
            if not ballot.down:
                continue
            passes = [self._sights.last_pass(v, ballot.row.id, turned.at) for v in sorted(ballot.fails)]
            known = sorted(at for at in passes if at is not None)
            if len(known) >= ballot.needed:
                (own if ballot.row.own else mine).append(known[ballot.needed - 1])
        spare = 0 if frame.spec.at_least is None else max(0, watched - frame.spec.at_least)
        return min([*own, *sorted(mine)[spare:]], default=None)

    def _fault_s(self, service: str, site: str, at: float, began_s: float | None) -> float | None:
        """When the fault began that was its cause: the first after the last probe that passed (which may have been
        under way), for what breaks later is another one; else the latest that was there already, and lasted."""
        since = at if began_s is None else began_s
        causes = [
            s.from_s for s in self._spans if touches(s.fault, service, site) and s.from_s <= at and s.to_s >= since
        ]
        later = [from_s for from_s in causes if began_s is not None and from_s > began_s - UNDER_WAY_S]
        return min(later) if later else max(causes, default=None)

    def _applied_s(self, record: Committed, config: Config) -> float | None:
        """When the last reachable name server answered so. None: some had not when the history ended, and there
        may have been time left. A server that nobody can write to, or may, is not waited for."""
        decision, end = record.decision, self._history.duration_s
        waiting = self._reachable(record, config)
        applied = record.at
        for late in self._history.records:
            if late.at < record.at or not waiting:
                continue
            if isinstance(late, Edited) and hands_off(self._scenario, late):
                waiting = {key for key in waiting if (primary(key[0]), decision.service) != (late.server, late.service)}
            if not isinstance(late, Answered) or late.service != decision.service:
                continue
            key = (late.server, late.region)
            if key in waiting and (not late.reachable or _says(late, record)):
                waiting.discard(key)
                applied = late.at if late.reachable else applied
        if not waiting:
            return applied
        return end if end - record.at > 60.0 else None

    def _reachable(self, record: Committed, config: Config) -> set[tuple[str, str]]:
        """Server and region of every answer that clients could get at the commit, and that still is another one."""
        service, rows = record.decision.service, {}
        by_hand: set[str] = set()
        for early in self._history.records:
            if early.at > record.at:
                break
            if isinstance(early, Answered) and early.service == service:
                rows[early.server, early.region] = early
            elif isinstance(early, Edited) and early.service == service:
                (by_hand.add if hands_off(self._scenario, early) else by_hand.discard)(early.server)
        return {
            key
            for key, row in rows.items()
            if row.reachable
            and not _says(row, record)
            and primary(key[0]) not in by_hand
            and self._writable(primary(key[0]), config, record.at)
        }

    def _writable(self, server: str, config: Config, at: float) -> bool:
        """Is the process of one of its writers alive? A server with one writer that is dead is outside the bound."""
        writers = [writer for driver in config.dns if driver.site == server for writer in driver.writers]
        dead = {
            site
            for span in self._spans
            if span.fault.verb in SILENCING and span.overlaps(at, at)
            for site in (span.node, span.fault.site)
        }
        return not writers or any(writer not in dead for writer in writers)

    def _hit(self, run: Run, site: str, fault_s: float | None, applied_s: float | None) -> bool:
        """Was this run of failures for want of this failover?"""
        if site not in run.sites or applied_s is None:
            return False
        return run.to_s >= (applied_s if fault_s is None else fault_s) and run.from_s <= applied_s + 1.0


def _says(row: Answered, record: Committed) -> bool:
    if row.generation is not None:
        return row.generation >= record.decision.desired.generation
    return set(row.sites) <= {answer.site for answer in record.decision.desired.answers}
