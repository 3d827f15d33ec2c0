"""failoverctl without a cluster: options, help, exit codes, files, discovery of clusters."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from aiohttp import web
from typer.testing import CliRunner

from controlplane.api.listen import serve
from controlplane.cli import discovery
from controlplane.cli.client import Client, Unreachable
from controlplane.cli.durations import parse_duration
from controlplane.cli.main import app
from controlplane.cli.output import clock, number, safe, seconds
from controlplane.cli.predict import demand_factor
from tests.support import run as run_async
from tests.unit.api_cluster import TEXT

LOOKING = ("status", "explain", "verify", "whatif", "check", "schema")
STEERING = ("drain", "undrain", "pin", "freeze", "unfreeze", "failback", "overrides", "apply")
COMMANDS = (*LOOKING, *STEERING, "adopt", "doctor", "dev", "break", "heal", "drill")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test finds a cluster that happens to run on this machine."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("FAILOVERCTL_API", raising=False)


def cli(*args: str, stdin: str = "") -> Any:
    return CliRunner().invoke(app, list(args), input=stdin)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "acme.yaml"
    file.write_text(TEXT.format(port=5300))
    return file


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_teaches_by_an_example(name: str) -> None:
    result = cli(name, "--help")
    assert result.exit_code == 0
    assert f"failoverctl {name}" in result.stdout.split("Example:")[1]
    assert "--json" in result.stdout


def test_there_are_no_other_commands() -> None:
    listed = cli("--help").stdout.split("Commands:")[1]
    assert {line.split()[0] for line in listed.strip().splitlines()} == set(COMMANDS)


@pytest.mark.parametrize("order", [("--json", "check"), ("check", "--json")])
def test_global_options_before_or_after(order: tuple[str, ...], good: Path) -> None:
    result = cli(*order, str(good))
    assert result.exit_code == 0
    doc = json.loads(result.stdout)
    assert doc["ok"] is True
    assert set(doc["services"]["www"]["phases"]) == {
        "detect_s", "publish_s", "takeover_s", "decide_s", "apply_s", "ttl_s"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--timeout", "5", "status"), "write 5s"),
        (("status", "--timeout", "soon"), "write it like 90s"),
        (("--api", "localhost:80", "status"), "is not a URL"),
        (("drain", "site-b"), "needs a reason"),
        (("drain", "site-b", "--reason", "x", "--for", "100h"), "at most 72h"),
        (("drain", "site-b", "--reason", "x", "--for", "1h", "--no-expiry"), "exclude each other"),
        (("drain", "site-b", "--reason", "x", "--accept", "never_empty"), "never_empty cannot be accepted"),
        (("drain", "site-b", "--reason", "x", "--accept", "luck"), "not a guard"),
        (("pin", "site-b", "up", "--reason", "x"), "'up'"),
        (("overrides", "cancel"), "needs an ID"),
        (("whatif", "--demand", "more"), "is not a percentage"),
        (("nonsense",), "No such command"),
    ],
)
def test_mistakes_are_explained(args: tuple[str, ...], says: str) -> None:
    result = cli(*args)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.output


def test_nobody_to_ask() -> None:
    result = cli("status", "--json")
    assert result.exit_code == 4
    doc = json.loads(result.stdout)
    assert doc["ok"] is False and doc["code"] == 4
    assert "failoverctl dev" in result.stderr


def test_an_endpoint_that_is_not_there() -> None:
    result = cli("status", "--api", "http://127.0.0.1:1")
    assert result.exit_code == 4
    assert "Nobody to ask" in result.stderr and "refused" in result.stderr


def test_verify_without_a_cluster_names_the_way_out() -> None:
    result = cli("verify")
    assert result.exit_code == 4
    assert "verify -f FILE" in result.stderr


def test_verify_of_servers_that_are_gone(good: Path) -> None:
    result = cli("verify", "-f", str(good), "--json")
    assert result.exit_code == 4
    doc = json.loads(result.stdout)
    assert doc["ok"] is None and doc["reachable"] == 0
    assert all(line["agrees"] is None for line in doc["services"]["www"]["servers"])


def test_check_reports_each_problem_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(TEXT.format(port=5300).replace("capacity: 800", "capacity: 1k").replace("dns: {name", "dsn: {name"))
    result = cli("check", str(file))
    assert result.exit_code == 1
    lines = [line for line in result.stdout.splitlines() if line.startswith(f"{file}:")]
    assert len(lines) >= 2
    assert all(re.match(r".+:\d+:\d+: (error|warning): ", line) for line in lines)


def test_check_reads_standard_input(good: Path) -> None:
    assert cli("check", "-", stdin=good.read_text()).exit_code == 0


def test_check_of_no_file(tmp_path: Path) -> None:
    result = cli("check", str(tmp_path / "none.yaml"), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["problems"][0]["severity"] == "error"


def test_schema_is_json() -> None:
    result = cli("schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["type"] == "object"


def test_whatif_of_a_file(good: Path) -> None:
    result = cli("whatif", "-f", str(good), "--lose", "site-a", "--lose", "site-b", "--json")
    assert result.exit_code == 0
    doc = json.loads(result.stdout)
    assert doc["services"]["www"]["shares"] == {"eu-west": {"site-c": 100}, "rest": {"site-c": 100}}
    assert doc["services"]["www"]["standing"]["site-a"] == "failed"
    assert doc["services"]["www"]["shortfall"] == 520
    assert doc["sites"]["site-c"] == {"load": 700, "usable": 180, "capacity": 200}
    assert doc["store"] == {"left": 1, "needed": 2, "of": 3}


def test_whatif_screen(good: Path) -> None:
    result = cli("whatif", "-f", str(good), "--lose", "site-a", "--demand", "+10%")
    assert result.exit_code == 0
    assert re.search(r"site-b +716.1 +720 +99%", result.stdout)
    assert "max(detect" in result.stdout and "THEN" in result.stdout
    assert "\x1b[" not in result.stdout


def test_whatif_of_a_site_that_is_not_there(good: Path) -> None:
    result = cli("whatif", "-f", str(good), "--lose", "site-x")
    assert result.exit_code == 2
    assert "site-a, site-b" in result.stderr


def test_an_unsound_file_is_refused_with_all_its_problems(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("version: 1\ncluster: acme\n")
    for args in (("whatif", "-f", str(file)), ("apply", str(file)), ("verify", "-f", str(file))):
        result = cli(*args, "--json")
        assert result.exit_code == 1
        doc = json.loads(result.stdout)
        assert doc["ok"] is False and doc["problems"]


@pytest.mark.parametrize(("text", "value_s"), [("90s", 90), ("1h30m", 5400), ("7d", 604800), ("1500ms", 1.5)])
def test_durations(text: str, value_s: float) -> None:
    assert parse_duration(text) == value_s


def test_a_bare_number_is_no_duration() -> None:
    with pytest.raises(typer.BadParameter, match="write 60s"):
        parse_duration("60")


@pytest.mark.parametrize(("text", "factor"), [("+30%", 1.3), ("-10%", 0.9), ("130%", 1.3), ("0%", 0)])
def test_demand(text: str, factor: float) -> None:
    assert demand_factor(text) == pytest.approx(factor)


def test_there_is_no_demand_below_nothing() -> None:
    with pytest.raises(typer.BadParameter, match="below nothing"):
        demand_factor("-130%")


@pytest.mark.parametrize(
    ("value_s", "text"), [(None, "?"), (0.31, "0.3s"), (29.4, "29s"), (6720, "1h52m"), (356400, "4d3h"), (3600, "1h")]
)
def test_seconds(value_s: float | None, text: str) -> None:
    assert seconds(value_s) == text


def test_numbers_and_times() -> None:
    assert [number(v) for v in (None, 700.0, 0.5, 1234567.0)] == ["?", "700", "0.5", "1234567"]
    assert clock("2026-03-02T14:05:02.123+00:00", utc=True) == "2026-03-02 14:05:02Z"
    assert clock("not a time", utc=True) == "?"


def test_what_others_wrote_cannot_move_the_cursor() -> None:
    assert safe("a\x1b[2Jb\rc").plain == "a\ufffd[2Jb\ufffdc"


# --- which cluster ----------------------------------------------------------------------------------------


def running(name: str) -> discovery.Running:
    return discovery.Running(name, os.getpid(), (f"http://127.0.0.1:1/{name}",), "2026-03-02T14:05:02Z")


def test_a_cluster_is_found_until_it_ends() -> None:
    announcement = discovery.announce(running("acme"))
    assert discovery.find() == (running("acme"),)
    announcement.remove()
    announcement.remove()
    assert discovery.find() == ()
    assert not discovery.directory_path().exists()


def test_a_second_of_that_name_is_refused() -> None:
    announcement = discovery.announce(running("acme"))
    with pytest.raises(discovery.DiscoveryError, match="already runs"):
        discovery.announce(running("acme"))
    other = discovery.announce(running("other"))
    assert [r.cluster for r in discovery.find()] == ["acme", "other"]
    other.remove()
    announcement.remove()


def test_a_dead_cluster_is_ignored_and_replaced() -> None:
    code = (
        "import os, sys; from controlplane.cli.discovery import Running, announce\n"
        "announce(Running('acme', os.getpid(), (), '')); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert (discovery.directory_path() / "acme.json").exists()
    assert discovery.find() == ()
    announcement = discovery.announce(running("acme"))
    assert discovery.find() == (running("acme"),)
    announcement.remove()


def test_what_is_not_ours_is_not_obeyed(tmp_path: Path) -> None:
    directory = discovery.directory_path()
    directory.mkdir(mode=0o700)
    (directory / "junk.json").write_text("{")
    (tmp_path / "evil").write_text('{"cluster": "evil", "pid": 1, "api": ["http://x"], "started": ""}')
    (directory / "evil.json").symlink_to(tmp_path / "evil")
    assert discovery.find() == ()
    with pytest.raises(discovery.DiscoveryError, match="cannot be the name"):
        discovery.announce(running("../../etc/passwd"))


def test_a_directory_that_others_may_write_is_refused() -> None:
    discovery.directory_path().mkdir(mode=0o700)
    discovery.directory_path().chmod(0o777)
    with pytest.raises(discovery.DiscoveryError, match="not yours alone"):
        discovery.find()
    result = cli("status")
    assert result.exit_code == 4
    assert "not yours alone" in result.stderr


def test_a_symbolic_link_for_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    discovery.directory_path().symlink_to(tmp_path / "real")
    with pytest.raises(discovery.DiscoveryError, match="cannot be used"):
        discovery.announce(running("acme"))
    with pytest.raises(discovery.DiscoveryError, match="cannot be used"):
        discovery.find()


def test_several_clusters_are_named() -> None:
    both = [discovery.announce(running(name)) for name in ("acme", "other")]
    result = cli("status")
    assert result.exit_code == 2
    assert "--api http://127.0.0.1:1/other" in result.stderr
    for announcement in both:
        announcement.remove()


def test_only_check_tells_the_warnings_of_a_file(good: Path) -> None:
    good.write_text(good.read_text().replace("store: {members: [site-a, site-b, cloud]}\n", ""))
    assert "warning: store.members" in cli("check", str(good)).stdout
    assert cli("whatif", "-f", str(good)).stderr == ""
    assert "warning" not in cli("verify", "-f", str(good)).output


@pytest.mark.parametrize(
    "url", ["http://localhost:notaport", "http://:80", "http://[::1", "http://h:70000", "http://h:0"]
)
def test_an_api_that_cannot_be_one_is_a_usage_error(url: str) -> None:
    result = cli("status", "--api", url)
    assert result.exit_code == 2 and "write a URL such as" in result.stderr and repr(url) in result.stderr


@pytest.mark.parametrize(
    "url",
    [
        "http://ana:hunter2@127.0.0.1:1",
        "http://127.0.0.1:1,http://ana:hunter2@h",
        "http://ana:hunter2,@127.0.0.1:1",
        "ana:hunter2@127.0.0.1:1",
        "http://ana:hunter2@[::1",
        "http://hunter2@127.0.0.1:notaport",
    ],
)
def test_a_password_in_a_url_is_refused_and_not_quoted(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for result in (cli("status", "--api", url), cli("--api", url, "status", "--json")):
        assert result.exit_code == 2 and "has a user in it" in result.output
        assert "hunter2" not in result.output and "ana" not in result.output
    monkeypatch.setenv("FAILOVERCTL_API", url)
    result = cli("status")
    assert result.exit_code == 2 and "hunter2" not in result.output


def test_help_names_every_exit_code() -> None:
    assert "130" in cli("--help").stdout


def test_a_hung_endpoint_costs_a_second_and_all_of_them_the_time_out_once() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        answered, held = web.Application(), list[asyncio.StreamWriter]()

        async def late(request: web.Request) -> web.Response:
            return web.json_response({"source": {"age_s": 0.1}, "node": "b"})

        answered.router.add_route("*", "/v1/x", late)
        live = await serve(answered, "127.0.0.1", 0)
        hung = [await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0) for _ in range(3)]
        urls = [f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in hung]
        begun = loop.time()
        async with Client([urls[0], live.url], 30.0) as client:
            assert (await client.get("/v1/x"))["node"] == "b"
            assert (await client.send("POST", "/v1/x", {}, harmless=True))["node"] == "b"
        assert loop.time() - begun < 15, "it did not wait for the first"
        async with Client(urls, 0.2) as client:
            with pytest.raises(Unreachable) as failure:
                await client.get("/v1/x")
        assert str(failure.value).count("time-out") == 3 and not failure.value.sent
        for closing in (*held, *hung):
            closing.close()
            await closing.wait_closed()
        await live.aclose()

    run_async(main())
