"""What is wrong with a configuration, and where: every problem is collected, none stops the reading."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from msgspec import Struct

Path = tuple[str | int, ...]  # ("services", "www", "checks", 0)


class Problem(Struct, frozen=True):
    """One problem. line and column count from 1; path is "services.www.checks[0].http.port", or "" for the file."""

    file: str
    path: str
    line: int
    column: int
    severity: str  # error | warning
    message: str

    def __str__(self) -> str:
        subject = f"{self.path}: " if self.path else ""
        return f"{self.file}:{self.line}:{self.column}: {self.severity}: {subject}{self.message}"


class Log:
    """Collects the problems of one file, and knows the place of every path that was read."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._found: dict[Problem, None] = {}
        self._keys: dict[Path, tuple[int, int]] = {}
        self._values: dict[Path, tuple[int, int]] = {}
        self._broken: set[Path] = set()  # with all that is above them

    def place(self, path: Path, key: tuple[int, int], value: tuple[int, int]) -> None:
        """Remember where a key and its value stand (an item of a list has one place)."""
        self._keys[path] = key
        self._values[path] = value

    def given(self, path: Path) -> bool:
        """Does the file say something at this path (rather than a default)?"""
        return path in self._values

    def error(
        self, path: Path, message: str, *, at: Path | None = None, key: bool = False, breaks: Path | None = None
    ) -> None:
        """Report at the value of `path` (or of `at`; at its key if `key`), else at the nearest that is written.

        breaks: what cannot be relied upon now, if it is another path."""
        self._add("error", path, message, path if at is None else at, key)
        self._break(path if breaks is None else breaks)

    def warn(self, path: Path, message: str, *, at: Path | None = None, key: bool = False) -> None:
        self._add("warning", path, message, path if at is None else at, key)

    def at_line(self, line: int, column: int, message: str) -> None:
        """An error of the text itself, outside of every path."""
        self._found[Problem(self.file, "", line, column, "error", message)] = None
        self._break(())

    def broken(self, *paths: Path) -> bool:
        """Is there an error at or below one of these paths?"""
        return any(path in self._broken for path in paths)

    def problems(self) -> tuple[Problem, ...]:
        """All problems, in the order of the file."""
        return tuple(sorted(self._found, key=lambda p: (p.line, p.column, p.severity, p.path, p.message)))

    def _break(self, path: Path) -> None:
        self._broken.update(path[:length] for length in range(len(path) + 1))

    def _add(self, severity: str, path: Path, message: str, at: Path, key: bool) -> None:
        places = self._keys if key else self._values
        while at and at not in places:
            at, places = at[:-1], self._keys  # what is missing belongs to the key that should hold it
        line, column = places.get(at, (1, 1))
        self._found[Problem(self.file, dotted(path), line, column, severity, message)] = None


def dotted(path: Path) -> str:
    """("checks", 0, "http") -> "checks[0].http"."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, or ""."""
    return next(iter(difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.7)), "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """': did you mean "slo"?' (or "" if nothing is close), to end a message about an unknown word."""
    meant = closest(word, known)
    return f': did you mean "{meant}"?' if meant else ""


def listed(words: Iterable[str]) -> str:
    """For people: "a, b or c"."""
    items = list(words)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " or " + items[-1] if items else "nothing"


def known_or(log: Log, path: Path, word: str, known: Mapping[str, object], what: str, key: bool = False) -> bool:
    """Is the word one of the known ones? If not, say so: unknown site "site-x": did you mean "site-a"?"""
    if word in known:
        return True
    hint = did_you_mean(word, known) or (f"; there are {', '.join(sorted(known)[:8])}" if known else "")
    log.error(path, f'unknown {what} "{word}"{hint}', key=key)
    return False
