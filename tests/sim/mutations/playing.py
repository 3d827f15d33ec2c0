"""A scenario in the simulator, with a piece of the product switched off from its time 0 on."""

from __future__ import annotations

from contextlib import ExitStack

from chaos.history import AnyRecord, History
from chaos.judge import judge
from chaos.report import Report
from chaos.scenario import Scenario
from chaos.worlds.sim import SimWorld
from tests.sim.mutations.swap import Off, Reached

SEED = 1


def play(scenario: Scenario, *, off: Off | None = None, setting: Off | None = None) -> tuple[History, Report, Reached]:
    """setting: what is different all the time, with the piece and without it.

    Until the scenario begins the cluster comes up with everything that it has; the judge sees the product as it is."""
    reached = Reached()
    with ExitStack() as around, ExitStack() as switched:
        if setting is not None:
            around.enter_context(setting())

        def heard(record: AnyRecord) -> None:
            nonlocal off, reached
            if off is not None and record.at >= 0:
                reached, off = switched.enter_context(off()), None

        history = SimWorld().play(scenario, SEED, heard)
    return history, judge(scenario, history), reached
