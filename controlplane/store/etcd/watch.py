"""A watch that goes on at another endpoint when its own fails, and proves that it goes on in the same history.

It resumes at the last event's own revision, never at one from a reply's header: those may be ahead of the events.
That last revision then comes a second time; it is compared with what came before and dropped. Another one in its
place means that the store was restored from a backup meanwhile, even if it has grown further than it was since.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Protocol

import grpc  # type: ignore[import-untyped]
from aetcd import rpc  # type: ignore[import-untyped]

from controlplane.store import KV, Batch, Compacted, Delete, Rewound, StoreError, Unavailable
from controlplane.store.etcd.link import (
    CALL_ERRORS,
    META,
    TRY_S,
    Elsewhere,
    Endpoint,
    Endpoints,
    PermissionDenied,
    cancelled,
)
from controlplane.store.etcd.silence import Silence

GIVE_UP_S = 10.0  # without any endpoint that serves

Event = KV | Delete


class Revisions(Protocol):
    async def revision(self, prefix: str) -> int:
        """The store's, linearizably. Raises StoreError."""
        ...


class EtcdWatch:
    """An asynchronous iterator of batches, for one reader. A cancelled `__anext__` loses nothing; an error is final."""

    def __init__(
        self,
        store: Revisions,
        links: Endpoints,
        prefix: str,
        from_rev: int,
        rng: random.Random,
        on_close: Callable[[], object],
    ) -> None:
        self._store, self._links, self._rng, self._on_close = store, links, rng, on_close
        self._prefix = prefix
        self._next = from_rev  # the first revision that was not delivered
        self._last: tuple[Event, ...] = ()  # the events of the revision before it, if any was delivered
        self._told = from_rev - 1
        self._held: list[Event] = []  # of a revision that has not come whole
        self._again = False  # the last revision is to come a second time
        self._call: Any = None
        self._endpoint: Endpoint | None = None
        self._reading: asyncio.Task[Any] | None = None
        self._silence: Silence | None = None
        self._breaks = 0  # since an endpoint served
        self._broken_at = 0.0
        self._error: StoreError | None = None
        self._closed = False

    def __aiter__(self) -> EtcdWatch:
        return self

    async def __anext__(self) -> Batch:
        while True:
            if self._closed:
                raise StopAsyncIteration
            if self._error is not None:
                raise self._error
            try:
                response = await self._receive()
                batch = self._take(response)
            except Elsewhere as error:
                await self._broken(error)
            except StoreError as error:
                self._error = error
                self._drop()
            else:
                if batch is not None:
                    return batch

    async def aclose(self) -> None:
        self._closed = True
        self._on_close()
        self._drop()

    # --- the stream ---

    async def _receive(self) -> Any:
        """The next message. Raises Elsewhere when the server is dead, StoreError when there is no use in going on."""
        if self._call is None:
            await self._open()
        assert self._silence is not None
        if self._reading is None:
            self._reading = asyncio.get_running_loop().create_task(self._read(self._call))
        reading, silence = self._reading, self._silence
        while not reading.done():
            if silence.asks:
                await self._write(self._call, silence.ask())
            await silence.wait(reading)
        self._reading = None
        if reading.cancelled():
            raise Elsewhere("the connection was closed", sure=True)
        response = reading.result()
        silence.heard(bool(response.events))
        self._breaks = 0
        return response

    async def _open(self) -> None:
        """Start the watch at the current endpoint, and see that the store is not behind what was seen."""
        endpoint = self._links.current
        start = self._next - 1 if self._last else self._next
        create = rpc.WatchCreateRequest(
            key=self._prefix.encode() or b"\0",
            range_end=range_end(self._prefix),
            start_revision=start,
            progress_notify=True,
            fragment=True,
        )
        self._endpoint, self._held, self._again = endpoint, [], start < self._next
        call = endpoint.watch.Watch(metadata=META)
        try:
            async with asyncio.timeout(TRY_S):
                await self._write(call, rpc.WatchRequest(create_request=create))
                response = await self._read(call)
            endpoint.check(response.header)
            if response.canceled:
                raise self._canceled(response)
            if response.header.revision < self._next - 1:  # or is only this member behind?
                await self._confirm()
        except TimeoutError:
            call.cancel()
            raise Elsewhere("no reply to a watch in time", sure=True) from None
        except BaseException:
            call.cancel()
            raise
        self._call = call
        self._silence = Silence(endpoint, any_key(self._prefix))

    async def _confirm(self) -> None:
        """Raises Rewound if the store's revision is below what was seen."""
        try:
            rev = await self._store.revision(self._prefix)
        except PermissionDenied:
            raise
        except Unavailable as error:
            raise Elsewhere(str(error), sure=True) from error
        if rev < self._next - 1:
            raise Rewound(f"etcd is at revision {rev}, but {self._next - 1} was seen: restored from a backup")

    async def _write(self, call: Any, request: Any) -> None:
        try:
            async with asyncio.timeout(TRY_S):
                await call.write(request)
        except CALL_ERRORS as error:
            raise self._meaning(error) from error

    async def _read(self, call: Any) -> Any:
        try:
            response = await call.read()
        except CALL_ERRORS as error:
            raise self._meaning(error) from error
        except asyncio.CancelledError:
            if cancelled():
                raise
            raise Elsewhere("the channel was closed", sure=True) from None
        if response is grpc.aio.EOF:
            raise Elsewhere("ended the watch", sure=True)
        return response

    async def _broken(self, error: Elsewhere) -> None:
        """Go to the next endpoint; after a round over all of them, pause."""
        loop = asyncio.get_running_loop()
        endpoint, self._endpoint = self._endpoint, None
        self._drop()
        if endpoint is not None:
            self._links.leave(endpoint, str(error))
        if self._breaks == 0:
            self._broken_at = loop.time()
        self._breaks += 1
        if loop.time() - self._broken_at > GIVE_UP_S:
            self._error = Unavailable(self._links.why())
        elif self._breaks % len(self._links) == 0:
            await asyncio.sleep(self._rng.uniform(0.1, 0.3))

    def _drop(self) -> None:
        if self._silence is not None:
            self._silence.end()
        if self._call is not None:
            self._links.end(self._call, self._reading)
        self._call = self._reading = self._silence = None

    # --- what came ---

    def _take(self, response: Any) -> Batch | None:
        """Whole revisions, in order. Raises Elsewhere or StoreError."""
        assert self._endpoint is not None
        self._endpoint.check(response.header)
        if response.canceled:
            raise self._canceled(response)
        if not response.events:
            return self._progress(response)
        events = self._held + [_event(event) for event in response.events]
        self._held = []
        if response.fragment:  # more is to follow, perhaps of the same revision
            last = events[-1].mod_rev
            self._held = [event for event in events if event.mod_rev == last]
            events = [event for event in events if event.mod_rev < last]
        if self._again and events:
            self._same(tuple(event for event in events if event.mod_rev < self._next))
        events = [event for event in events if event.mod_rev >= self._next]
        if not events:
            return None
        rev = events[-1].mod_rev
        self._last = tuple(event for event in events if event.mod_rev == rev)
        self._next, self._told = rev + 1, rev
        return Batch(tuple(events), rev)

    def _progress(self, response: Any) -> Batch | None:
        """What was asked for is a sign of life and no more: before 3.4.25 it may overtake events (watch id -1).
        What the server says of itself about this watch comes in order."""
        rev = response.header.revision
        if response.created or response.watch_id < 0 or self._held or self._again or rev < self._told:
            return None
        self._told = rev
        return Batch((), rev)

    def _same(self, again: tuple[Event, ...]) -> None:
        """Is the last revision still what it was?"""
        self._again = False
        before = {event.key: event for event in self._last}
        if any(before.get(event.key) != event for event in again):
            raise Rewound(f"revision {self._next - 1} has another content than before: restored from a backup")
        if len(again) < len(before):  # a deletion goes with the compaction of its own revision
            raise Compacted(f"revision {self._next - 1} is not complete any more")

    def _canceled(self, response: Any) -> Exception:
        if response.compact_revision:
            return Compacted(f"revision {self._next} is gone, the first that is left is {response.compact_revision}")
        if self._links.refuses(response.cancel_reason):
            return PermissionDenied(f"etcd: may not watch {self._prefix} ({response.cancel_reason})")
        return Elsewhere(f"ended the watch: {response.cancel_reason or 'no reason given'}", sure=True)

    def _meaning(self, error: Exception) -> Exception:
        meaning = self._links.meaning(error)
        return meaning if isinstance(meaning, (Elsewhere, StoreError)) else Elsewhere(str(meaning), sure=True)


def any_key(prefix: str) -> Any:
    """A request for whatever stands below: cheap, and linearizable."""
    return rpc.RangeRequest(key=prefix.encode() or b"\0", range_end=range_end(prefix), limit=1, keys_only=True)


def range_end(prefix: str) -> bytes:
    """The first key after all that begin with `prefix`; all keys for ""."""
    key = prefix.encode()
    return key[:-1] + bytes([key[-1] + 1]) if key else b"\0"  # no byte of UTF-8 is 0xff


def _event(event: Any) -> Event:
    key, rev = event.kv.key.decode(), event.kv.mod_revision
    return Delete(key, rev) if event.type == rpc.Event.DELETE else KV(key, event.kv.value, rev)
