"""Drills that passed, kept for `failoverctl drill status`: one JSON line each in a file that only ever grows.

Each line is one write to a file opened for appending, under a lock; a line that cannot be read (a disk that was full,
somebody's editor) costs that line alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from chaos.report import Report
from policies.topology import Config

MAX_BYTES = 64 * 1024 * 1024  # of the file: some 150,000 drills; what is older is not looked at


class LedgerError(Exception):
    """The file cannot be written or read; says why, and what would help."""


class Passed(Struct, frozen=True, kw_only=True):
    """One drill that passed. file, scenario_sha256: of the scenario. config_sha256: see `config_digest`. config_rev:
    0 if it was never applied.

    bound_s, measured_s: worst case and outage of that failover of the drill that came closest to its bound; None: it
    had none."""

    scenario: str
    scenario_sha256: str
    cluster: str
    config_rev: int
    config_sha256: str
    version: str
    world: str
    seed: int
    at: str  # ISO 8601 UTC, by the wall clock
    file: str = ""
    history_sha256: str = ""
    bound_s: float | None = None
    measured_s: float | None = None


def path(environment: Mapping[str, str] = os.environ) -> Path:
    """$XDG_STATE_HOME/failoverctl/drills.jsonl; without it under ~/.local/state (XDG base directories)."""
    given = environment.get("XDG_STATE_HOME", "")
    home = Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state"
    return home / "failoverctl" / "drills.jsonl"


def config_digest(config: Config) -> str:
    """Equal for equal configurations, whether read from a file or applied (which gives a revision)."""
    return hashlib.sha256(msgspec.json.encode(replace(config, revision=0), order="deterministic")).hexdigest()


def file_digest(file: Path) -> str:
    """Raises OSError."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def age_s(passed: Passed, now: datetime) -> float | None:
    """How long ago; None if its time cannot be read."""
    try:
        return max((now - datetime.fromisoformat(passed.at)).total_seconds(), 0.0)
    except (ValueError, TypeError):
        return None


def closest(report: Report) -> tuple[float | None, float | None]:
    """(bound, measured) of the failover that came closest to its bound, in seconds."""
    known = [(f.outage_s / f.worst_case_s, f.worst_case_s, f.outage_s) for f in report.failovers if f.outage_s]
    _, bound_s, measured_s = max(known, default=(0.0, None, None))
    return bound_s, measured_s


def record(passed: Passed, file: Path) -> None:
    """Append it. The directory is made with mode 0700, the file with 0600. Raises LedgerError."""
    line = msgspec.json.encode(passed) + b"\n"
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":  # a line that was cut short must not spoil this one too
                line = b"\n" + line
            if os.write(fd, line) != len(line):
                raise LedgerError(f"{file}: the disk is full: this drill is not recorded")
        finally:
            os.close(fd)
    except OSError as error:
        raise LedgerError(f"{file}: {error.strerror}: this drill is not recorded") from None


def read(file: Path) -> tuple[list[Passed], int]:
    """What was recorded, oldest first, and how many lines cannot be read. Raises LedgerError."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise LedgerError(f"{file}: {error.strerror}") from None
    with os.fdopen(fd, "rb") as text:
        start = max(0, os.fstat(fd).st_size - MAX_BYTES)
        text.seek(start)
        lines = text.read(MAX_BYTES).split(b"\n")[1 if start else 0 :]
    return _decoded(lines)


def _decoded(lines: Iterable[bytes]) -> tuple[list[Passed], int]:
    decoder = msgspec.json.Decoder(Passed)
    found, damaged = [], 0
    for line in lines:
        if not line.strip():
            continue
        try:
            found.append(decoder.decode(line))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            damaged += 1
    return found, damaged
