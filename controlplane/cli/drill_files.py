"""What the drill commands share: scenarios by name or path, configurations to play them with, what passed before."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import FrameType

from chaos import ledger
from chaos.reading import UnknownScenario, find, read_scenario, shipped
from chaos.scenario import Scenario
from controlplane.cli import files
from controlplane.cli.context import Code, Run, Stop
from controlplane.config.problems import Problem
from policies.topology import Config

JOBS_A_PROCESSOR = 4
Own = tuple[Config, str]  # a configuration and its text


def version() -> str:
    return metadata.version("failover-control-plane")


def path_of(name: str) -> Path:
    """Raises Stop for what is neither a scenario that ships nor a file."""
    try:
        return find(name)
    except UnknownScenario as error:
        raise Stop(Code.USAGE, str(error)) from None


def load(names: Sequence[str], own: Own | None = None) -> list[Scenario]:
    """Every one of them, or Stop with all that is wrong with any."""
    scenarios: list[Scenario] = []
    problems: list[Problem] = []
    for name in names:
        read = read_scenario(path_of(name), own)
        if read.scenario is None:
            problems += read.problems
        else:
            scenarios.append(read.scenario)
    if problems:
        lines = "\n".join(str(problem) for problem in problems)
        raise Stop(Code.REFUSED, lines, problems=[as_document(problem) for problem in problems])
    return scenarios


def as_document(problem: Problem) -> dict[str, object]:
    """As `check --json` has it."""
    return {key: getattr(problem, key) for key in ("file", "path", "line", "column", "severity", "message")}


def own_config(file: Path | None) -> Own | None:
    """The user's own configuration, to be played instead of the scenario's. Raises Stop."""
    if file is None:
        return None
    result, text = files.read(file)
    if result.config is None:
        raise files.unsound(result)
    return result.config, text


def passed_before(run: Run) -> list[ledger.Passed]:
    """The drills that were recorded, oldest first. Raises Stop."""
    file = ledger.path()
    try:
        found, damaged = ledger.read(file)
    except ledger.LedgerError as error:
        raise Stop(Code.REFUSED, str(error)) from None
    if damaged:
        lines = "1 line" if damaged == 1 else f"{damaged} lines"
        run.stderr.print(f"{file}: {lines} cannot be read; what they recorded is not counted", style="yellow")
    return found


def jobs_of(asked: int) -> int:
    """How many processes: as asked for, one a processor by default. Raises Stop for more than the machine can bear."""
    processors = os.cpu_count() or 1
    most = JOBS_A_PROCESSOR * processors
    if asked > most:
        raise Stop(Code.USAGE, f"--jobs {asked}: at most {most} here, {JOBS_A_PROCESSOR} for each processor")
    return asked or processors


@contextmanager
def sigterm_as_ctrl_c() -> Iterator[None]:
    """Whoever ends us in this way (a CI, `kill`) finds everything put away too. For the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        if not callable(signal.getsignal(signal.SIGINT)):  # ignored: a shell has started us in the background
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def names_of(names: Sequence[str], all_: bool) -> list[str]:
    """What is to be played. Raises Stop if it is not said."""
    if bool(names) == all_:
        raise Stop(Code.USAGE, "Name one scenario or more, or add --all; failoverctl drill list shows those that ship.")
    return sorted(shipped()) if all_ else list(dict.fromkeys(names))
