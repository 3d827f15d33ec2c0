"""Small pieces of SVG over a time axis. Everything that comes from elsewhere is escaped here."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from html import escape

from chaos.lanes import ERROR, NOBODY, Blend, Mix, Span

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")  # no HTML may contain these
CHAR = 6.4  # units: the mean width of a character of the labels (11 units high)
HEAD_CHAR = 7.6  # the same of headings
STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)


def text(value: str) -> str:
    """As text or as the value of an attribute."""
    return escape(_CONTROL.sub("\ufffd", value), quote=True)


def wide(words: str) -> float:
    """About how wide words are drawn, with a little room."""
    return len(words) * CHAR + 6


def fits(words: str, width: float) -> bool:
    return wide(words) <= width


def cut(words: str, most: float) -> str:
    """At most so many characters."""
    room = max(int(most), 4)
    return words if len(words) <= room else words[: room - 1] + "…"


class Canvas:
    """A drawing `width` units wide that grows downwards; time runs from `start` to `end` between left and right.

    `name`: unique in the page, for what is referred to. `colour`: site -> the number of its colour."""

    def __init__(self, name: str, width: int, gutter: int, start: float, end: float, sites: Sequence[str]) -> None:
        self.name, self.width, self.gutter = name, width, gutter
        self.start, self.end = start, end
        self.colour = {site: n % 8 for n, site in enumerate(sites)}
        self.right = width - 8
        self.left = gutter if gutter else 8
        self.y = 0.0
        self.parts: list[str] = []
        self._under: list[str] = []  # the grid: it is drawn first, and as high as all the rest

    def x(self, at: float) -> float:
        at = min(max(at, self.start), self.end)
        return round(self.left + (self.right - self.left) * (at - self.start) / (self.end - self.start), 1)

    def space(self, height: float) -> None:
        self.y += height

    def title(self, words: str) -> None:
        """A heading over the lanes that follow."""
        x = 0 if self.gutter else 8
        words = cut(words, (self.width - x) / HEAD_CHAR)
        self.parts.append(f'<text class="head" x="{x}" y="{self.y + 12:g}">{text(words)}</text>')
        self.space(18)

    def label(self, words: str, height: float) -> None:
        """A lane's name: in the gutter, or above the lane where there is none."""
        if self.gutter:
            words = cut(words, (self.gutter - 10) / CHAR)
            y = self.y + height / 2 + 4
            self.parts.append(f'<text class="name" x="{self.gutter - 8}" y="{y:g}">{text(words)}</text>')
        else:
            self.parts.append(f'<text class="above" x="{self.left}" y="{self.y + 11:g}">{text(words)}</text>')
            self.space(15)

    def rect(self, x0: float, x1: float, height: float, kind: str, tip: str = "", y: float | None = None) -> None:
        place = (
            f'x="{x0:g}" y="{self.y if y is None else y:g}" width="{max(round(x1 - x0, 1), 1):g}" height="{height:g}"'
        )
        inside = f"><title>{text(tip)}</title></rect>" if tip else "/>"
        self.parts.append(f'<rect class="{kind}" {place}{inside}')
        if kind == "error":  # no colour alone says so
            self.parts.append(f'<rect class="over" fill="url(#hatch-{self.name})" {place}/>')

    def words(self, x: float, y: float, kind: str, words: str) -> None:
        self.parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}">{text(words)}</text>')

    def axis(self, clock: Callable[[float], str]) -> None:
        """Times along the top, and lines down through all lanes."""
        for at in ticks(self.start, self.end, (self.right - self.left) / 70):
            x = self.x(at)
            anchor = " end" if x > self.right - 24 else "" if x < self.left + 12 else " mid"
            self.words(x, self.y + 11, f"tick{anchor}", clock(at))
            self._under.append(f'<line class="grid" x1="{x:g}" x2="{x:g}" y1="{self.y + 16:g}" y2="BOTTOM"/>')
        self.space(22)

    def line(self, at: float, kind: str) -> None:
        """A line down through all lanes."""
        x = self.x(at)
        self._under.append(f'<line class="{kind}" x1="{x:g}" x2="{x:g}" y1="{self.y:g}" y2="BOTTOM"/>')

    def bar(self, span: Span, height: float, kind: str, words: str, tip: str = "", y: float | None = None) -> None:
        """A span with its words: inside if they fit, else beside it."""
        top = self.y if y is None else y
        x0, x1 = self.x(span.start), self.x(span.end)
        self.rect(x0, x1, height, kind, tip or words, top)
        middle = top + height / 2 + 4
        if fits(words, x1 - x0):
            self.words(x0 + 4, middle, "in " + kind.split()[0] + "-in", words)
        elif fits(words, self.right - x1):
            self.words(max(x1, x0 + 1) + 4, middle, "out", words)
        elif fits(words, x0 - self.left):
            self.words(x0 - 4, middle, "out end", words)
        else:
            self.words(x0 + 4, middle, "in " + kind.split()[0] + "-in", cut(words, (self.right - x0) / CHAR - 1))

    def lane(self, spans: Iterable[Span], height: float, describe: Callable[[Span], str]) -> None:
        """One value after the other; failures outlast the rounding to units, whatever else is in the same one."""
        for x0, x1, span in self._pixels(spans):
            bad = span.value.startswith(ERROR)
            kind = "error" if bad else "well" if span.value == "ok" else self._site(span.value)
            self.rect(x0, x1, height, kind, describe(span))
            if not bad and span.value in self.colour and fits(span.value, x1 - x0):
                self.words(x0 + 4, self.y + height / 2 + 4, f"in {kind}-in", span.value)

    def blends(self, blends: Iterable[Blend], height: float, describe: Callable[[Blend], str]) -> None:
        """Who answers what, stacked by site; nothing where nobody does."""
        for x0, x1, blend in self._visible(blends):
            tip = describe(blend)
            if not blend.mix:
                self.rect(x0, x1, height, "nobody", tip)
                if fits("no answer", x1 - x0):
                    self.words(x0 + 4, self.y + height / 2 + 4, "in nobody-in", "no answer")
                continue
            y = self.y
            for site, part in blend.mix:
                kind = self._site(site)
                self.rect(x0, x1, round(height * part, 1), kind, tip, y)
                if height * part >= 12 and fits(site, x1 - x0):
                    self.words(x0 + 4, y + height * part / 2 + 4, f"in {kind}-in", site)
                y += round(height * part, 1)

    def _visible(self, blends: Iterable[Blend]) -> list[tuple[float, float, Blend]]:
        """What is too short to be seen belongs to what came before it; neighbours that look alike are one."""
        found: list[tuple[float, float, Blend]] = []
        for blend in blends:
            if blend.end <= self.start or blend.start >= self.end:
                continue
            x0, x1 = self.x(blend.start), self.x(blend.end)
            if found and (x1 - x0 < 1 or found[-1][2].mix == blend.mix):
                found[-1] = (found[-1][0], x1, found[-1][2])
            else:
                found.append((x0, x1, blend))
        return found

    def diamond(self, at: float, kind: str, tip: str) -> None:
        x, y = self.x(at), self.y + 7
        path = f"M{x:g} {y - 6:g}l6 6l-6 6l-6-6z"
        self.parts.append(f'<path class="{kind}" d="{path}"><title>{text(tip)}</title></path>')

    def _site(self, site: str) -> str:
        return "empty" if site == NOBODY else f"site{self.colour.get(site, 7)}"

    def _pixels(self, spans: Iterable[Span]) -> Iterable[tuple[float, float, Span]]:
        """Spans rounded to whole units, of each unit the worst; thousands of them become at most `width`."""
        cells: list[Span | None] = [None] * (self.width + 1)
        for span in spans:
            if span.end <= self.start or span.start >= self.end:
                continue
            first = math.floor(self.x(span.start))
            for x in range(first, max(math.ceil(self.x(span.end)), first + 1)):
                there = cells[x]
                if there is None or not there.value.startswith(ERROR) or span.value.startswith(ERROR):
                    cells[x] = span
        x = 0
        while x < len(cells):
            span_ = cells[x]
            until = x + 1
            while until < len(cells) and span_ is not None and _alike(cells[until], span_):
                until += 1
            if span_ is not None:
                yield float(x), float(until), span_
            x = until

    def svg(self, kind: str, title: str, about: str) -> str:
        """The whole drawing; `about` says the same in words, for those who cannot see it."""
        height = round(self.y + 4)
        under = "".join(self._under).replace("BOTTOM", str(height - 4))
        hatch = (
            f'<defs><pattern id="hatch-{self.name}" width="5" height="5" patternUnits="userSpaceOnUse" '
            f'patternTransform="rotate(45)"><rect class="stripe" width="2" height="5"/></pattern></defs>'
        )
        return (
            f'<svg class="{kind}" role="img" aria-labelledby="t-{self.name} d-{self.name}" '
            f'viewBox="0 0 {self.width} {height}" xmlns="http://www.w3.org/2000/svg">'
            f'<title id="t-{self.name}">{text(title)}</title><desc id="d-{self.name}">{text(about)}</desc>'
            f"{hatch}{under}{''.join(self.parts)}</svg>"
        )


def _alike(one: Span | None, other: Span) -> bool:
    """The same to look at: failures are, whatever their reasons."""
    if one is None:
        return False
    return one.value == other.value or (one.value.startswith(ERROR) and other.value.startswith(ERROR))


def ticks(start: float, end: float, most: float) -> list[float]:
    """Round times between start and end, at most so many."""
    wanted = (end - start) / max(most, 1)
    step = next((s for s in STEPS_S if s >= wanted), STEPS_S[-1])
    return [round(n * step, 3) for n in range(math.ceil(start / step - 1e-9), math.floor(end / step + 1e-9) + 1)]


def mixed(mix: Mix) -> str:
    """ "site-a 50 %, site-b 50 %"; "no answer"."""
    if not mix:
        return "no answer"
    if len(mix) == 1:
        return mix[0][0] or "nothing"
    return ", ".join(f"{site or 'nothing'} {part:.0%}" for site, part in mix)
