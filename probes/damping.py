"""Raw samples -> steady Health (DESIGN 4.1). Pure: no clock, no I/O.

    UP:       fail -> f += 1, s = 0; f == fall  -> DOWN, f = 0         while f > 0: probe at fast_interval
              pass -> if f > 0: s += 1; s == clear -> f = s = 0
    DOWN:     pass -> s += 1; s == rise -> UP, f = s = 0               while s > 0: probe at fast_interval
              fail -> s = 0
    UNKNOWN:  `rise` passes or `fall` fails in a row end it            always: probe at fast_interval
    any:      broken -> UNKNOWN, counts from nothing

Failures of an UP target need not be consecutive, so that one which fails every other time does go DOWN.

`answered` is damped by its own count. At the start one answer settles it: sight is proven, and there is nothing yet
to flap from. From then on `fall` results in a row in which nothing came back make it false, and `rise` answers in a
row make it true again. So it is settled whenever health is.

Silence proves something only to who can see. The caller says with each sample whether there was `sight` while the
target was silent (sight.py). Without it, the failure that would have made the target DOWN makes it UNKNOWN, and the
next one with sight makes it DOWN. So a vantage that goes dark abstains before it is found to be blind.
"""

from __future__ import annotations

from probes.target import Health, Observation, Sample

STARTING = "starting"
NO_SIGHT = "no sight"

_LETTERS = {Health.UP: "U", Health.DOWN: "D", Health.UNKNOWN: "?"}
_SAMPLES = {
    "U": Sample(passed=True, answered=True, reason="ok", took_s=0.0),
    "R": Sample(passed=False, answered=True, reason="refused", took_s=0.0),
    "D": Sample(passed=False, answered=False, reason="timeout connect", took_s=0.0),
    "B": Sample(passed=False, answered=False, reason="broken: test", took_s=0.0, broken=True),
}


class Damper:
    """The damped opinion of one target. `fall`, `rise`, `clear`: results, each at least 1."""

    __slots__ = ("_against", "_fails", "_last_pass", "_passes", "_seen", "clear", "fall", "health", "reason", "rise")

    def __init__(self, fall: int, rise: int, clear: int, health: Health = Health.UNKNOWN) -> None:
        self.fall = fall
        self.rise = rise
        self.clear = clear
        self.restart(STARTING)
        self.health = health

    def restart(self, reason: str) -> None:
        """UNKNOWN, for `reason`, as if nothing had ever been seen."""
        self.health = Health.UNKNOWN
        self.reason = reason
        self._fails = self._passes = 0
        self._seen: bool | None = None  # does it answer? None: nothing settled yet
        self._against = 0  # results in a row that speak against `_seen`; before it is settled, silent ones
        self._last_pass: Sample | None = None

    @property
    def fast(self) -> bool:
        """Is the next probe due after the fast interval?"""
        if self.health is Health.UP:
            return self._fails > 0
        return self.health is Health.UNKNOWN or self._passes > 0

    @property
    def answered(self) -> bool:
        return self._seen is True

    @property
    def silent(self) -> bool:
        """Is it settled that nothing comes back? False also while nothing is settled."""
        return self._seen is False

    def feed(self, sample: Sample, sight: bool = True) -> bool:
        """Count one sample. `sight`: did anything else answer while the target was silent? Returns whether there may
        be something else to say of the target now."""
        if self.health is Health.UP and sample.passed and not self._fails and self.answered and sample.answered:
            last, self._last_pass = self._last_pass, sample  # as nearly always: it goes on being well
            self.reason, self._against = sample.reason, 0
            return last is None or _shown(last) != _shown(sample)
        if sample.broken:
            self.restart(sample.reason)
            return True
        self._count_answer(sample.answered)
        before = self.health
        self._count(sample.passed)
        if self.health is Health.DOWN and before is not Health.DOWN and not sample.answered and not sight:
            self.health, self.reason = Health.UNKNOWN, NO_SIGHT
            self._fails = self.fall - 1
        elif self.health is (Health.UP if sample.passed else Health.DOWN):
            self.reason = sample.reason
        if sample.passed:
            self._last_pass = sample
        return True

    def observation(self, target: str) -> Observation:
        """What to say of `target`. Warning, position and lag are those of the last pass, while it is UP."""
        shown = self._last_pass if self.health is Health.UP else None
        return Observation(
            target=target,
            health=self.health,
            reason=self.reason,
            answered=self.answered,
            warning=shown.warning if shown else "",
            position=shown.position if shown else None,
            lag_s=shown.lag_s if shown else None,
        )

    def _count(self, passed: bool) -> None:
        if self.health is Health.UP:
            self._count_up(passed)
        elif self.health is Health.DOWN:
            self._passes = self._passes + 1 if passed else 0
            if self._passes >= self.rise:
                self._become(Health.UP)
        else:
            self._passes, self._fails = (self._passes + 1, 0) if passed else (0, self._fails + 1)
            if self._passes >= self.rise:
                self._become(Health.UP)
            elif self._fails >= self.fall:
                self._become(Health.DOWN)

    def _count_up(self, passed: bool) -> None:
        if not passed:
            self._fails, self._passes = self._fails + 1, 0
            if self._fails >= self.fall:
                self._become(Health.DOWN)
        elif self._fails > 0:
            self._passes += 1
            if self._passes >= self.clear:
                self._become(Health.UP)

    def _become(self, health: Health) -> None:
        self.health = health
        self._fails = self._passes = 0

    def _count_answer(self, answered: bool) -> None:
        if self._seen is None and answered:
            self._seen, self._against = True, 0
        elif self._seen is not None and answered == self._seen:
            self._against = 0
        else:
            self._against += 1
            if self._against >= (self.rise if answered else self.fall):
                self._seen, self._against = answered, 0


def _shown(sample: Sample) -> tuple[str, str, float | None, float | None]:
    """What an observation repeats of the last pass."""
    return sample.reason, sample.warning, sample.position, sample.lag_s


def damp(samples: str, start: Health = Health.UP, fall: int = 3, rise: int = 5, clear: int = 10) -> str:
    """What a Damper says after each sample, as letters: damp("UUDDD") == "UUUUD".

    Samples: U passed, D nothing came back, R refused, B broken. Health: U, D, ? for UNKNOWN.
    """
    damper = Damper(fall, rise, clear, start)
    said = ""
    for letter in samples:
        damper.feed(_SAMPLES[letter])
        said += _LETTERS[damper.health]
    return said
