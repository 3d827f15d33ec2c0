"""Every safety mechanism is switched off, and a scenario that is aimed at it must see that."""

from __future__ import annotations

import pytest

from chaos.checkers import CHECKERS
from chaos.history import History
from chaos.report import Report
from tests.sim.mutations.named import NAMED
from tests.sim.mutations.playing import play
from tests.sim.mutations.swap import swapped
from tests.sim.mutations.table import AIMED, MECHANISMS, Mechanism

ROWS = [pytest.param(row, id=row.scenario) for row in MECHANISMS]


def wrong(row: Mechanism, history: History, report: Report) -> dict[str, str]:
    """What failed, and how."""
    found = {invariant.name: "; ".join(invariant.violations) for invariant in report.invariants if not invariant.passed}
    missed = [f"{met.text}: {met.detail}" for met in report.expectations if not met.passed]
    if missed:
        found["expectation"] = "; ".join(missed)
    if row.also is not None and (why := row.also(history)):
        found["also"] = why
    return found


@pytest.mark.parametrize("row", ROWS)
def test_with_the_mechanism_all_is_well(row: Mechanism) -> None:
    history, report, _ = play(row.read(), setting=row.setting)
    assert wrong(row, history, report) == {}


@pytest.mark.parametrize("row", ROWS)
def test_without_the_mechanism_it_is_seen(row: Mechanism) -> None:
    history, report, reached = play(row.read(), off=row.off, setting=row.setting)
    found = wrong(row, history, report)
    assert reached.times, "what stands in its place was never used"
    assert set(row.seen_by) & found.keys(), f"nothing that speaks of it failed; only: {found}"


def test_every_mechanism_that_is_named_has_a_row() -> None:
    held = [name for row in MECHANISMS for name in row.names]
    assert sorted(held) == sorted(NAMED)
    assert len(set(held)) == len(held)


def test_every_aimed_scenario_is_used() -> None:
    assert {file.stem for file in AIMED.glob("*.yaml")} == {row.scenario for row in MECHANISMS}


def test_what_is_switched_off_is_put_back() -> None:
    for row in MECHANISMS:
        with row.off():
            pass
    history, report, _ = play(MECHANISMS[0].read())
    assert wrong(MECHANISMS[0], history, report) == {}


def test_a_piece_that_is_not_there_cannot_be_switched_off() -> None:
    with pytest.raises(KeyError), swapped(Mechanism, "nothing", lambda _: None):
        pass


def test_every_checker_that_guards_safety_has_seen_a_mechanism_missing() -> None:
    seen = {name for row in MECHANISMS for name in row.seen_by}
    assert (
        {"fenced", "never_empty", "quorum_backed", "hold_time", "capacity"}
        <= seen
        <= {*CHECKERS, "expectation", "also"}
    )
