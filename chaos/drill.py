"""A drill: one scenario, played in one world, and judged by what was recorded."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module

from msgspec import Struct
from msgspec.structs import replace

from chaos.history import History
from chaos.judge import judge
from chaos.report import Report
from chaos.scenario import Scenario
from chaos.worlds.world import Refused, Say, World

# Each is imported when it is wanted: the lab and staging need much that no other command does.
WORLDS = {
    "sim": ("chaos.worlds.sim", "SimWorld"),
    "lab": ("chaos.worlds.lab.play", "LabWorld"),
    "staging": ("chaos.worlds.staging", "StagingWorld"),
}


class Drilled(Struct, frozen=True):
    report: Report
    history: History


def world_class(name: str) -> Callable[..., World]:
    """Raises KeyError for an unknown world."""
    module, found = WORLDS[name]
    made: Callable[..., World] = getattr(import_module(module), found)
    return made


def play(scenario: Scenario, world: World, seed: int, say: Say) -> Drilled:
    """Play and judge. `say` is told of each record as it happens.

    Raises Refused before anything is broken; KeyboardInterrupt after all was healed."""
    problems = world.check(scenario)
    if problems:
        raise Refused(problems)
    history = world.play(scenario, seed, say)
    return Drilled(judge(scenario, history), history)


def play_apart(drills: Sequence[tuple[Scenario, int]], jobs: int) -> Iterator[Drilled | Refused]:
    """Play (scenario, seed) pairs in the simulator, in so many processes; the results in the order of the pairs."""
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _ends_quietly) as pool:
        try:
            for found in pool.map(_play_one, drills):
                yield found if isinstance(found, Drilled) else Refused(found)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.terminate()  # a Ctrl-C would have reached it too, a SIGTERM has not
            raise


def _ends_quietly() -> None:
    """Ctrl-C goes to all processes; the first one says what there is to say."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _play_one(drill: tuple[Scenario, int]) -> Drilled | tuple[str, ...]:
    """Or the problems for which it was refused: the exception itself would not survive the way."""
    scenario, seed = drill
    try:
        found = play(scenario, world_class("sim")(), seed, lambda record: None)
    except Refused as refused:
        return refused.problems
    # What nobody looks at is not sent from one process to another.
    return Drilled(found.report, replace(found.history, records=()))
