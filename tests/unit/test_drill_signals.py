"""failoverctl drill, when it is told to end: quietly, with all of its processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.drill_world import written

SAID = "Interrupted. What the drill broke is healed; it is not recorded.\n"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_in_the_simulator(sent: signal.Signals, tmp_path: Path) -> None:
    """SIGTERM, which a CI sends, ends it in the same way."""
    assert ended_by(sent, "cut site-a", "run", str(written(tmp_path, "long", "23h", "20h"))) == (130, SAID)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("command", ["run", "fuzz"])
def test_sigterm_of_several_processes(command: str, tmp_path: Path) -> None:
    """Theirs end too, and leave no words of their own."""
    files = [str(written(tmp_path, name, "23h", "20h")) for name in ("one", "two")]
    what = files if command == "run" else ["--hours", "1000", "--into", str(tmp_path / "found")]
    first, last = ("SCENARIO", SAID) if command == "run" else ("fuzz", "")
    assert ended_by(signal.SIGTERM, first, command, *what, "--jobs", "2", after_s=3.0) == (130, last)


@pytest.mark.timeout(120)
def test_sigterm_where_ctrl_c_is_ignored(tmp_path: Path) -> None:
    """As for what a script starts in the background."""
    command = "fuzz", "--hours", "1000", "--jobs", "2", "--into", str(tmp_path / "found")
    assert ended_by(signal.SIGTERM, "fuzz", *command, after_s=3.0, ignoring=True) == (130, "")


def ended_by(
    sent: signal.Signals, first: str, *command: str, after_s: float = 0.2, ignoring: bool = False
) -> tuple[int, str]:
    """(exit code, stderr) of a drill that is sent a signal, some time after a line with `first` was read. stderr ends
    when the last of its processes has."""
    process = subprocess.Popen(
        [sys.executable, "-m", "controlplane.cli.main", "drill", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "."},
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignoring else None,
    )
    try:
        assert process.stdout is not None
        while first not in process.stdout.readline():
            assert process.poll() is None
        time.sleep(after_s)
        process.send_signal(sent)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    return process.returncode, said
