"""What every probe kind shares: its description, how it says what failed, and the reasons there are.

A kind is one file with a frozen Options struct, an `async def probe` and a `KIND`, and one line in KINDS. The
probe does I/O and nothing else: KindProber (prober.py) keeps the time, and turns time-outs, operating system
errors and bugs into samples.

Names of options are the keys of the configuration file; a field whose name ends in `_s` is a duration in seconds,
and its key has no `_s`.

Did anything answer? Whatever proves that packets came back counts: a refusal, a reset, a wrong status, a TLS
error, and also a handshake (SYN-ACK) after which the other side hung. Only silence and "unreachable" do not.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct

from probes.target import Sample, Target

SECRET_BYTES = 64 << 10  # of a file; more is another file


class Failed(Exception):
    """The target failed this probe. `reason` is short and stable; `answered` None = as far as progress says."""

    def __init__(self, reason: str, answered: bool | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answered = answered


class Progress:
    """How far a probe has come: what a time-out is named after, and whether anything has come back yet."""

    def __init__(self, wall_s: Callable[[], float]) -> None:
        self.stage = "connect"  # connect | tls | headers | body: "timeout connect"
        self.answered = False
        self.wall_s = wall_s  # seconds since 1970, for the days that a certificate has left


class Problem(Struct, frozen=True):
    """Something wrong with options that their types cannot say. `path` is inside the options: ("tls", "ca")."""

    path: tuple[str, ...]
    message: str
    warning: bool = False


class Secret(Struct, frozen=True):
    """A reference to a secret, never its value: exactly one of `env` and `file`."""

    env: str = ""
    file: str = ""

    def resolve(self) -> str:
        """The secret's text now (a file without the newlines at its end); never empty.

        Raises LookupError (the variable is not set, or empty) or OSError (the file cannot be read, or holds no text).
        """
        if self.file:
            return self._read()
        value = os.environ.get(self.env)
        if value is None or not value.strip():
            raise LookupError(f"environment variable {self.env} is {'not set' if value is None else 'empty'}")
        return value

    def _read(self) -> str:
        with open(self.file, "rb") as file:
            raw = file.read(SECRET_BYTES + 1)
        if len(raw) > SECRET_BYTES:
            raise OSError(f"{self.file} has over {SECRET_BYTES >> 10} KiB: is that the secret?")
        try:
            text = raw.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise OSError(f"{self.file} is not text in UTF-8") from None
        if not text.strip():
            raise OSError(f"{self.file} is empty")
        return text


class Kind(Struct, frozen=True):
    """A probe kind, as the configuration reader and KindProber see it.

    options: the type of its options.
    probe(target, options, progress): one probe; returns a Sample that passed, raises Failed.
    complete(options, name): fills in what depends on other keys. `name` is the service's DNS name, or "" (then the
        probe uses the target's address).
    check_name(options): the name of a check that has none, of complete options: "http:8080".
    problems(options): what the types cannot say. Reads the files that the options name, nothing else.
    """

    options: type[Struct]
    probe: Callable[[Target, Any, Progress], Awaitable[Sample]]
    complete: Callable[[Any, str], Struct]
    check_name: Callable[[Any], str]
    problems: Callable[[Any], Sequence[Problem]]
