"""A run that fails and is then interrupted, or killed, leaves nothing behind: namespaces, processes, files."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.worlds.lab.net import PREFIX, Network, leftovers
from chaos.worlds.servers.process import program

HERE = Path(__file__).parent
UP = " begins"  # what both runs say when all of it is there


def _until(holds: Callable[[], object], what: str, within_s: float) -> None:
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def _namespaces(pid: int) -> list[str]:
    return sorted(path.name for path in Path("/run/netns").glob(f"{PREFIX}-{pid}-*"))


def _inside(namespaces: list[str]) -> list[int]:
    found = []
    for name in namespaces:
        argv = (program("ip"), "netns", "pids", name)
        done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=10)
        found += [int(word) for word in done.stdout.split()]
    return found


def _lab_above(path: Path) -> list[Path]:
    return [parent for parent in path.parents if parent.name.startswith("failover-lab-")]


TESTS = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--basetemp={}/inner", str(HERE / "interrupted.py")]
DRILL = [sys.executable, "-m", "controlplane.cli.main", "drill", "run", "site-dark", "--world", "lab"]
INTERRUPTED = 130  # how failoverctl ends then


@pytest.mark.parametrize(
    ("argv", "number", "code"),
    [
        (TESTS, signal.SIGINT, 2),
        (DRILL, signal.SIGINT, INTERRUPTED),
        (DRILL, signal.SIGKILL, -signal.SIGKILL),
    ],
    ids=["tests, ctrl-c", "drill, ctrl-c", "drill, killed"],
)
def test_nothing_is_left_of_a_run_that_ends_badly(
    tmp_path: Path, argv: list[str], number: signal.Signals, code: int
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would have it ignored
    log = tmp_path / "log"
    with log.open("wb") as out:
        run = subprocess.Popen([word.format(tmp_path) for word in argv], cwd=HERE.parents[1], stdout=out, stderr=out)
    try:
        _until(lambda: UP in log.read_text() or run.poll() is not None, "the lab runs", 120)
        assert run.poll() is None, log.read_text()
        namespaces = _namespaces(run.pid)
        processes = _inside(namespaces)
        (directory,) = {found for pid in processes for found in _lab_above(Path(f"/proc/{pid}/cwd").resolve())}
        assert len(namespaces) == 6, namespaces  # the router, three sites, the witness, the clients
        assert len(processes) > 18, processes
    finally:
        run.send_signal(number)
        run.wait(60)
    assert run.returncode == code, log.read_text()
    _until(lambda: not _namespaces(run.pid), "namespaces go", 20)
    _until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), "processes go", 20)
    _until(lambda: not directory.exists(), "files go", 20)


def test_what_a_dead_run_left_is_removed_by_the_next() -> None:
    """Nobody but the caretaker could have removed it, and that was killed too."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    name = f"{PREFIX}-{dead.pid}-0000-site-a"
    subprocess.run((program("ip"), "netns", "add", name), check=True, timeout=10)
    assert name in leftovers()
    network = Network({"here": ["198.51.100.2/27"]})
    try:
        network.up()
        assert name not in leftovers()
        assert network.namespace("here") not in leftovers()
    finally:
        network.down()
    assert not Path("/run/netns", network.namespace("here")).exists()
