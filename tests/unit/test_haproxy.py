"""HAProxy's texts, and the shelf with the fences, without HAProxy."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from controlplane.drivers import Fence
from controlplane.pools import runtime
from controlplane.pools.haproxy import healthy
from controlplane.pools.runtime import rows
from controlplane.pools.shelf import shelf, write
from tests.contract.pool_contract import ALL, NO_A, change, desired
from tests.support import run

STATE = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight
3 bk 1 a 127.0.0.1 0 8 7
3 bk 2 b 127.0.0.1 2 0 50
"""


def test_rows_are_read_by_their_headers() -> None:
    found = list(rows(STATE, " "))
    assert [(row["srv_name"], row["srv_admin_state"], row["srv_uweight"]) for row in found] == [
        ("a", "8", "7"),
        ("b", "0", "50"),
    ]
    stat = '# pxname,svname,scur,check_desc,\nbk,a,3,"a, b",\nbk,b,0,,\n'
    assert [(row["svname"], row["scur"], row["check_desc"]) for row in rows(stat, ",")] == [
        ("a", "3", "a, b"),
        ("b", "0", ""),
    ]
    assert list(rows("No such proxy.", ",")) == []


def test_a_state_file_says_nothing_of_health() -> None:
    assert healthy(STATE) == STATE.replace("127.0.0.1 0 8", "127.0.0.1 2 8")
    assert healthy("No such thing.") == "No such thing.\n"


def test_replies_are_told_apart() -> None:
    assert runtime._replies("\n\nNo such server.\n\n1\n# x\n3 y\n\n") == ["", "", "No such server.", "1\n# x\n3 y"]
    assert runtime._replies("") == []
    assert runtime._replies("cut sho") == []


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
