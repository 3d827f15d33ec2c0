"""What a pool driver applied last, on local disk: a load balancer has no place for a fence of its own (DESIGN 4.8).

One file for all backends of a driver. It is written before the load balancer is told anything, so that a crash in
between lets nothing older in. A file that cannot be read counts as absent: the store knows better than no file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

import msgspec
from msgspec import Struct

from controlplane.dns.fencing import refusal
from controlplane.drivers import Change, Fence
from policies.world import Answer

log = logging.getLogger(__name__)
T = TypeVar("T")


class Entry(Struct, frozen=True):
    """Of one backend."""

    fence: Fence
    answers: tuple[Answer, ...]


class _File(Struct, frozen=True):
    pools: dict[str, Entry]
    schema: int = 1


class Shelf:
    """One file; take it from `shelf`, so that two drivers of one process share it.

    writing: held by a driver from its comparison to its last command. Disk work is done in a thread, one piece at a
    time, also when whoever asked for it has given up: a hung disk neither holds the loop nor piles up threads.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writing = asyncio.Lock()
        self._turn = asyncio.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._pools: dict[str, Entry] = {}
        self._said = ""  # what was last logged, so that it is logged once

    async def read(self) -> Mapping[str, Entry]:
        """By backend. Never raises for what is in the file."""
        return await self.alone(self._read)

    async def claim(self, changes: Sequence[Change]) -> dict[str, str]:
        """Put the fence and the answers of each change down, if the fence that it expects stands there and may be
        followed by its own. By backend: why that was refused ("" = it is on disk now). Raises OSError."""
        return await self.alone(lambda: self._claim(changes))

    async def alone(self, work: Callable[[], T]) -> T:
        """Do it in a thread, when nothing else of this shelf is under way."""
        await self._turn.acquire()
        task = asyncio.ensure_future(asyncio.to_thread(work))
        task.add_done_callback(self._over)
        return await asyncio.shield(task)

    def _over(self, task: asyncio.Future[T]) -> None:
        self._turn.release()
        if not task.cancelled():
            task.exception()  # retrieved: whoever gave up does not want it

    # ---- in a thread

    def _read(self) -> Mapping[str, Entry]:
        try:
            found = os.stat(self.path)
            seen = (found.st_ino, found.st_mtime_ns, found.st_size)
            if seen != self._seen:
                pools = msgspec.json.decode(self.path.read_bytes(), type=_File).pools
                self._pools = {name: entry for name, entry in pools.items() if _sound(entry.fence)}
                self._seen, self._said = seen, ""
                for name in sorted(pools.keys() - self._pools.keys()):
                    log.warning("%s: the fence of %s is none, and counts as absent", self.path, name)
        except FileNotFoundError:
            self._nothing(f"{self.path} is not there: nothing was applied before", logging.INFO)
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            self._nothing(f"{self.path} cannot be read, and counts as absent: {error}", logging.WARNING)
        return self._pools

    def _nothing(self, why: str, level: int) -> None:
        self._pools, self._seen = {}, None
        if why != self._said:
            log.log(level, "%s", why)
            self._said = why

    def _claim(self, changes: Sequence[Change]) -> dict[str, str]:
        held = self._read()
        refused: dict[str, str] = {}
        new: dict[str, Entry] = {}
        for change in changes:
            name = change.desired.name
            entry = held.get(name)
            current = entry.fence if entry else None
            if current != change.expect:
                refused[name] = f"found {current.text() if current else 'no fence'}"
            else:
                refused[name] = refusal(change)
            if not refused[name]:
                new[name] = Entry(change.fence, change.desired.answers)
        if new:
            write(self.path, msgspec.json.encode(_File({**held, **new})), 0o600)
        return refused


def _sound(fence: Fence) -> bool:
    """Is it one that was written here, and not by an editor?"""
    return Fence.parse(fence.text()) == fence


_shelves: WeakValueDictionary[Path, Shelf] = WeakValueDictionary()


def shelf(path: Path) -> Shelf:
    """The one of this process for that file."""
    there = path.absolute()
    found = _shelves.get(there)
    if found is None:
        found = _shelves[there] = Shelf(there)
    return found


def write(path: Path, content: bytes, mode: int) -> None:
    """All of it or nothing, also through a power cut. Blocks; raises OSError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
