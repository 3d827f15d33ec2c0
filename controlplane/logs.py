"""failoverd's log: one line each, for people on a terminal and as JSON otherwise.

Lines are written by a thread of their own: who reads the log too slowly must not stop the event loop. A line that
belongs to a decision names it: `log.info(..., extra={"decision": "d-7"})`.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Struct

from policies.topology import Check, Config
from probes.kinds.base import Secret

QUEUED = 10_000  # lines; those that come while it is full are counted, and lost
MOST_CHARS = 16_384  # of one line: journald cuts at 48 KiB
LAST_WORDS_S = 1.0  # patience with the reader at the end
HIDDEN = "***"
LEAST_SECRET = 4  # characters: hiding shorter ones would garble the log


class Redactor:
    """Hides the secrets that a configuration refers to, should some library quote one in what it raises."""

    def __init__(self) -> None:
        self._values: tuple[str, ...] = ()

    def learn(self, config: Config | None) -> None:
        """Read them anew. Those that cannot be read cannot be quoted either."""
        found = set()
        for secret in secrets_of(config) if config else ():
            try:
                found.add(secret.resolve())
            except (LookupError, OSError, ValueError):
                continue
        self._values = tuple(sorted((v for v in found if len(v) >= LEAST_SECRET), key=len, reverse=True))

    def __call__(self, line: str) -> str:
        for value in self._values:
            line = line.replace(value, HIDDEN)
        return line


def secrets_of(config: Config) -> list[Secret]:
    """Every reference to a secret in the options of its drivers and checks."""
    checks: list[Check] = [*config.references]
    for site in config.sites.values():
        checks += site.checks
    for service in config.services.values():
        checks += service.checks
        checks += [service.data.check] if service.data is not None else []
    every = [driver.options for driver in config.dns]
    every += [driver.options for driver in config.pools]
    every += [check.options for check in checks]
    found: dict[str, Secret] = {}
    for options in dict.fromkeys(every):
        _walk(msgspec.json.decode(options), found)
    return list(found.values())


def _walk(value: Any, found: dict[str, Secret]) -> None:
    if isinstance(value, dict):
        if value and value.keys() <= {"env", "file"} and all(isinstance(v, str) for v in value.values()):
            found[str(value)] = Secret(**value)
        else:
            _walk(list(value.values()), found)
    elif isinstance(value, list):
        for item in value:
            _walk(item, found)


class Line(Struct, omit_defaults=True):
    """One line of the JSON log. error: of a mistake its text, of a bug the whole traceback."""

    at: str
    level: str
    node: str
    msg: str
    decision: str = ""
    error: str = ""
    logger: str = ""


class JsonFormatter(logging.Formatter):
    """`node`: who writes this log."""

    def __init__(self, node: str, redact: Redactor) -> None:
        super().__init__()
        self._node, self._redact = node, redact

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        message, error = self._redact(record.getMessage()), self._redact(_trace(record))
        line = Line(
            at=at,
            level=record.levelname.lower(),
            node=self._node,
            msg=_cut(message),
            decision=str(getattr(record, "decision", "")),
            error=_cut(error, at_end=True),
            logger=record.name if error else "",
        )
        return msgspec.json.encode(line).decode()


class HumanFormatter(logging.Formatter):
    """ "14:05:02.123 WARNING d-7 www at site-a failed: ..."; of a bug, what it was and where."""

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        at = f"{datetime.fromtimestamp(record.created, UTC).astimezone():%H:%M:%S}.{int(record.msecs):03d}"
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        message = record.getMessage()
        decision = str(getattr(record, "decision", ""))
        if decision and not message.startswith(decision):
            message = f"{message} [{decision}]"
        if record.exc_info and record.exc_info[1] is not None:
            message = f"{message}: {_brief(record.exc_info[1])}"
        return _cut(_printable(self._redact(f"{at} {level}{message}")))


def _trace(record: logging.LogRecord) -> str:
    if not record.exc_info or record.exc_info[1] is None:
        return ""
    return "".join(traceback.format_exception(record.exc_info[1]))


def _brief(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _cut(text: str, at_end: bool = False) -> str:
    """Of a traceback the end says most."""
    if len(text) <= MOST_CHARS:
        return text
    return "..." + text[-MOST_CHARS:] if at_end else text[:MOST_CHARS] + "..."


def _printable(text: str) -> str:
    """One line, and nothing that a terminal would take for a command."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class Lines(logging.Handler):
    """Hands lines to a thread that writes them to the file descriptor `fd`, which stays the caller's. A reader that
    is gone or stuck loses lines, and stops nobody."""

    def __init__(self, fd: int, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lost = 0
        self._fd = fd
        self._queue: queue.Queue[str | None] = queue.Queue(QUEUED)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:
            self.handleError(record)  # a log call with the wrong arguments: said on stderr, as logging does
            return
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self.lost += 1

    def close(self) -> None:
        """Write what is left, as far as the reader takes it."""
        with suppress(queue.Full):  # nobody reads: the thread ends with the process
            self._queue.put(None, timeout=LAST_WORDS_S)
        self._thread.join(LAST_WORDS_S)
        super().close()

    def _run(self) -> None:
        while (line := self._queue.get()) is not None:
            if not self._write(line):
                self.lost += 1
            elif self.lost and self._queue.qsize() <= 1:
                lost, self.lost = self.lost, 0
                text = f"{lost} lines of this log were lost: nobody read them in time"
                self._write(self.format(logging.LogRecord(__name__, logging.WARNING, "", 0, text, None, None)))

    def _write(self, line: str) -> bool:
        data = (line + "\n").encode(errors="replace")
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            return False
        return True


def set_up(fd: int, form: str, level: int, node: str) -> tuple[Lines, Redactor]:
    """Log to a file descriptor. form: human | json | auto (human if it is a terminal). Libraries are heard from
    WARNING on."""
    redact = Redactor()
    human = form == "human" or (form == "auto" and os.isatty(fd))
    lines = Lines(fd, HumanFormatter(redact) if human else JsonFormatter(node, redact))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(lines)
    root.setLevel(logging.WARNING)
    for name in ("controlplane", "probes"):
        logging.getLogger(name).setLevel(level)
    return lines, redact
