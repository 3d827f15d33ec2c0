"""`failoverctl drill status`: which drills have not passed with the configuration that runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import typer
from msgspec import Struct
from rich.text import Text

from chaos import ledger
from chaos.ledger import Passed
from chaos.reading import read_scenario, shipped
from controlplane.cli.context import Code, Run, Stop
from controlplane.cli.drill_files import Own, own_config, passed_before, version
from controlplane.cli.observe import fetch
from controlplane.cli.output import OK, WARN, now, safe, seconds, table
from policies.topology import Config

Doc = dict[str, Any]

PASSED, NEVER, UNFIT = "passed", "never", "does not fit"
OTHER_CONFIG, CHANGED, OUTDATED = "other configuration", "scenario changed", "other version"
_STYLE = {PASSED: "green", UNFIT: "bright_black"}


class Line(Struct, frozen=True):
    """How one scenario stands. last: the drill that speaks for it, if there is one; why: it does not fit, if so."""

    scenario: str
    state: str
    last: Passed | None = None
    why: str = ""


class Running(Struct, frozen=True):
    """What drills are held against. digests: scenario -> sha256 of its file as it is now."""

    config_sha256: str
    version: str
    digests: Mapping[str, str]


def status(run: Run, file: Path | None) -> None:
    """Raises Stop; exits with 1 if a scenario that fits has not passed."""
    own, source = _running(run, file)
    config = own[0]
    passed = passed_before(run)
    running = Running(ledger.config_digest(config), version(), _digests(passed))
    lines = judge(passed, running)
    lines = [_fit(line, own) if line.state in (NEVER, OTHER_CONFIG) else line for line in lines]
    missing = [line for line in lines if line.state not in (PASSED, UNFIT)]
    run.document(
        {
            "ok": not missing,
            "cluster": config.cluster,
            "config_rev": config.revision or None,
            "config_sha256": running.config_sha256,
            "version": running.version,
            "scenarios": [_document(line) for line in lines],
            "source": source,
        }
    )
    if not run.json:
        _print(run, config, lines, len(missing), file)
    if missing:
        raise typer.Exit(int(Code.REFUSED))


def _running(run: Run, file: Path | None) -> tuple[Own, Doc | None]:
    """The configuration, and who said that it runs. Raises Stop."""
    own = own_config(file)
    if own is not None:
        return own, None
    try:
        doc = fetch(run, "/v1/config")
    except Stop as stop:
        raise Stop(stop.code, f"{stop.message}\nWithout a cluster: failoverctl drill status -f FILE") from None
    return (msgspec.convert(doc["config"], Config), ""), doc["source"]


def _digests(found: Sequence[Passed]) -> dict[str, str]:
    """Of the files as they are now: of the scenarios that ship, and of the user's own that are still there."""
    files = {passed.scenario: Path(passed.file) for passed in found if passed.file} | shipped()
    digests = {}
    for name, file in files.items():
        with suppress(OSError):
            digests[name] = ledger.file_digest(file)
    return digests


def judge(found: Sequence[Passed], running: Running) -> list[Line]:
    """One line for each scenario that ships or was recorded, by name; those that have not passed come first."""
    lines = []
    for name in sorted({*running.digests, *(passed.scenario for passed in found)}):
        drills = [passed for passed in found if passed.scenario == name]
        best = max(drills, key=lambda p: (_rank(p, running), p.at), default=None)
        lines.append(Line(name, NEVER) if best is None else Line(name, _STATES[_rank(best, running)], best))
    return sorted(lines, key=lambda line: (line.state == PASSED, line.scenario))


_STATES = (OTHER_CONFIG, CHANGED, OUTDATED, PASSED)  # each better than the one before


def _rank(passed: Passed, running: Running) -> int:
    if passed.config_sha256 != running.config_sha256:
        return 0
    if running.digests.get(passed.scenario, passed.scenario_sha256) != passed.scenario_sha256:
        return 1
    return 2 if passed.version != running.version else 3


def _fit(line: Line, own: Own) -> Line:
    """A scenario that was never played with this configuration: can it be?"""
    file = shipped().get(line.scenario) or Path(line.last.file if line.last else "")
    if not file.is_file():
        return line
    read = read_scenario(file, own)
    if read.scenario is not None:
        return line
    problem = read.problems[0]
    subject = f"{problem.path}: " if problem.path else ""
    return Line(line.scenario, UNFIT, None, f"{subject}{problem.message}")


def _document(line: Line) -> Doc:
    last: Doc = {field: None for field in Passed.__struct_fields__ if field != "scenario"}
    if line.last is not None:
        last = msgspec.to_builtins(line.last)
    age_s = None if line.last is None else ledger.age_s(line.last, now())
    return {**last, "scenario": line.scenario, "state": line.state, "age_s": age_s, "why": line.why}


def _print(run: Run, config: Config, lines: Sequence[Line], missing: int, file: Path | None) -> None:
    rows = []
    for line in lines:
        style = _STYLE.get(line.state, "yellow")
        sign = OK if line.state == PASSED else " " if line.state == UNFIT else WARN
        last = line.last
        cells = ("", "", "", "", "")
        if last is not None:
            age = f"{seconds(ledger.age_s(last, now()))} ago"
            cells = (last.world, age, _s(last.bound_s), _s(last.measured_s), _with(line, last))
        state = Text(f"{sign} {line.state}", style=style)
        rows.append((state, Text(line.scenario, style="bold"), *cells[:4], safe(line.why or cells[4])))
    headers = ("STATE", "SCENARIO", "WORLD", "PASSED", "BOUND", "MEASURED", "")
    run.stdout.print(table(headers, rows, right=("PASSED", "BOUND", "MEASURED")))
    fit = sum(line.state != UNFIT for line in lines)
    which = f"rev {config.revision}" if config.revision else str(file)
    text = f"{fit - missing} of {fit} have passed with {config.cluster} {which}, version {version()}."
    run.stdout.print(Text(text, style="yellow" if missing else "green"))
    if missing:
        own = file or "FILE"
        run.stdout.print(f"Play them: failoverctl drill run NAME --config {own}", style="bright_black", soft_wrap=True)


def _with(line: Line, last: Passed) -> str:
    """What was different, when it passed."""
    if line.state == OTHER_CONFIG:
        return f"with {last.cluster}" + (f" rev {last.config_rev}" if last.config_rev else "")
    return f"with version {last.version}" if line.state == OUTDATED else ""


def _s(value_s: float | None) -> str:
    return "-" if value_s is None else f"{value_s:.1f}s"
