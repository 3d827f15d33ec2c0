"""One node's telemetry. It measures always, which costs next to nothing, and sends only through `Exports`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import wraps
from importlib.metadata import version
from typing import ParamSpec, Protocol

from msgspec import Struct

from controlplane.api.picture import Memory
from controlplane.documents import Applied, AppliedDoc, DecisionDoc
from controlplane.drivers import Change
from controlplane.journal import Journal
from controlplane.signal import together
from controlplane.telemetry.context import ids
from controlplane.telemetry.counters import Counted, Counters, MeteredProber
from controlplane.telemetry.course import Courses, Spans
from controlplane.telemetry.gauges import Look, look, reading
from controlplane.telemetry.metrics import Reading
from controlplane.view import View
from probes.target import Prober

KNOWN_TRACES = 1_000  # decisions whose trace a log line may name
KNOWN_TRIES = 10_000  # writes under way
FOREVER_S = 3600.0
AGAIN_S = 10.0  # after a bug
COMPARE_S = 600.0  # between comparisons of the loop's clock with the wall clock
COMPARISONS = 5

log = logging.getLogger(__name__)
P = ParamSpec("P")
Clock = Callable[[float], float]  # reading of the loop's clock -> seconds since 1970


def _harmless(tell: Callable[P, None]) -> Callable[P, None]:
    """What is only measured must not stop what is done: a bug in it is said in the log."""

    @wraps(tell)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            tell(*args, **kwargs)
        except Exception:
            log.exception("telemetry failed, and goes on")

    return told


class Exports(Protocol):
    """Where telemetry is sent (otlp.py). Nothing here may block, or raise."""

    interval_s: float  # between two readings of the metrics; 0 = they are not sent

    def spans(self, wall: Clock) -> Spans | None:
        """None: traces are not sent."""
        ...

    def send(self, reading: Reading) -> None:
        """The metrics as they are now. One that comes while the last one is still being sent is dropped."""
        ...

    def log_handler(self, redact: Callable[[str], str], trace_of: Callable[[str], str]) -> logging.Handler | None:
        """trace_of: a decision's traceparent, or "". None: logs are not sent."""
        ...

    async def aclose(self) -> None:
        """Send what is left, with little patience."""
        ...


class Moment(Struct, frozen=True):
    """All that the metrics of one node are computed from, as it was once."""

    site: str
    look: Look
    counted: Counted

    def reading(self) -> Reading:
        """Every metric that is known. Takes its time, but needs no event loop: call it in a thread."""
        config, frames = self.look.picture.config, self.look.picture.frames
        drivers = [(d.site, d.name) for d in config.dns if self.site in d.writers] if config else []
        drivers += [(self.site, pool.name) for pool in config.pools if self.site in pool.sites] if config else []
        return {**reading(self.look), **self.counted.reading({s: f.sites for s, f in frames.items()}, drivers)}


class Telemetry:
    """Give it to a Node, which tells it what happens; without `exports` nothing leaves this process but what is read
    from `/metrics`."""

    def __init__(self, site: str, cluster: str, exports: Exports | None = None) -> None:
        self.site = site
        self.resource = resource_of(site, cluster)
        self.exports = exports
        self.counters = Counters(site)
        self._memory = Memory()
        self._courses = Courses(self.counters.phases, self._memory)
        self._view: View | None = None
        self._journal: Journal | None = None
        self._traces: dict[str, str] = {}  # decision -> traceparent
        self._tries: dict[tuple[str, str, int], tuple[float, int]] = {}  # first try of a write, and how many
        self._looking = asyncio.Lock()

    # --- what a node tells ---

    def prober(self, prober: Prober) -> Prober:
        """The same, counted."""
        return MeteredProber(prober, self.site, self.counters.probes)

    def follow(self, view: View, journal: Journal, wall: Callable[[], float]) -> None:
        """`wall`: seconds since 1970; only spans are dated with it."""
        self._view, self._journal = view, journal
        view.on_decision.append(self._decided)
        view.on_applied.append(self._applied)
        spans = self.exports.spans(Dated(wall)) if self.exports else None
        if spans is not None:
            self._courses.spans = spans

    def elected(self) -> None:
        """This node took the leadership."""
        self.counters.elected()

    @_harmless
    def committed(self, decision: DecisionDoc, took_s: float, commit_s: float) -> None:
        """This node committed a decision, took_s after the pass began, commit_s of it in the store."""
        self._remember(decision)
        if self._view is not None:
            self._courses.begin(self._view, decision, took_s, commit_s)

    @_harmless
    def wrote(
        self, site: str, driver: str, changes: Mapping[str, Change], applied: Mapping[str, Applied], took_s: float
    ) -> None:
        """This node tried to write a driver, which is at `site`, and read back: by service, what it wanted and what
        became of it."""
        self.counters.wrote(site, driver, applied, took_s)
        now = _now()
        for service, change in changes.items():
            trace, said = change.desired.traceparent, applied.get(service)
            known = change.expect.generation if change.expect else 0
            if not trace or said is None or known >= change.desired.generation:  # a repair is no part of the failover
                continue
            key = (driver, service, change.desired.generation)
            begun, tries = self._tries.get(key, (now - took_s, 0))
            if said.result == "transient" and len(self._tries) < KNOWN_TRIES:
                self._tries[key] = (begun, tries + 1)
                continue
            self._tries.pop(key, None)
            about: dict[str, str | int | float | bool] = {
                "service": service,
                "driver": driver,
                "site": site,
                "writer": self.site,
                "tries": tries + 1,
            }
            error = "" if said.result == "ok" else f"{said.result}: {said.reason}"
            self._courses.spans.span(trace, "apply", begun, now, about, error)

    # --- what others read ---

    async def look(self) -> Moment:
        """What is known now. One at a time: each costs a slice of the event loop for every service."""
        assert self._view is not None and self._journal is not None, "follow() comes first"
        async with self._looking:
            seen = await look(self._view, self._memory, self._journal)
            return Moment(self.site, seen, self.counters.snapshot())

    def trace_of(self, decision: str) -> str:
        """The traceparent of a recent failover's decision, or ""."""
        return self._traces.get(decision, "")

    def log_handler(self, redact: Callable[[str], str]) -> logging.Handler | None:
        """For the root logger, where logs are to be sent. `redact` hides secrets."""
        return self.exports.log_handler(redact, self.trace_of) if self.exports else None

    # --- its life ---

    async def run(self) -> None:
        """Follow failovers to their end, and send metrics; until cancelled."""
        assert self._view is not None, "follow() comes first"
        while True:
            try:
                await together(self._courses.run(self._view), self._send())
            except Exception:
                log.exception("telemetry failed, and goes on")
                await asyncio.sleep(AGAIN_S)

    async def aclose(self) -> None:
        """Send what is left."""
        if self.exports is not None:
            await self.exports.aclose()

    async def _send(self) -> None:
        exports = self.exports
        while True:
            if exports is None or not exports.interval_s:
                await asyncio.sleep(FOREVER_S)
                continue
            await asyncio.sleep(exports.interval_s)
            moment = await self.look()
            exports.send(await asyncio.to_thread(moment.reading))

    @_harmless
    def _applied(self, writer: str, document: AppliedDoc) -> None:
        self._courses.applied(writer, document)

    @_harmless
    def _decided(self, decision: DecisionDoc, live: bool) -> None:
        """Every decision that comes into the view, whoever made it."""
        self._remember(decision)
        if live and decision.node == self.site:
            self.counters.decided(decision)

    def _remember(self, decision: DecisionDoc) -> None:
        if ids(decision.desired.traceparent) is None or not decision.new_generation:
            return
        self._traces[decision.id] = decision.desired.traceparent
        if len(self._traces) > KNOWN_TRACES:
            del self._traces[next(iter(self._traces))]


class Dated:
    """Dates readings of the loop's clock. The two clocks are compared seldom, and with care: between reading one and
    the other this process may have had to wait, and the spans of one failover must fit together."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._offset_s = 0.0
        self._compared_at = -COMPARE_S

    def __call__(self, at: float) -> float:
        """Seconds since 1970."""
        if _now() - self._compared_at >= COMPARE_S:
            self._compared_at = _now()
            _, self._offset_s = min(self._compare() for _ in range(COMPARISONS))
        return at + self._offset_s

    def _compare(self) -> tuple[float, float]:
        """(how long it took, the difference)."""
        before, wall_s, after = _now(), self._wall(), _now()
        return after - before, wall_s - after


def resource_of(site: str, cluster: str) -> dict[str, str]:
    """Whose telemetry this is. https://opentelemetry.io/docs/specs/semconv/resource/#service"""
    return {
        "service.name": "failoverd",
        "service.instance.id": site,
        "service.version": version("failover-control-plane"),
        "cluster": cluster,
    }


def _now() -> float:
    return asyncio.get_running_loop().time()
