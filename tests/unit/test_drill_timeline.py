"""A history in words, as it happens and afterwards."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from chaos.history import Answered, AnyRecord, Edited, Faulted, Led, Operated, Pooled, Rewound, Wrote
from chaos.timeline import Event, Teller, clock, in_words, moved, phases, timeline
from tests.unit.drill_world import answers, decision, failover, history, served


def told(*records: AnyRecord, end: float = 1000.0) -> list[str]:
    teller = Teller()
    events = [event for record in records for event in teller.tell(record)]
    return [event.text for event in [*events, *teller.end(end)]]


def test_the_story_of_a_dark_site() -> None:
    assert [f"{clock(e.at)} {e.text}" for e in timeline(history())] == [
        '1:00.0 cut [site-a, "*"]',
        "1:00.0 no answer from name server site-a",
        "1:00.4 www: requests fail in eu-west (at site-a: time-out)",
        "1:00.9 www: requests fail in rest (at site-a: time-out)",
        "1:04.8 site-b leads: site-a was silent",
        "1:06.0 d-2 www gen 2: site-a -> site-b. site-a failed: down 3/3 (timeout connect: cloud, site-b, site-c)",
        "1:06.1 www: name servers site-b, site-c answer site-b (gen 2)",
        "1:20.4 www: served by site-b in rest after 19.5s",
        "1:25.5 www: served by site-b in eu-west after 25.1s",
        '21:00.0 healed: cut [site-a, "*"]',
        "21:00.4 www: name server site-a answers again site-b (gen 2)",
        "26:40.0 d-3 www gen 3: site-b -> site-a. site-a ready: up 3/3",
        "26:40.1 www: name servers site-a, site-b, site-c answer site-a (gen 3)",
    ]


def test_told_as_it_happens_is_told_afterwards() -> None:
    full = history()
    teller = Teller(full.duration_s)
    live: list[Event] = []
    for record in full.records:
        for event in teller.tell(record):
            assert event.at <= record.at
            live.append(event)
    live += teller.end(full.duration_s)
    assert sorted(live, key=lambda e: e.at) == timeline(full)


def test_regions_with_other_answers_are_named() -> None:
    eu, rest = (r for r in answers(1.5, "site-a", "site-a", 1))
    assert isinstance(rest, Answered)
    other = replace(rest, sites=("site-b", "site-c"))
    assert told(eu, other) == ["www: name server site-a answers site-a in eu-west, site-b+site-c in rest (gen 1)"]
    assert told(eu, rest, replace(rest, at=9.0, sites=("site-b",), generation=2))[1:] == [
        "www: name server site-a answers site-b in rest (gen 2)"
    ]
    assert told(replace(eu, sites=())) == ["www: name server site-a answers nothing (gen 1)"]


def test_what_is_heard_of_at_the_start_is_no_change() -> None:
    pool = Pooled(at=0.5, site="site-a", service="www", weights={"site-a": 100})
    assert told(*answers(0.2, "site-a", "site-a", 1), pool, replace(pool, at=2.0)) == []
    assert told(*answers(0.2, "site-a", "site-a", 1), *answers(5.0, "site-a", "site-b", 2)) == [
        "www: name server site-a answers site-b (gen 2)"
    ]


def test_a_flapping_client_is_one_outage() -> None:
    flips = [served(float(t), "rest", "site-a", "reset" if t % 2 else "") for t in range(1, 60)]
    assert told(*flips, served(60.0, "rest", "site-b")) == [
        "www: requests fail in rest (at site-a: reset)",
        "www: served by site-b in rest after 59.0s",
    ]


def test_clients_of_odd_resolvers_make_no_news() -> None:
    assert told(served(1.0, "rest", "site-a", "time-out", resolver="stale")) == []


def test_refusals_are_told_once() -> None:
    wrote = Wrote(
        at=5.0, server="ns", writer="site-a", service="www", generation=2, incarnation="i", op="d-2", result="fenced"
    )
    again = [replace(wrote, at=6.0), replace(wrote, at=7.0, result="ok"), replace(wrote, at=8.0)]
    assert told(wrote, *again) == ["name server ns refused site-a's update of www to gen 2: fenced"] * 2


def test_the_other_records() -> None:
    assert told(
        Operated(at=1.0, index=0, argv=("drain", "site-b"), code=1, said="refused:\n  never_empty"),
        Rewound(at=2.0, to=-30.0),
        Edited(at=3.0, server="ns", service="www", manual=False),
        Pooled(at=4.0, site="site-a", service="www", weights={"site-b": 0, "site-a": 100}),
        Pooled(at=5.0, site="site-a", service="www", weights={"site-b": 0, "site-a": 100}),
        Faulted(at=6.0, index=1, began=False, text="cut site-b", left="nft is gone"),
    ) == [
        "failoverctl drain site-b: exit 1, refused: never_empty",
        "the store is what it was at -0:30.0",
        "name server ns: www changed by hand",
        "load balancer site-a: www site-a=100 site-b=0",
        "not healed: cut site-b: nft is gone",
    ]


def test_the_end_of_the_world_is_no_news() -> None:
    teller = Teller(100.0)
    assert teller.tell(Led(at=100.0, node="site-b", leading=False, why="cancelled")) == []
    assert [e.text for e in teller.tell(Led(at=99.0, node="site-b", leading=False, why="resigned"))] == [
        "site-b no longer leads: resigned"
    ]


def test_moves() -> None:
    assert moved({}, {"eu": {"a": 100}}) == "nothing -> a"
    assert moved({"eu": {"a": 100}, "us": {"a": 100}}, {"eu": {"b": 60, "a": 40}, "us": {"a": 100}}) == (
        "eu: a -> b 60 a 40"
    )
    assert moved({"eu": {"a": 1}, "us": {"b": 1}}, {"eu": {"c": 1}, "us": {"c": 1}}) == "eu: a -> c; us: b -> c"
    same = {region: {"site-a": 100} for region in ("eu-west", "rest")}
    assert in_words(decision(4, "site-a"), same) == "d-4 www gen 4: other addresses"


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (0.0, "0:00.0"),
        (85.34, "1:25.3"),
        (59.97, "1:00.0"),
        (3725.0, "1:02:05.0"),
        (-30.0, "-0:30.0"),
        (-0.01, "0:00.0"),
    ],
)
def test_times(at: float, text: str) -> None:
    assert clock(at) == text


def test_the_bound_of_detection_is_the_longer_of_two() -> None:
    assert phases(failover())[0] == ("detect", 5.9, 9.1)
    slow = failover(bounds={"detect_s": 2.0, "publish_s": 0.5, "takeover_s": 5.0})
    assert phases(slow)[0] == ("detect", 5.9, 5.0)
