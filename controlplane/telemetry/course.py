"""A failover from its decision until no resolver may hold the old answer: how long each phase took, and its spans.

Followed by the node that committed it, on that node's own clock; so each failover is counted once. What that node
does not learn (it ended, the decision was overtaken) is left out, never guessed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

from controlplane.api.picture import Memory, arrival_of, words_of, working_agents
from controlplane.api.propagation import CONVERGED, Arrival
from controlplane.documents import AppliedDoc, DecisionDoc
from controlplane.journal import REACHABLE_S
from controlplane.signal import Signal
from controlplane.telemetry.context import left_sites
from controlplane.telemetry.counters import Timings
from controlplane.view import View
from controlplane.view.evidence import Evidence, evidence
from probes.target import Health

LOOK_S = 0.5  # how late the end of a course may be noticed
IDLE_S = 60.0
MOST_S = 600.0  # a course that takes longer is given up
MOST = 10_000  # courses at a time
SLICE = 100  # of them, before others get a turn
REST = 10  # after each round, so many times what it took

Attributes = Mapping[str, str | int | float | bool]


class Spans(Protocol):
    """Where spans go. Times are readings of the loop's clock; `error` is why it did not go as it should."""

    def span(
        self, traceparent: str, name: str, begin: float, end: float, attributes: Attributes, error: str = ""
    ) -> None:
        """A child of the root."""
        ...

    def root(self, traceparent: str, begin: float, end: float, attributes: Attributes, error: str = "") -> None:
        """The root itself, which its children named before it was made."""
        ...


class NoSpans:
    """Nobody is listening."""

    def span(
        self, traceparent: str, name: str, begin: float, end: float, attributes: Attributes, error: str = ""
    ) -> None:
        return None

    def root(self, traceparent: str, begin: float, end: float, attributes: Attributes, error: str = "") -> None:
        return None


class Course(Struct):
    """Times are readings of the loop's clock; 0.0 = not yet."""

    decision: DecisionDoc
    sites: tuple[str, ...]
    began: float  # the first report of a DOWN target, or else the decision
    committed: float
    applied: float = 0.0  # the last writer that could be reached
    agreed: float = 0.0  # the last name server
    over: float = 0.0  # when the old TTL is over, as far as it is known
    servers: dict[str, None] = {}
    drivers: dict[str, None] = {}


class Courses:
    """`timings`: phase_duration_seconds; `memory`: for the bounds. Subscribe `applied` to the view."""

    def __init__(self, timings: Timings, memory: Memory) -> None:
        self.spans: Spans = NoSpans()
        self._timings, self._memory = timings, memory
        self._courses: dict[str, Course] = {}  # by service
        self._news = Signal()

    def begin(self, view: View, decision: DecisionDoc, took_s: float, commit_s: float) -> None:
        """This node has just committed a decision. took_s: since the pass began that made it; commit_s: of it, in the
        store. Does nothing for what is no failover."""
        events = left_sites(decision)
        if not events:
            return
        now = _now()
        decided, committing = now - took_s, now - commit_s
        sites = tuple(event.site for event in events)
        doubts = _doubts(view, decision.service, sites, decided)
        began = min((since for _, since in doubts), default=decided)
        course = Course(decision, sites, began, now, servers={}, drivers={})
        trace = decision.desired.traceparent
        for eye, since in doubts:
            said = {"vantage": eye.vantage, "target": eye.target, "reason": eye.reason}
            self.spans.span(trace, "detect", since, decided, said)
        if doubts:
            last = max(since for _, since in doubts)
            why = {"vantages": ", ".join(e.vantage for e, _ in doubts), "reason": "; ".join(e.reason for e in events)}
            self.spans.span(trace, "quorum", began, last, why)
            self._observe(course, "detect", decided - began)
        self.spans.span(trace, "decide", decided, committing, {"rule": "failed", "decision": decision.id})
        self.spans.span(trace, "commit", committing, now, {"token": decision.token})
        self._observe(course, "decide", took_s)
        self._end(decision.service, view, "overtaken by another failover")
        if len(self._courses) < MOST:
            self._courses[decision.service] = course
            self._news.set()

    def applied(self, writer: str, document: AppliedDoc) -> None:
        """What an agent reports, as it comes in."""
        if not self._courses:
            return
        now = _now()
        for service, course in self._courses.items():
            if service not in document.services:
                continue
            desired, done = course.decision.desired, document.services[service]
            if done.result == "ok" and done.generation == desired.generation and document.driver not in course.drivers:
                course.drivers[document.driver] = None
                if now - course.committed < REACHABLE_S:
                    course.applied = now
            for seen in document.seen.get(service, ()):
                if seen.agrees and seen.generation == desired.generation and seen.server not in course.servers:
                    course.servers[seen.server] = None
                    course.agreed = now
                    said = {"server": seen.server, "asked_by": document.writer}
                    self.spans.span(desired.traceparent, "verify", course.committed, now, said)

    async def run(self, view: View) -> None:
        """Notice the ends, until cancelled."""
        try:
            while True:
                count = self._news.count
                pause_s = await self._look(view)
                if self._courses:
                    await asyncio.sleep(pause_s)
                else:
                    await self._news.wait(IDLE_S, count)
        finally:
            for service in list(self._courses):
                self._end(service, view, "the node that followed it was stopped")

    # --- inside ---

    async def _look(self, view: View) -> float:
        """One look at each; returns how long to wait until the next."""
        begun = _now()
        words, working = words_of(view), working_agents(view)
        for n, (service, course) in enumerate(list(self._courses.items())):
            if n % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            desired = view.desired.get(service)
            if self._courses.get(service) is not course:
                continue
            if desired is None or desired.generation > course.decision.desired.generation:
                self._end(service, view, "overtaken by another decision")
            elif desired.generation == course.decision.desired.generation:  # else: the view does not show it yet
                arrived = arrival_of(view.config, desired, words, working)
                if arrived.old_ttl_left_s > 0:
                    course.over = _now() + arrived.old_ttl_left_s
                if arrived.state == CONVERGED:
                    self._arrived(service, course, arrived, view)
                elif _now() - course.committed > MOST_S:
                    self._end(service, view, "; ".join(arrived.why) or arrived.state)
        return max(LOOK_S, REST * (_now() - begun))

    def _arrived(self, service: str, course: Course, arrived: Arrival, view: View) -> None:
        """It converged, some time between the last look and this one."""
        now = _now()
        known = max(course.over, course.agreed, course.applied)
        end = known if course.committed < known <= now else now
        self._observe(course, "apply", course.applied - course.committed if course.applied else None)
        self._observe(course, "verify", course.agreed - course.committed if course.agreed else None)
        if course.decision.desired.name:
            self._observe(course, "ttl", end - course.committed)
            said = {"servers": len(arrived.servers), "agree": arrived.agreeing, "answer": arrived.reachable}
            self.spans.span(course.decision.desired.traceparent, "propagate", course.committed, end, said)
        del self._courses[service]
        self._root(course, end, view)

    def _end(self, service: str, view: View, why: str) -> None:
        """Given up before it arrived."""
        course = self._courses.pop(service, None)
        if course is not None:
            self._root(course, _now(), view, why)

    def _root(self, course: Course, end: float, view: View, error: str = "") -> None:
        doc = course.decision
        said: dict[str, str | int | float | bool] = {
            "service": doc.service,
            "site": ", ".join(course.sites),
            "rule": "failed",
            "decision": doc.id,
            "generation": doc.desired.generation,
        }
        bound = self._memory.bounds(view.config).get(doc.service)
        if bound is not None:
            said["worst_case_s"] = bound.worst_case_s
        self.spans.root(doc.desired.traceparent, course.began, end, said, error)

    def _observe(self, course: Course, phase: str, took_s: float | None) -> None:
        if took_s is not None:
            for site in course.sites:
                self._timings.observe((course.decision.service, site, phase), took_s)


def _doubts(view: View, service: str, sites: tuple[str, ...], decided: float) -> list[tuple[Evidence, float]]:
    """Of each voter that says DOWN: its first such report that still stands, and when it came."""
    now = _now()
    first: dict[str, tuple[Evidence, float]] = {}
    for eye in evidence(view, service):
        if eye.site not in sites or eye.own or not eye.fresh or eye.blind or eye.since_s is None:
            continue
        since, known = now - eye.since_s, first.get(eye.vantage)
        if eye.health is Health.DOWN and since <= decided and (known is None or since < known[1]):
            first[eye.vantage] = (eye, since)
    return [first[vantage] for vantage in sorted(first)]


def _now() -> float:
    return asyncio.get_running_loop().time()
