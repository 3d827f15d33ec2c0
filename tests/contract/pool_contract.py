"""What every pool driver must do, whatever load balancer is behind it (DESIGN 4.8 "elsewhere", 4.9).

A driver's test module subclasses PoolContract and says how to open a Backend.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from controlplane.drivers import Actual, Change, Driver, Fence, Result
from controlplane.sync import differs
from policies.world import Answer, Desired
from tests.contract.dns_world import INCARNATION, Lossy, OnBackend, Writer

SERVERS: dict[str, tuple[str, ...]] = {"site-a": ("a1", "a2"), "site-b": ("b1", "b2")}
ALL = {"a1": 50, "a2": 50, "b1": 50, "b2": 50}
NO_A = {"a1": 0, "a2": 0, "b1": 50, "b2": 50}
NO_B = {"a1": 50, "a2": 50, "b1": 0, "b2": 0}
POOLS = ("bk_www", "bk_api", "bk_shop")


class Backend(Protocol):
    """One running load balancer with the pools POOLS, each with SERVERS. Its own state does not outlive a restart."""

    async def driver(self) -> Driver:
        """A writer of its own, over the same directory on local disk; closed by the test."""
        ...

    async def successor(self) -> Driver:
        """Of the agent's next process, which knows no more than what is on local disk; closed by the test."""
        ...

    async def request(self, pool: str = POOLS[0]) -> str:
        """As a client: the name of the server that answered."""
        ...

    def held(self, pool: str = POOLS[0]) -> AbstractAsyncContextManager[str]:
        """A request that is under way inside the block: the name of its server."""
        ...

    async def restart(self) -> None: ...

    def edit(self, server: str, out: bool, pool: str = POOLS[0]) -> None:
        """By hand: take a server out of the pool, or put it in."""
        ...

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...

    async def aclose(self) -> None: ...


def desired(generation: int, weights: Mapping[str, int], pool: str = POOLS[0], decision: str = "") -> Desired:
    """`weights` by server, as the agent of a site projects them."""
    sites = {server: site for site, servers in SERVERS.items() for server in servers}
    answers = tuple(Answer("", "SERVER", server, sites.get(server, "site-a"), w) for server, w in weights.items())
    return Desired(
        service=pool.removeprefix("bk_"),
        generation=generation,
        shares={"world": {"site-a": 50, "site-b": 50}},
        answers=answers,
        sites={},
        name=pool,
        decision=decision or f"d-{generation}",
    )


def change(d: Desired, expect: Fence | None, incarnation: str = INCARNATION, adopted: bool = False) -> Change:
    return Change(d, expect, Fence(incarnation, d.generation, f"{d.decision}.1"), adopted)


async def weights(driver: Driver, pool: str = POOLS[0]) -> dict[str, int]:
    return {answer.address: answer.weight for answer in (await driver.read([pool]))[pool].answers}


class PoolContract(OnBackend):
    # ---- the driver alone

    def test_what_was_applied_is_read_back(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            before = (await driver.read(POOLS))[POOLS[0]]
            assert before.fence is None
            assert [answer.site for answer in before.answers] == ["site-a", "site-a", "site-b", "site-b"]
            d = desired(1, {"a1": 100, "a2": 7, "b1": 1, "b2": 0})
            c = change(d, None)
            assert await driver.apply([c]) == {d.name: (Result.DONE, "")}
            actual = (await driver.read([d.name]))[d.name]
            assert actual.fence == c.fence
            assert not differs(d, actual)
            assert actual.answers == d.answers

        self.case(body)

    def test_weights_are_what_clients_get(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            await driver.apply([change(desired(1, {"a1": 60, "a2": 20, "b1": 20, "b2": 0}), None)])
            got = Counter([await backend.request() for _ in range(200)])
            assert set(got) == {"a1", "a2", "b1"}
            assert abs(got["a1"] - 120) <= 20
            assert abs(got["a2"] - 40) <= 15

        self.case(body)

    def test_no_request_reaches_a_drained_server_and_its_sessions_are_shown(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            first = change(desired(1, ALL), None)
            await driver.apply([first])
            assert (await driver.read([POOLS[0]]))[POOLS[0]].sessions == {}
            async with backend.held() as server:
                away, site = (NO_A, "site-a") if server.startswith("a") else (NO_B, "site-b")
                await driver.apply([change(desired(2, away), first.fence)])
                got = {await backend.request() for _ in range(40)}
                assert got == {name for name, weight in away.items() if weight}
                assert (await driver.read([POOLS[0]]))[POOLS[0]].sessions == {site: 1}
            await until_none_is_left(driver, site)

        self.case(body)

    def test_an_older_generation_is_refused_although_its_writer_has_read_the_newest_fence(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            new = change(desired(8, NO_A), None)
            await driver.apply([new])
            for old in (desired(7, NO_B), desired(8, NO_B, decision="d-9")):
                assert (await driver.apply([change(old, new.fence)]))[old.name][0] is Result.FENCED
            assert await weights(driver) == NO_A
            assert {await backend.request() for _ in range(10)} == {"b1", "b2"}

        self.case(body)

    def test_a_writer_that_read_before_another_wrote_is_refused(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            first = change(desired(1, ALL), None)
            await driver.apply([first])
            third = change(desired(3, NO_A), first.fence)
            assert (await driver.apply([third]))[POOLS[0]][0] is Result.DONE
            for late in (change(desired(2, NO_B), first.fence), change(desired(9, NO_B), None)):
                assert (await driver.apply([late]))[POOLS[0]][0] is Result.FENCED
            assert await weights(driver) == NO_A

        self.case(body)

    def test_of_two_writers_that_race_exactly_one_wins(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            drivers = [await backend.driver() for _ in range(8)]
            rivals = [desired(5, {**ALL, "a1": 10 + i}, decision=f"d-{i}") for i in range(8)]
            try:
                results = await asyncio.gather(
                    *[w.apply([change(d, None)]) for w, d in zip(drivers, rivals, strict=True)]
                )
            finally:
                for each in drivers:
                    await each.aclose()
            said = [result[POOLS[0]][0] for result in results]
            assert sorted(said) == sorted([Result.DONE] + [Result.FENCED] * 7)
            assert (await weights(driver))["a1"] == 10 + said.index(Result.DONE)

        self.case(body)

    def test_writers_one_after_another_end_with_the_last_ones_answers(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            other = await backend.driver()
            changes = [change(desired(1, ALL), None)]
            for generation in range(2, 10):
                changes.append(change(desired(generation, {**ALL, "a1": generation}), changes[-1].fence))
            try:
                await asyncio.gather(*[(driver, other)[i % 2].apply([c]) for i, c in enumerate(changes)])
            finally:
                await other.aclose()
            assert (await weights(driver))["a1"] == 9
            assert (await driver.read([POOLS[0]]))[POOLS[0]].fence == changes[-1].fence

        self.case(body)

    def test_the_fence_outlives_the_agent(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            new = change(desired(8, NO_A), None)
            await driver.apply([new])
            again = await backend.successor()
            try:
                assert (await again.read([POOLS[0]]))[POOLS[0]].fence == new.fence
                assert (await again.apply([change(desired(7, NO_B), None)]))[POOLS[0]][0] is Result.FENCED
                assert (await again.apply([change(desired(7, NO_B), new.fence)]))[POOLS[0]][0] is Result.FENCED
            finally:
                await again.aclose()
            assert await weights(driver) == NO_A

        self.case(body)

    def test_a_pool_is_never_emptied(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            first = change(desired(1, ALL), None)
            await driver.apply([first])
            nobody = change(desired(2, dict.fromkeys(ALL, 0)), first.fence)
            result, why = (await driver.apply([nobody]))[POOLS[0]]
            assert (result, why) == (Result.TERMINAL, "backend bk_www would have no server left")
            # The only server that was to take over is not there.
            nowhere = change(desired(2, {**dict.fromkeys(ALL, 0), "b9": 100}), first.fence)
            assert (await driver.apply([nowhere]))[POOLS[0]][0] is Result.TERMINAL
            assert await weights(driver) == ALL
            assert len({await backend.request() for _ in range(12)}) == 4

        self.case(body)

    def test_a_stale_name_in_a_batch_does_not_stop_the_others(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            await driver.apply([change(desired(9, ALL, POOLS[1]), None)])
            results = await driver.apply([change(desired(1, NO_A, pool), None) for pool in POOLS])
            assert [results[pool][0] for pool in POOLS] == [Result.DONE, Result.FENCED, Result.DONE]
            assert [await weights(driver, pool) for pool in POOLS] == [NO_A, ALL, NO_A]

        self.case(body)

    def test_a_foreign_incarnation_is_left_alone_until_it_is_adopted(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            theirs = change(desired(9, NO_A), None, "theirs")
            await driver.apply([theirs])
            mine = desired(1, NO_B)
            assert (await driver.apply([change(mine, theirs.fence)]))[mine.name][0] is Result.FENCED
            assert await weights(driver) == NO_A
            done = await Writer(driver, "b").bring(mine)
            assert done.applied["www"].result == "foreign"
            adopted = change(mine, theirs.fence, adopted=True)
            assert (await driver.apply([adopted]))[mine.name][0] is Result.DONE
            await driver.apply([change(desired(10, NO_A), adopted.fence, "theirs", adopted=True)])
            done = await Writer(driver, "c").bring(mine, adopted=["theirs"])
            assert done.applied["www"].result == "ok"
            assert await weights(driver) == NO_B

        self.case(body)

    def test_the_write_proof_changes_nothing(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            await driver.apply([change(desired(1, NO_A), None)])
            before = await driver.read(POOLS)
            await driver.probe_write()
            assert await driver.read(POOLS) == before

        self.case(body)

    # ---- the driver under sync, as agents use it

    def test_unknown_names_are_terminal_in_the_load_balancers_own_words(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            writer = Writer(driver, "a")
            wanted = [desired(1, ALL, "bk_none"), desired(1, {**NO_A, "b9": 10})]
            done = await writer.bring(*wanted)
            assert [done.applied[s].result for s in ("none", "www")] == ["terminal", "terminal"]
            assert "No such backend" in done.applied["none"].reason
            assert "No such server" in done.applied["www"].reason
            # What could be done was done: a server that is missing must not hold a failover up.
            assert await weights(driver) == NO_A
            assert [note.kind for note in done.notes] == ["alarm", "alarm"]

        self.case(body)

    def test_a_lost_reply_is_resolved_by_reading_back(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            lossy = Lossy(driver)
            done = await Writer(lossy, "a").bring(desired(1, NO_A))
            assert done.applied["www"].result == "ok"
            assert lossy.applied == 1

        self.case(body)

    def test_a_restart_that_forgot_everything_is_put_right(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            writer, d = Writer(driver, "a"), desired(3, NO_A)
            await writer.bring(d)
            await backend.restart()
            assert differs(d, (await driver.read([d.name]))[d.name])
            assert {await backend.request() for _ in range(12)} == set(ALL)
            done = await writer.bring(d)
            assert (done.applied["www"].result, [note.kind for note in done.notes]) == ("ok", ["repaired"])
            assert {await backend.request() for _ in range(12)} == {"b1", "b2"}

        self.case(body)

    def test_a_server_taken_out_or_put_in_by_hand_is_put_right(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            writer, d = Writer(driver, "a"), desired(3, NO_A)
            await writer.bring(d)
            for server, out in (("b1", True), ("a1", False)):
                backend.edit(server, out)
                assert differs(d, (await driver.read([d.name]))[d.name])
                done = await writer.bring(d)
                assert (done.applied["www"].result, [note.kind for note in done.notes]) == ("ok", ["repaired"])
                assert await weights(driver) == NO_A

        self.case(body)

    def test_a_load_balancer_that_hangs_is_given_up_and_put_right_when_it_wakes(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            writer, first = Writer(driver, "a"), desired(1, NO_B)
            await writer.bring(first)
            backend.freeze()
            try:
                async with asyncio.timeout(20):
                    done = await writer.bring(desired(2, NO_A))
                    calls = (driver.read([POOLS[0]]), driver.probe_write())
                    assert await asyncio.gather(*[gives_up(call) for call in calls]) == [True, True]
            finally:
                backend.thaw()
            assert done.applied["www"].result == "transient"
            assert (await writer.bring(desired(2, NO_A))).applied["www"].result == "ok"
            assert {await backend.request() for _ in range(12)} == {"b1", "b2"}

        self.case(body)

    def test_a_paused_writer_that_wakes_up_with_old_news_learns_the_new_ones(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            newer = desired(9, NO_A)
            await Writer(driver, "a").bring(newer)
            done = await Writer(driver, "b", known=[newer]).bring(desired(7, NO_B))
            assert (done.applied["www"].result, done.applied["www"].generation) == ("ok", 9)
            assert await weights(driver) == NO_A

        self.case(body)

    def test_a_fence_that_is_ahead_is_reported_with_what_is_served(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            await Writer(driver, "a").bring(desired(9, NO_A))
            said = (await Writer(driver, "b").bring(desired(7, NO_B))).applied["www"]
            assert (said.result, said.ahead_generation) == ("ahead", 9)
            assert {answer.address: answer.weight for answer in said.ahead_answers} == NO_A

        self.case(body)


async def until_none_is_left(driver: Driver, site: str, pool: str = POOLS[0]) -> None:
    async with asyncio.timeout(10):
        while (await driver.read([pool]))[pool].sessions != {site: 0}:
            await asyncio.sleep(0.02)


async def gives_up(call: Awaitable[Mapping[str, Actual] | None]) -> bool:
    """Did it raise what a driver may raise?"""
    try:
        await call
    except (OSError, TimeoutError):
        return True
    return False
