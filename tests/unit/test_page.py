"""The page of a drill: complete, self-contained, safe whatever is in a history, and bounded."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from msgspec.structs import replace

from chaos import lanes
from chaos.history import Faulted, History, Operated
from chaos.lanes import Blend, Span
from chaos.page import page
from chaos.page_style import STYLE
from chaos.report import Invariant, Met, Report
from chaos.svg import ticks
from tests.unit.drill_world import failover, history, report, served

AGAIN = "failoverctl drill run site-dark --seed 7"
VOID = {"meta", "link", "br"}


class Reader(HTMLParser):
    """The page's texts and tags; fails for tags that are not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


def drawings(text: str) -> list[ElementTree.Element]:
    """Each SVG is also well-formed XML."""
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg .*?</svg>", text, re.DOTALL)]


def test_it_says_what_an_engineer_asks() -> None:
    read = Reader(page(report(), history(), AGAIN))
    for fact in (
        "PASSED",
        "a whole site loses its power",
        'cut [site-a, "*"]',
        "after 5.9 s",
        "down 3/3 (timeout connect: cloud, site-b, site-c)",
        "www at 1:06.0",
        "site-a -> site-b, every name server 0.2 s later",
        "25.1 s",
        "of at most 32.4 s computed, 77%",
        "by 120s answer www=[site-b]",
        "41,203",
        "5.9 / 9.1",
        "serves stale answers",
        AGAIN,
    ):
        assert fact in read.texts, fact


def test_nothing_comes_from_elsewhere_and_no_script_is_in_it() -> None:
    text = page(report(), history(), AGAIN)
    tags = Reader(text).tags
    assert {tag for tag, _ in tags}.isdisjoint({"script", "img", "iframe", "object", "embed", "base", "form"})
    for tag, attributes in tags:
        assert not any(name.startswith("on") or name in ("style", "src", "srcset") for name in attributes), tag
        assert attributes.get("href", "data:,") == "data:,"
    assert not re.findall(r"url\((?!#)|@import|https?://(?!www\.w3\.org/2000/svg)", text)


def test_the_policy_allows_its_own_style_alone() -> None:
    text = page(report(), history(), AGAIN)
    policy = next(a["content"] for tag, a in Reader(text).tags if a.get("http-equiv") == "Content-Security-Policy")
    style = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style[0].encode()).digest()).decode()
    assert style == [STYLE]
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


EVIL = "</title><script>alert(1)</script>\"'&<b>\x00\x1b[2J\ud800"


def test_whatever_stands_in_a_history_is_only_text() -> None:
    bad = history(
        [
            Faulted(at=70.0, index=1, began=True, text=EVIL),
            served(90.0, "rest", EVIL, EVIL),
            Operated(at=95.0, index=2, argv=(EVIL,), code=1, said=EVIL),
        ]
    )
    judged = report(
        scenario=EVIL,
        about=EVIL,
        stopped=EVIL,
        left=(EVIL,),
        expectations=(Met(EVIL, False, None, EVIL),),
        invariants=(Invariant(EVIL, False, 1, (EVIL,), (EVIL,)),),
        failovers=(failover(service=EVIL, left=EVIL),),
    )
    text = page(judged, bad, EVIL)
    read = Reader(text)
    assert {tag for tag, _ in read.tags}.isdisjoint({"script", "b "})
    assert "<script" not in text and "\x00" not in text and "\x1b" not in text
    assert text.encode()  # what is no character is not in it
    assert len(drawings(text)) == 4
    assert "<script>alert(1)</script>" in read.text


def test_pictures_say_in_words_what_they_show() -> None:
    drawn = drawings(page(report(), history(), AGAIN))
    kinds = [svg.get("class") for svg in drawn]
    assert kinds == ["wide", "narrow"] * 2
    ids = [element.get("id") for svg in drawn for element in svg.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for svg in drawn:
        assert svg.get("role") == "img"
        labels = [e.text or "" for e in svg if e.tag.endswith(("}title", "}desc"))]
        assert len(labels) == 2 and all(labels)
        assert svg.get("aria-labelledby") == " ".join(
            str(e.get("id")) for e in svg if e.tag.endswith(("}title", "}desc"))
        )
    assert "detect 5.9 s of at most 9.1 s" in "".join(drawn[0].itertext())


def test_everything_that_is_drawn_is_within_the_drawing() -> None:
    for svg in drawings(page(report(), history(), AGAIN)):
        _, _, width, height = map(float, str(svg.get("viewBox")).split())
        boxes = [e for e in svg.iter() if e.tag.endswith("}rect") and "x" in e.attrib]
        assert len(boxes) > 10
        for box in boxes:
            x, y, w, h = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
            assert min(x, y) >= 0 and x + w <= width and y + h <= height


@pytest.mark.parametrize(
    ("judged", "says"),
    [
        (report(failovers=(), outages=(), expectations=(), invariants=()), "was not forced to move"),
        (
            report(failovers=(failover(detect_s=None, decide_s=None, apply_s=None, ttl_s=None, outage_s=None),)),
            "? / 32.4",
        ),
        (report(failovers=(failover(worst_case_s=0.0, bounds={}),)), "25.1 / 0.0"),
        (report(passed=False, stopped="client errors 12 % > 5 %"), "Stopped: client errors 12 % > 5 %"),
    ],
)
def test_what_is_not_known_is_left_out(judged: Report, says: str) -> None:
    assert says in Reader(page(judged, history(), AGAIN)).texts


def test_a_history_of_nothing() -> None:
    empty = replace(history(), records=(), duration_s=0.0)
    read = Reader(page(report(failovers=(), outages=(), faults=0), empty, AGAIN))
    assert "nothing" in read.texts


def _noisy() -> History:
    flips = [served(100.0 + t, "rest", "site-b", "reset" if t % 2 else "") for t in range(2200)]
    faults = [Faulted(at=100.0 + t, index=t, began=True, text=f"stop www@site-{t}") for t in range(500)]
    return history([*flips, *faults])


def test_thousands_of_changes_make_no_endless_page() -> None:
    text = page(report(failovers=tuple(failover(at_s=66.0 + 60 * n) for n in range(40))), _noisy(), AGAIN)
    assert len(text) < 2_000_000
    assert "37 more incidents" in text


def test_a_short_failure_is_never_rounded_away() -> None:
    blip = history([served(700.0, "rest", "site-b", "reset"), served(700.2, "rest", "site-b")])
    whole = drawings(page(report(), blip, AGAIN))[2]
    errors = [e for e in whole.iter() if e.get("class") == "error"]
    assert len(errors) == 3  # two regions while the site was dark, and the blip


def test_lanes() -> None:
    full = history()
    assert lanes.faults(full) == [Span(60.0, 1260.0, 'cut [site-a, "*"]')]
    words = ("clock_step site-a 24h", "operator drain site-b")
    deeds = history([Faulted(at=5.0, index=n + 1, began=True, text=text) for n, text in enumerate(words)])
    assert lanes.faults(deeds) == [Span(5.0, 5.0, "clock_step site-a 24h"), *lanes.faults(full)]
    assert lanes.leaders(full) == [Span(-50.0, 2400.0, "site-a"), Span(64.8, 2400.0, "site-b")]
    assert lanes.answers(full, "www", "site-a") == [
        Blend(-39.9, 60.0, (("site-a", 1.0),)),
        Blend(60.0, 1260.4, ()),
        Blend(1260.4, 1600.1, (("site-b", 1.0),)),
        Blend(1600.1, 2400.0, (("site-a", 1.0),)),
    ]
    assert [blend.mix for blend in lanes.answers(full, "www")] == [
        (("site-a", 1.0),),
        (("site-a", 0.5), ("site-b", 0.5)),
        (("site-b", 1.0),),
        (("site-a", 1.0),),
    ]
    assert lanes.clients(full, "www", "eu-west") == [
        Span(-30.0, 60.4, "site-a"),
        Span(60.4, 85.5, "!time-out"),
        Span(85.5, 1615.0, "site-b"),
        Span(1615.0, 2400.0, "site-a"),
    ]
    assert lanes.probes(full, "site-c", "site-a", "www") == [Span(62.3, 2400.0, "!timeout connect")]
    dark = history([Faulted(at=70.0, index=1, began=True, text="power_off site-c")])
    assert lanes.silenced(dark, "site-c") == [Span(70.0, 2400.0, "power_off site-c")]
    assert lanes.silenced(dark, "site-b") == []
    assert lanes.vantages(full, "site-a") == ["cloud", "site-b", "site-c"]
    assert [mark.change for mark in lanes.decisions(full)] == ["site-a -> site-b", "site-b -> site-a"]
    assert lanes.changed(full) == ["www"]


def test_failovers_at_the_same_time_are_one_incident() -> None:
    together = [failover(), failover(service="shop", at_s=66.4, outage_s=30.0), failover(service="api", at_s=400.0)]
    assert [[f.service for f in group] for group in lanes.incidents(together)] == [["shop", "www"], ["api"]]


@pytest.mark.parametrize(
    ("start", "end", "most", "found"),
    [
        (0.0, 2400.0, 10, [0.0, 300.0, 600.0, 900.0, 1200.0, 1500.0, 1800.0, 2100.0, 2400.0]),
        (57.1, 62.0, 5, [58.0, 59.0, 60.0, 61.0, 62.0]),
        (0.0, 0.35, 4, [0.0, 0.1, 0.2, 0.3]),
    ],
)
def test_ticks_are_round(start: float, end: float, most: float, found: list[float]) -> None:
    assert ticks(start, end, most) == found
