"""The page of a real drill in a browser: nothing but itself is loaded, nothing is wrong with it, it can be read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos import drill
from chaos.history import Served
from chaos.page import page
from chaos.reading import read_scenario
from chaos.worlds.sim import SimWorld
from tests.browser.chromium import Chromium, Missing
from tests.support import run
from tests.unit.drill_world import written

pytestmark = pytest.mark.timeout(180)

AGAIN = "failoverctl drill run site-dark.yaml --seed 1"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
# Texts of the picture that is shown, which lie (partly) outside of it.
OUTSIDE = """
[...document.querySelectorAll('svg')].filter(svg => svg.getBoundingClientRect().width).flatMap(svg => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(t => {
    const r = t.getBoundingClientRect();
    return r.left < box.left - 1 || r.right > box.right + 1 || r.bottom > box.bottom + 1;
  }).map(t => t.textContent);
})
"""
CONTRAST = """
(() => {
  const parse = c => c.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const linear = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = c => { const [r, g, b] = parse(c).map(linear); return .2126 * r + .7152 * g + .0722 * b; };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  const ratio = c => { const l = light(c); return (Math.max(l, ground) + .05) / (Math.min(l, ground) + .05); };
  return Math.min(...['body', '.meta', '.badge', 'td.t', 'th', '.legend', 'td.bad', 'td.good']
    .flatMap(s => [...document.querySelectorAll(s)]).map(e => ratio(getComputedStyle(e).color)));
})()
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The page of site-a going dark, as the simulator plays it."""
    folder = tmp_path_factory.mktemp("report")
    scenario = read_scenario(written(folder, "site-dark", "12m", "4m")).scenario
    assert scenario is not None
    drilled = drill.play(scenario, SimWorld(), 1, lambda record: None)
    assert len(drilled.report.failovers) == 1
    assert any(isinstance(record, Served) and record.error for record in drilled.history.records)
    found = folder / "site-dark.html"
    found.write_text(page(drilled.report, drilled.history, AGAIN), encoding="utf-8")
    yield found


def looked_at(file: Path, profile: Path, width: int, dark: bool, media: str = "screen") -> dict[str, Any]:
    async def look() -> dict[str, Any]:
        async with Chromium(profile) as browser:
            await browser.open(file.as_uri(), width, dark, media)
            return {
                "png": await browser.screenshot(),
                "text": await browser.evaluate("document.body.innerText"),
                "overflow": await browser.evaluate(OVERFLOW),
                "outside": await browser.evaluate(OUTSIDE),
                "contrast": await browser.evaluate(CONTRAST),
                "drawings": await browser.evaluate(
                    "[...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().width).length"
                ),
                "ground": await browser.evaluate("getComputedStyle(document.body).backgroundColor"),
                "site": await browser.evaluate("getComputedStyle(document.querySelector('svg .site0')).fill"),
                "said": browser.said(),
                "requested": browser.requested(),
            }

    return run(look())


@pytest.mark.parametrize(
    ("width", "dark", "media"),
    [
        (1280, False, "screen"),
        (1280, True, "screen"),
        (390, False, "screen"),
        (390, True, "screen"),
        (720, True, "print"),
    ],
)
def test_the_page_in_a_browser(file: Path, tmp_path: Path, width: int, dark: bool, media: str) -> None:
    seen = looked_at(file, tmp_path / "profile", width, dark, media)
    (file.parent / f"{width}-{media}-{'dark' if dark else 'light'}.png").write_bytes(seen["png"])
    assert seen["said"] == []
    assert seen["requested"] == [file.as_uri()]
    assert seen["overflow"] == 0
    assert seen["outside"] == []
    assert seen["drawings"] == 2
    assert seen["contrast"] >= 4.5  # WCAG 2.1, AA
    assert len(seen["png"]) > 50_000
    assert (seen["ground"] == "rgb(255, 255, 255)") == (not dark or media == "print")
    assert seen["site"] not in ("none", "rgb(0, 0, 0)")  # the style was accepted
    for words in ("site-dark", "cut site-a", "Expectations", "Invariants", "Timeline", "site-a -> site-b", AGAIN):
        assert words in seen["text"], words


def test_the_browser_tells_of_scripts_errors_and_requests(tmp_path: Path) -> None:
    """What the test above relies on."""
    bad = tmp_path / "bad.html"
    bad.write_text("<script>console.log('heard'); nonsense()</script><img src='missing.png'>")
    strict = tmp_path / "strict.html"
    strict.write_text("<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\"><style>p{}</style>")

    async def look() -> tuple[list[str], list[str], list[str]]:
        async with Chromium(tmp_path / "profile") as browser:
            await browser.open(bad.as_uri(), 800)
            said, requested = browser.said(), browser.requested()
            await browser.open(strict.as_uri(), 800)
            return said, requested, browser.said()

    said, requested, refused = run(look())
    assert any("heard" in line for line in said)
    assert any("nonsense is not defined" in line for line in said)
    assert requested == [bad.as_uri(), (tmp_path / "missing.png").as_uri()]
    assert any("Content Security Policy" in line for line in refused)


def test_without_a_browser_it_says_what_installs_it(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="apt-get install --yes chromium"):
        Chromium(tmp_path / "profile", str(tmp_path / "chromium"))
