"""HAProxy's runtime API: text commands over its stats socket (HAProxy's management guide, section 9.3)."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import Iterator, Sequence

LINE = 8000  # bytes of commands in one line: HAProxy reads at most tune.bufsize (16384 by default)
REPLY = 16 << 20  # bytes: some 100,000 servers


class Runtime:
    """`socket`: a path, or "address:port". Nothing here is bounded in time: whoever calls it bounds it."""

    def __init__(self, socket: str) -> None:
        self.socket = socket

    async def ask(self, commands: Sequence[str]) -> list[str]:
        """Run them one after another; what each said, without the empty line that ends it ("" = nothing to say).

        A command that fails does not stop the others. Raises OSError; then, or if it is cancelled, some may have run.
        """
        said: list[str] = []
        for line in _lines(commands):
            replies = _replies(await self._line(";".join(line)))
            if len(replies) != len(line):
                raise ConnectionError(f"{self.socket}: the reply ended early")
            said += replies
        return said

    async def _line(self, line: str) -> str:
        """One line on a connection of its own, which HAProxy closes when it has said all."""
        reader, writer = await self._connect()
        try:
            writer.write(line.encode() + b"\n")
            said = bytearray()
            while part := await reader.read(1 << 16):
                said += part
                if len(said) > REPLY:
                    raise ConnectionError(f"{self.socket}: the reply is longer than {REPLY} bytes")
        finally:
            writer.transport.abort()
        return said.decode(errors="replace")

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not self.socket.startswith("/"):
            host, _, port = self.socket.rpartition(":")
            return await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            return await asyncio.open_unix_connection(self.socket)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.socket) from None  # with the path, which it lacks


def rows(text: str, separator: str) -> Iterator[dict[str, str]]:
    """The lines of `show servers state` (separator " ") or `show stat` (","), by the names that their "# " line has."""
    names: list[str] = []
    for line in csv.reader(text.splitlines(), delimiter=separator):
        if line and line[0].startswith("#"):
            names = [line[0].removeprefix("# "), *line[1:]] if separator == "," else line[1:]
        elif len(line) >= len(names) > 0:
            yield dict(zip(names, line, strict=False))


def _lines(commands: Sequence[str]) -> Iterator[list[str]]:
    """In their order, joined into as few lines as HAProxy can take."""
    line: list[str] = []
    length = 0
    for command in commands:
        if line and length + len(command) + 1 > LINE:
            yield line
            line, length = [], 0
        line.append(command)
        length += len(command) + 1
    if line:
        yield line


def _replies(text: str) -> list[str]:
    """Each reply ends with an empty line; one that succeeded and has nothing to say is that line alone."""
    replies: list[str] = []
    said: list[str] = []
    for line in text.split("\n")[:-1]:
        if line:
            said.append(line)
        else:
            replies.append("\n".join(said))
            said = []
    return replies
