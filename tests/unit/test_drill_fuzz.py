"""failoverctl drill fuzz: what it says while it plays, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from chaos import fuzz as fuzzing
from chaos.checkers import CHECKERS
from chaos.fuzz import Found, FuzzReport
from controlplane.cli import drill_fuzz
from controlplane.cli.main import app


def cli(*args: object) -> Any:
    return CliRunner().invoke(app, ["drill", *map(str, args)])


FOUND = Found(11, "fenced", ("at 3.0s d-2 is not fenced",), ("1s cut site-a",), 4, "x/scenario.yaml", "failoverctl x")


def fuzzed(monkeypatch: pytest.MonkeyPatch, report: FuzzReport) -> list[tuple[float, int, int]]:
    asked = []

    def fuzz(hours: float, seed: int, jobs: int, heard: Callable[[fuzzing.Progress], None], folder: Path) -> FuzzReport:
        asked.append((hours, seed, jobs))
        heard(fuzzing.Progress(3, 0.5, hours, 2.0, report.found))
        heard(fuzzing.Progress(4, 1.0, hours, 4.0, report.found))
        return report

    monkeypatch.setattr(drill_fuzz, "fuzz", fuzz)
    return asked


def test_fuzz_that_finds_something(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fuzzed(monkeypatch, FuzzReport(7, 4, 2.0, 4.0, (FOUND,)))
    result = cli("fuzz", "--hours", 2, "--seed", 7, "--jobs", 1)
    assert asked == [(2.0, 7, 1)]
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "fuzz · seed 7 · 2 hours of simulated clusters, 1 at once",
        "✖ case 11: fenced  1 of 4 faults suffice",
        "    at 3.0s d-2 is not fenced",
        "    fault: 1s cut site-a",
        "    again: failoverctl x",
        "FAILED 1 of 4 cases, 2.00 hours in 4.0s, seed 7",
        "again: failoverctl drill fuzz --hours 2 --seed 7",
    ]


@pytest.mark.parametrize(
    ("report", "code", "says"),
    [
        (FuzzReport(7, 4, 1.0, 4.0, ()), 0, "PASSED 4 cases, 1.00 hours in 4.0s, seed 7"),
        (FuzzReport(7, 0, 0.0, 4.0, ()), 1, "FAILED 0 of 0 cases"),
        (
            FuzzReport(7, 2, 0.5, 4.0, (), stopped=True),
            130,
            "INTERRUPTED 2 cases, 0.50 hours in 4.0s, seed 7",
        ),
        (FuzzReport(7, 2, 0.5, 4.0, (FOUND,), stopped=True), 1, "1 failed"),
    ],
)
def test_how_fuzz_ends(report: FuzzReport, code: int, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzzed(monkeypatch, report)
    result = cli("fuzz", "--seed", 7, "--json")
    assert result.exit_code == code
    assert says in result.stderr
    assert json.loads(result.stdout)["found"] == json.loads(msgspec.json.encode(report.found))


def test_fuzz_takes_a_new_seed_and_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fuzzed(monkeypatch, FuzzReport(7, 4, 1.0, 4.0, ()))
    first, second = cli("fuzz"), cli("fuzz")
    seeds = [seed for _, seed, _ in asked]
    assert seeds[0] != seeds[1]
    assert f"seed {seeds[0]} ·" in first.stdout and f"seed {seeds[1]} ·" in second.stdout


def test_how_far_fuzz_is() -> None:
    assert drill_fuzz.so_far(fuzzing.Progress(3, 0.5, 2.0, 2.0, ())) == (
        "3 cases · 0.50 of 2 hours · 900 x real time · none failed · 6.0s left"
    )
    assert drill_fuzz.so_far(fuzzing.Progress(0, 0.0, 2.0, 0.0, (FOUND,))) == (
        "0 cases · 0.00 of 2 hours · 0 x real time · 1 failed"
    )


@pytest.mark.parametrize("hours", ["nan", "inf", "-inf", "0", "-1", "100001"])
def test_hours_without_an_end_are_refused(hours: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fuzzed(monkeypatch, FuzzReport(7, 4, 1.0, 4.0, ()))
    result = cli("fuzz", "--hours", hours)
    assert result.exit_code == 2 and asked == []
    assert result.stderr == f"--hours {float(hours):g}: has to be over 0 and at most 100,000\n"


def test_fuzz_that_crashes_at_every_case_ends(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A crash plays nothing: without another end, hours would never be full."""

    def crash(seed: int, folder: Path) -> tuple[fuzzing.Outcome, Found]:
        return fuzzing.Outcome(seed, 0.0, {fuzzing.CRASH: ("ImportError: x",)}), replace(FOUND, seed=seed)

    monkeypatch.setattr(fuzzing, "_one", crash)
    report = fuzzing.fuzz(1.0, 7, 1, lambda progress: None, tmp_path)
    assert len(report.found) == report.cases == fuzzing.MOST_FOUND and not report.passed


def test_fuzz_that_ended_early_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fuzzed(monkeypatch, FuzzReport(7, 20, 0.5, 4.0, (FOUND,) * 20))
    assert "It ended early: 20 failures are enough." in cli("fuzz", "--hours", 2, "--seed", 7, "--jobs", 1).stdout


def test_a_run_says_what_there_was_to_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = fuzzing.Looked(dict.fromkeys(CHECKERS, 1200) | {"bounded": 8}, failovers=9, exempt=7)
    fuzzed(monkeypatch, FuzzReport(7, 21, 1.0, 4.0, (), looked=looked))
    result = cli("fuzz", "--seed", 7, "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 0
    assert told["checked"] == looked.checked
    assert told["failovers"] == {"judged": 2, "exempt": 7}
    assert "looked at: fenced 1,200 · never_empty 1,200" in result.stderr
    assert "bounded 8" in result.stderr
    assert "failovers: 2 judged by the bound, 7 outside it" in result.stderr


@pytest.mark.parametrize(("cases", "code"), [(20, 0), (21, 1)])
def test_many_cases_in_which_a_checker_looked_at_nothing_prove_nothing(
    cases: int, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = fuzzing.Looked(dict.fromkeys(CHECKERS, 9) | {"bounded": 0}, failovers=7, exempt=7)
    fuzzed(monkeypatch, FuzzReport(7, cases, 1.0, 4.0, (), looked=looked))
    result = cli("fuzz", "--seed", 7)
    assert result.exit_code == code
    assert ("nothing to look at in all these cases: bounded" in result.stdout) is bool(code)


def test_what_was_looked_at_adds_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def one(seed: int, folder: Path) -> tuple[fuzzing.Outcome, None]:
        return fuzzing.Outcome(seed, 1800.0, {}, looked=fuzzing.Looked({"fenced": 3}, failovers=2, exempt=1)), None

    monkeypatch.setattr(fuzzing, "_one", one)
    report = fuzzing.fuzz(12.0, 7, 1, lambda progress: None, tmp_path)
    assert (report.cases, report.looked.failovers, report.looked.exempt) == (24, 48, 24)
    assert report.looked.checked["fenced"] == 72
    assert not report.passed
    assert report.idle == tuple(name for name in CHECKERS if name != "fenced")
