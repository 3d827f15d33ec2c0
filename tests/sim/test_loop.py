"""The virtual-time loop: order, time, faults, and that nothing vanishes."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from chaos.worlds.loop import Kernel, NodeLoop, Stuck


def test_time_passes_only_when_somebody_waits() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        seen = [loop.time()]
        await asyncio.sleep(3600)
        seen.append(loop.time())
        await asyncio.sleep(0)
        seen.append(loop.time())
        return seen

    with Kernel() as kernel:
        assert kernel.run(main()) == [0.0, 3600.0, 3600.0]


def test_equal_times_run_in_the_order_of_asking() -> None:
    order: list[str] = []
    with Kernel() as kernel:
        a, b = kernel.loop("a"), kernel.loop("b")
        for number in range(50):
            (a if number % 2 else b).call_at(1.0, order.append, f"timer {number}")
        kernel.run_until(1.0)
    assert order == [f"timer {number}" for number in range(50)]


def test_run_until_includes_its_instant_and_stops_there() -> None:
    ran: list[float] = []
    with Kernel() as kernel:
        node = kernel.loop("a")
        for when in (1.0, 2.0, 2.5):
            node.call_at(when, ran.append, when)
        kernel.run_until(2.0)
        assert ran == [1.0, 2.0]
        assert kernel.now == 2.0
        kernel.run_for(0.5)
        assert ran == [1.0, 2.0, 2.5]


def test_what_asyncio_offers_works_across_nodes() -> None:
    async def consumer(queue: asyncio.Queue[int], done: asyncio.Event) -> list[tuple[float, int]]:
        got: list[tuple[float, int]] = []
        while len(got) < 3:
            got.append((await_time(), await queue.get()))
        done.set()
        return [(await_time(), number) for _, number in got]

    def await_time() -> float:
        return asyncio.get_running_loop().time()

    async def producer(queue: asyncio.Queue[int], done: asyncio.Event) -> str:
        for number in range(3):
            await asyncio.sleep(1)
            queue.put_nowait(number)
        async with asyncio.timeout(1):
            await done.wait()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2):
                await asyncio.Event().wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.get_running_loop().create_future(), 2)
        return asyncio.current_task().get_name()  # type: ignore[union-attr]

    with Kernel() as kernel:
        queue: asyncio.Queue[int] = asyncio.Queue()
        done = asyncio.Event()
        a = kernel.loop("a").create_task(consumer(queue, done))
        b = kernel.loop("b").create_task(producer(queue, done))
        assert kernel.run_until_complete(b) == "b-1"
        assert kernel.now == 7.0
        assert a.result() == [(3.0, 0), (3.0, 1), (3.0, 2)]


async def _tick(log: list[tuple[str, float]], period_s: float = 1.0) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, NodeLoop)
    try:
        while True:
            await asyncio.sleep(period_s)
            log.append((loop.name, loop.kernel.now))
    finally:
        log.append(("finally", loop.kernel.now))


def test_a_paused_node_wakes_up_late_and_keeps_its_order() -> None:
    log: list[tuple[str, float]] = []
    with Kernel() as kernel:
        node = kernel.loop("a")
        node.create_task(_tick(log))
        node.call_at(3.0, log.append, ("first", 3.0))
        node.call_at(4.0, log.append, ("second", 4.0))
        kernel.at(2.5, node.pause)
        kernel.at(10.0, node.resume)
        kernel.run_until(11.5)
        assert log == [("a", 1.0), ("a", 2.0), ("first", 3.0), ("second", 4.0), ("a", 10.0), ("a", 11.0)]


def test_a_killed_node_never_runs_again_not_even_its_finally_blocks() -> None:
    log: list[tuple[str, float]] = []
    with Kernel() as kernel:
        node = kernel.loop("a")
        node.create_task(_tick(log))
        kernel.at(2.5, node.kill)
        kernel.run_until(10.0)
        gc.collect()
        assert log == [("a", 1.0), ("a", 2.0)]
        assert node.is_closed()
        again = kernel.loop("a")
        assert again is not node
        again.create_task(_tick(log))
        kernel.run_for(1.0)
        assert log[2:] == [("a", 11.0)]
    assert [name for name, _ in log[3:]] == ["finally", "finally"]  # on closing only


def test_a_node_killed_while_paused_stays_dead() -> None:
    log: list[tuple[str, float]] = []
    with Kernel() as kernel:
        node = kernel.loop("a")
        node.create_task(_tick(log))
        kernel.at(0.5, node.pause)
        kernel.at(5.0, node.kill)
        kernel.at(6.0, node.resume)
        kernel.run_until(10.0)
        assert log == []


@pytest.mark.parametrize("rate", [1.0, 1.0000001, 0.9999, 1 / 3, 1.1, 0.7])
@pytest.mark.parametrize("offset_s", [0.0, 1e9 + 0.1, -17.3])
def test_under_skew_a_timer_never_fires_early(rate: float, offset_s: float) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        early = 0
        when = loop.time()
        for _ in range(300):
            when += 0.1
            waiter = loop.create_future()
            loop.call_at(when, waiter.set_result, None)
            await waiter
            early += loop.time() < when
        return early

    with Kernel() as kernel:
        kernel.loop("main", offset_s=offset_s, rate=rate)
        assert kernel.run(main()) == 0
        assert kernel.now == pytest.approx(30.0 / rate, rel=1e-6)


def test_a_loop_that_does_not_get_on_is_stopped() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with Kernel() as kernel, pytest.raises(Stuck, match="without progress"):
        kernel.run(main())


def test_a_wait_that_nothing_can_end_is_named() -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with Kernel() as kernel, pytest.raises(Stuck, match="nothing left to run"):
        kernel.run(main())


async def _fail(message: str) -> None:
    await asyncio.sleep(1)
    raise ValueError(message)


def test_an_exception_that_nobody_awaits_is_raised_at_the_end_of_the_run() -> None:
    with Kernel() as kernel:
        kernel.loop("a").create_task(_fail("lost"))
        gc.collect()
        with pytest.raises(ValueError, match="lost") as caught:
            kernel.run_until(5.0)
        assert "on node 'a'" in caught.value.__notes__[0]
        kernel.run_until(6.0)  # told once


def test_several_lost_exceptions_are_raised_together() -> None:
    with Kernel() as kernel:
        kernel.loop("a").create_task(_fail("one"))
        kernel.loop("b").create_task(_fail("two"))
        with pytest.raises(BaseExceptionGroup) as caught:
            kernel.run_until(5.0)
        assert [str(error) for error in caught.value.exceptions] == ["one", "two"]


def test_callbacks_that_raise_are_not_lost_either() -> None:
    def broken(_: object) -> None:
        raise KeyError("callback")

    with Kernel() as kernel:
        kernel.loop("a").create_task(asyncio.sleep(1)).add_done_callback(broken)
        with pytest.raises(KeyError, match="callback"):
            kernel.run_until(5.0)


def test_an_awaited_exception_is_the_awaiters_business() -> None:
    async def main() -> str:
        task = asyncio.create_task(_fail("seen"))
        try:
            await task
        except ValueError as error:
            return str(error)
        return ""

    with Kernel() as kernel:
        assert kernel.run(main()) == "seen"


def test_async_generators_are_finalised_on_closing_only() -> None:
    log: list[str] = []

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(10):
                yield number
                await asyncio.sleep(1)
        finally:
            await asyncio.sleep(0)
            log.append("finalised")

    async def main() -> None:
        async for number in numbers():
            if number == 2:
                return

    with Kernel() as kernel:
        kernel.run(main())
        gc.collect()
        assert log == []
    assert log == ["finalised"]


def test_a_node_can_be_asked_between_runs() -> None:
    with Kernel() as kernel:
        node = kernel.loop("a", offset_s=100.0)
        kernel.run_until(5.0)
        assert node.ask(lambda: asyncio.get_running_loop().time()) == 105.0
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()


def test_what_needs_the_real_world_is_refused() -> None:
    async def main() -> None:
        await asyncio.open_connection("192.0.2.1", 80)

    with Kernel() as kernel, pytest.raises(NotImplementedError):
        kernel.run(main())


def test_work_for_a_thread_is_done_at_once() -> None:
    async def main() -> tuple[int, str]:
        found = await asyncio.to_thread(sum, (1, 2))
        try:
            await asyncio.to_thread(int, "x")
        except ValueError as error:
            return found, str(error)[:7]
        return found, ""

    with Kernel() as kernel:
        assert kernel.run(main()) == (3, "invalid")
        assert kernel.now == 0.0


def test_it_does_not_run_inside_another_loop() -> None:
    async def main() -> None:
        Kernel().run_until(1.0)

    with Kernel() as kernel, pytest.raises(RuntimeError, match="another event loop"):
        kernel.run(main())


def test_equal_programs_have_equal_histories() -> None:
    def history() -> list[tuple[str, float]]:
        log: list[tuple[str, float]] = []
        with Kernel() as kernel:
            for number, name in enumerate(("a", "b", "c")):
                node = kernel.loop(name, offset_s=number * 7.7, rate=1 + number / 1000)
                node.create_task(_tick(log, 0.1))
                node.create_task(_tick(log, 0.25))
            kernel.at(3.0, kernel.loop("b").pause)
            kernel.at(4.0, kernel.loop("b").resume)
            kernel.at(5.0, kernel.loop("c").kill)
            kernel.run_until(20.0)
        return log

    first = history()
    assert len(first) > 500
    assert history() == first
