"""What the three worlds have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from chaos.history import AnyRecord, History
from chaos.scenario import Scenario

Say = Callable[[AnyRecord], None]


class Refused(Exception):
    """A world cannot play a scenario; nothing was broken. `problems`: all of them, each a line that says what to do."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class World(Protocol):
    """Plays scenarios, one at a time; the same code judges what each world records."""

    name: str
    verbs: frozenset[str]

    def check(self, scenario: Scenario) -> list[str]:
        """What it cannot do of this scenario: one line each, with file:line:column. Breaks nothing, asks nobody."""

    def play(self, scenario: Scenario, seed: int, say: Say) -> History:
        """Break, heal, record. `say` is told of each record as it happens. Raises Refused before anything is broken.

        Interrupted (KeyboardInterrupt), it heals everything that it broke, and raises on."""
