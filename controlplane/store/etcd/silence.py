"""Is a watch that says nothing only quiet, or dead?

The stream is asked for a sign of life, and its member for a linearizable read. The first notices a server that is
frozen or out of reach (gRPC's own keepalive does not). The second notices a member that hears the leader and is not
heard by it: it answers on the stream as if all were well, but nothing new comes to it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aetcd import rpc  # type: ignore[import-untyped]

from controlplane.store import StoreError
from controlplane.store.etcd.link import TRY_S, Again, Elsewhere, Endpoint, Gone

SILENCE_S = 1.0  # without events: ask; and again as long: it should have answered


class Silence:
    """Of one stream. `read`: a linearizable read below what is watched."""

    def __init__(self, endpoint: Endpoint, read: Any) -> None:
        self._endpoint, self._read = endpoint, read
        self._due = _now() + SILENCE_S
        self._probe: asyncio.Task[Exception | None] | None = None
        self._answered = False

    def heard(self, news: bool) -> None:
        """A message came. news: with events, which only a member that follows the leader has."""
        self._answered = True
        if news:
            self.end()
            self._due = _now() + SILENCE_S

    @property
    def asks(self) -> bool:
        """Is it time to call ask()?"""
        return self._probe is None and _now() >= self._due

    def ask(self) -> Any:
        """Returns the request that goes on the stream."""
        self._answered = False
        self._due = _now() + SILENCE_S
        self._probe = asyncio.get_running_loop().create_task(self._ask())
        return rpc.WatchRequest(progress_request=rpc.WatchProgressRequest())

    async def wait(self, reading: asyncio.Task[Any]) -> None:
        """Until a message has been read, or there is something to do. Raises Elsewhere: it is dead."""
        left_s = self._due - _now()
        if self._probe is not None:
            error = self._probe.result() if self._probe.done() else None
            if error is not None:
                raise error
            if self._answered and self._probe.done():
                self._probe = None
                return
            if left_s <= 0:
                raise Elsewhere(f"silent on a watch for {2 * SILENCE_S:g} s", sure=True)
        pending = {reading} if self._probe is None or self._probe.done() else {reading, self._probe}
        await asyncio.wait(pending, timeout=max(0.0, left_s), return_when=asyncio.FIRST_COMPLETED)

    def end(self) -> None:
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None

    async def _ask(self) -> Exception | None:
        try:
            await self._endpoint.call(self._endpoint.kv.Range, self._read, TRY_S)
        except Again:
            return None  # it answers
        except (Elsewhere, StoreError) as error:
            return error
        except Gone as error:
            return Elsewhere(str(error), sure=True)
        return None


def _now() -> float:
    return asyncio.get_running_loop().time()
