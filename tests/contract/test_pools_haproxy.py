"""The haproxy driver against a real HAProxy: the contract of pool drivers, and what is HAProxy's own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from controlplane.drivers import Driver, Result
from controlplane.pools.haproxy import KIND, HAProxyDriver
from controlplane.pools.runtime import Runtime
from controlplane.sync import differs
from tests.contract.dns_world import Writer
from tests.contract.pool_contract import ALL, NO_A, NO_B, POOLS, Backend, PoolContract, change, desired, weights
from tests.contract.pool_world import HOST, World
from tests.support import run


class TestOverAUnixSocket(PoolContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    async def open(self) -> Backend:
        return await World(self.directory).start()


class TestOverTcp(PoolContract):
    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path

    async def open(self) -> Backend:
        return await World(self.directory, tcp=True).start()


def case(world: World, body: Callable[[World, Driver], Awaitable[None]], pools: Sequence[str] = POOLS) -> None:
    async def main() -> None:
        await world.start(pools)
        try:
            await body(world, await world.driver())
        finally:
            await world.aclose()

    run(main())


# ---- the state file


def test_a_reload_and_a_restart_keep_what_was_applied(tmp_path: Path) -> None:
    async def body(world: World, driver: Driver) -> None:
        d = desired(1, {**NO_A, "b1": 30})
        await driver.apply([change(d, None)])
        for again in (world.haproxy.reload, world.haproxy.restart):
            again()
            assert not differs(d, (await driver.read([d.name]))[d.name])
            assert {await world.request() for _ in range(12)} == {"b1", "b2"}

    case(World(tmp_path, state_file=True), body)


def test_a_server_that_was_down_when_the_state_file_was_written_is_up_after_a_reload(tmp_path: Path) -> None:
    async def body(world: World, driver: Driver) -> None:
        world.haproxy.command(f"set server {POOLS[1]}/a1 health down")
        world.haproxy.command(f"set server {POOLS[1]}/a2 state maint")
        world.haproxy.command(f"set server {POOLS[1]}/b1 health stopping")
        assert {await world.request(POOLS[1]) for _ in range(12)} == {"b2"}
        await driver.apply([change(desired(1, NO_A), None)])
        world.haproxy.reload()
        assert {await world.request(POOLS[1]) for _ in range(12)} == {"a1", "b1", "b2"}
        assert await weights(driver, POOLS[1]) == {"a1": 1, "a2": 0, "b1": 1, "b2": 1}

    case(World(tmp_path, state_file=True), body)


def test_a_state_file_that_cannot_be_written_is_told_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(world: World, driver: Driver) -> None:
        assert isinstance(driver, HAProxyDriver)
        world.haproxy.state_file = tmp_path / "nowhere" / "state"
        driver = await world.driver()
        with caplog.at_level(logging.WARNING):
            assert await driver.apply([change(desired(1, NO_A), None)]) == {POOLS[0]: (Result.DONE, "")}
        assert "state_file not written" in caplog.text
        assert await weights(driver) == NO_A
        with pytest.raises(PermissionError, match="nowhere: cannot be written to"):
            await driver.probe_write()

    case(World(tmp_path, state_file=True), body)


def test_a_restart_without_a_state_file_is_put_right_by_an_agents_next_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def body(world: World, driver: Driver) -> None:
        writer, d = Writer(driver, "a"), desired(1, NO_A)

        async def agent() -> None:
            while True:
                await asyncio.sleep((await writer.bring(d)).wake_in_s)

        await writer.bring(d)
        passes = asyncio.ensure_future(agent())
        clock = asyncio.get_running_loop().time
        took = []
        try:
            for _ in range(3):
                await world.restart()
                began = clock()
                async with asyncio.timeout(20):
                    while await weights(driver) != NO_A:
                        await asyncio.sleep(0.01)
                took.append(clock() - began)
        finally:
            passes.cancel()
        with capsys.disabled():
            print(f"\nHAProxy restarted without a state file: put right after at most {max(took):.2f} s (goal 2 s)")
        assert {await world.request() for _ in range(12)} == {"b1", "b2"}

    case(World(tmp_path), body)


# ---- the socket


def test_a_socket_that_is_not_there_and_a_port_that_refuses(tmp_path: Path) -> None:
    async def body(world: World, driver: Driver) -> None:
        world.haproxy.stop()
        missing = str(tmp_path / "missing.sock")
        for socket, why in ((missing, missing), (f"{HOST}:{world.admin[1]}", str(world.admin[1]))):
            driver = await world.driver(socket)
            for call in (driver.read([POOLS[0]]), driver.apply([change(desired(1, ALL), None)]), driver.probe_write()):
                with pytest.raises(OSError, match=why):
                    await call
            # The fence was put down before: what came after it may have been done in part.
            assert (tmp_path / "state" / "haproxy.json").exists()
            (tmp_path / "state" / "haproxy.json").unlink()

    case(World(tmp_path), body)


def test_a_socket_without_the_admin_level(tmp_path: Path) -> None:
    async def body(world: World, driver: Driver) -> None:
        driver = await world.driver(str(world.haproxy.operator_socket))
        with pytest.raises(PermissionError, match='has level operator, and needs "level admin"'):
            await driver.probe_write()
        said = (await Writer(driver, "a").bring(desired(1, NO_A))).applied["www"]
        assert said.result == "terminal"
        assert said.reason == 'bk_www/b1: Permission denied (the stats socket needs "level admin" in haproxy.cfg)'
        assert await weights(driver) == dict.fromkeys(ALL, 1)

    case(World(tmp_path), body)


@pytest.mark.parametrize(
    ("says", "why"),
    [
        (b"", "ended early"),
        (b"1\n# be_id be_name srv", "ended early"),
        (b"1\n# be_name srv_name\nbk_www a1\n\n", "a reply without srv_admin_state"),
        (b"x" * 65536, "longer than"),
        (None, "no answer within 0.2 s"),
    ],
)
def test_something_else_that_answers_there(tmp_path: Path, says: bytes | None, why: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readline()
            if says is None:
                await reader.read()  # until the driver gives up
            for _ in range(1000 if says and len(says) > 10_000 else 1):
                writer.write(says or b"")
                await writer.drain()
        except ConnectionError:
            pass  # the driver has had enough
        finally:
            writer.transport.abort() if says is None else writer.close()

    async def main() -> None:
        world = World(tmp_path, timeout_s=0.2 if says is None else 10)
        world.socket = str(tmp_path / "other.sock")
        server = await asyncio.start_unix_server(serve, world.socket)
        try:
            driver = await world.driver()
            async with asyncio.timeout(20):
                with pytest.raises(OSError, match=why):
                    await driver.read([POOLS[0]])
        finally:
            server.close()
            await server.wait_closed()

    run(main())


# ---- the file with the fences


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00", b'{"pools": 3}', b"[1]"])
def test_a_damaged_file_counts_as_absent(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def body(world: World, driver: Driver) -> None:
        await driver.apply([change(desired(5, NO_B), None)])
        (world.state_dir / "haproxy.json").write_bytes(content)
        with caplog.at_level(logging.WARNING):
            assert (await driver.read([POOLS[0]]))[POOLS[0]].fence is None
            await driver.read([POOLS[0]])
        assert caplog.text.count("cannot be read, and counts as absent") == 1
        assert (await Writer(driver, "a").bring(desired(6, NO_A))).applied["www"].result == "ok"
        assert await weights(driver) == NO_A

    case(World(tmp_path), body)


def test_a_disk_that_cannot_be_written_lets_nothing_through(tmp_path: Path) -> None:
    async def body(world: World, driver: Driver) -> None:
        world.state_dir.rmdir()
        world.state_dir.write_text("a file, where the directory was")
        done = await Writer(driver, "a").bring(desired(1, NO_A))
        assert done.applied["www"].result == "transient"
        assert await weights(driver) == dict.fromkeys(ALL, 1)
        with pytest.raises(PermissionError, match="state: cannot be written to"):
            await driver.probe_write()

    case(World(tmp_path), body)


# ---- interrupted, many, and odd ones


def test_an_apply_that_is_cut_after_any_step_is_finished_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Runtime.ask
    left = 0

    async def cut(self: Runtime, commands: Sequence[str]) -> list[str]:
        nonlocal left
        if commands and commands[0].startswith("set"):
            left -= 1
            if left == 0:
                raise ConnectionResetError("cut")
        return await ask(self, commands)

    async def body(world: World, driver: Driver) -> None:
        nonlocal left
        monkeypatch.setattr(Runtime, "ask", cut)
        writer, before = Writer(driver, "a"), NO_B
        await writer.bring(desired(1, before))
        for step in (1, 2):
            after = NO_A if before is NO_B else NO_B
            left = step
            d = desired(1 + step, after)
            done = await writer.bring(d)
            assert done.applied["www"].result == "transient"
            expected = before if step == 1 else ALL  # raised, and not yet drained
            assert await weights(driver) == expected
            successor = await world.driver()
            assert (await Writer(successor, "b").bring(d)).applied["www"].result == "ok"
            assert await weights(successor) == after
            before = after

    case(World(tmp_path), body)


def test_a_slow_writer_is_done_before_a_newer_one_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask, reached, go = Runtime.ask, asyncio.Event(), asyncio.Event()

    async def slow(self: Runtime, commands: Sequence[str]) -> list[str]:
        if any("weight 77" in command for command in commands):
            reached.set()
            await go.wait()
        return await ask(self, commands)

    async def body(world: World, driver: Driver) -> None:
        monkeypatch.setattr(Runtime, "ask", slow)
        older = change(desired(1, {**ALL, "a1": 77}), None)
        newer = change(desired(2, NO_A), older.fence)
        first = asyncio.ensure_future(driver.apply([older]))
        await reached.wait()
        second = asyncio.ensure_future((await world.driver()).apply([newer]))
        await asyncio.sleep(0.1)
        go.set()
        assert [(await each)[POOLS[0]][0] for each in (first, second)] == [Result.DONE, Result.DONE]
        assert await weights(driver) == NO_A

    case(World(tmp_path, timeout_s=10), body)


def test_many_pools_in_one_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pools = tuple(f"bk_pool-with-a-name-of-some-length-{i}" for i in range(401))

    async def body(world: World, driver: Driver) -> None:
        writer, clock = Writer(driver, "a"), asyncio.get_running_loop().time
        wanted = [desired(1, NO_A, pool) for pool in pools]
        began = clock()
        done = await writer.bring(*wanted)
        written = clock()
        again = await writer.bring(*wanted)
        read = clock()
        assert {a.result for a in (*done.applied.values(), *again.applied.values())} == {"ok"}
        assert len(done.applied) == len(pools)
        for pool in (pools[0], pools[200], pools[-1]):
            assert await weights(driver, pool) == NO_A
        with capsys.disabled():
            print(f"\n401 pools of 4 servers: written in {written - began:.2f} s, read back in {read - written:.2f} s")

    case(World(tmp_path, timeout_s=10), body, pools)


def test_a_static_balance_is_told_with_a_remedy(tmp_path: Path) -> None:
    async def body(world: World, driver: Driver) -> None:
        text = world.haproxy.config().replace("balance roundrobin", "balance static-rr")
        world.haproxy.stop()
        world.haproxy.config = lambda: text  # type: ignore[method-assign]
        world.haproxy.start()
        result, why = (await driver.apply([change(desired(1, NO_A), None)]))[POOLS[0]]
        assert result is Result.TERMINAL
        assert "static LB algorithm" in why and "balance roundrobin" in why

    case(World(tmp_path), body)


def test_a_name_that_would_end_a_command_is_not_sent(tmp_path: Path) -> None:
    async def body(world: World, driver: Driver) -> None:
        for name in ("bk_www; shutdown sessions server bk_www/a1", "bk www", "bk\nwww", ""):
            d = desired(1, ALL, name)
            assert (await driver.apply([change(d, None)]))[name][0] is Result.TERMINAL
            assert await driver.read([name]) == {}
        d = desired(1, {"a1 weight 1;disable server bk_www/a2": 1})
        assert (await driver.apply([change(d, None)]))[d.name][0] is Result.TERMINAL
        assert await weights(driver) == dict.fromkeys(ALL, 1)

    case(World(tmp_path), body)


def test_another_configuration_is_taken_over_in_place(tmp_path: Path) -> None:
    async def body(world: World, driver: Driver) -> None:
        entry = world.entry()
        assert await KIND.reconfigure(driver, entry, world.config(POOLS[1:]))
        assert (await driver.read([POOLS[0]]))[POOLS[0]].answers == ()
        assert list(await weights(driver, POOLS[1])) == list(ALL)
        assert await KIND.reconfigure(driver, entry, world.config())
        assert list(await weights(driver)) == list(ALL)
        assert not await KIND.reconfigure(driver, world.entry("/run/other.sock"), world.config())

    case(World(tmp_path), body)
