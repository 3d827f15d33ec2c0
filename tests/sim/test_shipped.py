"""Every scenario that ships passes in the simulator, with this seed as with others."""

from __future__ import annotations

import pytest

from chaos.judge import judge
from chaos.reading import read_scenario, shipped
from chaos.worlds.sim import SimWorld

SEED = 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", shipped())
def test_shipped(name: str) -> None:
    read = read_scenario(shipped()[name])
    assert read.problems == () and read.scenario is not None
    world = SimWorld()
    assert world.check(read.scenario) == []
    report = judge(read.scenario, world.play(read.scenario, SEED, lambda record: None))
    wrong = [f"{met.text}: {met.detail}" for met in report.expectations if not met.passed]
    wrong += [f"{one.name}: {said}" for one in report.invariants if not one.passed for said in one.violations]
    assert wrong == []
    assert report.passed and not report.left
