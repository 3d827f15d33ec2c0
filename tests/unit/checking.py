"""One checker, held against a history written by hand."""

from __future__ import annotations

from collections.abc import Callable

from chaos.checkers import CHECKERS
from chaos.history import (
    Answered,
    History,
    Wrote,
)
from chaos.report import Invariant
from chaos.scenario import Scenario
from tests.unit.histories import (
    scenario,
)

Twist = Callable[[History], History]


def look(name: str, history: History, told: Scenario | None = None) -> Invariant:
    return CHECKERS[name](told or scenario(), history)


def fails(name: str, history: History, word: str, told: Scenario | None = None) -> None:
    found = look(name, history, told)
    assert not found.passed
    assert any(word in violation for violation in found.violations), found.violations


def wrote(history: History, at: float) -> Wrote:
    return next(r for r in history.records if isinstance(r, Wrote) and r.at == at)


def answer(history: History, at: float) -> Answered:
    return next(r for r in history.records if isinstance(r, Answered) and r.at == at)
