"""The dead-man's switch: a process of its own that heals everything when the runner of a drill dies, or stands still.

    python -m chaos.worlds.staging.switch JOURNAL

The runner writes a line to its standard input each second, and "done" at the end; the end of that pipe without it, or
silence, is the runner's death. It has a session of its own, so that no Ctrl-C, terminal or process group takes both.
It knows what to heal from the journal's first line, and looks at the proxies themselves for what a drill has put there.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from chaos.worlds.staging.faults import heal
from chaos.worlds.staging.journal import Begun, Ended, Journal

SILENCE_S = 5.0  # without a word of the runner for so long, it is dead
START_S = 20.0  # patience with the start of the process
AGAIN_S = 1.0  # between two looks at what could not be healed yet
PATIENCE_S = 900.0  # with toxiproxy servers that do not answer while the runner is dead
LAST_S = 5.0  # the same, when the runner is there and waits
_READY, _DONE = b"ready\n", b"done\n"


class SwitchError(Exception):
    """It could not be started."""


class Switch:
    """The runner's end of it."""

    def __init__(self, journal: Journal) -> None:
        """Returns when it watches. Raises SwitchError."""
        log = journal.path.with_suffix(".log")
        with open(log, "ab") as errors:
            self._child = subprocess.Popen(
                (sys.executable, "-m", "chaos.worlds.staging.switch", str(journal.path)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        assert self._child.stdin is not None and self._child.stdout is not None
        self._in, self._out = self._child.stdin, self._child.stdout
        readable, _, _ = select.select([self._out], [], [], START_S)
        if not readable or self._out.readline() != _READY:
            self.kill()
            raise SwitchError(f"the dead-man's switch did not start; {log} may say why")

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def feed(self) -> bool:
        """Say that we live. False: it does not any more."""
        return self.alive and self._say(b"alive\n")

    def done(self) -> bool:
        """The drill is over: it looks once more whether all is healed, writes the journal's end, which says what is
        left, and ends. False: it was dead, and has written nothing."""
        said = self._say(_DONE)
        with suppress(BrokenPipeError):
            self._in.close()
        with suppress(subprocess.TimeoutExpired):
            self._child.wait(LAST_S + 10.0)
        self._out.close()
        return said and self._child.returncode == 0

    def kill(self) -> None:
        """For one that did not start."""
        self._child.kill()
        self._child.wait()
        self._in.close()
        self._out.close()

    def _say(self, line: bytes) -> bool:
        try:
            self._in.write(line)
            self._in.flush()
        except (BrokenPipeError, ValueError):
            return False
        return True


def now() -> str:
    """The wall clock, for the journal's readers."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def watch(fd: int, silence_s: float) -> str:
    """Until the runner is done ("") or dead (why)."""
    last = b""
    while True:
        readable, _, _ = select.select([fd], [], [], silence_s)
        if not readable:
            return f"the runner of the drill stood still for {silence_s:g} s"
        said = os.read(fd, 65536)
        if not said:
            return "" if last.endswith(_DONE) else "the runner of the drill died"
        last = (last + said)[-64:]


def heal_until(journal: Journal, begun: Begun, why: str, patience_s: float) -> tuple[str, ...]:
    """Heal, and again what did not answer; what is left. Each look goes into the journal if it found something new."""
    until = time.monotonic() + patience_s
    known: tuple[str, ...] = ()
    while True:
        left = heal(begun.places).left
        if not left or time.monotonic() > until:
            return left
        if left != known:
            journal.write(Ended(at=now(), by="switch", why=f"{why}; trying again", left=left))
            known = left
        time.sleep(AGAIN_S)


def main(argv: Sequence[str] | None = None) -> int:
    """0: the runner was done; 1: it was dead."""
    journal = Journal(Path((sys.argv[1:] if argv is None else argv)[0]))
    begun = journal.begun()
    if begun is None:
        print(f"{journal.path} does not say what to heal", file=sys.stderr)
        return 2
    sys.stdout.buffer.write(_READY)
    sys.stdout.flush()
    why = watch(sys.stdin.fileno(), SILENCE_S)
    os.close(sys.stdin.fileno())  # by which a runner that only stood still learns that it was given up
    left = heal_until(journal, begun, why or "the drill ended", PATIENCE_S if why else LAST_S)
    if why:
        time.sleep(AGAIN_S)  # what it was sending as it died has arrived by now
        left = heal_until(journal, begun, why, PATIENCE_S)
    journal.write(Ended(at=now(), by="switch", why=why or "the drill ended", left=left))
    return 1 if why else 0


if __name__ == "__main__":
    sys.exit(main())
