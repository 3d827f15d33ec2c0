"""The status document and its alarms: load balancers, and records of another incarnation."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from controlplane.api.picture import Picture
from controlplane.api.propagation import Word
from controlplane.documents import Applied, AppliedDoc
from policies.topology import PoolDriver
from tests.unit.test_api_status import document, drawn, names, photograph, served

POOL = PoolDriver("haproxy", "lb", ("a", "b"), '{"socket": "/run/x"}')
WORKING = {site: {"site": site, "fresh": True, "unreadable": "", "roles": ["agent"]} for site in ("a", "b")}


def pool_word(site: str, result: Applied, age_s: float = 1.0, beats: bool = True, unwritable: str = "") -> Word:
    doc = AppliedDoc(site, "lb", site, "r", 1, {"www": result}, {}, {}, unwritable=unwritable)
    return Word(doc, age_s, beats)


def with_pools(*words: Word, **more: Any) -> Picture:
    world = served()
    picture = photograph(world, words=words, nodes=WORKING, **more)
    assert picture.config is not None
    return replace(picture, config=replace(picture.config, pools=(POOL,)))


def pool_column(*words: Word) -> list[str | None]:
    return [document(with_pools(*words))["sites"][site]["pool"] for site in ("a", "b", "w")]


def test_the_pool_column() -> None:
    fine = pool_word("a", Applied(1, "ok"))
    assert pool_column(fine) == ["ok", "silent", None]
    assert pool_column(fine, pool_word("b", Applied(1, "ok"), beats=False)) == ["ok", "silent", None]
    assert pool_column(fine, pool_word("b", Applied(0, "transient", gone=True)))[1] == "unreachable"
    assert pool_column(fine, pool_word("b", Applied(0, "transient")))[1] == "transient"
    assert pool_column(fine, pool_word("b", Applied(0, "terminal")))[1] == "terminal"
    assert pool_column(fine, pool_word("b", Applied(1, "ok"), unwritable="level user"))[1] == "unwritable"
    text = drawn(document(with_pools(fine, pool_word("b", Applied(0, "terminal")))))
    assert "VANTAGE  DNS  POOL" in text and "terminal" in text


def test_a_pool_of_which_nothing_is_heard_and_one_that_takes_no_commands_are_alarms() -> None:
    picture = with_pools(pool_word("a", Applied(1, "ok"), unwritable="level user"))
    found = {a["name"]: a for a in document(picture)["alarms"]}
    assert found["unwritable"]["subject"] == "lb at a" and found["driver_silent"]["subject"] == "lb at b"
    assert names(with_pools(pool_word("a", Applied(1, "ok")), pool_word("b", Applied(1, "ok")))) == set()


def test_foreign_records_are_an_alarm_that_names_its_remedy() -> None:
    theirs = Applied(9, "foreign", "c=3f9c0a1b g=9 op=d-9.x")
    found = [a for a in document(with_pools(pool_word("a", theirs)))["alarms"] if a["name"] == "foreign"]
    assert [a["subject"] for a in found] == ["3f9c0a1b"]
    assert found[0]["remedy"] == "www: not touched; if they are to be ours: failoverctl adopt 3f9c0a1b"
    assert "foreign" not in names(with_pools(pool_word("a", theirs, beats=False)))
