"""Invariants over a recorded history: each looks at the history and the scenario's configuration alone, so the same
code judges every world (DESIGN 8). One file for each kind; each looks at something, or has failed."""

from __future__ import annotations

from collections.abc import Callable

from chaos.checkers.answers import audited, converged, never_empty
from chaos.checkers.bounded import bounded
from chaos.checkers.coming_back import hold_time, no_flap
from chaos.checkers.evidence import quorum_backed
from chaos.checkers.fenced import fenced
from chaos.checkers.rooms import capacity
from chaos.history import History
from chaos.report import Invariant
from chaos.scenario import Scenario

CHECKERS: dict[str, Callable[[Scenario, History], Invariant]] = {
    "fenced": fenced,
    "never_empty": never_empty,
    "quorum_backed": quorum_backed,
    "hold_time": hold_time,
    "capacity": capacity,
    "converged": converged,
    "no_flap": no_flap,
    "audited": audited,
    "bounded": bounded,
}
