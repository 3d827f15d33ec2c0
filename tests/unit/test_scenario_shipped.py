"""The scenarios that ship, as files: each reads, says which accident it is, and expects something that can fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.reading import SHIPPED, read_scenario, shipped
from chaos.scenario import Scenario
from chaos.worlds.lab.play import LabWorld
from chaos.writing import scenario_text

LAB = frozenset(LabWorld.verbs)


def scenario(file: Path) -> Scenario:
    read = read_scenario(file)
    assert [str(problem) for problem in read.problems] == []
    assert read.scenario is not None
    return read.scenario


ALL = {name: scenario(file) for name, file in shipped().items()}


def test_there_are_as_many_as_promised() -> None:
    assert len(ALL) >= 34


@pytest.mark.parametrize("name", ALL)
def test_each_is_an_accident_and_expects_something(name: str) -> None:
    one = ALL[name]
    assert one.name == name
    assert one.about[0].isupper() and one.about.endswith(".") and len(one.about) >= 40
    kinds = {line.kind for line in one.expect}
    assert "always" in kinds and kinds & {"by", "during", "outage"}
    checkers = {checker for line in one.expect for checker in line.checkers}
    assert {"fenced", "never_empty"} <= checkers
    assert "converged" in {condition.kind for line in one.expect for condition in line.conditions} | checkers


def test_no_two_are_the_same_accident() -> None:
    assert len({one.about for one in ALL.values()}) == len(ALL)
    told = {
        (one.resolvers, one.transfer_s, *((fault.text, fault.at_s, fault.for_s) for fault in one.faults))
        for one in ALL.values()
    }
    assert len(told) == len(ALL)


def test_at_least_ten_can_run_in_the_lab() -> None:
    """Real processes take real time, and there are things that cannot be done to them."""
    config = (SHIPPED / "config" / "lab.yaml").read_text()
    lab = [one for one in ALL.values() if one.config_text == config]
    assert len(lab) >= 10
    for one in lab:
        assert 40 <= one.duration_s <= 75
        assert {fault.verb for fault in one.faults} <= LAB


@pytest.mark.parametrize("name", ALL)
def test_each_is_written_as_it_was_read(name: str, tmp_path: Path) -> None:
    one = ALL[name]
    (tmp_path / "config").symlink_to(SHIPPED / "config")
    file = tmp_path / f"{name}.yaml"
    (tmp_path / "c.yaml").write_text(one.config_text)
    file.write_text(scenario_text(one, "c.yaml"))
    again = scenario(file)
    assert [(f.text, f.at_s, f.for_s) for f in again.faults] == [(f.text, f.at_s, f.for_s) for f in one.faults]
    assert [line.text for line in again.expect] == [line.text for line in one.expect]
    assert again.config == one.config
