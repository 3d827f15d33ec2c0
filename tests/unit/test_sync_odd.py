"""What a writer does about fences that nobody can have written, and about bugs that one name brings out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from controlplane.dns.fencing import LEAP, Relation, refusal, relation
from controlplane.documents import Applied
from controlplane.drivers import Actual, Change, Fence, Result
from tests.unit.fake_driver import FakeDriver
from tests.unit.test_sync import INC, Rig, virtual, want


@pytest.mark.parametrize(
    "text",
    [
        "c=inc g=000 op=d-1-x",
        "c=inc g=01 op=d-1-x",
        "c=inc g=-1 op=d-1-x",
        "c=inc g=٣ op=d-1-x",  # a digit, and not one of ours
        "c=inc  g=1 op=d-1-x",
        "c=inc g=1 op=caf\ufffd",
        "c=inc g=1 op=café",
        "c=ïnc g=1 op=d-1-x",
        "c=inc g=1 op=d-1\x00x",
        "c=inc g=1 op=d-1-x\n",
        "c=inc g=1000000000000000000 op=d-1-x",
    ],
)
def test_what_could_not_be_written_back_is_no_fence(text: str) -> None:
    assert Fence.parse(text) is None


@pytest.mark.parametrize("text", ["c=inc g=0 op=d-1-x", "c=i g=999999999999999999 op=manual-ana", 'c=a g=10 op="\\'])
def test_a_fence_is_what_it_was_read_from(text: str) -> None:
    fence = Fence.parse(text)
    assert fence is not None and fence.text() == text


def test_a_generation_may_be_ahead_by_so_much_and_no_more() -> None:
    mine = Fence(INC, 7, "d-7.x")
    assert relation(Fence(INC, 7 + LEAP, "d-8.x"), mine) is Relation.AHEAD
    far = Fence(INC, 8 + LEAP, "d-8.x")
    assert relation(far, mine) is Relation.IMPLAUSIBLE
    assert refusal(Change(want(7), far, mine)) == f"implausible: {far.text()}"
    assert relation(Fence(INC, 8 + LEAP, "manual-ana"), mine) is Relation.MANUAL
    assert relation(Fence("other", 8 + LEAP, "d-8.x"), mine) is Relation.FOREIGN
    assert relation(Fence("other", 8 + LEAP, "d-8.x"), mine, ["other"]) is Relation.OLDER


def test_an_implausible_generation_is_told_and_never_taken_over() -> None:
    async def body() -> None:
        rig = Rig()
        far = Fence(INC, 999_999_999_999_999_999, "d-903-x")
        rig.held(far, want(66))
        done = await rig.bring(want(7))
        reason = f"TXT _failover.www.example.org says {far.text()}, which is far beyond generation 7: remove it"
        assert done.applied["www"] == Applied(0, "terminal", reason, "d-7")
        assert [note.kind for note in done.notes] == ["alarm"]
        assert (rig.rereads, rig.driver.writes) == (0, [])
        rig.held(None, want(66))
        assert (await rig.said(want(7))).result == "ok"

    virtual(body)


class Fragile(FakeDriver):
    """Stumbles over some names."""

    unreadable: frozenset[str] = frozenset()
    unwritable: frozenset[str] = frozenset()
    reads = 0

    async def read(self, names: Sequence[str]) -> Mapping[str, Actual]:
        self.reads += 1
        if bad := sorted(self.unreadable.intersection(names)):
            raise KeyError(bad[0])
        return await super().read(names)

    async def apply(self, changes: Sequence[Change]) -> Mapping[str, tuple[Result, str]]:
        if bad := sorted(self.unwritable & {change.desired.name for change in changes}):
            raise UnicodeEncodeError("ascii", bad[0], 0, 1, "ordinal not in range")
        return await super().apply(changes)


def named(*services: str) -> frozenset[str]:
    return frozenset(f"{service}.example.org" for service in services)


def test_a_name_that_cannot_be_written_or_read_fails_alone() -> None:
    async def body() -> None:
        driver = Fragile()
        rig = Rig(driver=driver)
        driver.unwritable, driver.unreadable = named("s7"), named("s150")
        done = await rig.bring(*(want(1, service=f"s{i}") for i in range(200)))
        bad = {s: a for s, a in done.applied.items() if a.result != "ok"}
        assert sorted(bad) == ["s150", "s7"]
        assert bad["s150"] == Applied(0, "terminal", "bug: KeyError('s150.example.org')", "d-1")
        assert (bad["s7"].result, bad["s7"].reason[:23]) == ("terminal", "bug: UnicodeEncodeError")
        assert sorted(n.service for n in done.notes if n.kind == "alarm") == ["s150", "s7"]
        driver.unwritable = driver.unreadable = frozenset()
        done = await rig.bring(want(1, service="s150"))
        assert [(n.kind, n.service) for n in done.notes] == [("applied", "s150"), ("cleared", "s150")]

    virtual(body)


def test_what_cannot_be_read_back_is_not_said_to_be_well() -> None:
    async def body() -> None:
        driver = Fragile()
        rig = Rig(driver=driver)
        assert (await rig.said(want(1))).result == "ok"
        driver.unreadable = named("www")
        assert await rig.said(want(1)) == Applied(0, "terminal", "bug: KeyError('www.example.org')", "d-1")

    virtual(body)


def test_a_driver_that_is_broken_altogether_is_not_tried_for_each_name() -> None:
    async def body() -> None:
        driver = Fragile()
        rig = Rig(driver=driver)
        driver.unreadable = named(*(f"s{i}" for i in range(200)))
        done = await rig.bring(*(want(1, service=f"s{i}") for i in range(200)))
        assert {a.result for a in done.applied.values()} == {"terminal"}
        assert len(done.applied) == 200
        assert driver.reads < 20

    virtual(body)
