"""What the lab's clients, its poller and the journals of failoverd say, made into figures. Times are seconds of
CLOCK_MONOTONIC, which all namespaces share."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from chaos.worlds.lab.client import Record
from chaos.worlds.lab.poller import Change

T = TypeVar("T")


class Feed(Generic[T]):
    """The JSON lines of a log that somebody goes on writing, one `kind` of document each; other lines are left out."""

    def __init__(self, path: Path, kind: type[T]) -> None:
        self._path, self._at = path, 0
        self._decode = msgspec.json.Decoder(kind).decode
        self._read: list[T] = []

    def all(self) -> list[T]:
        """In the order in which they were written."""
        if self._path.exists():
            with self._path.open("rb") as log:
                log.seek(self._at)
                new = log.read()
            whole = new.rfind(b"\n") + 1  # its last line may not be complete yet
            self._at += whole
            self._read += [self._decode(line) for line in new[:whole].splitlines() if line.startswith(b"{")]
        return self._read


# ---- clients


def by_client(records: Iterable[Record], since: float = 0.0) -> dict[str, list[Record]]:
    """Client -> its requests that began at `since` or later, in that order."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.t >= since:
            found[record.client].append(record)
    return {client: sorted(found[client], key=lambda r: r.t) for client in sorted(found)}


class Outage(Struct, frozen=True):
    """The longest run of failed requests of one client. `ended`: when the first one that succeeded again began; the
    last known request, if none did."""

    began: float
    ended: float
    failed: int
    errors: tuple[str, ...]

    @property
    def length_s(self) -> float:
        return self.ended - self.began


def outage(requests: Sequence[Record]) -> Outage | None:
    """None: no request failed."""
    longest: Outage | None = None
    run: list[Record] = []
    for request in [*requests, None]:
        if request is not None and request.error:
            run.append(request)
            continue
        if run:
            ended = request.t if request is not None else run[-1].t
            errors = tuple(dict.fromkeys(r.error for r in run))
            this = Outage(run[0].t, ended, len(run), errors)
            longest = this if longest is None or this.length_s > longest.length_s else longest
        run = []
    return longest


def failed(requests: Collection[Record]) -> list[Record]:
    return [request for request in requests if request.error]


# ---- name servers


def histories(changes: Iterable[Change], since: float = 0.0) -> dict[tuple[str, str, str], list[Change]]:
    """(name, server, region) -> what it answered from when on; the first is what was so at `since`."""
    found: dict[tuple[str, str, str], list[Change]] = defaultdict(list)
    for change in changes:
        history = found[change.name, change.server, change.region]
        if change.t <= since:
            history.clear()
        history.append(change)
    return dict(found)


def left_at(history: Sequence[Change], addresses: Collection[str]) -> float | None:
    """Since when no answer has had one of these addresses; None: the last one has."""
    left: float | None = history[0].t if history else None
    for change in history:
        if set(change.addresses) & set(addresses):
            left = None
        elif left is None:
            left = change.t
    return left


# ---- decisions


class _Desired(Struct):
    service: str
    generation: int = 0
    shares: dict[str, dict[str, int]] = {}


class Decision(Struct, frozen=True):
    """Of a journal: what is needed here."""

    id: str
    service: str
    at: str
    node: str
    new_generation: bool
    desired: _Desired

    @property
    def wall_s(self) -> float:
        return datetime.fromisoformat(self.at).timestamp()


class _Line(Struct):
    kind: str
    entry: msgspec.Raw


def decisions(journal: Path) -> list[Decision]:
    """Those that moved something, oldest first."""
    lines = Feed(journal, _Line).all()
    found = [msgspec.json.decode(line.entry, type=Decision) for line in lines if line.kind == "decision"]
    return sorted((d for d in found if d.new_generation), key=lambda d: d.wall_s)


# ---- the table


class Row(Struct, frozen=True):
    """One failover of one service, in seconds from the fault: when it was decided, when the last surviving name
    server answered so, when the last client got through (0: none failed). None: not measured, or there was none.
    bound: what `check` computes for each of these phases."""

    scenario: str
    service: str
    decided: float | None
    applied: float | None
    outage: float
    failed: int
    bound: tuple[float, float, float] | None = None
    note: str = ""


_HEAD = ("SCENARIO", "SERVICE", "DETECT", "APPLY", "TTL", "OUTAGE", "FAILED", "WORST CASE", "NOTE")


def table(rows: Sequence[Row]) -> str:
    """Phases as they follow each other: detect (to the decision), apply, TTL; then the whole, as clients had it."""
    cells = [_HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(_HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def _cells(row: Row) -> tuple[str, ...]:
    detect, apply_, ttl = row.bound or (None, None, None)
    whole = sum(row.bound) if row.bound else None
    ended = row.outage or None
    return (
        row.scenario,
        row.service,
        _of(row.decided, detect),
        _of(_less(row.applied, row.decided), apply_),
        _of(_less(ended, row.applied), ttl),
        f"{row.outage:.1f}",
        str(row.failed),
        "-" if whole is None else f"{whole:.1f}",
        row.note,
    )


def _less(later: float | None, earlier: float | None) -> float | None:
    return None if later is None or earlier is None else max(0.0, later - earlier)


def _of(value: float | None, bound: float | None) -> str:
    measured = "-" if value is None else f"{value:.2f}"
    return measured if bound is None else f"{measured} of {bound:.1f}"
