"""What `failoverctl drill fuzz` does: random clusters and faults, with its progress, and what it found."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import typer
from rich.live import Live
from rich.text import Text

from chaos.fuzz import Found, FuzzReport, Progress, fuzz
from controlplane.cli.context import Code, Run, Stop
from controlplane.cli.drill_files import jobs_of, sigterm_as_ctrl_c
from controlplane.cli.output import BAD, lead, safe, seconds

SAY_EVERY_S = 30.0  # where lines stay
VIOLATIONS_SHOWN = 3
MOST_HOURS = 100_000


class Telling:
    """A context manager; `heard` is told of each case: what failed stays on the screen, the rest is one line that is
    drawn again and again, or one line now and then where lines stay."""

    def __init__(self, run: Run) -> None:
        self._run, self._out = run, run.people
        self._told = 0
        self._said_at = time.monotonic()
        live = self._out.is_terminal and not self._out.is_dumb_terminal
        self._live = Live(console=self._out, auto_refresh=False, transient=True) if live else None

    def __enter__(self) -> Telling:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def heard(self, progress: Progress) -> None:
        for found in progress.found[self._told :]:
            for line in told(found):
                self._out.print(line, soft_wrap=True)
        self._told = len(progress.found)
        now = time.monotonic()
        if self._live is not None:
            self._live.update(Text(so_far(progress)), refresh=True)
        elif now - self._said_at >= SAY_EVERY_S:
            self._said_at = now
            self._out.print(so_far(progress))


def so_far(p: Progress) -> str:
    """ "41 cases · 12.3 of 500 hours · 1,050 x real time · none failed · 12m left"."""
    speed = p.hours * 3600 / p.took_s if p.took_s else 0.0
    left = f" · {seconds((p.of_hours - p.hours) * 3600 / speed)} left" if speed and p.of_hours > p.hours else ""
    failed = f"{len(p.found)} failed" if p.found else "none failed"
    return f"{p.cases} cases · {p.hours:.2f} of {p.of_hours:g} hours · {speed:,.0f} x real time · {failed}{left}"


def told(found: Found) -> Iterator[Text]:
    """One failure: what was wrong, with which faults, and how to see it again."""
    line = Text().append(f"{BAD} ", style="red").append(f"case {found.seed}: {found.checker}", style="bold")
    yield line.append(f"  {len(found.faults)} of {found.before} faults suffice", style="")
    for violation in found.violations[:VIOLATIONS_SHOWN]:
        yield Text("    ").append_text(safe(violation))
    for fault in found.faults:
        yield Text("    fault: ").append_text(safe(fault))
    yield Text("    again: ").append_text(safe(found.command))


def fuzz_drills(run: Run, hours: float, seed: int | None, jobs: int, into: Path) -> None:
    """Raises Stop; exits with 1 if something failed."""
    if not 0 < hours <= MOST_HOURS:  # which a NaN is not either
        raise Stop(Code.USAGE, f"--hours {hours:g}: has to be over 0 and at most {MOST_HOURS:,}")
    if into.exists() and not into.is_dir():
        raise Stop(Code.USAGE, f"--into {into}: is not a directory")
    seed = secrets.randbelow(2**31) if seed is None else seed
    jobs = jobs_of(jobs)
    run.people.print(f"fuzz · seed {seed} · {hours:g} hours of simulated clusters, {jobs} at once")
    try:
        with sigterm_as_ctrl_c(), Telling(run) as telling:
            report = fuzz(hours, seed, jobs, telling.heard, into)
    except OSError as error:
        raise Stop(Code.REFUSED, f"{error.filename or into}: {error.strerror}") from None
    run.document({"passed": report.passed, "hours": report.hours, "of_hours": hours, **_document(report)})
    _end(run, report, hours)
    if report.found or (not report.passed and not report.stopped):
        raise typer.Exit(int(Code.REFUSED))
    if report.stopped:
        raise typer.Exit(int(Code.INTERRUPTED))


def _document(report: FuzzReport) -> dict[str, object]:
    return {
        "seed": report.seed,
        "cases": report.cases,
        "took_s": report.took_s,
        "stopped": report.stopped,
        "found": report.found,
        "checked": report.looked.checked,
        "failovers": {"judged": report.looked.failovers - report.looked.exempt, "exempt": report.looked.exempt},
    }


def _end(run: Run, report: FuzzReport, hours: float) -> None:
    played = f"{report.cases} cases, {report.hours:.2f} hours in {seconds(report.took_s)}, seed {report.seed}"
    again = f"failoverctl drill fuzz --hours {hours:g} --seed {report.seed}"
    if report.stopped:
        run.people.print(lead("INTERRUPTED ", "bold yellow").append(f"{played}, {len(report.found)} failed", style=""))
    elif report.passed:
        run.people.print(lead("PASSED ", "bold green").append(played, style=""))
    else:
        run.people.print(lead("FAILED ", "bold red").append(f"{len(report.found)} of {played}", style=""))
    if report.found and not report.stopped and report.hours < hours:
        run.people.print(f"It ended early: {len(report.found)} failures are enough.")
    looked = report.looked
    if looked.checked:
        counts = " · ".join(f"{name} {count:,}" for name, count in looked.checked.items())
        run.people.print(f"looked at: {counts}", soft_wrap=True)
        judged = looked.failovers - looked.exempt
        run.people.print(f"failovers: {judged} judged by the bound, {looked.exempt} outside it")
    if report.idle:
        run.people.print(f"nothing to look at in all these cases: {', '.join(report.idle)}", soft_wrap=True)
    if not report.passed or report.stopped:
        run.people.print(f"again: {again}")
