"""A wake-up call for any number of waiters, and a supervisor that is deterministic on a virtual-time loop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class Signal:
    """`count` rises with each set(), so that a waiter can say what it has already seen and miss nothing."""

    def __init__(self) -> None:
        self.count = 0
        self._waiters: list[asyncio.Future[None]] = []

    def set(self) -> None:
        self.count += 1
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            _release(waiter)

    async def wait(self, timeout_s: float, since: int | None = None) -> None:
        """Until the next set(), or at once if there was one after `since`; never raises TimeoutError."""
        if since is not None and since != self.count:
            return
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        alarm = loop.call_later(timeout_s, _release, waiter)  # asyncio.timeout costs five times as much
        try:
            await waiter
        finally:
            alarm.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


async def together(*parts: Coroutine[Any, Any, None]) -> None:
    """Run all until the first ends or fails; then cancel the others in order, and raise what it raised.

    asyncio.TaskGroup cancels in an order that varies from run to run.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def ended(_: asyncio.Future[None]) -> None:
        if not done.done():
            done.set_result(None)

    for task in tasks:
        task.add_done_callback(ended)
    try:
        await done
    finally:
        finished = [task for task in tasks if task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in finished:
        if not task.cancelled():
            task.result()
