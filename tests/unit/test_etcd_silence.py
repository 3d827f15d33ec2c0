"""How soon a watch notices that its server is dead, on virtual time: what etcd_faults measures on real members."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from aetcd import rpc  # type: ignore[import-untyped]

from chaos.worlds.loop import Kernel, NodeLoop
from controlplane.store.etcd.link import TRY_S, Again, Elsewhere, Endpoints
from controlplane.store.etcd.silence import SILENCE_S
from controlplane.store.etcd.watch import EtcdWatch

NOTICED_S = 2.0  # what docs/failures.md promises
A_LITTLE_S = 0.01
REPLY_S = 0.001


class Server:
    """One etcd member. `frozen`: it says nothing at all; `mute`: nothing on the stream; `alone`: it cannot reach its
    leader, so it answers on the stream and to no linearizable read; `asked`: when it was."""

    def __init__(self) -> None:
        self.frozen = self.mute = self.alone = self.busy = False
        self.asked: list[float] = []
        self.url, self.why = "http://etcd", ""
        self.kv = self.watch = self
        self.Range = None
        self._news: asyncio.Queue[Any] = asyncio.Queue()

    def event(self, rev: int) -> None:
        response = rpc.WatchResponse()
        response.header.revision = rev
        event = response.events.add()
        event.kv.key, event.kv.value, event.kv.mod_revision = b"/k", b"v", rev
        self._news.put_nowait(response)

    # --- as a stream

    def Watch(self, metadata: object) -> Server:
        return self

    async def write(self, request: Any) -> None:
        asks = request.HasField("progress_request")
        if asks:
            self.asked.append(asyncio.get_running_loop().time())
        if not self.frozen and not (self.mute and asks):
            self._news.put_nowait(rpc.WatchResponse(created=not asks, watch_id=-1 if asks else 0))

    async def read(self) -> Any:
        return await self._news.get()

    def cancel(self) -> None:
        """Nothing is left open."""

    # --- as an endpoint

    def check(self, header: object) -> None:
        """Always of the same cluster."""

    async def call(self, method: object, request: object, patience_s: float) -> None:
        if self.frozen or self.alone:
            await asyncio.sleep(patience_s)
            raise Elsewhere("no answer in time", sure=False)
        await asyncio.sleep(REPLY_S)
        if self.busy:
            raise Again("auth: revision of auth store is old", sure=True)


class Links:
    """Two endpoints' worth of patience, and one server. `left`: when it was given up, and why."""

    def __init__(self, server: Server) -> None:
        self.current = server
        self.left: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return 1

    def leave(self, endpoint: Server, why: str) -> None:
        self.left.append((asyncio.get_running_loop().time(), why))

    def end(self, call: Server, reading: asyncio.Task[Any] | None) -> None:
        if reading is not None:
            reading.cancel()


class World:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.loop: NodeLoop = kernel.loop("node")
        self.server = self.loop.ask(Server)
        self.links = Links(self.server)
        self.batches = 0
        self.task = self.loop.create_task(self._read())

    async def _read(self) -> None:
        links = cast(Endpoints, self.links)
        async for _ in EtcdWatch(cast(Any, None), links, "/", 1, random.Random(1), lambda: None):
            self.batches += 1

    def run_until(self, when: float) -> list[tuple[float, str]]:
        self.kernel.run_until(when)
        return self.links.left

    def event_at(self, when: float, rev: int) -> None:
        self.kernel.at(when, lambda: self.loop.ask(lambda: self.server.event(rev)))

    def at(self, when: float, fault: str) -> None:
        self.kernel.at(when, lambda: setattr(self.server, fault, True))


@contextmanager
def world() -> Iterator[World]:
    with Kernel() as kernel:
        yield World(kernel)


def test_a_quiet_server_that_lives_is_never_left() -> None:
    with world() as w:
        assert w.run_until(60.0) == []
        assert 55 <= len(w.server.asked) * SILENCE_S <= 60, "it is asked once in each interval of silence"


def test_one_that_sends_events_is_not_asked() -> None:
    with world() as w:
        for n in range(1, 40):
            w.event_at(n * 0.5, n)
        assert w.run_until(20.0) == [] and w.server.asked == [] and w.batches == 39


@pytest.mark.parametrize("fault", ["frozen", "mute", "alone"])
@pytest.mark.parametrize("at", [n * 0.1 + 0.05 for n in range(30)])
def test_a_server_that_dies_is_noticed_within_two_seconds(fault: str, at: float) -> None:
    """At whatever moment between two questions: frozen or out of reach, deaf on its stream, or without its leader."""
    with world() as w:
        w.at(at, fault)
        left = w.run_until(at + NOTICED_S + A_LITTLE_S)
        assert left and left[0][0] > at, f"not within {NOTICED_S:g} s"


@pytest.mark.parametrize("fault", ["frozen", "mute", "alone"])
def test_also_right_after_an_event(fault: str) -> None:
    with world() as w:
        w.event_at(5.0, 1)
        w.at(5.0 + A_LITTLE_S / 2, fault)
        assert w.run_until(5.0 + SILENCE_S) == [], "it was heard just now"
        left = w.run_until(5.0 + NOTICED_S + A_LITTLE_S)
        assert len(left) == 1 and left[0][0] == pytest.approx(5.0 + SILENCE_S + TRY_S, abs=A_LITTLE_S)
        assert "no answer in time" in left[0][1] or "silent on a watch" in left[0][1]


def test_one_that_refuses_a_read_for_what_is_over_lives() -> None:
    with world() as w:
        w.at(3.0, "busy")
        assert w.run_until(30.0) == []
