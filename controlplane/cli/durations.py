"""Durations on the command line, written as in the configuration: 90s, 2h, 1h30m, 7d."""

from __future__ import annotations

import re

import durationpy
import typer


def parse_duration(text: str) -> float:
    """Seconds. Raises typer.BadParameter for what is not a duration (a bare number is not one)."""
    try:
        value_s: float = durationpy.from_str(text).total_seconds()
    except (durationpy.DurationError, OverflowError, ValueError):
        hint = f"; write {text}s" if re.fullmatch(r"\d+(\.\d+)?", text) else "; write it like 90s, 2h or 1h30m"
        raise typer.BadParameter(f"{text!r} is not a duration{hint}") from None
    return value_s
