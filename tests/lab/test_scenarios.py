"""Scenarios that ship, in the lab and in the simulator: both have to pass; what was measured stands side by side."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor

import pytest

from chaos.drill import play
from chaos.reading import read_scenario, shipped
from chaos.report import Report
from chaos.scenario import Scenario
from chaos.worlds.lab.play import LabWorld
from chaos.worlds.sim import SimWorld
from tests.lab.beside import Row, rows

# Ten or more of those that the lab can play; the others are for `failoverctl drill run NAME --world lab`.
NAMES = (
    "deputy-writes",
    "drain-for-maintenance",
    "leader-dies-in-failover",
    "leader-paused-across-a-decision",
    "name-server-refuses-updates",
    "one-way-cut",
    "site-dark",
    "store-leader-dies",
    "store-restored-in-a-drain",
    "store-upgraded-in-one-go",
)
SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Executor]:
    """Beside the lab, and whenever that leaves time: it is the lab's times that are real."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), os.nice, (19,)) as pool:
        yield pool


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", NAMES)
def test_it_passes_in_both_worlds(name: str, lab_world: LabWorld, simulator: Executor, compared: list[Row]) -> None:
    scenario = _scenario(name)
    simulated = [simulator.submit(_simulated, name, seed) for seed in SEEDS]
    lab = play(scenario, lab_world, 0, lambda record: None).report
    sims = [future.result() for future in simulated]
    compared += rows(name, lab, sims)
    assert (lab.world, lab.faults) == ("lab", len(scenario.faults))
    assert _broken(lab) == []
    for sim in sims:
        assert _broken(sim) == [], f"seed {sim.seed}"


def _scenario(name: str) -> Scenario:
    found = read_scenario(shipped()[name]).scenario
    assert found is not None
    return found


def _simulated(name: str, seed: int) -> Report:
    return play(_scenario(name), SimWorld(), seed, lambda record: None).report


def _broken(report: Report) -> list[str]:
    """All that was not as it should be; [] = passed."""
    found = [f"{met.text}: {met.detail}" for met in report.expectations if not met.passed]
    found += [f"{i.name}, {i.checked} checked: {i.violations}" for i in report.invariants if not i.passed]
    found += [f"not healed: {left}" for left in report.left]
    return found or ([] if report.passed else ["did not pass"])
