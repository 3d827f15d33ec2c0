"""Patience: the same as asyncio.timeout, in the cases that matter."""

from __future__ import annotations

import asyncio

import pytest

from chaos.worlds.loop import Kernel
from controlplane.patience import Patience


def test_what_takes_too_long_is_interrupted() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError), Patience(2.0):
            await asyncio.sleep(5.0)
        await asyncio.sleep(1.0)  # the task goes on, and nothing comes late
        return asyncio.get_running_loop().time()

    with Kernel() as kernel:
        assert kernel.run(main()) == 3.0


def test_what_is_in_time_is_left_alone() -> None:
    async def main() -> str:
        with Patience(2.0):
            await asyncio.sleep(1.0)
        with pytest.raises(KeyError), Patience(2.0):
            raise KeyError("its own")
        await asyncio.sleep(10.0)
        return "whole"

    with Kernel() as kernel:
        assert kernel.run(main()) == "whole"


def test_who_is_cancelled_by_somebody_else_is_not_told_of_a_timeout() -> None:
    async def main() -> None:
        with Patience(2.0):
            await asyncio.sleep(5.0)

    with Kernel() as kernel:
        task = kernel.loop("a").create_task(main())
        kernel.at(1.0, task.cancel)
        kernel.run_until(9.0)
        assert task.cancelled()


def test_cancelled_at_the_moment_of_the_timeout_the_cancellation_counts() -> None:
    async def main() -> None:
        with Patience(2.0):
            await asyncio.sleep(5.0)

    with Kernel() as kernel:
        task = kernel.loop("a").create_task(main())
        kernel.at(2.0, task.cancel)
        kernel.run_until(9.0)
        assert task.cancelled()


def test_the_inner_one_ends_first() -> None:
    async def main() -> list[str]:
        said = []
        with Patience(5.0):
            try:
                with Patience(1.0):
                    await asyncio.sleep(9.0)
            except TimeoutError:
                said.append(f"inner at {asyncio.get_running_loop().time()}")
            await asyncio.sleep(1.0)
        said.append(f"outer at {asyncio.get_running_loop().time()}")
        return said

    with Kernel() as kernel:
        assert kernel.run(main()) == ["inner at 1.0", "outer at 2.0"]
