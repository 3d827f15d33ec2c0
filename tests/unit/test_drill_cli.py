"""failoverctl drill: what it plays, prints, records and refuses. The world is one by hand, unless a test says so."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from chaos import drill, ledger
from chaos.history import Faulted, History
from chaos.reading import read_scenario, shipped
from chaos.report import Invariant, Report
from chaos.scenario import Scenario
from chaos.worlds.world import Refused, Say
from controlplane.cli import drill_files, drill_run
from controlplane.cli.drill_files import version
from controlplane.cli.main import app
from tests.unit.drill_world import CONFIG, FakeWorld, report, written

SUBCOMMANDS = ("list", "show", "check", "run", "fuzz", "status", "halt")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is recorded in the user's own place, and no cluster that happens to run here is found."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("FAILOVERCTL_API", raising=False)


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    return written(tmp_path, "my-site-dark")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> FakeWorld:
    return fake(monkeypatch, FakeWorld())


def fake(monkeypatch: pytest.MonkeyPatch, made: FakeWorld, judged: Report | None = None) -> FakeWorld:
    monkeypatch.setattr(drill_run, "world_class", lambda name: lambda: made)
    monkeypatch.setattr(drill, "judge", lambda scenario, history: judged or report())
    return made


def cli(*args: object) -> Any:
    return CliRunner().invoke(app, ["drill", *map(str, args)])


def recorded() -> list[ledger.Passed]:
    return ledger.read(ledger.path())[0]


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_each_command_teaches_by_an_example(name: str) -> None:
    result = cli(name, "--help")
    assert result.exit_code == 0
    assert f"failoverctl drill {name}" in result.stdout.split("Example:")[1]
    assert "--json" in result.stdout


def test_there_are_no_other_commands() -> None:
    listed = cli("--help").stdout.split("Commands:")[1]
    assert {line.split()[0] for line in listed.strip().splitlines()} == set(SUBCOMMANDS)


def test_a_drill_that_passes_is_told_and_recorded(scenario: Path, world: FakeWorld) -> None:
    result = cli("run", scenario, "--seed", 7)
    assert result.exit_code == 0
    assert world.played == [("my-site-dark", 7)]
    lines = result.stdout.splitlines()
    assert lines[0] == "my-site-dark · sim · seed 7 · 40m"
    assert lines[1].split() == ["1:00.0", "cut", "[site-a,", '"*"]']
    assert sum("1:06.0" in line and "site-a -> site-b" in line for line in lines) == 1
    row = "www site-a 1:00.0 1:06.0 5.9/9.1 0.1/0.1 0.2/2.2 19.3/21.0 25.1/32.4"
    assert row in [" ".join(line.split()) for line in lines]
    assert lines[-2] == "HEALED 1 of 1 faults, 0 left"
    assert lines[-1] == f"PASSED history 9f3c9f3c..  again: failoverctl drill run {scenario} --seed 7"
    (kept,) = recorded()
    read = read_scenario(scenario).scenario
    assert read is not None
    assert (kept.scenario, kept.world, kept.seed, kept.bound_s, kept.measured_s) == (
        "my-site-dark",
        "sim",
        7,
        32.4,
        25.1,
    )
    assert kept.config_sha256 == ledger.config_digest(read.config)
    assert kept.scenario_sha256 == ledger.file_digest(scenario)
    assert kept.version == version()


def test_json_is_one_document_of_the_fixed_shape(scenario: Path, world: FakeWorld) -> None:
    result = cli("run", scenario, "--json")
    doc = json.loads(result.stdout)
    assert doc["scenario"] == "site-dark" and doc["passed"] is True and doc["seed"] == 7
    assert set(doc) >= {"scenario", "world", "seed", "passed", "history_sha256", "duration_s"}
    assert set(doc["expectations"][0]) == {"text", "passed", "at_s", "detail"}
    assert set(doc["invariants"][0]) >= {"name", "passed", "checked", "violations"}
    assert set(doc["failovers"][0]) >= {
        "service", "left", "detect_s", "decide_s", "apply_s", "outage_s", "worst_case_s"
    }  # fmt: skip
    assert "site-a -> site-b" in result.stderr


def test_a_drill_that_fails_is_not_recorded(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Invariant("fenced", False, 12, ("d-3 by site-a at 1:22.0: site-b held the key",))
    fake(monkeypatch, FakeWorld(), report(passed=False, invariants=(wrong,), left=("cut: nft is gone",)))
    result = cli("run", scenario)
    assert result.exit_code == 1
    assert "d-3 by site-a at 1:22.0: site-b held the key" in result.stdout
    assert "HEALED 0 of 1 faults, 1 left" in result.stdout and "cut: nft is gone" in result.stdout
    assert "FAILED history" in result.stdout
    assert recorded() == []


def test_a_drill_that_was_stopped_is_not_recorded(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, FakeWorld(), report(stopped="client errors 12 % > 5 %"))
    assert "STOPPED client errors 12 % > 5 %" in cli("run", scenario).stdout
    assert recorded() == []


def test_ctrl_c_says_that_all_is_healed(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, FakeWorld(ends=KeyboardInterrupt()))
    result = cli("run", scenario)
    assert result.exit_code == 130
    assert "Interrupted. What the drill broke is healed; it is not recorded." in result.stderr
    assert recorded() == []


def test_ctrl_c_says_what_is_not_healed(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck = Faulted(at=1601.0, index=0, began=False, text="cut site-a", left="no answer from toxiproxy at site-a")
    fake(monkeypatch, FakeWorld(ends=KeyboardInterrupt(), more=[stuck]))
    result = cli("run", scenario)
    assert result.exit_code == 130
    assert result.stderr == (
        "Interrupted. Not everything is healed: failoverctl drill halt\n"
        "  cut site-a: no answer from toxiproxy at site-a\n"
    )


@pytest.mark.parametrize("made", [FakeWorld(["a: no", "b: no"]), FakeWorld(ends=Refused(["a: no", "b: no"]))])
def test_a_world_that_refuses(made: FakeWorld, scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, made)
    result = cli("run", scenario, "--json")
    assert result.exit_code == 1
    assert result.stderr.endswith("a: no\nb: no\n")
    assert json.loads(result.stdout)["problems"] == ["a: no", "b: no"]


def test_several_give_one_table(tmp_path: Path, world: FakeWorld) -> None:
    files = [written(tmp_path, name) for name in ("one", "another")]
    result = cli("run", *files, "--jobs", 1, "--seed", 3)
    assert result.exit_code == 0
    head, first, second, last = result.stdout.splitlines()
    assert head.split() == ["SCENARIO", "MET", "KEPT", "FAILOVERS", "OUTAGE", "BOUND", "PLAYED", "TOOK"]
    assert first.split() == second.split() == ["✔", "site-dark", "2/2", "2/2", "1", "25.1", "32.4", "40m", "2.1s"]
    assert last == "PASSED 2 of 2 in sim"
    assert [name for name, _ in world.played] == ["one", "another"]
    assert [kept.scenario for kept in recorded()] == ["one", "another"]


def test_one_that_cannot_be_played_does_not_hide_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [written(tmp_path, name) for name in ("one", "another")]
    fake(monkeypatch, FakeWorld(ends=Refused(["never well"])))
    result = cli("run", *files, "--jobs", 1, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "passed": False,
        "drills": [{"scenario": n, "passed": False, "refused": ["never well"]} for n in ("one", "another")],
    }
    assert "one      cannot be played: never well" in result.stderr


def test_all_that_fit_the_users_configuration(
    tmp_path: Path, world: FakeWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: written(tmp_path, name) for name in ("one", "another", "elsewhere")}
    files["elsewhere"].write_text(files["elsewhere"].read_text().replace("site-a", "paris"))
    monkeypatch.setattr(drill_files, "shipped", lambda: files)
    monkeypatch.setattr(drill_files, "find", files.__getitem__)
    result = cli("run", "--all", "--jobs", 1, "--config", tmp_path / "acme.yaml")
    assert result.exit_code == 0
    assert result.stderr == "Left out, because they do not fit here: elsewhere\n"
    assert [name for name, _ in world.played] == ["another", "one"]
    world.problems = ["no"]
    assert "No scenario that ships fits" in cli("run", "--all", "--world", "lab").stderr
    assert "one by one" in cli("run", "--all", "--world", "staging").stderr


@pytest.mark.timeout(120)
def test_the_simulator_in_several_processes(tmp_path: Path) -> None:
    files = [written(tmp_path, name, "3m", "60s") for name in ("one", "another")]
    result = cli("run", *files, "--jobs", 2, "--json")
    doc = json.loads(result.stdout)
    assert [found["scenario"] for found in doc["drills"]] == ["one", "another"]
    assert [len(found["failovers"]) for found in doc["drills"]] == [1, 1]
    assert result.exit_code == (0 if doc["passed"] else 1)


def test_what_a_process_refuses_comes_back_whole(tmp_path: Path) -> None:
    read = read_scenario(written(tmp_path, "short"))
    assert read.scenario is not None
    faults = tuple(replace(fault, verb="flood") for fault in read.scenario.faults)
    (found,) = drill.play_apart([(replace(read.scenario, faults=faults), 1)], 1)
    assert isinstance(found, Refused)
    (problem,) = found.problems
    assert problem.endswith('the simulator cannot do "flood": play this scenario in the lab or in staging')


def test_the_page(scenario: Path, world: FakeWorld, tmp_path: Path) -> None:
    file = tmp_path / "out.html"
    result = cli("run", scenario, "--report", file)
    assert result.exit_code == 0
    text = file.read_text()
    assert text.startswith("<!DOCTYPE html>") and "site-dark" in text and f"drill run {scenario}" in text


def test_a_configuration_of_the_user(scenario: Path, world: FakeWorld, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(CONFIG.replace("cluster: acme", "cluster: mine"))
    assert cli("run", scenario, "--config", own).exit_code == 0
    assert recorded()[0].cluster == "mine"
    own.write_text(CONFIG.replace("site-a", "paris"))
    result = cli("run", scenario, "--config", own)
    assert result.exit_code == 1
    assert f'{scenario}:6:21: error: faults[0].cut[0]: unknown site "site-a"' in result.stderr
    own.write_text("version: 1\n")
    assert str(own) in cli("run", scenario, "--config", own).stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("run",), "Name one scenario or more, or add --all"),
        (("run", "--all", "site-dark"), "Name one scenario or more, or add --all"),
        (("run", "sit-dark"), 'did you mean "site-dark"?'),
        (("show", "sit-dark"), 'did you mean "site-dark"?'),
        (("check", "nowhere.yaml"), "no such file"),
        (("run", "site-dark", "--world", "stagin"), 'did you mean "staging"?'),
        (
            ("run", "site-dark", "--yes-on", "x", "--abort-at", "5%"),
            "--yes-on or --abort-at: only with --world staging",
        ),
        (("run", "site-dark", "--world", "staging", "--abort-at", "5"), "is not a percentage over 0; write 5%"),
        (("run", "site-dark", "--world", "staging", "--abort-at", "0%"), "is not a percentage over 0"),
        (("run", "--all", "--report", "x.html"), "--report is for one scenario"),
        (("run", "site-dark", "--report", "/nowhere/x.html"), "/nowhere/x.html: No such file or directory"),
        (("run", "site-dark", "--seed", "-1"), "--seed"),
        (("fuzz", "--hours", "0"), "--hours 0: has to be over 0"),
        (("fuzz", "--into", "/dev/null"), "is not a directory"),
    ],
)
def test_mistakes_are_explained(args: tuple[str, ...], says: str) -> None:
    result = cli(*args)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.output


def test_a_staging_without_its_file(scenario: Path) -> None:
    result = cli("run", scenario, "--world", "staging", "--yes-on", "acme")
    assert result.exit_code == 1
    assert str(scenario.with_suffix(".staging.yaml")) in result.stderr


class AskingWorld(FakeWorld):
    """A staging that asks before it breaks anything."""

    name = "staging"

    def __init__(self, file: Path, *, yes_on: str, confirm: Callable[[str], str], abort_at: float = 0.05) -> None:
        super().__init__()
        self.file, self.yes_on, self.confirm, self.abort_at = file, yes_on, confirm, abort_at

    def play(self, scenario: Scenario, seed: int, say: Say) -> History:
        typed = self.yes_on or self.confirm("This drill breaks acme:\n  cut site-a")
        if typed != "acme":
            raise Refused([f"{typed} was typed"])
        asked.append((self.file, self.abort_at))
        return super().play(scenario, seed, say)


asked: list[tuple[Path, float]] = []


def test_staging_asks_for_the_clusters_name(scenario: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, FakeWorld())
    monkeypatch.setattr(drill_run, "world_class", lambda name: AskingWorld)
    asked.clear()
    alone = cli("run", scenario, "--world", "staging")
    assert alone.exit_code == 2
    assert "This drill breaks acme" in alone.stderr
    assert "Nobody to ask here: add --yes-on CLUSTER. Nothing was broken." in alone.stderr
    monkeypatch.setattr(drill_run, "interactive", lambda: True)
    args = ["drill", "run", str(scenario), "--world", "staging", "--abort-at", "12.5%"]
    wrong = CliRunner().invoke(app, args, input="prod\n")
    assert (wrong.exit_code, asked) == (1, [])
    assert "Type the cluster's name to go on: " in wrong.stderr and "prod was typed" in wrong.stderr
    assert CliRunner().invoke(app, args, input="acme\n").exit_code == 0
    assert cli("run", scenario, "--world", "staging", "--yes-on", "acme", "--staging", "x.yaml").exit_code == 0
    assert asked == [(scenario.with_suffix(".staging.yaml"), 0.125), (Path("x.yaml"), 0.05)]


def test_check_finds_all_that_is_wrong(scenario: Path) -> None:
    good = cli("check", scenario, "--json")
    assert good.exit_code == 0 and json.loads(good.stdout) == {"ok": True, "problems": []}
    scenario.write_text(scenario.read_text().replace("cut:", "cutt:").replace("www: 60s", "web: 60s"))
    bad = cli("check", scenario, "--json")
    assert bad.exit_code == 1
    problems = json.loads(bad.stdout)["problems"]
    assert len(problems) == 2
    assert set(problems[0]) == {"file", "path", "line", "column", "severity", "message"}
    assert f"{scenario}:6:" in cli("check", scenario).stdout


def test_show_says_what_happens(scenario: Path) -> None:
    text = cli("show", scenario).stdout
    for words in ("cut site-a", "no packet between the two", "20m", "outage www <= 60s", "worst", "max(detect"):
        assert words.lower() in text.lower()
    doc = json.loads(cli("show", scenario, "--json").stdout)
    assert doc["faults"] == [{"at_s": 60.0, "for_s": 1200.0, "verb": "cut", "text": "cut site-a"}]
    assert doc["services"]["www"]["worst_case_s"] > 20


@pytest.mark.timeout(180)
def test_list_shows_what_ships() -> None:
    docs = json.loads(cli("list", "--json").stdout)["scenarios"]
    assert [doc["name"] for doc in docs] == sorted(shipped())
    assert all("sim" in doc["worlds"] and doc["about"] and doc["last_passed"] is None for doc in docs)


def test_halt_with_nothing_to_heal() -> None:
    result = cli("halt", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"ok": True, "stopped": [], "healed": [], "left": []}
    assert "Nothing to heal." in result.stderr


@pytest.mark.parametrize("command", ["run", "fuzz"])
def test_more_processes_than_the_machine_can_bear_are_refused(
    command: str, scenario: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    what = [scenario] if command == "run" else []
    result = cli(command, *what, "--jobs", 100_000)
    assert result.exit_code == 2
    assert result.stderr == "--jobs 100000: at most 8 here, 4 for each processor\n"


def test_halt_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = cli("halt", "--staging", tmp_path / "x.yaml")
    assert result.exit_code == 1
    assert "x.yaml" in result.stderr
