"""What happened, for people: decisions, the audit trail, incidents. Bounded in memory, and a file if one is given.

The store keeps the last 1,000 decisions; every controller keeps more of them here, and what only it can know: when
it saw things, on its own clock.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import stat
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import msgspec
from msgspec import Struct

from controlplane.documents import AppliedDoc, DecisionDoc
from controlplane.view import View
from controlplane.view.evidence import doubted_for_s

log = logging.getLogger(__name__)

KEPT_DECISIONS = 10_000
KEPT_AUDIT = 10_000
KEPT_INCIDENTS = 1_000
WATCHED_INCIDENTS = 20  # the newest ones still wait for agents to report
FILE_BYTES = 64 * 1024 * 1024  # then the file is put aside as "<name>.1", in the place of the one before it
FULL = (errno.ENOSPC, errno.EDQUOT)  # passes by itself, or when somebody makes room
REACHABLE_S = 10.0  # a writer that takes longer could not be reached


class Audit(Struct, frozen=True):
    """One mutation that an operator asked for; refused ones too. result: ok | refused | conflict | unknown."""

    at: str
    author: str
    action: str
    result: str
    detail: str = ""


class Incident(Struct):
    """One service that left one or more failed sites. Durations are seconds on this controller's clock, counted
    from its first report of a DOWN target (a vantage reports after `fall` failures, which come on top).

    detect_s: until the decision, decide_s of it in the leader (None: led by another); apply_s: from the decision
    until the last writer that could be reached reported it; every writer, late ones too, in `applied`.
    """

    id: str
    service: str
    sites: tuple[str, ...]
    decision: str
    generation: int
    at: str
    reasons: tuple[str, ...]
    detect_s: float | None = None
    decide_s: float | None = None
    apply_s: float | None = None
    applied: dict[str, float] = {}


class Journal:
    """`wall` reads the wall clock, seconds since 1970. Subscribe `decision` and `applied` to a view's listeners,
    or pass the view to follow(). Raises OSError for a path that cannot be a file of its own; a full disk can."""

    def __init__(self, wall: Callable[[], float], path: Path | None = None) -> None:
        self.decisions: deque[DecisionDoc] = deque(maxlen=KEPT_DECISIONS)
        self.audits: deque[Audit] = deque(maxlen=KEPT_AUDIT)
        self.incidents: deque[Incident] = deque(maxlen=KEPT_INCIDENTS)
        self._wall = wall
        self._view: View | None = None
        self._begun: dict[str, float] = {}  # incident id -> own clock, when the decision was seen
        self._took_s: dict[str, float] = {}  # nonce of a decision -> seconds in the leader, if that is us
        self._nonces: dict[str, None] = {}  # of the decisions kept
        self._path = path
        self._file: TextIO | None = None
        self._bytes = 0
        self.trouble = ""  # why the last line could not be written to the file, for people
        try:
            if path is not None:
                self._open()
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._in_trouble(error)

    def follow(self, view: View) -> None:
        """Write down every decision that comes into this view, whoever made it."""
        self._view = view
        view.on_decision.append(self.decision)
        view.on_applied.append(self.applied)

    def committed(self, decision: DecisionDoc, took_s: float) -> None:
        """The leader's own measure; the decision itself comes through the view, before or after this."""
        self._took_s[decision.nonce] = took_s
        if len(self._took_s) > WATCHED_INCIDENTS:
            del self._took_s[next(iter(self._took_s))]
        for incident in list(self.incidents)[-WATCHED_INCIDENTS:]:
            if incident.decision == decision.id:
                incident.decide_s = took_s

    def decision(self, decision: DecisionDoc, live: bool) -> None:
        """live: made just now; else it is history, found in the store."""
        if decision.nonce in self._nonces:
            return
        if len(self.decisions) == KEPT_DECISIONS:
            del self._nonces[self.decisions[0].nonce]
        self._nonces[decision.nonce] = None
        self.decisions.append(decision)
        self._write("decision", decision)
        failed = tuple(e for e in decision.events if e.kind == "move" and e.forced and e.rule == "failed")
        if live and failed and decision.new_generation and decision.input.desired is not None:
            self._incident(decision, tuple(e.site for e in failed), tuple(e.reason for e in failed))

    def applied(self, writer: str, document: AppliedDoc) -> None:
        """An agent's report: `writer` is "<writer>/<site>/<driver>/<shard>"."""
        now = asyncio.get_running_loop().time()
        for incident in list(self.incidents)[-WATCHED_INCIDENTS:]:
            done = document.services.get(incident.service)
            if done is None or done.result != "ok" or done.generation < incident.generation:
                continue
            if writer not in incident.applied and incident.id in self._begun:
                took_s = now - self._begun[incident.id]
                incident.applied = {**incident.applied, writer: took_s}
                if took_s < REACHABLE_S:
                    incident.apply_s = took_s
                self._write("incident", incident)

    def under_way(self) -> dict[str, tuple[Incident, float]]:
        """Service -> its newest incident, and the seconds since its decision was seen here."""
        now = asyncio.get_running_loop().time()
        return {i.service: (i, now - self._begun[i.id]) for i in self.incidents if i.id in self._begun}

    def audit(self, author: str, action: str, result: str, detail: str = "") -> Audit:
        entry = Audit(self._at(), author, action, result, detail)
        self.audits.append(entry)
        log.info("%s %s: %s%s", author, action, result, f" ({detail})" if detail else "")
        self._write("audit", entry)
        return entry

    def close(self) -> None:
        file, self._file, self._path = self._file, None, None
        if file is not None:
            try:
                file.close()
            except OSError as error:  # what was left in its buffer does not fit either
                log.error("the journal cannot be written: %s", error)

    # --- inside ---

    def _incident(self, decision: DecisionDoc, sites: tuple[str, ...], reasons: tuple[str, ...]) -> None:
        doubts = [doubted_for_s(self._view, decision.service, site) for site in sites] if self._view else []
        incident = Incident(
            id="inc-" + decision.id.removeprefix("d-"),
            service=decision.service,
            sites=sites,
            decision=decision.id,
            generation=decision.desired.generation,
            at=decision.at,
            reasons=reasons,
            detect_s=max((doubt for doubt in doubts if doubt is not None), default=None),
            decide_s=self._took_s.get(decision.nonce),
        )
        self.incidents.append(incident)
        self._begun[incident.id] = asyncio.get_running_loop().time()
        for old in list(self._begun)[:-WATCHED_INCIDENTS]:
            del self._begun[old]
        self._write("incident", incident)

    def _at(self) -> str:
        return datetime.fromtimestamp(self._wall(), UTC).isoformat(timespec="milliseconds")

    def _write(self, kind: str, entry: Struct) -> None:
        """One JSON line; an incident that goes on is written again. A full disk must stop neither the view, which
        calls this, nor anybody else: the line is lost."""
        if self._path is None:
            return
        line = msgspec.json.encode({"kind": kind, "entry": entry}, order="deterministic")
        try:
            file = self._file or self._open()
            file.write(line.decode() + "\n")
            file.flush()
            self._bytes += len(line) + 1
            if self._bytes >= FILE_BYTES:
                self._turn()
        except OSError as error:
            self._in_trouble(error)
        else:
            self.trouble = ""

    def _in_trouble(self, error: OSError) -> None:
        if str(error) != self.trouble:
            log.error("the journal cannot be written: %s", error)
        self.trouble = str(error)

    def _open(self) -> TextIO:
        """It may have been too full before. Raises OSError."""
        assert self._path is not None
        self._file = file = _append_to(self._path)
        self._bytes = os.fstat(file.fileno()).st_size
        return file

    def _turn(self) -> None:
        """Begin a new file. Raises OSError; it goes on in the old one then."""
        assert self._path is not None and self._file is not None
        self._bytes = 0  # also if it fails: not again with each line
        self._path.replace(self._path.with_name(self._path.name + ".1"))
        fresh = _append_to(self._path)
        self._file.close()
        self._file = fresh


def _append_to(path: Path) -> TextIO:
    """Nobody else may read who did what. Raises OSError."""
    # A FIFO that nobody reads would be waited for.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise _not_a_file(path) from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise _not_a_file(path)
        os.fchmod(fd, 0o600)  # it may be there already
        return open(fd, "a", encoding="utf-8")
    except OSError:
        os.close(fd)
        raise


def _not_a_file(path: Path) -> OSError:
    return OSError(errno.EINVAL, "not a regular file", str(path))
