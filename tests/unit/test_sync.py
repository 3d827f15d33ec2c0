"""One driver brought to one set of desired, on a virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping

import pytest
from msgspec.structs import replace

from chaos.worlds.loop import Kernel
from controlplane.documents import Applied
from controlplane.drivers import Actual, Fence
from controlplane.store import Unavailable
from controlplane.sync import Pass, Sync
from policies.world import Answer, Desired
from tests.unit.fake_driver import FakeDriver

INC = "inc"


def want(generation: int, decision: str = "", address: str = "", service: str = "www", ttl_s: int = 20) -> Desired:
    address = address or f"192.0.2.{generation}"
    return Desired(
        service=service,
        generation=generation,
        shares={},
        answers=(Answer("world", "A", address, "site-a", 100),),
        sites={},
        name=f"{service}.example.org",
        ttl_s=ttl_s,
        decision=decision or f"d-{generation}",
    )


class Rig:
    def __init__(self, turn: int = 0, driver: FakeDriver | None = None) -> None:
        self.driver = driver or FakeDriver()
        self.store: dict[str, Desired] | None = {}
        self.rereads = 0
        self.sync = Sync(self.driver, "run1", turn, self.reread, random.Random(1))

    async def reread(self) -> Mapping[str, Desired]:
        self.rereads += 1
        if self.store is None:
            raise Unavailable("no store")
        return self.store

    async def bring(self, *wanted: Desired, incarnation: str = INC) -> Pass:
        return await self.sync.bring({d.service: d for d in wanted}, incarnation)

    async def said(self, *wanted: Desired) -> Applied:
        return (await self.bring(*wanted)).applied["www"]

    def held(self, fence: Fence | None, d: Desired) -> None:
        self.driver.names[d.name] = Actual(fence, d.ttl_s, d.answers)


def virtual(body: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await body()

    with Kernel() as kernel:
        kernel.run(main())


def test_a_new_generation_is_written_once_and_then_only_looked_at() -> None:
    async def body() -> None:
        rig = Rig()
        first = await rig.bring(want(1))
        assert first.applied == {"www": Applied(1, "ok", "", "d-1")}
        assert [note.kind for note in first.notes] == ["applied"]
        again = await rig.bring(want(1))
        assert again == Pass(first.applied, (), 1.0)
        await rig.bring(want(2))
        assert len(rig.driver.writes) == 2

    virtual(body)


def test_each_write_has_an_op_of_its_own_that_begins_with_the_decision() -> None:
    async def body() -> None:
        rig = Rig()
        ops = []
        for generation in (1, 2):
            await rig.bring(want(generation))
            fence = rig.driver.names["www.example.org"].fence
            assert fence is not None
            assert Fence.parse(fence.text()) == fence
            ops.append((fence.decision, fence.op))
        assert [decision for decision, _ in ops] == ["d-1", "d-2"]
        assert len({op.partition(".")[2] for _, op in ops}) == 2

    virtual(body)


@pytest.mark.parametrize("fault", ["lost", "hang"])
def test_a_lost_reply_is_resolved_by_the_fence(fault: str) -> None:
    async def body() -> None:
        rig = Rig()
        rig.driver.fail = [fault]
        done = await rig.bring(want(1))
        if fault == "lost":
            assert done.applied["www"] == Applied(1, "ok", "", "d-1")
        else:  # it was not done, and the next pass does it
            assert done.applied["www"].result == "transient"
            assert (await rig.said(want(1))).result == "ok"

    virtual(body)


def test_transient_errors_are_tried_again_soon_then_less_often_with_jitter() -> None:
    async def body() -> None:
        rig = Rig()
        rig.driver.fail = ["read"] * 6
        waits = [(await rig.bring(want(1))).wake_in_s for _ in range(6)]
        for wait, middle in zip(waits, (0.1, 0.2, 0.4, 0.8, 1.0, 1.0), strict=True):
            assert 0.75 * middle <= wait <= 1.25 * middle
        done = await rig.bring(want(1))
        assert (done.applied["www"].result, done.wake_in_s) == ("ok", 1.0)

    virtual(body)


def test_a_write_that_fails_says_why() -> None:
    async def body() -> None:
        rig = Rig()
        rig.driver.fail = ["write"]
        assert await rig.said(want(1)) == Applied(0, "transient", "write: reset", "d-1")
        rig.driver.fail = ["transient"]
        assert await rig.said(want(1)) == Applied(0, "transient", "NOTAUTH", "d-1")

    virtual(body)


def test_a_terminal_error_is_an_alarm_and_tried_again_after_ten_seconds_or_for_something_new() -> None:
    async def body() -> None:
        rig = Rig()
        rig.driver.fail = ["terminal"]
        first = await rig.bring(want(1))
        assert first.applied["www"] == Applied(0, "terminal", "NOTAUTH", "d-1")
        assert [(n.kind, n.text) for n in first.notes] == [("alarm", "terminal: NOTAUTH")]
        await asyncio.sleep(9.9)
        second = await rig.bring(want(1))
        assert (second.applied, second.notes, len(rig.driver.writes)) == (first.applied, (), 1)
        await asyncio.sleep(0.2)
        third = await rig.bring(want(1))
        assert third.applied["www"].result == "ok"
        assert [n.kind for n in third.notes] == ["applied", "cleared"]
        rig.driver.fail = ["terminal"]
        await rig.bring(want(2))
        assert (await rig.said(want(3))).result == "ok"

    virtual(body)


def test_what_reads_back_differently_is_terminal() -> None:
    async def body() -> None:
        rig = Rig()
        rig.driver.fail = ["ignored"]
        assert await rig.said(want(1)) == Applied(1, "terminal", "was written, and reads back differently", "d-1")
        await rig.bring(want(1))
        assert len(rig.driver.writes) == 1

    virtual(body)


def test_a_race_that_was_lost_is_fenced_and_then_ahead() -> None:
    async def body() -> None:
        rig = Rig()
        rig.driver.rival = Actual(Fence(INC, 5, "d-5.x"), 20, want(5).answers)
        rig.driver.fail = ["race"]
        assert await rig.said(want(4)) == Applied(5, "fenced", "NXRRSET", "d-4")
        rig.store = {"www": want(5)}
        assert await rig.said(want(4)) == Applied(5, "ok", "", "d-5")

    virtual(body)


def test_ahead_is_said_only_after_a_linearizable_read_and_touches_nothing() -> None:
    async def body() -> None:
        rig = Rig()
        rig.held(Fence(INC, 9, "d-9.x"), want(9))
        rig.store = None
        assert (await rig.said(want(7))).result == "transient"
        rig.store = {"www": want(7)}
        expected = Applied(9, "ahead", "c=inc g=9 op=d-9.x", "d-7", 9, want(9).answers)
        assert await rig.said(want(7)) == expected
        assert rig.rereads == 2
        assert await rig.said(want(7)) == expected
        assert rig.rereads == 2  # known
        assert rig.driver.writes == []
        # The leader takes over what is served as the next generation.
        assert (await rig.said(want(10))).result == "ok"

    virtual(body)


def test_an_equal_generation_by_another_decision_is_ahead() -> None:
    async def body() -> None:
        rig = Rig()
        rig.held(Fence(INC, 7, "d-99.x"), want(7))
        said = await rig.said(want(7, address="192.0.2.77"))
        assert (said.result, said.ahead_generation, rig.driver.writes) == ("ahead", 7, [])

    virtual(body)


def test_never_a_generation_lower_than_one_applied_before_even_if_the_server_forgot() -> None:
    async def body() -> None:
        rig = Rig()
        await rig.bring(want(8))
        rig.driver.names.clear()
        rig.store = {"www": want(7)}
        said = await rig.said(want(7))
        assert (said.result, said.generation, said.ahead_generation) == ("ahead", 0, 8)
        assert said.ahead_answers == want(8).answers
        assert len(rig.driver.writes) == 1
        assert (await rig.said(want(8))).result == "ok"
        assert rig.driver.names["www.example.org"].answers == want(8).answers

    virtual(body)


@pytest.mark.parametrize(
    ("fence", "result"),
    [(Fence("other", 3, "d-3.x"), "foreign"), (Fence(INC, 3, "manual-ana"), "manual")],
)
def test_foreign_and_manual_are_alarms_and_left_alone(fence: Fence, result: str) -> None:
    async def body() -> None:
        rig = Rig()
        rig.held(fence, want(3))
        done = await rig.bring(want(9))
        assert done.applied["www"] == Applied(3, result, fence.text(), "d-9")
        assert [n.kind for n in done.notes] == ["alarm"]
        assert (await rig.bring(want(9))).notes == ()
        rig.held(None, want(3))  # the fence was taken away by hand
        done = await rig.bring(want(9))
        assert [n.kind for n in done.notes] == ["applied", "cleared"]

    virtual(body)


def test_drift_is_repaired_by_the_home_agent_alone() -> None:
    async def body() -> None:
        home = Rig()
        deputy = Rig(turn=1, driver=home.driver)
        await home.bring(want(3))
        fence = home.driver.names["www.example.org"].fence
        for wrong in (want(3, address="192.0.2.66"), replace(want(3), ttl_s=3600)):
            home.held(fence, wrong)
            await asyncio.sleep(10)
            said = await deputy.said(want(3))
            assert (said.result, said.generation) == ("transient", 3)
            done = await home.bring(want(3))
            assert [n.kind for n in done.notes] == ["repaired"]
            fence = home.driver.names["www.example.org"].fence
        assert len(home.driver.writes) == 3

    virtual(body)


def test_the_order_of_answers_is_not_drift() -> None:
    async def body() -> None:
        rig = Rig()
        two = replace(want(3), answers=want(3).answers + want(4).answers)
        await rig.bring(two)
        fence = rig.driver.names["www.example.org"].fence
        rig.held(fence, replace(two, answers=two.answers[::-1]))
        assert (await rig.said(two)).result == "ok"
        assert len(rig.driver.writes) == 1

    virtual(body)


def test_a_deputy_writes_when_a_generation_was_not_applied_within_two_seconds() -> None:
    async def body() -> None:
        rig = Rig(turn=1)
        done = await rig.bring(want(1))
        assert (done.applied["www"].result, done.wake_in_s) == ("transient", 1.0)
        await asyncio.sleep(1.5)
        done = await rig.bring(want(1))
        assert done.wake_in_s == pytest.approx(0.5)
        await asyncio.sleep(done.wake_in_s)
        assert (await rig.said(want(1))).result == "ok"
        # The two seconds run from when it is seen unapplied, not from when it was decided.
        await asyncio.sleep(100)
        rig.driver.names.clear()
        assert (await rig.said(want(1))).result == "transient"
        assert len(rig.driver.writes) == 1

    virtual(body)


def test_a_second_deputy_waits_longer_than_the_first() -> None:
    async def body() -> None:
        rig = Rig(turn=2)
        await rig.bring(want(1))
        await asyncio.sleep(3.9)
        assert (await rig.said(want(1))).result == "transient"
        await asyncio.sleep(0.1)
        assert (await rig.said(want(1))).result == "ok"

    virtual(body)


def test_the_old_ttl_counts_from_when_the_old_answer_was_not_given_any_more() -> None:
    async def body() -> None:
        rig = Rig()
        loop = asyncio.get_running_loop()
        await rig.bring(want(1, ttl_s=300))
        assert rig.sync.old_until == {}  # there was nothing before
        await asyncio.sleep(50)
        changed_at = loop.time()
        await rig.bring(want(2, ttl_s=20))
        assert rig.sync.old_until == {"www": changed_at + 300}
        await asyncio.sleep(10)
        await rig.bring(want(3, ttl_s=20))
        assert rig.sync.old_until == {"www": changed_at + 300}  # the longer one still counts

    virtual(body)


def test_what_was_there_before_the_process_may_just_have_changed() -> None:
    async def body() -> None:
        rig = Rig()
        rig.held(Fence(INC, 1, "d-1.x"), want(1, ttl_s=30))
        await rig.bring(want(1, ttl_s=30))
        assert rig.sync.old_until == {"www": asyncio.get_running_loop().time() + 30}

    virtual(body)


def test_batches_are_no_larger_than_the_driver_takes_and_one_failing_stops_no_other() -> None:
    async def body() -> None:
        rig = Rig(driver=FakeDriver(batch=3))
        wanted = [want(1, service=f"s{i}") for i in range(8)]
        rig.driver.fail = ["terminal"]
        done = await rig.bring(*wanted)
        assert [len(batch) for batch in rig.driver.writes] == [3, 3, 2]
        assert [done.applied[f"s{i}"].result for i in range(8)] == ["terminal"] * 3 + ["ok"] * 5

    virtual(body)


def test_a_new_incarnation_forgets_what_the_old_one_applied() -> None:
    async def body() -> None:
        rig = Rig()
        await rig.bring(want(8))
        rig.driver.names.clear()
        done = await rig.bring(want(1), incarnation="new")
        assert done.applied["www"].result == "ok"

    virtual(body)
