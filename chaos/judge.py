"""A scenario and the history of playing it -> what is to be reported. Pure: the same for every world."""

from __future__ import annotations

from chaos.checkers import CHECKERS
from chaos.expectations import met
from chaos.history import Faulted, History
from chaos.measure import failovers, outages
from chaos.report import Report
from chaos.scenario import Scenario


def judge(scenario: Scenario, history: History) -> Report:
    """It passed if it was played to its end with all its faults, something is expected, every expectation is met,
    every checker of `always` passed, and every fault was healed."""
    asked = dict.fromkeys(name for expect in scenario.expect for name in expect.checkers)
    invariants = tuple(CHECKERS[name](scenario, history) for name in asked)
    expectations = met(scenario, history)
    found = [*(m.passed for m in expectations), *(i.passed for i in invariants)]
    left = tuple(f"{r.text}: {r.left}" for r in history.records if isinstance(r, Faulted) and r.left)
    return Report(
        scenario=scenario.name,
        about=scenario.about,
        world=history.world,
        seed=history.seed,
        passed=bool(found) and all(found) and not left and not history.stopped,
        history_sha256=history.sha256,
        duration_s=history.duration_s,
        expectations=expectations,
        invariants=invariants,
        failovers=failovers(scenario, history),
        outages=outages(history),
        faults=sum(1 for r in history.records if isinstance(r, Faulted) and r.began),
        left=left,
        began=history.began,
        took_s=history.took_s,
        stopped=history.stopped,
    )
