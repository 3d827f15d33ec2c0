"""Two hundred changes under load: no request fails, and none reaches a drained server once the command has returned.

Clients, web servers and driver share one event loop, so that all times are of one clock.
"""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec import Struct

from controlplane.drivers import Driver, Fence, Result
from tests.contract.pool_contract import ALL, NO_A, NO_B, POOLS, change, desired
from tests.contract.pool_world import Client, World
from tests.support import run

CHANGES = 200
EVERY_S = 0.04  # 8 s in all, if nothing is late
CLIENTS = 8
PAUSE_S = 0.005


class Request(Struct, frozen=True):
    begun: float
    ended: float
    status: int  # 0 = no answer
    server: str


class Applied(Struct, frozen=True):
    begun: float
    ended: float
    weights: dict[str, int]


async def clients(world: World, keeps: bool, requests: list[Request]) -> None:
    """One that asks all the time. keeps: on one connection, else on a new one for each request."""
    now, client = asyncio.get_running_loop().time, Client(world.haproxy.listen[POOLS[0]][1])
    try:
        while True:
            begun = now()
            try:
                status, server = await client.get()
            except (OSError, asyncio.IncompleteReadError) as error:
                status, server = 0, repr(error)
            requests.append(Request(begun, now(), status, server))
            if not keeps or status != 200:
                client.close()
            await asyncio.sleep(PAUSE_S)
    finally:
        client.close()


def next_weights(rng: random.Random, turn: int) -> dict[str, int]:
    """One site drained, the other one instead (nothing is left of what carried), other weights, a server drained."""
    match turn % 4:
        case 0:
            return dict(NO_A)
        case 1:
            return dict(NO_B)
        case 2:
            return {server: rng.randint(1, 100) for server in ALL}
        case _:
            return {**ALL, rng.choice(list(ALL)): 0}


async def changes(driver: Driver, done: list[Applied]) -> None:
    now, rng = asyncio.get_running_loop().time, random.Random(4)
    fence: Fence | None = None
    start = now()
    for turn in range(CHANGES):
        await asyncio.sleep(start + turn * EVERY_S - now())
        weights = next_weights(rng, turn)
        step = change(desired(turn + 1, weights), fence)
        begun = now()
        assert await driver.apply([step]) == {POOLS[0]: (Result.DONE, "")}
        done.append(Applied(begun, now(), weights))
        fence = step.fence


def drained(done: list[Applied], end: float) -> list[tuple[str, float, float]]:
    """Server, and from when to when it was to get nothing: from a command's return to the next command's begin."""
    later = [step.begun for step in done[1:]] + [end]
    return [
        (server, step.ended, until)
        for step, until in zip(done, later, strict=True)
        for server, weight in step.weights.items()
        if weight == 0
    ]


@pytest.mark.timeout(90)
def test_two_hundred_changes_under_load(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests: list[Request] = []
    done: list[Applied] = []

    async def main() -> None:
        world = await World(tmp_path, state_file=True).start()
        asking = [asyncio.ensure_future(clients(world, i % 2 == 0, requests)) for i in range(CLIENTS)]
        try:
            await changes(await world.driver(), done)
            await asyncio.sleep(EVERY_S)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            await world.aclose()

    run(main())
    failed = [request for request in requests if request.status != 200]
    assert failed == []
    spans = drained(done, requests[-1].ended + 1)
    inside = 0
    for server, since, until in spans:
        for request in requests:
            if since <= request.begun and request.ended <= until:
                inside += 1
                assert request.server != server, f"{request} reached {server}, drained at {since}"
    took = sorted(step.ended - step.begun for step in done)
    assert len(took) == CHANGES
    assert all(earlier.ended <= later.begun for earlier, later in pairwise(done))
    assert inside > CHANGES  # else nothing was shown
    assert {request.server for request in requests} == set(ALL)
    with capsys.disabled():
        print(
            f"\n{CHANGES} changes in {done[-1].ended - done[0].begun:.1f} s under {len(requests)} requests, 0 failed; "
            f"{inside} begun with a server drained, 0 reached it; "
            f"apply p50 {took[CHANGES // 2] * 1000:.1f} ms, p99 {took[CHANGES * 99 // 100] * 1000:.1f} ms"
        )
