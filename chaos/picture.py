"""Pictures of a drill: the whole of it, and one failover from close by with what was measured beside what was
computed. Each is drawn twice, for wide and for narrow screens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from chaos import lanes
from chaos.history import History, Operated
from chaos.lanes import ERROR, Blend, Span
from chaos.report import Failover
from chaos.svg import Canvas, fits, mixed, wide
from chaos.timeline import clock, phases

WIDE, NARROW = 1080, 370  # units; the wide one has the lanes' names at its left
GUTTER = 168
SERVICES_SHOWN = 8
ROWS = 8  # of bars below each other
MARGIN_S = 3.0  # beside what a close-up shows
PHASES = ("detect", "decide", "apply", "ttl")


def both(draw: Callable[[str, int, int], str]) -> str:
    """draw(name, width, gutter) for wide and narrow screens; the style shows one of them."""
    return draw("w", WIDE, GUTTER) + draw("n", NARROW, 0)


def sites_of(history: History) -> list[str]:
    """Sites that can serve, in the order of the configuration: the order of their colours."""
    return [name for name, site in history.config.sites.items() if site.role != "witness"]


def overview(history: History) -> str:
    """All of the scenario: faults, the leader, decisions, and for each service who answered and whose requests
    failed."""

    def draw(name: str, width: int, gutter: int) -> str:
        canvas = Canvas(f"all-{name}", width, gutter, 0.0, max(history.duration_s, 1.0), sites_of(history))
        canvas.axis(_tick)
        _faults(canvas, lanes.faults(history))
        _leaders(canvas, history)
        _decisions(canvas, history, "")
        shown = lanes.changed(history)
        for service in shown[:SERVICES_SHOWN]:
            canvas.title(service)
            _answers(canvas, history, service, "", "name servers answer", 22)
            _clients(canvas, history, service)
        if len(shown) > SERVICES_SHOWN:
            canvas.title(f"and {len(shown) - SERVICES_SHOWN} more services")
        about = (
            f"{len(lanes.faults(history))} faults, {len(lanes.decisions(history))} decisions; the tables below say all."
        )
        return canvas.svg("wide" if gutter else "narrow", f"{history.scenario}: the whole drill", about)

    return both(draw)


def close_up(history: History, failover: Failover, number: int) -> str:
    """One failover, second by second."""
    first = failover.at_s - (failover.decide_s or 0.0) - (failover.detect_s or 0.0)
    fault = failover.fault_at_s if failover.fault_at_s is not None else first
    if failover.detect_s is None:
        first = fault
    start = max(min(first, fault) - MARGIN_S, 0.0)
    outage_s = min((failover.apply_s or 0.0) + (failover.ttl_s or 0.0), 1.5 * failover.worst_case_s)
    mark = lanes.decision_of(history, failover)
    regions = mark.regions if mark else ()
    end = min(max(first + failover.worst_case_s, failover.at_s + outage_s) + MARGIN_S, history.duration_s)

    def draw(name: str, width: int, gutter: int) -> str:
        canvas = Canvas(f"near{number}-{name}", width, gutter, start, max(end, start + 1.0), sites_of(history))
        canvas.axis(_tick)
        canvas.line(fault, "at-fault")
        canvas.line(failover.at_s, "at-decision")
        within = [f for f in lanes.faults(history) if f.end >= start and f.start <= end]
        _faults(canvas, within)
        measured(canvas, failover, first, failover.at_s)
        _watchers(canvas, history, failover)
        _leaders(canvas, history)
        _decisions(canvas, history, failover.service)
        canvas.title(
            "What name servers answer"
            + (f" in {', '.join(regions)}" if 0 < len(regions) < len(history.config.regions) else "")
        )
        for server in lanes.servers(history, failover.service):
            _answers(canvas, history, failover.service, server, server, 16, regions)
        canvas.title("Where clients' requests go")
        _clients(canvas, history, failover.service, regions)
        title = f"{failover.service} leaves {failover.left}"
        return canvas.svg("wide" if gutter else "narrow", title, summary(failover))

    return both(draw)


def summary(failover: Failover) -> str:
    """What a close-up shows, in a sentence."""
    parts = ", ".join(
        f"{name} {'unknown' if took is None else f'{took:.1f} s'} of at most {most:.1f} s"
        for name, took, most in phases(failover)
    )
    outage = "unknown" if failover.outage_s is None else f"{failover.outage_s:.1f} s"
    return f"{parts}; clients were out for {outage} of at most {failover.worst_case_s:.1f} s."


def _tick(at: float) -> str:
    """A time on the axis: without tenths where they are 0."""
    return clock(at).removesuffix(".0")


def _faults(canvas: Canvas, spans: Sequence[Span]) -> None:
    tips = [f"{span.value}: {clock(span.start)} to {clock(span.end)}" for span in spans]
    _bars(canvas, "faults", "fault", spans, tips)


def _bars(canvas: Canvas, label: str, kind: str, spans: Sequence[Span], tips: Sequence[str]) -> None:
    """Those that overlap (or whose words would) below each other."""
    if not spans:
        return
    canvas.label(label, 14)
    rows: list[float] = []  # where each row is free again
    hidden = 0
    for span, tip in zip(spans, tips, strict=True):
        x0 = canvas.x(span.start)
        x1 = max(canvas.x(span.end), x0 + wide(span.value) + 4)
        row = next((n for n, free in enumerate(rows) if free <= x0), len(rows))
        if row >= ROWS:
            hidden += 1
            continue
        rows[row : row + 1] = [x1]
        canvas.bar(span, 14, kind, span.value, tip, canvas.y + row * 17)
    canvas.space(len(rows) * 17 + 4)
    if hidden:
        canvas.words(canvas.left, canvas.y + 8, "out", f"and {hidden} more: see the timeline")
        canvas.space(14)


def _leaders(canvas: Canvas, history: History) -> None:
    spans = [s for s in lanes.leaders(history) if s.end >= canvas.start and s.start <= canvas.end]
    canvas.label("leader", 14)
    rows: list[float] = []
    for span in spans:
        row = next((n for n, free in enumerate(rows) if free <= span.start), len(rows))
        rows[row : row + 1] = [span.end]
        tip = f"{span.value} leads, {clock(span.start)} to {clock(span.end)}"
        x0, x1 = canvas.x(span.start), canvas.x(span.end)
        y = canvas.y + row * 16
        canvas.rect(x0, x1, 14, "leader", tip, y)
        if fits(span.value, x1 - x0):
            canvas.words(x0 + 4, y + 11, "in leader-in", span.value)
    canvas.space(max(len(rows), 1) * 16 + 4)


def _decisions(canvas: Canvas, history: History, service: str) -> None:
    """Diamonds; red where a site lost its traffic because it had to. And what operators did, as bars."""
    marks = [m for m in lanes.decisions(history) if not service or m.decision.service == service]
    marks = [m for m in marks if canvas.start <= m.at <= canvas.end]
    done = [r for r in history.records if isinstance(r, Operated) and canvas.start <= r.at <= canvas.end]
    canvas.label("decisions", 14)
    free = 0.0
    for n, mark in enumerate(marks):
        edge = canvas.x(marks[n + 1].at) - 8 if n + 1 < len(marks) else canvas.right
        decision = mark.decision
        words = " ".join(word for word in (decision.id, "" if service else decision.service, mark.change) if word)
        kind = "decided forced" if mark.forced else "decided"
        canvas.diamond(mark.at, kind, f"{clock(mark.at)} {decision.id} {decision.service}: {mark.change}")
        x = canvas.x(mark.at) + 9
        if x >= free and fits(words, edge - x):
            canvas.words(x, canvas.y + 11, "out", words)
            free = x + wide(words)
    canvas.space(18)
    tips = [f"{clock(record.at)} failoverctl {' '.join(record.argv)}: exit {record.code}" for record in done]
    _bars(canvas, "operators", "deed", [Span(r.at, r.at, " ".join(r.argv)) for r in done], tips)


def measured(canvas: Canvas, failover: Failover, first: float, decided: float) -> None:
    """The phases as they were, around the moment of the decision; below them the most that each may take, from `first`
    on."""
    before_s = (failover.detect_s or 0.0) + (failover.decide_s or 0.0)
    _phases(canvas, "measured", "", decided - before_s, [(name, took_s) for name, took_s, _ in phases(failover)])
    _phases(canvas, "computed bound", " most", first, [(name, most_s) for name, _, most_s in phases(failover)])


def _phases(canvas: Canvas, words: str, kind: str, at: float, found: Sequence[tuple[str, float | None]]) -> None:
    """One after the other; what is not known is left out."""
    canvas.label(words, 16)
    for name, length_s in found:
        if length_s is None:
            continue
        x0, x1 = canvas.x(at), canvas.x(at + length_s)
        canvas.rect(x0, x1, 16, name + kind, f"{name} {length_s:.1f} s")
        label = next((w for w in (f"{name} {length_s:.1f} s", name) if fits(w, x1 - x0)), "")
        if label:
            canvas.words(x0 + 4, canvas.y + 12, f"in {kind.strip() or name}-in", label)
        at += length_s
    canvas.space(20)


def _watchers(canvas: Canvas, history: History, failover: Failover) -> None:
    """When each vantage's probes began to fail."""
    watching = lanes.vantages(history, failover.left)
    if not watching:
        return
    canvas.title(f"Probes of {failover.service} at {failover.left}, seen from")
    for vantage in watching:
        spans = lanes.probes(history, vantage, failover.left, failover.service)
        if not spans:
            continue
        if spans[0].start > canvas.start:
            spans = [Span(canvas.start, spans[0].start, "ok"), *spans]
        canvas.label(vantage, 12)
        canvas.lane(spans, 12, lambda s: f"{clock(s.start)}: {s.value.removeprefix(ERROR)}")
        for fault in lanes.silenced(history, vantage):
            if fault.end > canvas.start and fault.start < canvas.end:
                canvas.rect(canvas.x(fault.start), canvas.x(fault.end), 12, "nobody", fault.value)
        failed = next((s for s in spans if s.value.startswith(ERROR) and s.end > canvas.start), None)
        if failed is not None and failed.start <= canvas.end:
            x = canvas.x(failed.start) + 6
            if fits(failed.value, canvas.right - x):
                canvas.words(x, canvas.y + 10, "in error-in", failed.value.removeprefix(ERROR))
        canvas.space(15)
    canvas.space(4)


def _answers(
    canvas: Canvas,
    history: History,
    service: str,
    server: str,
    label: str,
    height: float,
    regions: Collection[str] = (),
) -> None:
    def describe(blend: Blend) -> str:
        return f"from {clock(blend.start)}: {mixed(blend.mix)}"

    canvas.label(label, height)
    canvas.blends(lanes.answers(history, service, server, regions), height, describe)
    canvas.space(height + 4)


def _clients(canvas: Canvas, history: History, service: str, regions: Collection[str] = ()) -> None:
    """A lane for each region (or these); other clients, and those of resolvers that do not keep TTLs, only where they
    failed."""

    def describe(span: Span) -> str:
        how = f"requests fail: {span.value.removeprefix(ERROR)}" if span.value.startswith(ERROR) else span.value
        return f"{clock(span.start)} to {clock(span.end)}: {how or 'no answer'}"

    for region, resolver in lanes.kinds(history, service):
        spans = lanes.clients(history, service, region, resolver)
        failing = any(s.value.startswith(ERROR) and s.end > canvas.start and s.start < canvas.end for s in spans)
        if failing or (resolver == "keeps" and (not regions or region in regions)):
            canvas.label(f"clients {region}" if resolver == "keeps" else f"{region}, {resolver}", 12)
            canvas.lane(spans, 12, describe)
            canvas.space(15)
    canvas.space(6)
