"""failoverctl against a cluster of four nodes: what it prints, what it does, how it ends."""

from __future__ import annotations

import dataclasses
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from controlplane.cli import plan, sending, steer
from controlplane.cli.client import Client, Doc, NoAnswer, Unreachable
from controlplane.cli.context import make_run
from controlplane.cli.main import app
from tests.support import run
from tests.unit.api_cluster import Cluster, running

DEAD = "http://127.0.0.1:1"
ENV = {**os.environ, "PYTHONPATH": "."}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Path]]:
    with running(tmp_path_factory.mktemp("cli")) as found:
        yield found


@pytest.fixture
def cluster(world: tuple[Cluster, Path]) -> Iterator[Cluster]:
    found = world[0]
    yield found
    found.catch_up()
    ids = [o.id for o in found.nodes["cloud"].view.mirror.overrides.values()]
    if ids:
        assert cli(found, "overrides", "cancel", *ids, "--yes", "--accept", "capacity").exit_code == 0
        found.catch_up()


def cli(cluster: Cluster, *args: str, stdin: str = "") -> Any:
    return CliRunner().invoke(app, ["--api", ",".join(cluster.urls), *args], input=stdin)


class RepliesLost(Client):
    """Nobody hears of what is sent; it is done all the same, if it arrives."""

    arrives = True

    async def once(self, method: str, url: str, path: str, params: Sequence[tuple[str, str]], body: Doc | None) -> Doc:
        lost = body is not None and not body["dry_run"]
        reply = await super().once(method, url, path, params, body) if self.arrives or not lost else {}
        if lost:
            raise NoAnswer("time-out", sent=True)
        return reply


class NeverArrives(RepliesLost):
    arrives = False


def through(client: type[Client], cluster: Cluster, *args: str) -> Any:
    """The commands that change something, through another client."""
    others = typer.Typer()
    steer.register(others, lambda options: dataclasses.replace(make_run(options), connect=client))
    return CliRunner().invoke(others, [*args, "--api", ",".join(cluster.urls)])


def doc_of(result: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_status(cluster: Cluster) -> None:
    result = cli(cluster, "status")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].startswith("acme  rev 1  from site-a api, 0.") and "leader" in lines[0]
    assert lines[1] == "● OK  1/1 services converged"
    rows = [line.split() for line in lines]
    assert ["site-a", "active", "●", "up", "400/900", "ok", "ok", "-"] in rows
    assert ["cloud", "witness", "-", "-", "ok", "-", "-"] in rows
    assert "\x1b[" not in result.output


def test_status_of_one(cluster: Cluster) -> None:
    assert "site-b" not in cli(cluster, "status", "site-a").stdout.split("SERVICE")[0]
    assert list(doc_of(cli(cluster, "status", "www", "--json"))["services"]) == ["www"]
    result = cli(cluster, "status", "nope")
    assert result.exit_code == 2 and "there are www, cloud, site-a" in result.stderr


def test_a_dead_endpoint_does_not_matter(cluster: Cluster) -> None:
    result = CliRunner().invoke(app, ["status", "--json", "--api", f"{DEAD},{cluster.urls[1]}"])
    assert result.exit_code == 0
    assert doc_of(result)["source"]["node"] == "cloud"


def test_explain(cluster: Cluster) -> None:
    result = cli(cluster, "explain", "www", "--utc")
    assert result.exit_code == 0
    assert "ready" in result.stdout and "no vote, own site" in result.stdout and "GUARDS" in result.stdout
    assert "NEXT     if site-a fails: site-b 700" in result.stdout
    decision = doc_of(cli(cluster, "explain", "www", "--json"))["decision"]
    assert cli(cluster, "explain", decision).stdout.startswith(f"www  {decision} ")
    assert cli(cluster, "explain", "nope").exit_code == 2


def test_whatif_and_verify(cluster: Cluster, world: tuple[Cluster, Path]) -> None:
    result = cli(cluster, "whatif", "--lose", "site-a")
    assert result.exit_code == 0 and "site-b (was site-a)" in result.stdout and "changes nothing" in result.stdout
    result = cli(cluster, "whatif", "--lose", "site-a", "--lose", "site-b", "--lose", "site-c")
    assert "TIME     ▲ holds only once it can fail over again: www " in result.stdout
    result = cli(cluster, "verify")
    assert result.exit_code == 0 and "AGREED: 3 of 3 answered" in result.stdout
    result = cli(cluster, "verify", "www", "-f", str(world[1]), "--json")
    assert result.exit_code == 0 and doc_of(result)["ok"] is True
    assert cli(cluster, "verify", "nope").exit_code == 2


def test_drain_and_undrain(cluster: Cluster) -> None:
    result = cli(cluster, "drain", "site-b", "--reason", "switch firmware", "--for", "2h", "--yes")
    assert result.exit_code == 0, result.output
    for word in (
        "PREFLIGHT acme rev",
        "▲ n_plus",
        "✔ dns 3/3",
        "UNDO  failoverctl undrain site-b",
        "committed, as ov-",
    ):
        assert word in result.stdout
    assert "site-b -> site-a" in result.stdout and "eu-west" not in result.stdout, "a plan shows only what changes"
    assert "DRAINED in" in result.stdout and "verified: 3/3 name servers" in result.stdout
    assert "drain" in cli(cluster, "status").stdout and "switch firmware" in cli(cluster, "overrides").stdout
    again = cli(cluster, "drain", "site-b", "--reason", "again", "--yes")
    assert again.exit_code == 0 and "In force already as ov-" in again.stdout and "committed" not in again.stdout
    assert len(doc_of(cli(cluster, "overrides", "--json"))["overrides"]) == 1
    result = cli(cluster, "undrain", "site-b", "--yes", "--json")
    assert result.exit_code == 0, result.output
    assert doc_of(result)["removed"] and doc_of(result)["servers"] == {"agree": 3, "of": 3, "unreachable": 0}
    assert "UNDRAINED" in result.stderr
    result = cli(cluster, "undrain", "site-b", "--yes")
    assert result.exit_code == 0 and result.stdout == "site-b is not drained; nothing to do\n"


def test_all_mutations_say_their_end_in_one_shape(cluster: Cluster) -> None:
    shapes = [
        doc_of(cli(cluster, *args, "--yes", "--json"))
        for args in (
            ("drain", "site-b", "--reason", "r", "--no-wait"),
            ("drain", "site-b", "--reason", "r", "--no-wait"),
            ("drain", "site-b", "--reason", "r"),
            ("undrain", "site-b", "--no-wait"),
            ("undrain", "site-b"),
            ("unfreeze",),
        )
    ]
    assert {tuple(sorted(shape)) for shape in shapes} == {
        ("added", "ok", "override", "pools", "removed", "servers", "services", "sessions", "took_s")
    }
    assert shapes[0]["override"]["id"] == shapes[1]["override"]["id"] == shapes[2]["override"]["id"]
    assert shapes[0]["took_s"] is None and shapes[2]["took_s"] is not None and shapes[4]["added"] == []


def test_undo_and_what_follows_are_said(cluster: Cluster) -> None:
    assert "then ramp 100" in cli(cluster, "drain", "site-b", "--reason", "r", "--yes", "--no-wait").stdout
    result = cli(cluster, "undrain", "site-b", "--yes", "--no-wait")
    assert "THEN  ramp 100\nUNDO  failoverctl drain site-b --reason TEXT\n" in result.stdout
    result = cli(cluster, "pin", "site-b", "out", "--reason", "r", "--yes", "--no-wait")
    (pin,) = doc_of(cli(cluster, "overrides", "--json"))["overrides"]
    assert "its id comes with the commit" in result.stdout
    assert f"UNDO  failoverctl overrides cancel {pin['id']}\n" in result.stdout
    result = cli(cluster, "pin", "site-b", "in", "--reason", "r", "--yes")
    assert result.exit_code == 1 and f"ineffective: {pin['id']} (pin out site-b by " in result.stderr
    assert f"cancel it first: failoverctl overrides cancel {pin['id']}" in result.stderr
    assert "cannot be accepted" not in result.output


def test_what_cannot_be_is_no_plan(cluster: Cluster) -> None:
    for site in ("site-a", "site-b"):
        assert cli(cluster, "drain", site, "--reason", "r", "--yes", "--no-wait", "--accept", "capacity").exit_code == 0
    result = cli(cluster, "drain", "site-c", "--reason", "r", "--yes", "--accept", "capacity", "--accept", "min_sites")
    assert result.exit_code == 1 and "only last resorts would be left" in result.stderr
    assert "PLAN" not in result.stdout and "cannot be accepted" in result.stderr


def test_another_duration_takes_the_place_of_the_first(cluster: Cluster) -> None:
    assert cli(cluster, "drain", "site-b", "--reason", "r", "--for", "10m", "--yes", "--no-wait").exit_code == 0
    (first,) = doc_of(cli(cluster, "overrides", "--json"))["overrides"]
    again = cli(cluster, "drain", "site-b", "--reason", "r", "--yes", "--no-wait")
    assert again.exit_code == 0 and f"In force already as {first['id']}" in again.stdout
    longer = cli(cluster, "drain", "site-b", "--reason", "r", "--for", "8h", "--yes")
    assert longer.exit_code == 0, longer.output
    assert f"REPLACES  {first['id']} drain site-b by" in longer.stdout and "in 8h" in longer.stdout
    (now,) = doc_of(cli(cluster, "overrides", "--json"))["overrides"]
    assert now["id"] != first["id"] and now["left_s"] > 7 * 3600


def test_a_dry_run(cluster: Cluster) -> None:
    result = cli(cluster, "drain", "site-b", "--reason", "r", "--dry-run", "--json")
    assert result.exit_code == 0 and doc_of(result)["preflight"]["plan"]
    assert doc_of(cli(cluster, "overrides", "--json"))["overrides"] == []


def test_refused_by_a_guard(cluster: Cluster) -> None:
    assert cli(cluster, "drain", "site-a", "--reason", "r", "--yes", "--no-wait").exit_code == 0
    result = cli(cluster, "drain", "site-b", "--reason", "r", "--yes", "--json")
    assert result.exit_code == 1
    assert "capacity" in result.stderr and "add --accept capacity" in result.stderr
    assert doc_of(result)["preflight"]["refused"] is True
    result = cli(cluster, "drain", "site-b", "--reason", "r", "--yes", "--accept", "capacity", "--no-wait")
    assert result.exit_code == 0
    result = cli(cluster, "drain", "site-c", "--reason", "r", "--yes", "--accept", "capacity", "--accept", "min_sites")
    assert result.exit_code == 1 and "cannot be accepted" in result.stderr


def test_without_somebody_to_confirm(cluster: Cluster) -> None:
    result = cli(cluster, "drain", "site-b", "--reason", "r")
    assert result.exit_code == 2 and "add --yes" in result.stderr


@pytest.mark.parametrize(("typed", "code"), [("site-b", 0), ("y", 1), ("", 1)])
def test_a_lost_spare_has_to_be_typed(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, typed: str, code: int) -> None:
    monkeypatch.setattr(plan, "interactive", lambda: True)
    result = cli(cluster, "drain", "site-b", "--reason", "r", "--no-wait", stdin=typed + "\n")
    assert result.exit_code == code
    assert "Cluster acme: drain site-b." in result.stderr and "Type site-b to go on" in result.stderr
    assert ("Nothing was changed." in result.stderr) == bool(code)


def test_a_state_that_changed_asks_again(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = sending.dry, list[str]()

    def dry(*args: Any) -> dict[str, Any]:
        found = real(*args)
        seen.append(found["basis"])
        return found | ({"basis": "of another state"} if len(seen) == 1 else {})

    monkeypatch.setattr(sending, "dry", dry)
    result = cli(cluster, "drain", "site-b", "--reason", "r", "--yes", "--no-wait")
    assert result.exit_code == 0 and len(seen) == 2
    assert "Something changed since the plan was made" in result.stderr


def test_running_out_of_patience_is_not_failure(cluster: Cluster) -> None:
    result = cli(cluster, "drain", "site-b", "--reason", "r", "--yes", "--patience", "10ms", "--json")
    assert result.exit_code == 3
    assert "NOT CONVERGED YET" in result.stderr and "In force as ov-" in result.stderr
    assert "failed" not in result.stderr
    assert "failoverctl undrain site-b" in result.stderr and doc_of(result)["code"] == 3


def test_pin_freeze_failback_overrides(cluster: Cluster) -> None:
    result = cli(cluster, "pin", "site-b", "out", "--service", "www", "--reason", "bad build", "--yes")
    assert result.exit_code == 0 and "PINNED OUT in" in result.stdout, result.output
    assert "pin site-b out" in cli(cluster, "overrides").stdout
    result = cli(cluster, "freeze", "--reason", "r", "--no-expiry", "--yes")
    assert result.exit_code == 0 and "FROZEN in" in result.stdout and "never by itself" in result.stdout
    result = cli(cluster, "unfreeze", "--yes")
    assert result.exit_code == 0 and "UNFROZEN in" in result.stdout, result.output
    result = cli(cluster, "unfreeze", "--yes")
    assert result.exit_code == 0 and "nothing is frozen; nothing to do" in result.stdout, result.output
    result = cli(cluster, "failback", "site-c", "--yes")
    assert result.exit_code == 1 and "site-c does not wait: ready" in result.stderr, result.output
    assert cli(cluster, "overrides", "cancel", "ov-999", "--yes").exit_code == 1


def test_apply(cluster: Cluster, world: tuple[Cluster, Path], tmp_path: Path) -> None:
    same = cli(cluster, "apply", str(world[1]), "--yes")
    assert same.exit_code == 0 and "nothing to change" in same.stdout
    file = tmp_path / "new.yaml"
    file.write_text(cluster.text.replace("capacity: 200", "capacity: 250"))
    result = cli(cluster, "apply", str(file), "--dry-run")
    assert result.exit_code == 0 and "sites.site-c.capacity: 200.0 -> 250.0" in result.stdout
    assert cli(cluster, "apply", str(file)).exit_code == 2
    risky = tmp_path / "risky.yaml"
    risky.write_text(cluster.text.replace("store: {members: [site-a, site-b, cloud]}\n", ""))
    lines = [
        line for line in cli(cluster, "check", str(risky)).stdout.splitlines() if ": warning: store.members" in line
    ]
    assert lines and all(line in cli(cluster, "apply", str(risky), "--dry-run").stderr for line in lines)
    result = cli(cluster, "apply", str(file), "--yes", "--json")
    assert result.exit_code == 0 and doc_of(result)["revision"] == 2
    cluster.until(lambda: doc_of(cli(cluster, "status", "--json"))["config_rev"] == 2)
    assert "APPLIED as rev 3" in cli(cluster, "apply", str(world[1]), "--yes").stdout
    cluster.until(lambda: doc_of(cli(cluster, "status", "--json"))["config_rev"] == 3)


# --- when things go wrong on the way -----------------------------------------------------------------------


class Swallow(http.server.BaseHTTPRequestHandler):
    """Takes every request, and hangs up without a word."""

    def do_POST(self) -> None:
        self.close_connection = True

    do_GET = do_DELETE = do_POST

    def log_message(self, format: str, *args: object) -> None:
        return None


@pytest.fixture
def black_hole() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Swallow) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_lost_reply_is_looked_for(cluster: Cluster) -> None:
    """The commit went through, the reply did not: it is found, and not made twice."""
    result = through(RepliesLost, cluster, "drain", "site-b", "--reason", "r", "--yes")
    assert result.exit_code == 0 and "DRAINED in" in result.stdout, result.output
    assert "looking whether it is in force" in result.stderr
    assert len(doc_of(cli(cluster, "overrides", "--json"))["overrides"]) == 1
    result = through(RepliesLost, cluster, "undrain", "site-b", "--yes")
    assert result.exit_code == 0 and "UNDRAINED in" in result.stdout, result.output


def test_an_outcome_that_stays_unknown(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.cli.deeds.LOOK_AGAIN_S", 0.01)
    result = through(NeverArrives, cluster, "drain", "site-b", "--reason", "r", "--yes", "--json")
    assert result.exit_code == 4
    assert "Outcome unknown" in result.stderr and "Repeating it is safe" in result.stderr
    assert doc_of(result)["code"] == 4


def test_once_sent_nobody_else_is_asked(cluster: Cluster, black_hole: str) -> None:
    async def send(harmless: bool) -> dict[str, Any]:
        body = {"author": "t", "reason": "r", "command": "freeze", "for_s": 60, "dry_run": True}
        async with Client([black_hole, cluster.urls[0]], 5.0) as client:
            return await client.send("POST", "/v1/overrides", body, harmless=harmless)

    assert run(send(harmless=True))["basis"]
    with pytest.raises(Unreachable) as failure:
        run(send(harmless=False))
    assert failure.value.sent


# --- watching, and Ctrl-C ------------------------------------------------------------------------------------


@contextmanager
def start(cluster: Cluster, *args: str) -> Iterator[subprocess.Popen[str]]:
    """A failoverctl of its own, killed at the end if it still runs."""
    command = [sys.executable, "-m", "controlplane.cli.main", "--api", ",".join(cluster.urls), *args]
    with subprocess.Popen(
        command, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_ctrl_c
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _heed_ctrl_c() -> None:
    """A test run in the background of a shell is started with SIGINT ignored, and so would be its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_watching_in_a_pipe(cluster: Cluster) -> None:
    with start(cluster, "status", "--watch") as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert first["type"] == "status" and first["services"]["www"]["state"] == "converged"
        assert cli(cluster, "drain", "site-b", "--reason", "r", "--yes", "--no-wait").exit_code == 0
        kinds = {"status"}
        while "decision" not in kinds:
            kinds.add(json.loads(process.stdout.readline())["type"])
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0 and errors == ""


def test_ctrl_c_while_waiting_says_what_stays_in_force(cluster: Cluster) -> None:
    with start(cluster, "drain", "site-b", "--reason", "r", "--yes") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "committed" in line:
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 3
    assert "it goes on. In force as ov-" in errors and "Undo: failoverctl undrain site-b" in errors
    assert "Traceback" not in errors
