"""How failoverctl writes: consoles, JSON, times, durations, small tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

OK = "✔"
WARN = "▲"
BAD = "✖"

_PIPED_WIDTH = 500  # columns: what is read by programs or kept in files is not wrapped


def make_console(*, stderr: bool) -> Console:
    """No markup, no guessing of colours for words; NO_COLOR and pipes give plain text (rich sees to that)."""
    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False, soft_wrap=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    return console


def json_text(document: Any) -> str:
    """Indented JSON with a line end; structs, tuples and mappings are welcome."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def json_line(document: Any) -> str:
    return msgspec.json.encode(document).decode() + "\n"


def now() -> datetime:
    """The wall clock, for people to read."""
    return datetime.now(UTC)


def clock(iso: str | None, utc: bool, *, local: tzinfo | None = None) -> str:
    """ "14:05:02Z", or local time "15:05:02"; with the date unless it is today. "?" for what is no time."""
    try:
        moment = datetime.fromisoformat(iso or "")
    except ValueError:
        return "?"
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    zone = UTC if utc else local
    moment = moment.astimezone(zone)
    today = now().astimezone(zone).date()
    suffix = "Z" if not moment.utcoffset() else ""
    day = "" if moment.date() == today else f"{moment.date().isoformat()} "
    return f"{day}{moment:%H:%M:%S}{suffix}"


def seconds(value: float | None) -> str:
    """ "0.3s", "29s", "1h52m", "4d3h"; "?" for what is not known."""
    if value is None:
        return "?"
    if value < 10:
        return f"{value:.1f}s"
    whole = round(value)
    if whole < 60:
        return f"{whole}s"
    for unit_s, unit, below_s, below in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= unit_s:
            rest = whole % unit_s // below_s
            return f"{whole // unit_s}{unit}" + (f"{rest}{below}" if rest else "")
    return f"{whole}s"


def number(value: float | None) -> str:
    """ "700", "0.5"; "?" for what is not known."""
    if value is None:
        return "?"
    return f"{value:.0f}" if abs(value - round(value)) < 0.05 else f"{value:.1f}"


def lead(word: str, style: str = "bold") -> Text:
    """A styled word, to which plain text is appended (a Text's own style would cover all that follows)."""
    return Text().append(word, style=style)


def table(headers: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Sequence[str] = ()) -> Table:
    """Columns without lines; the last column may be long. `right`: headers of right-aligned columns."""
    result = Table(box=None, show_header=any(headers), header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for header in headers:
        result.add_column(header, justify="right" if header in right else "left", no_wrap=True, overflow="fold")
    for row in rows:
        result.add_row(*(safe(cell) for cell in row))
    return result


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def safe(text: str | Text) -> Text:
    """Text from elsewhere (reasons, names) must not move the terminal's cursor."""
    if isinstance(text, Text):
        return text
    return Text(_CONTROL.sub("\ufffd", text))


def mark(good: bool | None) -> Text:
    """✔, ✖, or ? for what is not known."""
    if good is None:
        return Text("?", style="bright_black")
    return Text(OK, style="green") if good else Text(BAD, style="red")
