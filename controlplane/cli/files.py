"""Configuration files named on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

from controlplane.cli.context import Code, Stop
from controlplane.config import Result, check_document, human_lines, read_config
from policies.topology import Config

STDIN = Path("-")


def read(file: Path) -> tuple[Result, str]:
    """What a file ("-": standard input) says, and its text ("" if it cannot be read)."""
    if file == STDIN:
        raw = sys.stdin.buffer.read()
        return read_config(raw, "stdin"), raw.decode("utf-8", "replace")
    try:
        raw = file.read_bytes()
    except OSError:
        return read_config(file), ""  # which says why, as a problem like others
    return read_config(raw, str(file)), raw.decode("utf-8", "replace")


def load_config(file: Path) -> Config:
    """A sound configuration (its warnings are for `check` to tell). Raises Stop with every problem of one that is
    not."""
    result, _ = read(file)
    if result.config is None:
        raise unsound(result)
    return result.config


def unsound(result: Result) -> Stop:
    """The end of a command whose file has errors."""
    return Stop(Code.REFUSED, "\n".join(human_lines(result)), **check_document(result))
