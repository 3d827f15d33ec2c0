"""A drill's report on a terminal: what was expected, what was measured beside what was computed, what happened."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from chaos.history import History
from chaos.report import Failover, Invariant, Met, Report
from chaos.timeline import BAD as BAD_TONE
from chaos.timeline import GOOD, Event, broke_bounds, clock, phases, timeline
from controlplane.cli.output import BAD, OK, lead, mark, safe, seconds, table

EVENTS_SHOWN = 60
VIOLATIONS_SHOWN = 5
TONES = {BAD_TONE: "red", GOOD: "green"}


def report(report: Report, history: History | None, again: str) -> Iterator[RenderableType]:
    """The whole screen. history: whose timeline is told, if nobody saw it yet. again: the command that repeats it."""
    yield head(report)
    if report.about:
        yield Text(report.about, style="bright_black")
    yield from _expectations(report.expectations)
    yield from _invariants(report.invariants)
    if report.failovers:
        yield lead("FAILOVERS").append("  measured / at most, in seconds", style="bright_black")
        yield _failovers(report.failovers, "red" if broke_bounds(report) else "yellow")
    if report.outages:
        yield lead("CLIENTS")
        yield _outages(report)
    if history is not None:
        yield lead("TIMELINE")
        yield from events(timeline(history))
    yield from _end(report, again)


def head(report: Report) -> Text:
    """ "site-dark · sim · seed 7 · 40m in 2.1s · 1 fault"."""
    faults = f"{report.faults} fault{'' if report.faults == 1 else 's'}"
    facts = (report.world, f"seed {report.seed}", f"{seconds(report.duration_s)} in {seconds(report.took_s)}", faults)
    return lead(report.scenario).append(" · " + " · ".join(facts))


def _expectations(found: Sequence[Met]) -> Iterator[Text]:
    width = min(max((len(met.text) for met in found), default=0), 60)
    for met in found:
        yield Text(" ").append_text(mark(met.passed)).append(f"  {met.text:<{width}}  ").append_text(safe(met.detail))


def _invariants(found: Sequence[Invariant]) -> Iterator[RenderableType]:
    """The good ones in one line, each with how many things it looked at; the others with what is wrong."""
    good = [f"{i.name} {i.checked:,}" for i in found if i.passed]
    if good:
        yield Text(" ").append(OK, style="green").append("  " + " · ".join(good))
    for invariant in found:
        for note in invariant.notes:
            yield Text("    ").append_text(safe(f"{invariant.name}: {note}"))
        if invariant.passed:
            continue
        line = Text(" ").append(BAD, style="red").append(f"  {invariant.name}", style="bold")
        yield line.append(f"  {len(invariant.violations)} of {invariant.checked:,} looked at")
        for violation in invariant.violations[:VIOLATIONS_SHOWN]:
            yield Text("      ").append_text(safe(violation))
        if len(invariant.violations) > VIOLATIONS_SHOWN:
            yield Text(f"      ... and {len(invariant.violations) - VIOLATIONS_SHOWN} more (--json has all)")


def _failovers(found: Iterable[Failover], over: str) -> RenderableType:
    """over: the style of what took longer than its bound."""
    rows: list[tuple[str | Text, ...]] = []
    for failover in found:
        cells = [_beside(measured, bound, over) for _, measured, bound in phases(failover)]
        total = _beside(failover.outage_s, failover.worst_case_s, over)
        fault = "?" if failover.fault_at_s is None else clock(failover.fault_at_s)
        rows.append((failover.service, failover.left, fault, clock(failover.at_s), *cells, total))
    headers = ("SERVICE", "LEFT", "FAULT", "DECIDED", "DETECT", "DECIDE", "APPLY", "TTL", "OUTAGE")
    return table(headers, rows, right=headers[2:])


def _beside(measured_s: float | None, bound_s: float, over: str) -> Text:
    """ "5.1/8.6"; "?" for what is not known."""
    word = "?" if measured_s is None else f"{measured_s:.1f}"
    longer = measured_s is not None and measured_s > bound_s
    return Text(f"{word}/{bound_s:.1f}", style=over if longer else "")


def _outages(report: Report) -> RenderableType:
    rows: list[tuple[str | Text, ...]] = []
    well = [outage for outage in report.outages if not outage.failed]
    for outage in report.outages:
        if not outage.failed:
            continue
        began = "" if outage.began_s is None else f"from {clock(outage.began_s)}"
        longest = Text(f"{outage.longest_s:.1f}s", style="red")
        told = "" if outage.resolver == "keeps" else f"resolver {_RESOLVERS.get(outage.resolver, outage.resolver)}"
        counts = (f"{outage.requests:,}", f"{outage.failed:,}")
        rows.append((outage.service, outage.region, *counts, longest, began, told))
    if well:
        count = f"{sum(outage.requests for outage in well):,}"
        rows.append((f"{'others' if rows else 'all'}", "", count, "0", "-", "", ""))
    headers = ("SERVICE", "REGION", "REQUESTS", "FAILED", "LONGEST", "", "")
    return table(headers, rows, right=headers[2:5])


_RESOLVERS = {"stretch": "stretches TTLs", "stale": "serves stale answers"}


def events(found: Sequence[Event]) -> Iterator[RenderableType]:
    """One line each; of very many the first and the last."""
    half = EVENTS_SHOWN // 2
    if len(found) <= EVENTS_SHOWN:
        yield _events(found)
        return
    yield _events(found[:half])
    yield Text(f"           ... {len(found) - 2 * half} more (--report FILE.html has all)", style="bright_black")
    yield _events(found[-half:])


def _events(found: Sequence[Event]) -> Table:
    """What is too long for a line goes on below its own words."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(width=9, justify="right", no_wrap=True)
    grid.add_column(overflow="fold")
    for told in found:
        grid.add_row(Text(clock(told.at), style="bright_black"), _words(told))
    return grid


def event(told: Event) -> Text:
    """ "  1:06.0  d-2 www gen 2: site-a -> site-b"."""
    return Text().append(f"{clock(told.at):>9}  ", style="bright_black").append_text(_words(told))


def _words(told: Event) -> Text:
    words = safe(told.text)
    words.stylize(TONES.get(told.tone, ""))
    return words


def _end(report: Report, again: str) -> Iterator[RenderableType]:
    healed = report.faults - len(report.left)
    line = Text(f"HEALED {healed} of {report.faults} faults, {len(report.left)} left")
    line.stylize("red" if report.left else "")
    yield line
    for left in report.left:
        yield Text("  ").append(BAD, style="red").append(" ").append_text(safe(left))
    if report.stopped:
        yield lead("STOPPED ", "yellow").append_text(safe(report.stopped))
    word, style = ("PASSED", "green") if report.passed else ("FAILED", "red")
    yield lead(word, f"bold {style}").append(f" history {report.history_sha256[:8]}..").append(f"  again: {again}")


_COLUMNS = (("MET", 6), ("KEPT", 5), ("FAILOVERS", 9), ("OUTAGE", 8), ("BOUND", 7), ("PLAYED", 7), ("TOOK", 7))


def row_head(width: int) -> Text:
    """The head of a table of drills, whose rows come one by one; `width`: of the longest name."""
    return lead("   " + f"{'SCENARIO':<{width}}" + "".join(f"{word:>{most + 1}}" for word, most in _COLUMNS))


def row(report: Report, width: int) -> Text:
    """One drill: expectations met, invariants kept, the longest outage of clients whose resolver keeps TTLs beside the
    largest bound, seconds played and real ones, and what to look at first."""
    longest_s = max((o.longest_s for o in report.outages if o.resolver == "keeps"), default=None)
    bound_s = max((f.worst_case_s for f in report.failovers), default=None)
    cells = (
        f"{sum(m.passed for m in report.expectations)}/{len(report.expectations)}",
        f"{sum(i.passed for i in report.invariants)}/{len(report.invariants)}",
        str(len(report.failovers)),
        *("-" if value is None else f"{value:.1f}" for value in (longest_s, bound_s)),
        seconds(report.duration_s),
        f"{report.took_s:.1f}s",
    )
    line = Text().append_text(mark(report.passed)).append(f"  {report.scenario:<{width}}")
    for (_, most), cell in zip(_COLUMNS, cells, strict=True):
        line.append(f"{cell:>{most + 1}}")
    return line if report.passed else line.append("  ").append_text(safe(first_failure(report)))


def row_refused(name: str, width: int, why: str) -> Text:
    """A drill that a world would not play."""
    return Text().append(BAD, style="red").append(f"  {name:<{width}}  cannot be played: ").append_text(safe(why))


def first_failure(report: Report) -> str:
    """What to look at first."""
    for met in report.expectations:
        if not met.passed:
            return f"{met.text}: {met.detail}"
    for invariant in report.invariants:
        if not invariant.passed:
            return f"{invariant.name}: {next(iter(invariant.violations), 'nothing to look at')}"
    if report.left:
        return f"not healed: {report.left[0]}"
    return report.stopped
