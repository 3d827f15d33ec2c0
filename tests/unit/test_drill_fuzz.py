"""failoverctl drill fuzz: what it says while it plays, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from chaos import fuzz as fuzzing
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
    asked = fuzzed(monkeypatch, FuzzReport(7, 4, 1.0, 4.0, (FOUND,)))
    result = cli("fuzz", "--hours", 2, "--seed", 7, "--jobs", 1)
    assert asked == [(2.0, 7, 1)]
    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "fuzz · seed 7 · 2 hours of simulated clusters, 1 at once",
        "✖ case 11: fenced  1 of 4 faults suffice",
        "    at 3.0s d-2 is not fenced",
        "    fault: 1s cut site-a",
        "    again: failoverctl x",
        "FAILED 1 of 4 cases, 1.00 hours in 4.0s, seed 7",
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
