"""`failoverctl drill run`: play scenarios in a world, show what happens, judge it, record what passed."""

from __future__ import annotations

import logging
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer
from msgspec import Struct

from chaos import ledger, screen
from chaos.drill import WORLDS, Drilled, play, play_apart, world_class
from chaos.live import Progress
from chaos.page import page
from chaos.reading import read_scenario
from chaos.report import Report
from chaos.scenario import Scenario
from chaos.worlds.world import Refused, World
from controlplane.cli import sending
from controlplane.cli.context import Code, Run, Stop
from controlplane.cli.drill_files import Own, jobs_of, load, names_of, own_config, path_of, sigterm_as_ctrl_c, version
from controlplane.cli.output import lead, now, safe
from controlplane.cli.plan import interactive
from controlplane.config.problems import did_you_mean, listed

_PERCENT = re.compile(r"(\d{1,3}(?:\.\d+)?)\s*%")


class Wish(Struct, frozen=True):
    """What was asked for, checked. own: the user's configuration; how: it and the world, as they were typed."""

    world: str
    seed: int
    own: Own | None
    how: str
    staging: Path | None
    yes_on: str
    abort_at: float | None
    jobs: int


class Asked(Struct, frozen=True):
    """The options as they were typed."""

    world: str
    seed: int
    report: Path | None
    config: Path | None
    staging: Path | None
    yes_on: str
    abort_at: str
    jobs: int


def run_drills(run: Run, names: Sequence[str], all_: bool, asked: Asked) -> None:
    """Play one with all that there is to see, or several in one table. Raises Stop; exits with 1 if one failed."""
    chosen = names_of(names, all_)
    wish = _wish(asked)
    _writable(asked.report, len(chosen))
    with sigterm_as_ctrl_c():
        reports = _reports(run, chosen, all_, wish, asked.report)
    if not all(isinstance(found, Report) and found.passed for found in reports):
        raise typer.Exit(int(Code.REFUSED))


def _reports(run: Run, chosen: list[str], all_: bool, wish: Wish, file: Path | None) -> list[Report | Refused]:
    """Raises Stop."""
    try:
        scenarios = _playable(run, chosen, wish) if all_ else load(chosen, wish.own)
        worlds = _worlds(run, scenarios, wish)
        _refuse([problem for s, w in zip(scenarios, worlds, strict=True) for problem in w.check(s)])
        if not all_ and len(chosen) == 1:
            return [_one(run, chosen[0], scenarios[0], worlds[0], wish, file)]
        return _several(run, scenarios, worlds, wish)
    except Refused as refused:
        raise Stop(Code.REFUSED, str(refused), problems=list(refused.problems)) from None
    except KeyboardInterrupt:
        raise Stop(Code.INTERRUPTED, "Interrupted. What the drill broke is healed; it is not recorded.") from None


def _playable(run: Run, names: Sequence[str], wish: Wish) -> list[Scenario]:
    """Of the scenarios that ship those that fit the user's own configuration, and that the world can play; tells which
    are left out. Raises Stop if there is none."""
    if wish.own is None and wish.world == "sim":
        return load(names)  # each of them can be played, or something is wrong
    if wish.world == "staging":
        raise Stop(Code.USAGE, "--all: name the scenarios that your staging is to play, one by one")
    reads = {name: read_scenario(path_of(name), wish.own).scenario for name in names}
    world = world_class(wish.world)()
    found = [scenario for scenario in reads.values() if scenario is not None and not world.check(scenario)]
    left = [name for name in names if name not in {scenario.name for scenario in found}]
    if left:
        run.stderr.print(f"Left out, because they do not fit here: {', '.join(left)}", style="yellow", soft_wrap=True)
    if not found:
        raise Stop(Code.REFUSED, "No scenario that ships fits; name one to see why.")
    return found


def _one(run: Run, name: str, scenario: Scenario, world: World, wish: Wish, file: Path | None) -> Report:
    """With all that there is to see."""
    progress = Progress(scenario, world.name, wish.seed, run.people, real_time=world.name != "sim")
    drilled = _seen(scenario, world, wish, progress)
    again = f"failoverctl drill run {shlex.quote(name)}{wish.how}"
    run.document(drilled.report)
    for part in screen.report(drilled.report, None if progress.told else drilled.history, again):
        run.people.print(part)
    _record(run, scenario, drilled)
    if file is not None:
        try:
            file.write_text(page(drilled.report, drilled.history, again), encoding="utf-8")
        except OSError as error:
            raise Stop(Code.REFUSED, f"--report {file}: {error.strerror}") from None
        run.people.print(safe(f"The page: {file}"))
    return drilled.report


def _several(run: Run, scenarios: Sequence[Scenario], worlds: Sequence[World], wish: Wish) -> list[Report | Refused]:
    """One line each, in the order in which they were named."""
    width = max(len(scenario.name) for scenario in scenarios)
    run.people.print(screen.row_head(width))
    found: list[Report | Refused] = []
    for scenario, played in zip(scenarios, _played(run, scenarios, worlds, wish), strict=True):
        if isinstance(played, Refused):
            found.append(played)
            run.people.print(screen.row_refused(scenario.name, width, str(played)), soft_wrap=True)
            continue
        found.append(played.report)
        run.people.print(screen.row(played.report, width), soft_wrap=True)
        _record(run, scenario, played)
    passed = sum(isinstance(report, Report) and report.passed for report in found)
    documents = [_document(scenario, report) for scenario, report in zip(scenarios, found, strict=True)]
    run.document({"passed": passed == len(found), "drills": documents})
    word, style = ("PASSED", "green") if passed == len(found) else ("FAILED", "red")
    run.people.print(lead(word, f"bold {style}").append(f" {passed} of {len(found)} in {wish.world}", style=""))
    return found


def _played(
    run: Run, scenarios: Sequence[Scenario], worlds: Sequence[World], wish: Wish
) -> Iterator[Drilled | Refused]:
    """Several at once where they cannot be in each other's way."""
    if wish.world == "sim" and wish.jobs > 1:
        yield from play_apart([(scenario, wish.seed) for scenario in scenarios], wish.jobs)
        return
    for scenario, world in zip(scenarios, worlds, strict=True):
        progress = Progress(scenario, world.name, wish.seed, run.people, real_time=world.name != "sim", quiet=True)
        try:
            played: Drilled | Refused = _seen(scenario, world, wish, progress)
        except Refused as refused:
            played = refused
        yield played


def _seen(scenario: Scenario, world: World, wish: Wish, progress: Progress) -> Drilled:
    """Play it before somebody's eyes, who may press Ctrl-C."""
    try:
        with _abandoning(world.name), progress:
            return play(scenario, world, wish.seed, progress.say)
    except KeyboardInterrupt:
        if not progress.left:
            raise
        why = "".join(f"\n  {left}" for left in progress.left)
        raise Stop(Code.INTERRUPTED, f"Interrupted. Not everything is healed: failoverctl drill halt{why}") from None


@contextmanager
def _abandoning(world: str) -> Iterator[None]:
    """Ctrl-C meets the simulator in the middle of a step of one of its nodes, and nothing is to be healed: whatever its
    unfinished parts say when they are put away, it is the interruption alone that counts."""
    if world != "sim":
        yield
        return
    pressed = False

    def press(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        sys.unraisablehook = lambda _: None
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, press)
    try:
        yield
    except BaseException:
        if pressed:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(signal.SIGINT, before)


def _document(scenario: Scenario, report: Report | Refused) -> object:
    if isinstance(report, Report):
        return report
    return {"scenario": scenario.name, "passed": False, "refused": report.problems}


def _wish(asked: Asked) -> Wish:
    """Raises Stop for options that do not fit together."""
    world, staging, abort_at = asked.world, asked.staging, asked.abort_at
    if world not in WORLDS:
        raise Stop(Code.USAGE, f'--world: there is no "{world}"{did_you_mean(world, WORLDS) or f"; {listed(WORLDS)}"}')
    given = {"--staging": staging, "--yes-on": asked.yes_on, "--abort-at": abort_at}
    extra = [option for option, value in given.items() if value]
    if extra and world != "staging":
        raise Stop(Code.USAGE, f"{listed(extra)}: only with --world staging")
    match = _PERCENT.fullmatch(abort_at.strip())
    if abort_at and (match is None or not 0 < float(match[1]) <= 100):
        raise Stop(Code.USAGE, f'--abort-at: "{abort_at}" is not a percentage over 0; write 5%')
    words = [
        ("--world", world if world != "sim" else ""),
        ("--seed", str(asked.seed)),
        ("--config", asked.config),
        ("--staging", staging),
    ]
    how = "".join(f" {option} {shlex.quote(str(value))}" for option, value in words if value)
    share = float(match[1]) / 100 if match else None
    return Wish(
        world,
        asked.seed,
        own_config(asked.config),
        how,
        staging,
        asked.yes_on,
        share,
        jobs_of(asked.jobs),
    )


def _writable(file: Path | None, drills: int) -> None:
    """A drill may take an hour: what its report cannot be written to is better known before. Raises Stop."""
    if file is None:
        return
    if drills > 1:
        raise Stop(Code.USAGE, "--report is for one scenario; several give a table, and --json has everything")
    new = not file.exists()
    try:
        with file.open("a", encoding="utf-8"):
            pass
        if new:
            file.unlink()
    except OSError as error:
        raise Stop(Code.USAGE, f"--report {file}: {error.strerror}") from None


def _worlds(run: Run, scenarios: Sequence[Scenario], wish: Wish) -> list[World]:
    """One for each scenario; one for all, unless each has a staging of its own. Raises Refused."""
    if wish.world == "staging":
        return [_staging(run, scenario, wish) for scenario in scenarios]
    return [world_class(wish.world)()] * len(scenarios)


def _staging(run: Run, scenario: Scenario, wish: Wish) -> World:
    """Raises Refused."""
    from chaos.worlds.staging import beside

    def confirm(plan: str) -> str:
        if not interactive():
            raise Stop(Code.USAGE, f"{plan}\nNobody to ask here: add --yes-on CLUSTER. Nothing was broken.")
        run.stderr.print(safe(plan))
        return sending.said(run, "Type the cluster's name to go on: ")

    more = {} if wish.abort_at is None else {"abort_at": wish.abort_at}
    file = wish.staging or beside(Path(scenario.file))
    return world_class("staging")(file, yes_on=wish.yes_on, confirm=confirm, **more)


def _refuse(problems: list[str]) -> None:
    if problems:
        raise Refused(problems)


def _record(run: Run, scenario: Scenario, drilled: Drilled) -> None:
    """Keep it, if it passed; that it cannot be kept is told, and is no failure of the drill."""
    report = drilled.report
    if not report.passed or report.stopped:
        return
    # A staging has a configuration of its own; other worlds play the scenario's, and may have to move addresses.
    config = drilled.history.config if report.world == "staging" else scenario.config
    bound_s, measured_s = ledger.closest(report)
    try:
        passed = ledger.Passed(
            scenario=scenario.name,
            file=str(Path(scenario.file).absolute()),
            scenario_sha256=ledger.file_digest(Path(scenario.file)),
            cluster=config.cluster,
            config_rev=config.revision,
            config_sha256=ledger.config_digest(config),
            version=version(),
            world=report.world,
            seed=report.seed,
            at=now().isoformat(timespec="seconds"),
            history_sha256=report.history_sha256,
            bound_s=bound_s,
            measured_s=measured_s,
        )
        ledger.record(passed, ledger.path())
    except (OSError, ledger.LedgerError) as error:
        run.stderr.print(f"Not recorded: {error}", style="yellow")
