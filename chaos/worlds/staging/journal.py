"""What drills leave on this machine's disk, so that others can heal: a journal each, and a lock for each cluster.

In $XDG_STATE_HOME/failoverctl/drills (else below ~/.local/state), which is the user's alone: <cluster>.lock is held by
the process that runs a drill there; <cluster>-<when>-<pid>.jsonl has one JSON document a line, each written through to
the disk before what it announces is done.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from chaos.worlds.staging.faults import Deed

KEPT = 20  # journals of drills that are over
WRITTEN_S = 1.0  # whoever has got the lock has written its name by then


class Entry(Struct, frozen=True, tag_field="kind", kw_only=True):
    at: str  # ISO 8601 UTC, for people


class Begun(Entry, frozen=True, tag="begun"):
    """places: a toxiproxy's address -> the proxies that the drill may break."""

    cluster: str
    scenario: str
    pid: int
    host: str
    places: dict[str, tuple[str, ...]]


class Making(Entry, frozen=True, tag="making"):
    """A fault is about to be made. It is healed by removing its toxics, and enabling the proxies that are off."""

    index: int
    text: str
    deeds: tuple[Deed, ...]


class Healed(Entry, frozen=True, tag="healed"):
    index: int
    left: tuple[str, ...] = ()


class Ended(Entry, frozen=True, tag="ended"):
    """Everything was healed but for `left`; by whom (drill, switch, halt), and why then."""

    by: str
    why: str
    left: tuple[str, ...] = ()


AnyEntry = Begun | Making | Healed | Ended
_decoder: msgspec.json.Decoder[AnyEntry] = msgspec.json.Decoder(AnyEntry)


class JournalError(Exception):
    """The directory cannot be used, or another drill runs; says why, and what would help."""


def directory() -> Path:
    """Where journals are by default. Does not create it."""
    given = os.environ.get("XDG_STATE_HOME", "")
    base = Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state"
    return base / "failoverctl" / "drills"


def prepare(path: Path) -> None:
    """Create the directory. Raises JournalError if it is not the user's alone: what is in it is acted upon."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.stat()
    except OSError as error:
        raise JournalError(f"{path}: {(error.strerror or str(error)).lower()}; set XDG_STATE_HOME") from None
    if info.st_uid != os.getuid() or stat.S_IMODE(info.st_mode) & 0o022:
        raise JournalError(f"{path} is not yours alone (others may write there); chmod go-w it, or set XDG_STATE_HOME")


class Holder(Struct, frozen=True):
    """The process that runs a drill. A home directory may be shared by several machines."""

    pid: int
    host: str

    @property
    def here(self) -> bool:
        return self.host == socket.gethostname()

    def __str__(self) -> str:
        return f"pid {self.pid}" if self.here else f"pid {self.pid} on {self.host}"


class Lock:
    """One drill at a time for each cluster of this user. The kernel drops it however the process ends."""

    def __init__(self, where: Path, cluster: str) -> None:
        """Raises JournalError if a drill runs."""
        path = where / f"{cluster}.lock"
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(f"{path}: {(error.strerror or str(error)).lower()}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = _held_by(self._fd)
            os.close(self._fd)
            raise JournalError(
                f"a drill of {cluster} runs already ({holder}); failoverctl drill halt ends it"
            ) from None
        line = f"{os.getpid()} {socket.gethostname()}\n".encode()
        os.pwrite(self._fd, line, 0)
        os.ftruncate(self._fd, len(line))  # after it: whoever reads between the two must not find an empty file

    def release(self) -> None:
        os.ftruncate(self._fd, 0)  # whoever holds it next must not be taken for us
        os.close(self._fd)


def holder(where: Path, cluster: str) -> Holder | None:
    """Who runs a drill of that cluster; None = nobody."""
    try:
        fd = os.open(where / f"{cluster}.lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _held_by(fd)
    finally:
        os.close(fd)
    return None


def _held_by(fd: int) -> Holder | None:
    """None: it was given back meanwhile."""
    until = time.monotonic() + WRITTEN_S
    while True:
        line, end, _ = os.pread(fd, 300, 0).decode("utf-8", "replace").partition("\n")
        pid, _, host = line.partition(" ")
        if end and pid.isdecimal():
            return Holder(int(pid), host)
        if time.monotonic() > until:
            return None
        time.sleep(0.01)


class Journal:
    """Append only. Several processes may write to one: each line is one write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, entry: AnyEntry) -> None:
        """Returns when it is on the disk. Raises OSError."""
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, msgspec.json.encode(entry) + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)

    def entries(self) -> tuple[AnyEntry, ...]:
        """A line that is not whole (the disk was full) is left out. Raises OSError."""
        found = []
        for line in self.path.read_bytes().splitlines():
            with suppress(msgspec.MsgspecError):
                found.append(_decoder.decode(line))
        return tuple(found)

    def begun(self) -> Begun | None:
        return next((entry for entry in self.entries() if isinstance(entry, Begun)), None)

    def healed(self) -> bool:
        """Is nothing left of it?"""
        last = self.entries()[-1:]
        return bool(last) and isinstance(last[0], Ended) and not last[0].left


def journals(where: Path, cluster: str = "") -> list[Journal]:
    """All of them, or those of one cluster; the oldest first."""
    found = [Journal(path) for path in sorted(where.glob("*.jsonl"), key=lambda path: path.stat().st_mtime)]
    return [j for j in found if (begun := j.begun()) is not None and cluster in ("", begun.cluster)]


def tidy(where: Path) -> None:
    """Keep the journals of the last drills that are over, and of all that are not."""
    over: Sequence[Journal] = [journal for journal in journals(where) if journal.healed()]
    for journal in over[:-KEPT]:
        for path in (journal.path, journal.path.with_suffix(".log")):
            path.unlink(missing_ok=True)
