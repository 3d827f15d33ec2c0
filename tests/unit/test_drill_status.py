"""failoverctl drill status: which drills count for the configuration that runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from typer.testing import CliRunner

from chaos import drill, ledger
from chaos.reading import shipped
from controlplane.cli import drill_run, drill_status
from controlplane.cli.drill_files import version
from controlplane.cli.main import app
from tests.unit.api_cluster import running
from tests.unit.drill_world import CONFIG, FakeWorld, report, written


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is recorded in the user's own place, and no cluster that happens to run here is found."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("FAILOVERCTL_API", raising=False)


def cli(*args: object) -> Any:
    return CliRunner().invoke(app, ["drill", *map(str, args)])


ONE = ledger.Passed(
    scenario="one",
    scenario_sha256="s1",
    cluster="acme",
    config_rev=3,
    config_sha256="c1",
    version="1.0",
    world="sim",
    seed=1,
    at="2026-03-02T03:14:03Z",
)
NOW = drill_status.Running("c1", "1.0", {"one": "s1", "two": "s2"})


@pytest.mark.parametrize(
    ("kept", "state"),
    [
        ([ONE], "passed"),
        ([], "never"),
        ([replace(ONE, config_sha256="c0")], "other configuration"),
        ([replace(ONE, scenario_sha256="s0")], "scenario changed"),
        ([replace(ONE, version="0.9")], "other version"),
        ([ONE, replace(ONE, config_sha256="c0", at="2026-04-01T00:00:00Z")], "passed"),
    ],
)
def test_what_counts_as_passed(kept: list[ledger.Passed], state: str) -> None:
    lines = {line.scenario: line.state for line in drill_status.judge(kept, NOW)}
    assert lines == {"one": state, "two": "never"}


def test_scenarios_of_the_user_are_known_by_their_records() -> None:
    lines = drill_status.judge([replace(ONE, scenario="mine", scenario_sha256="x")], NOW)
    assert [(line.scenario, line.state) for line in lines] == [("one", "never"), ("two", "never"), ("mine", "passed")]


@pytest.mark.timeout(180)
def test_status_for_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = written(tmp_path, "my-site-dark")
    monkeypatch.setattr(drill_run, "world_class", lambda name: FakeWorld)
    monkeypatch.setattr(drill, "judge", lambda scenario, history: report())
    monkeypatch.setattr(
        drill_status, "shipped", lambda: {"my-site-dark": scenario, "site-dark": shipped()["site-dark"]}
    )
    own = scenario.parent / "acme.yaml"
    before = json.loads(cli("status", "-f", own, "--json").stdout)
    assert {s["scenario"]: s["state"] for s in before["scenarios"]}["my-site-dark"] == "never"
    assert before["ok"] is False
    cli("run", scenario)
    after = cli("status", "-f", own, "--json")
    found = {s["scenario"]: s for s in json.loads(after.stdout)["scenarios"]}
    assert found["my-site-dark"]["state"] == "passed"
    assert (found["my-site-dark"]["bound_s"], found["my-site-dark"]["measured_s"]) == (32.4, 25.1)
    assert 0 <= found["my-site-dark"]["age_s"] < 600
    with ledger.path().open("a") as text:
        text.write("nonsense\n")
    plain = cli("status", "-f", own)
    assert "1 line cannot be read" in plain.stderr
    assert any("my-site-dark" in line and "25.1s" in line for line in plain.stdout.splitlines())
    other = tmp_path / "other.yaml"
    other.write_text(CONFIG.replace("site-a", "paris"))
    unfit = json.loads(cli("status", "-f", other, "--json").stdout)
    assert unfit["ok"] is True
    assert [(s["state"], s["age_s"]) for s in unfit["scenarios"]] == [("does not fit", None)] * 2
    assert 'unknown site "site-a"' in unfit["scenarios"][0]["why"]
    other.write_text(CONFIG.replace("20s", "21s"))
    assert {s["state"] for s in json.loads(cli("status", "-f", other, "--json").stdout)["scenarios"]} == {
        "other configuration",
        "does not fit",
    }


@pytest.mark.timeout(120)
def test_status_of_what_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drill_run, "world_class", lambda name: FakeWorld)
    monkeypatch.setattr(drill, "judge", lambda scenario, history: report())
    monkeypatch.setattr(drill_status, "shipped", dict)
    scenario = written(tmp_path, "my-site-dark")
    with running(tmp_path) as (cluster, file):  # which writes a configuration of its own over the scenario's
        api = ("--api", ",".join(cluster.urls))
        nothing = cli("status", *api)
        assert nothing.exit_code == 0
        assert nothing.stdout.splitlines()[-1] == f"0 of 0 have passed with acme rev 1, version {version()}."
        assert cli("run", scenario, "--config", file).exit_code == 0
        found = json.loads(cli("status", *api, "--json").stdout)
        assert (found["ok"], found["config_rev"], found["source"]["node"]) == (True, 1, "site-a")
        assert [(s["scenario"], s["state"]) for s in found["scenarios"]] == [("my-site-dark", "passed")]
        scenario.write_text(scenario.read_text() + "# another word\n")
        changed = cli("status", *api)
        assert changed.exit_code == 1
        assert "scenario changed" in changed.stdout
        assert f"0 of 1 have passed with acme rev 1, version {version()}." in changed.stdout


def test_status_without_a_cluster_says_how() -> None:
    result = cli("status", "--api", "http://127.0.0.1:1")
    assert result.exit_code == 4
    assert "Without a cluster: failoverctl drill status -f FILE" in result.stderr
