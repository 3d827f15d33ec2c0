"""HAProxy's texts, and the shelf with the fences, without HAProxy."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from controlplane.drivers import Fence, Place
from controlplane.pools import haproxy, runtime
from controlplane.pools.haproxy import HAProxyDriver, healthy
from controlplane.pools.runtime import rows
from controlplane.pools.shelf import shelf, write
from policies.topology import Config, Policy, PoolDriver
from tests.contract.pool_contract import ALL, NO_A, change, desired
from tests.support import run

STATE = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight
3 bk 1 a 127.0.0.1 0 8 7
3 bk 2 b 127.0.0.1 2 0 50
"""


def parsed(text: str, separator: str) -> list[dict[str, str]]:
    async def main() -> list[dict[str, str]]:
        return [row async for row in rows(text, separator)]

    return run(main())


def test_rows_are_read_by_their_headers() -> None:
    found = parsed(STATE, " ")
    assert [(row["srv_name"], row["srv_admin_state"], row["srv_uweight"]) for row in found] == [
        ("a", "8", "7"),
        ("b", "0", "50"),
    ]
    stat = '# pxname,svname,scur,check_desc,\nbk,a,3,"a, b",\nbk,b,0,,\n'
    assert [(row["svname"], row["scur"], row["check_desc"]) for row in parsed(stat, ",")] == [
        ("a", "3", "a, b"),
        ("b", "0", ""),
    ]
    assert parsed("No such proxy.", ",") == []
    assert parsed('# a,b,\n"one\n2,3,\n', ",") == [{"a": "2", "b": "3", "": ""}], "a quote does not span lines"


def test_a_state_file_says_nothing_of_health() -> None:
    assert healthy(STATE) == STATE.replace("127.0.0.1 0 8", "127.0.0.1 2 8")
    assert healthy("No such thing.") == "No such thing.\n"


def replies(*parts: str, asked: int = 10) -> list[str]:
    found = runtime.Replies(asked)
    for part in parts:
        found.take(part.encode())
    return found.whole


def test_replies_are_told_apart() -> None:
    text = "\n\nNo such server.\n\n1\n# x\n3 y\u00e9\n\n"
    said = ["", "", "No such server.", "1\n# x\n3 y\u00e9"]
    assert replies(text) == said and replies(*text) == said, "however it is cut"
    assert replies() == [] and replies("cut sho") == []
    torn = runtime.Replies(4)
    for byte in text.encode():
        torn.take(bytes([byte]))
    assert torn.whole == said


@pytest.mark.parametrize(
    ("part", "times", "says"),
    [
        (b"\n", 11, "says more than it was asked"),
        (b"x\n" * 1000, 1000, "is longer than"),
        (b"x" * 50_000, 1000, "is longer than"),
        (b"# 1 2 3 4\n" * 1000, 10_000, "is longer than"),
    ],
)
def test_a_reply_has_bounds(part: bytes, times: int, says: str) -> None:
    found = runtime.Replies(10)
    with pytest.raises(ConnectionError, match=says):
        for _ in range(times):
            found.take(part)


HEAD = "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight\n"
ROW = "1 bk 1 a 127.0.0.1 2 0 "


@asynccontextmanager
async def liar(path: Path, reply: bytes) -> AsyncIterator[HAProxyDriver]:
    """A driver of what is no HAProxy: it says `reply` to each command, whatever it is."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        told.append(asyncio.current_task())
        with suppress(ConnectionError):
            asked = await reader.readline()
            writer.write(reply * (asked.count(b";") + 1))
            await writer.drain()
        writer.close()

    told: list[asyncio.Task[None] | None] = []
    server = await asyncio.start_unix_server(serve, path / "socket")
    entry = PoolDriver("haproxy", "lb", ("site-a",), f'{{"socket":"{path / "socket"}","timeout_s":20}}')
    try:
        async with server:
            yield HAProxyDriver(entry, Config("acme", 60, {}, {}, {}, Policy()), Place("site-a", path))
    finally:
        await asyncio.gather(*(task for task in told if task))


@pytest.mark.parametrize(
    "reply",
    [
        HEAD + "1 bk 1 a " + "x" * 200_000 + " 2 0 1\n\n",
        HEAD + ROW + "-5\n\n",
        HEAD + ROW + "9" * 4000 + "\n\n",
        HEAD + ROW + "9" * 5000 + "\n\n",
        HEAD + ROW + "\u0663\n\n",
        HEAD + ROW + "1.5\n\n",
        "1\n# be_name srv_admin_state srv_uweight\nbk 0 1\n\n",
        "1\n# be_name srv_name srv_uweight\nbk a 1\n\n",
        "\n" * 15_000_000,
        HEAD + (ROW + "1\n") * 400_000 + "\n",
    ],
    ids=lambda text: f"{len(text)}-{text[-12:]!r}",
)
def test_nonsense_is_no_connection(tmp_path: Path, reply: str) -> None:
    async def main() -> None:
        async with liar(tmp_path, reply.encode()) as driver:
            with pytest.raises(ConnectionError):
                await driver.read(["bk"])

    run(main())


def test_a_session_count_that_is_too_large_to_be_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with liar(tmp_path, b"# svname,scur,\na," + b"x" * 131_073 + b",\n\n") as driver:
            with pytest.raises(ConnectionError):
                await haproxy._sessions((await driver._runtime.ask(["show stat bk 4 -1"]))[0])

    run(main())


def test_a_long_reply_does_not_hold_the_loop(tmp_path: Path) -> None:
    """How long it was held is printed: it depends on the machine."""
    many = "".join(f"1 bk 1 s{n} 127.0.0.1 2 0 1\n" for n in range(60_000))

    async def main() -> None:
        loop, turns, gap_s, over = asyncio.get_running_loop(), 0, 0.0, False

        async def tick() -> None:
            nonlocal turns, gap_s
            last = loop.time()
            while not over:
                await asyncio.sleep(0)
                turns, gap_s, last = turns + 1, max(gap_s, loop.time() - last), loop.time()

        async with liar(tmp_path, (HEAD + many + "\n").encode()) as driver:
            ticking = asyncio.create_task(tick())
            found = await haproxy._states("bk", (await driver._runtime.ask(["show servers state bk"]))[0])
            over = True
            await ticking
        assert len(found) == 60_000 and turns > 60
        print(f"60,000 servers: the loop was held for {1000 * gap_s:.0f} ms at most")

    run(main())


def test_what_it_says_is_quoted_in_short(tmp_path: Path) -> None:
    async def main() -> None:
        async with liar(tmp_path, b"Permission\tgranted " + b"x" * 9999 + b"\n\n") as driver:
            with pytest.raises(PermissionError) as caught:
                await driver.probe_write()
            assert len(str(caught.value)) < 500 and "has level Permission granted xxx" in str(caught.value)
            said = await driver.apply([change(desired(1, ALL), None)])
            assert all(len(why) < 500 and "Permission granted" in why for _, why in said.values())

    run(main())


def test_commands_are_joined_up_to_what_a_line_may_hold() -> None:
    commands = [f"set server bk/{'s' * 100}{i} state drain" for i in range(500)]
    lines = list(runtime._lines(commands))
    assert [command for line in lines for command in line] == commands
    assert max(len(";".join(line)) for line in lines) <= runtime.LINE
    assert len(lines) == 1 + sum(len(command) + 1 for command in commands) // runtime.LINE


def test_a_file_is_replaced_or_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write(path, b"one", 0o600)
    assert path.stat().st_mode & 0o777 == 0o600

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write(path, b"two", 0o600)
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"one", ["file"])
    write(path, b"two", 0o644)
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"two", 0o644)


def test_a_claim_that_its_writer_gave_up_is_finished_before_the_next_one(tmp_path: Path) -> None:
    """A thread cannot be cancelled: what it still writes must not land on top of something newer."""

    async def main() -> None:
        kept = shelf(tmp_path / "haproxy.json")
        assert shelf(tmp_path / "haproxy.json") is kept
        go = threading.Event()
        first, second = change(desired(1, ALL), None), change(desired(2, NO_A), None)
        hung = asyncio.ensure_future(kept.alone(lambda: (go.wait(10), kept._claim([first]))))
        await asyncio.sleep(0.01)
        hung.cancel()
        later = asyncio.ensure_future(kept.claim([second]))
        await asyncio.sleep(0.01)
        assert not later.done()
        go.set()
        assert await later == {"bk_www": f"found {first.fence.text()}"}
        held = (await kept.read())["bk_www"]
        assert (held.fence, held.answers) == (first.fence, first.desired.answers)
        assert (await kept.claim([change(second.desired, first.fence)])) == {"bk_www": ""}
        assert (await kept.read())["bk_www"].fence == Fence("5f0c2d", 2, "d-2.1")

    run(main())
