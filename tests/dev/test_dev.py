"""`failoverctl dev` and `make demo` as a user runs them: real processes, real sockets, on loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dns.edns
import dns.exception
import dns.message
import dns.query
import dns.rcode
import pytest

from controlplane.cli.dev_config import free_port, template

EU_WEST, EU_NORTH = "127.1.0.1", "127.2.0.1"


def ctl(home: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "XDG_RUNTIME_DIR": str(home), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "controlplane.cli.main", *args]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=50)


class Dev:
    """A running `failoverctl dev --fast`, and what it printed."""

    def __init__(self, home: Path, *args: str) -> None:
        self.home = home
        env = {**os.environ, "XDG_RUNTIME_DIR": str(home), "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "controlplane.cli.main", "dev", "--fast", *args]
        self.process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.lines: list[str] = []
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if "Ctrl-C ends it" in line:
                return
        raise AssertionError(f"dev ended: {self.lines} {self.process.stderr and self.process.stderr.read()}")

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def dns_port(self) -> int:
        found = re.search(r"dig @\S+ -p (\d+)", self.text)
        assert found
        return int(found[1])

    def ask(self, server: str, client: str) -> list[str]:
        """The addresses that a client in this subnet is told, or [] if the server says nothing useful."""
        query = dns.message.make_query("www.dev.test", "A", use_edns=0, options=[dns.edns.ECSOption(client, 32)])
        try:
            reply = dns.query.udp(query, server, timeout=1, port=self.dns_port)
        except (OSError, dns.exception.Timeout):
            return []
        return sorted(str(record) for rrset in reply.answer for record in rrset)

    def json(self, *args: str) -> dict[str, Any]:
        result = ctl(self.home, *args, "--json")
        assert result.returncode == 0, result.stderr
        document: dict[str, Any] = json.loads(result.stdout)
        return document

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.communicate(timeout=15)
        finally:
            self.process.kill()
            self.process.wait()
        return self.process.returncode


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    running = Dev(tmp_path)
    try:
        yield running
    finally:
        running.stop()


def until(what: str, true: Callable[[], bool], within_s: float = 20) -> None:
    """Generous: what is asserted is that it comes about, not how fast."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, f"not within {within_s:g}s: {what}"
        time.sleep(0.1)


def test_sites_die_and_come_back(dev: Dev) -> None:
    assert dev.ask("127.0.2.1", EU_WEST) == ["127.0.1.1"] and dev.ask("127.0.2.1", EU_NORTH) == ["127.0.2.1"]
    curl = re.search(r":(\d+)/$", next(line for line in dev.lines if "curl" in line))
    assert curl
    with urllib.request.urlopen(f"http://127.0.1.1:{curl[1]}/", timeout=2) as reply:
        assert b"hello from site-a" in reply.read()
    file = next(line.split()[-1] for line in dev.lines if "verify -f" in line)
    assert ctl(dev.home, "verify", "-f", file).returncode == 0

    assert ctl(dev.home, "break", "site-a").returncode == 0
    until("site-b to answer for site-a", lambda: dev.ask("127.0.3.1", EU_WEST) == ["127.0.2.1"])
    assert dev.ask("127.0.1.1", EU_WEST) == [], "its name server died with it"
    why = dev.json("explain", "www")
    assert why["sites"]["site-a"]["rule"] == "failed" and why["shares"]["eu-west"] == {"site-b": 100}
    refused = {e["vantage"] for e in why["sites"]["site-a"]["evidence"] if e["reason"] == "refused"}
    assert refused == {"site-b", "site-c", "cloud"}

    assert ctl(dev.home, "break", "site-b").returncode == 0
    until("site-c to answer for both", lambda: dev.ask("127.0.3.1", EU_WEST) == ["127.0.3.1"])
    status = dev.json("status")
    assert "shortfall" in {alarm["name"] for alarm in status["alarms"]}

    assert ctl(dev.home, "heal", "site-a").returncode == 0
    assert ctl(dev.home, "heal", "site-b").returncode == 0
    until("the end of the ramps", lambda: dev.ask("127.0.1.1", EU_WEST) == ["127.0.1.1"], 40)
    until("all three to agree", lambda: dev.json("status")["services"]["www"]["state"] == "converged")


def test_it_ends_clean(tmp_path: Path) -> None:
    running = Dev(tmp_path, "--log", str(tmp_path / "dev.log"))
    port = running.dns_port
    assert running.stop() == 0
    assert [p.name for p in tmp_path.iterdir()] == ["dev.log"], "no file is left but the log that was asked for"
    assert "d-1 www" in (tmp_path / "dev.log").read_text()
    for address in ("127.0.1.1", "127.0.2.1", "127.0.3.1"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind((address, port))


def test_a_second_one_of_that_name_is_refused(dev: Dev) -> None:
    second = ctl(dev.home, "dev")
    assert second.returncode == 1 and "already runs here" in second.stderr and "Traceback" not in second.stderr


def test_break_asks_for_a_site_that_exists(dev: Dev) -> None:
    result = ctl(dev.home, "break", "site-x")
    assert result.returncode == 1 and "site-a, site-b, site-c, cloud" in result.stderr
    assert ctl(dev.home, "heal", "site-a").stdout.startswith("site-a is alive already")


def test_nothing_to_break(tmp_path: Path) -> None:
    result = ctl(tmp_path, "break", "site-a")
    assert result.returncode == 4 and "failoverctl dev" in result.stderr


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.2.1", 0))
        port = taken.getsockname()[1]
        result = ctl(tmp_path, "dev", "--port", str(port))
    assert result.returncode == 1 and f"port {port}" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("127.0.3.1, ", "x"), "error"),
        (("site-c: 127.0.3.1}", "site-c: 198.51.100.1}"), "is not a loopback address"),
        (("ttl: 5s", "ttll: 5s"), 'did you mean "ttl"?'),
        (("      - http: {port: 8080,", "      - http: {port: 8080, tls: true,"), "plain HTTP"),
    ],
)
def test_a_file_that_dev_cannot_run(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    text = template(free_port(), 8080)
    file = tmp_path / "bad.yaml"
    file.write_text(text.replace(*change) if change[0] in text else text + "\n" + change[1])
    result = ctl(tmp_path, "dev", str(file))
    assert result.returncode == 1 and said in result.stderr and "Traceback" not in result.stderr
    assert "bad.yaml" in result.stderr


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(template(free_port(), free_port()).replace("ttl: 5s", "ttl: 7s"))
    running = Dev(tmp_path, str(file))
    try:
        assert running.json("status")["services"]["www"]["state"] in ("converged", "propagating")
        query = dns.message.make_query("www.dev.test", "A")
        assert dns.query.udp(query, "127.0.1.1", timeout=2, port=running.dns_port).answer[0].ttl == 7
    finally:
        assert running.stop() == 0


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = ctl(tmp_path, "dev", str(tmp_path / "none.yaml"))
    assert result.returncode == 1 and "No such file" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_can_be_interrupted(tmp_path: Path, number: signal.Signals) -> None:
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "controlplane.cli.demo"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if "serving" in line)
        second = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
        assert second.returncode == 1 and "already runs here" in second.stdout and second.stderr == ""
        process.send_signal(number)
        out, errors = process.communicate(timeout=15)
    assert process.returncode == 130 and "nothing is left behind" in out and errors == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(90)
def test_the_demo_keeps_its_promises(tmp_path: Path) -> None:
    env = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "NO_COLOR": "1"}
    command = [sys.executable, "-m", "controlplane.cli.demo"]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=80)
    assert result.returncode == 0, result.stdout + result.stderr
    for said in ("site-a is dead", "DOWN", "leads now, ", "decided d-2", "soak begins", "DRAINED in", "DEMO OK"):
        assert said in result.stdout
    assert result.stderr == "" and list(tmp_path.iterdir()) == [], "it leaves nothing behind"
