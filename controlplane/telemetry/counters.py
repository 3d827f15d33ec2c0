"""What this node counts as it happens: plain numbers, because some of it happens 10,000 times a second."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct

from controlplane.documents import Applied, DecisionDoc
from controlplane.telemetry.context import left_sites
from controlplane.telemetry.metrics import LONG_S, SHORT_S, Buckets, Labels, Reading, Rows, Value
from policies.events import REFUSALS
from policies.standing import RULES
from probes.kinds import KINDS
from probes.target import Cancel, Done, Prober, Sample, Target

PROBE_OUTCOMES = ("passed", "failed", "silent", "broken")
WRITE_OUTCOMES = ("ok", "transient", "fenced", "terminal")
DECISION_RULES = (*(rule.name for rule in RULES), "configuration", "rewound")
GUARDS = tuple(REFUSALS)


class _Cell:
    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.total = 0.0


class Timings:
    """A histogram of seconds for each set of labels."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._cells: dict[Labels, _Cell] = {}

    def known(self, labels: Labels) -> _Cell:
        """Its cell, which from now on is there with its zeros."""
        cell = self._cells.get(labels)
        if cell is None:
            cell = self._cells[labels] = _Cell(len(self._bounds) + 1)
        return cell

    def observe(self, labels: Labels, took_s: float) -> None:
        cell = self.known(labels)
        cell.counts[bisect_left(self._bounds, took_s)] += 1
        cell.total += took_s

    def rows(self) -> dict[Labels, Value]:
        return {labels: Buckets(tuple(cell.counts), cell.total) for labels, cell in self._cells.items()}


class Counters:
    """`node` (= site) is whose they are. Series that are known beforehand are there from the start, at 0."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._elected = 0
        self._decisions: dict[Labels, int] = {}
        self._refused: dict[Labels, int] = {}
        self._failovers: dict[Labels, int] = {}
        self.probes = Timings(SHORT_S)
        self.writes = Timings(SHORT_S)
        self.phases = Timings(LONG_S)
        for kind in KINDS:
            for outcome in PROBE_OUTCOMES:
                self.probes.known((node, kind, outcome))

    def elected(self) -> None:
        self._elected += 1

    def wrote(self, site: str, driver: str, applied: Mapping[str, Applied], took_s: float) -> None:
        """Names written at once, by service."""
        for said in applied.values():
            self.writes.observe((site, driver, said.result), took_s)

    def decided(self, decision: DecisionDoc) -> None:
        """A decision that this node committed."""
        service, desired, before = decision.service, decision.desired, decision.input.desired
        rule = _rule(decision)
        if rule:
            _count(self._decisions, (service, rule))
        if desired.refused and desired.refused != (before.refused if before else ""):
            _count(self._refused, (service, desired.refused))
        for event in left_sites(decision):
            _count(self._failovers, (service, event.site))

    def snapshot(self) -> Counted:
        """As they are now; what is taken does not change any more."""
        return Counted(
            node=self._node,
            elected=self._elected,
            decisions=dict(self._decisions),
            refused=dict(self._refused),
            failovers=dict(self._failovers),
            probes=self.probes.rows(),
            writes=self.writes.rows(),
            phases=self.phases.rows(),
        )


class Counted(Struct, frozen=True):
    """A node's counters at one moment."""

    node: str
    elected: int
    decisions: dict[Labels, int]
    refused: dict[Labels, int]
    failovers: dict[Labels, int]
    probes: Rows
    writes: Rows
    phases: Rows

    def reading(self, services: Mapping[str, tuple[str, ...]], drivers: Iterable[tuple[str, str]]) -> Reading:
        """With a 0 for what is known not to have happened yet. services: each configured one, and its sites; drivers:
        (site, name) of each that this node writes."""
        zero = Buckets((0,) * (len(SHORT_S) + 1), 0.0)
        writes = {(*driver, outcome): zero for driver in drivers for outcome in WRITE_OUTCOMES} | dict(self.writes)
        return {
            "leader_changes_total": {(self.node,): float(self.elected)},
            "probes_total": _counts(self.probes),
            "probe_duration_seconds": self.probes,
            "apply_total": _counts(writes),
            "apply_duration_seconds": writes,
            "decisions_total": _since_zero(self.decisions, services, lambda _: DECISION_RULES),
            "refused_total": _since_zero(self.refused, services, lambda _: GUARDS),
            "failovers_total": _since_zero(self.failovers, services, lambda service: services[service]),
            "phase_duration_seconds": {k: v for k, v in self.phases.items() if k[0] in services},
        }


def _rule(decision: DecisionDoc) -> str:
    """The one word for a decision: the rule of its forced move, or else of its first event."""
    moves = [event for event in decision.events if event.kind == "move"]
    for event in (*(move for move in moves if move.forced), *moves, *decision.events, *decision.refused):
        return event.rule
    return ""


def _count(counts: dict[Labels, int], labels: Labels) -> None:
    counts[labels] = counts.get(labels, 0) + 1


def _counts(rows: Rows) -> dict[Labels, Value]:
    return {labels: float(value.count) for labels, value in rows.items() if isinstance(value, Buckets)}


def _since_zero(
    counts: Mapping[Labels, int],
    services: Mapping[str, tuple[str, ...]],
    seconds: Callable[[str], tuple[str, ...]],
) -> dict[Labels, Value]:
    rows: dict[Labels, Value] = {(service, second): 0.0 for service in services for second in seconds(service)}
    rows.update((labels, float(n)) for labels, n in counts.items() if labels[0] in services)
    return rows


class MeteredProber:
    """A prober whose results are counted. What is cancelled gave none."""

    def __init__(self, inner: Prober, vantage: str, timings: Timings) -> None:
        self._inner, self._vantage, self._timings = inner, vantage, timings

    def start(self, target: Target, done: Done) -> Cancel:
        kind = target.kind

        def counted(sample: Sample) -> None:
            self._timings.observe((self._vantage, kind, _outcome(sample)), sample.took_s)
            done(sample)

        return self._inner.start(target, counted)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _outcome(sample: Sample) -> str:
    """passed | failed (something answered) | silent (nothing did) | broken (a bug in the probe)."""
    if sample.broken:
        return "broken"
    if sample.passed:
        return "passed"
    return "failed" if sample.answered else "silent"
