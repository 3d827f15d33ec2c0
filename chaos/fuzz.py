"""Random clusters, broken at random in the simulator, until so many hours have been played: what holds for any history
must hold for these.

Each case has a seed of its own, from which all of it comes: it is played again alone by `fuzz_case`. One that fails is
shrunk to the shortest list of faults that still fails in the same way, and written as a scenario.
"""

from __future__ import annotations

import multiprocessing
import random
import re
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.pool import AsyncResult
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from chaos.cases import changed_config, random_config
from chaos.checkers import CHECKERS
from chaos.history import AnyRecord, Operated
from chaos.measure import failovers
from chaos.mishaps import random_faults
from chaos.scenario import MOST_MOVES, Condition, Expect, Resolvers, Scenario
from chaos.shrink import shrink
from chaos.worlds.sim import SimWorld
from chaos.worlds.world import Refused
from chaos.writing import scenario_text, worded

PHASES_S = (60.0, 120.0, 240.0, 480.0)  # of faults
TAIL_S = 60.0  # in which nothing may move any more
CRASH = "crash"  # what a case fails with that cannot be played to its end
TOLD = 3  # violations of a checker
MANY = 20  # cases in which every checker has something to look at
MOST_FOUND = 20  # are enough for one run; cases that crash at once would go on for ever
PATIENCE_S = 1800.0  # with one case; a process that is gone never answers
CONFIG, OTHER = "config.yaml", "changed-{}.yaml"
_AT = re.compile(r"at (-?\d+\.\d)s ")


class Case(Struct, frozen=True):
    """seed: of the case, and of the world that plays it. files: what its operators apply, beside the scenario."""

    seed: int
    scenario: Scenario
    files: dict[str, str] = {}


class Looked(Struct, frozen=True):
    """What there was to judge. checked: checker -> things that it looked at. exempt: failovers outside the bound."""

    checked: dict[str, int] = {}
    failovers: int = 0
    exempt: int = 0

    def __add__(self, other: Looked) -> Looked:
        checked = {name: self.checked.get(name, 0) + other.checked.get(name, 0) for name in CHECKERS}
        return Looked(checked, self.failovers + other.failovers, self.exempt + other.exempt)

    @property
    def idle(self) -> tuple[str, ...]:
        """Checkers that looked at nothing."""
        return tuple(name for name in CHECKERS if not self.checked.get(name))


class Outcome(Struct, frozen=True):
    """failures: checker (or CRASH) -> violations."""

    seed: int
    played_s: float
    failures: dict[str, tuple[str, ...]]
    codes: dict[int, int] = {}  # fault -> exit code of its command
    looked: Looked = Looked()


class Found(Struct, frozen=True):
    """A case that failed, shrunk. file: its scenario; command: what repeats it; before: how many faults it had."""

    seed: int
    checker: str
    violations: tuple[str, ...]
    faults: tuple[str, ...]
    before: int
    file: str
    command: str


class Progress(Struct, frozen=True):
    cases: int
    hours: float
    of_hours: float
    took_s: float
    found: tuple[Found, ...]


class FuzzReport(Struct, frozen=True):
    """hours: simulated. stopped: it was interrupted; what was played until then counts."""

    seed: int
    cases: int
    hours: float
    took_s: float
    found: tuple[Found, ...]
    stopped: bool = False
    looked: Looked = Looked()

    @property
    def idle(self) -> tuple[str, ...]:
        """Checkers that had nothing to look at, in so many cases that it proves nothing of them."""
        return self.looked.idle if self.cases > MANY else ()

    @property
    def passed(self) -> bool:
        return not self.found and self.cases > 0 and not self.idle


def case_seed(seed: int, number: int) -> int:
    """Of the nth case of a run."""
    return random.Random(f"fuzz/{seed}/{number}").getrandbits(31)


def fuzz_case(seed: int) -> Case:
    """Equal seeds give equal cases."""
    rng = random.Random(f"case/{seed}")
    config, document, text = random_config(rng)
    files: dict[str, str] = {}
    for n in range(rng.choice((0, 1, 2))):
        _, document, changed = changed_config(rng, document)
        files[OTHER.format(n + 1)] = changed
    phase_s = rng.choice(PHASES_S)
    faults = random_faults(rng, config, tuple(files), phase_s)
    calm_s = _calm_s(phase_s)
    scenario = Scenario(
        name=f"fuzz-{seed}",
        about="A random cluster and random faults.",
        config=config,
        config_text=text,
        duration_s=0.0,
        faults=faults,
        expect=(
            Expect(kind="after_heal", from_s=calm_s, conditions=(Condition("converged"),)),
            Expect(kind="always", checkers=tuple(CHECKERS)),
        ),
        resolvers=Resolvers(stretch=rng.choice((0, 0, 1)), stale=rng.choice((0, 0, 1))),
        transfer_s=rng.choice((0.0, 0.0, 1.0, 5.0)),
        most_moves=MOST_MOVES + 3 * len(faults),  # what one fault explains: there, back in steps
    )
    return Case(seed, worded(lasting(scenario)), files)


def lasting(scenario: Scenario) -> Scenario:
    """As long as it takes for its faults, and for all to be well after them."""
    calm_s = next(expect.from_s for expect in scenario.expect if expect.kind == "after_heal")
    return replace(scenario, duration_s=scenario.healed_s + calm_s + TAIL_S)


def _calm_s(phase_s: float) -> float:
    """Soaks double with each failover, but all of them together lasted no longer than the faults; then the last one,
    as long as these; what is left of overrides; a ramp of at most three steps, or as many holds."""
    return phase_s + 2 * 30.0 + 120.0 + 4 * 60.0 + 60.0


# ---- playing one


def play(case: Case) -> Outcome:
    """Play and judge. A checker that had nothing to look at has not failed here: no fault was chosen for it; in many
    cases together it has."""
    with _beside(case) as scenario:
        try:
            history = SimWorld().play(scenario, case.seed, _unheard)
        except Exception as error:  # whatever it is, it is what was looked for
            return Outcome(case.seed, 0.0, {CRASH: (_said(error),)})
    judged = {name: checker(scenario, history) for name, checker in CHECKERS.items()}
    failures = {name: one.violations[:TOLD] for name, one in judged.items() if not one.passed and one.checked}
    codes = {record.index: record.code for record in history.records if isinstance(record, Operated)}
    checked = {name: one.checked for name, one in judged.items()}
    looked = Looked(checked, len(failovers(scenario, history)), len(judged["bounded"].notes))
    return Outcome(case.seed, history.duration_s, failures, codes, looked)


def _said(error: BaseException) -> str:
    """The same for the same bug."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(sorted({_said(inner) for inner in error.exceptions}))
    if isinstance(error, Refused):
        return f"refused: {'; '.join(error.problems)}"
    return f"{type(error).__name__}: {error}"


@contextmanager
def _beside(case: Case) -> Iterator[Scenario]:
    """Its files exist while it is played."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for name, text in case.files.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        yield replace(case.scenario, file=str(Path(folder, "case.yaml")))


def _unheard(record: AnyRecord) -> None:
    """Nobody listens."""


# ---- one that failed


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while a case was shrunk: this is how far that came."""

    def __init__(self, found: Found) -> None:
        super().__init__()
        self.found = found


def examine(case: Case, outcome: Outcome, folder: Path) -> Found:
    """Shrink it by the first checker that failed, and write it down. Raises Interrupted."""
    checker, violations = next(iter(outcome.failures.items()))
    small, last = case.scenario, outcome

    def fails(scenario: Scenario) -> bool:
        nonlocal small, last
        tried = play(replace(case, scenario=scenario))
        same = checker in tried.failures and (checker != CRASH or tried.failures[CRASH] == violations)
        if same:
            small, last = scenario, tried
        return same

    times = [float(at) for text in violations for at in _AT.findall(text)[:1]]
    wrong_s = None if checker in ("converged", CRASH) else min(times, default=None)
    try:
        shrink(case.scenario, fails, lasting, wrong_s)
    except KeyboardInterrupt:
        raise Interrupted(_found(case, checker, small, last, folder)) from None
    return _found(case, checker, small, last, folder)


def _found(case: Case, checker: str, small: Scenario, last: Outcome, folder: Path) -> Found:
    file = write(replace(case, scenario=_to_write(small, checker, last)), folder)
    return Found(
        seed=case.seed,
        checker=checker,
        violations=last.failures[checker],
        faults=tuple(f"{fault.at_s:g}s {fault.text}" for fault in small.faults),
        before=len(case.scenario.faults),
        file=str(file),
        command=f"failoverctl drill run {file} --world sim --seed {case.seed}",
    )


def _to_write(scenario: Scenario, checker: str, last: Outcome) -> Scenario:
    """What is looked at is what failed; commands are expected to end as they did."""
    always = Expect(kind="always", checkers=tuple(CHECKERS) if checker == CRASH else (checker,))
    faults = tuple(replace(f, code=last.codes.get(n, f.code)) for n, f in enumerate(scenario.faults))
    rest = tuple(line for line in scenario.expect if line.kind != "always")
    about = f"Found by fuzz: {checker}. {' '.join(last.failures[checker])}"[:500]
    return worded(replace(scenario, faults=faults, expect=(*rest, always), about=about))


def write(case: Case, folder: Path) -> Path:
    """In a folder of its own: the scenario, its configuration, and what its operators apply."""
    here = folder / case.scenario.name
    here.mkdir(parents=True, exist_ok=True)
    used = {word for fault in case.scenario.faults for word in fault.argv}
    for name, text in ((CONFIG, case.scenario.config_text), *case.files.items()):
        if name == CONFIG or name in used:
            (here / name).write_text(text, encoding="utf-8")
    file = here / "scenario.yaml"
    file.write_text(scenario_text(case.scenario, CONFIG), encoding="utf-8")
    return file


# ---- playing many


def fuzz(
    hours: float, seed: int, jobs: int, progress: Callable[[Progress], None], folder: Path = Path("fuzz-found")
) -> FuzzReport:
    """Until so many hours were simulated, or MOST_FOUND cases failed. progress is called after each case; failures are
    written into folder.

    Ctrl-C ends it: the report says what was played."""
    run = _Run(hours, seed, progress)
    try:
        if jobs == 1:
            for number in run.numbers():
                run.take(*_one(case_seed(seed, number), folder))
        else:
            _parallel(run, seed, jobs, folder)
    except Interrupted as interrupted:
        run.found.append(interrupted.found)
        return run.report(stopped=True)
    except KeyboardInterrupt:
        return run.report(stopped=True)
    return run.report()


class _Run:
    def __init__(self, hours: float, seed: int, progress: Callable[[Progress], None]) -> None:
        self._hours, self._seed, self._progress = hours, seed, progress
        self._began = time.monotonic()
        self._cases, self._played_s = 0, 0.0
        self._looked = Looked()
        self.found: list[Found] = []

    @property
    def done(self) -> bool:
        return self._played_s >= self._hours * 3600.0 or len(self.found) >= MOST_FOUND

    def numbers(self) -> Iterator[int]:
        number = 0
        while not self.done:
            yield number
            number += 1

    def take(self, outcome: Outcome, found: Found | None) -> None:
        self._cases += 1
        self._played_s += outcome.played_s
        self._looked += outcome.looked
        if found is not None:
            self.found.append(found)
        hours, took_s = self._played_s / 3600.0, time.monotonic() - self._began
        self._progress(Progress(self._cases, hours, self._hours, took_s, tuple(self.found)))

    def report(self, stopped: bool = False) -> FuzzReport:
        took_s = time.monotonic() - self._began
        hours, found = self._played_s / 3600.0, tuple(self.found)
        return FuzzReport(self._seed, self._cases, hours, took_s, found, stopped, self._looked)


def _one(seed: int, folder: Path) -> tuple[Outcome, Found | None]:
    """A case from its seed to what was found."""
    case = fuzz_case(seed)
    outcome = play(case)
    return outcome, examine(case, outcome, folder) if outcome.failures else None


def _parallel(run: _Run, seed: int, jobs: int, folder: Path) -> None:
    """In processes of their own, started anew: nothing is shared. In the order of their numbers, so that the report of
    equal seeds is equal, as far as it got."""
    numbers = run.numbers()
    waiting: list[tuple[int, AsyncResult[bytes]]] = []
    with multiprocessing.get_context("spawn").Pool(jobs, _deaf) as pool:  # its end kills them
        while not run.done:
            while len(waiting) < 2 * jobs:
                one = case_seed(seed, next(numbers))
                waiting.append((one, pool.apply_async(_encoded, (one, str(folder)))))
            one, result = waiting.pop(0)
            try:
                run.take(*_decoded(result.get(PATIENCE_S)))
            except multiprocessing.TimeoutError:
                run.take(*_lost(one, folder))


def _lost(seed: int, folder: Path) -> tuple[Outcome, Found]:
    """No answer: there is nothing to shrink it by."""
    case = fuzz_case(seed)
    why = f"its process was killed, or needs more than {PATIENCE_S / 60:.0f} minutes"
    outcome = Outcome(seed, 0.0, {CRASH: (why,)})
    return outcome, _found(case, CRASH, case.scenario, outcome, folder)


def _deaf() -> None:
    """Ctrl-C is for whoever started them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _encoded(seed: int, folder: str) -> bytes:
    return msgspec.json.encode(_one(seed, Path(folder)))


def _decoded(said: bytes) -> tuple[Outcome, Found | None]:
    return msgspec.json.decode(said, type=tuple[Outcome, Found | None])
