"""Of a scenario that fails, the shortest list of faults that still does (delta debugging: Zeller and Hildebrandt,
2002), and of these the shortest times. Pure but for what `fails` does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from chaos.scenario import VERBS, Fault, Scenario

TRIES = 100  # plays: each costs seconds
LEAST_S = 1.0  # no fault is made shorter
SEEN_S = 5.0  # how long after what was wrong a scenario ends


def shrink(
    scenario: Scenario,
    fails: Callable[[Scenario], bool],
    lasting: Callable[[Scenario], Scenario],
    wrong_s: float | None,
    tries: int = TRIES,
) -> Scenario:
    """fails: plays one, and says whether it fails in the same way. lasting: gives a scenario the duration that its
    faults need. wrong_s: when it went wrong, if what comes after does not matter; None: it does. The result fails."""
    trier = _Trier(fails, tries)
    finish = lasting
    if wrong_s is not None:
        end_s = max(wrong_s, 0.0) + SEEN_S
        short = ended(scenario, end_s)
        if short.faults and trier.fails(short):
            scenario = short

            def keep(other: Scenario) -> Scenario:
                return other

            finish = keep
    scenario = _fewer(scenario, trier, finish)
    return _shorter(scenario, trier, finish)


class _Trier:
    """Counts."""

    def __init__(self, fails: Callable[[Scenario], bool], tries: int) -> None:
        self._fails, self._left = fails, tries

    def fails(self, scenario: Scenario) -> bool:
        """No more than so often: then nothing fails any more."""
        self._left -= 1
        return self._left >= 0 and self._fails(scenario)


def ended(scenario: Scenario, end_s: float) -> Scenario:
    """Only what is before its end; without what it expects after the last fault."""
    faults = [fault for fault in scenario.faults if fault.at_s < end_s]
    cut = tuple(
        replace(f, for_s=round(end_s - f.at_s, 3)) if f.ends_s is not None and f.ends_s > end_s else f for f in faults
    )
    expect = tuple(line for line in scenario.expect if line.kind == "always")
    return replace(scenario, faults=cut, expect=expect, duration_s=end_s)


def _fewer(scenario: Scenario, trier: _Trier, finish: Callable[[Scenario], Scenario]) -> Scenario:
    """Halves are left out, then quarters, ..., then single faults, until none can be."""
    size = max(1, len(scenario.faults) // 2)
    while True:
        left_out = False
        start = 0
        while start < len(scenario.faults) and len(scenario.faults) > size:
            faults = scenario.faults[:start] + scenario.faults[start + size :]
            candidate = finish(replace(scenario, faults=faults))
            if trier.fails(candidate):
                scenario, left_out = candidate, True
            else:
                start += size
        if size == 1 and not left_out:
            return scenario
        size = max(1, min(size // 2, len(scenario.faults) // 2))


def _shorter(scenario: Scenario, trier: _Trier, finish: Callable[[Scenario], Scenario]) -> Scenario:
    """Each fault half as long, and half of that, while it still fails."""
    for index, fault in enumerate(scenario.faults):
        while VERBS[fault.verb].heals and fault.for_s is not None and fault.for_s / 2 >= LEAST_S:
            shorter = replace(fault, for_s=round(fault.for_s / 2, 1))
            candidate = finish(replace(scenario, faults=_with(scenario.faults, index, shorter)))
            if not trier.fails(candidate):
                break
            scenario, fault = candidate, shorter
    return scenario


def _with(faults: Sequence[Fault], index: int, fault: Fault) -> tuple[Fault, ...]:
    return (*faults[:index], fault, *faults[index + 1 :])
