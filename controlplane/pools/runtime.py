"""HAProxy's runtime API: text commands over its stats socket (HAProxy's management guide, section 9.3)."""

from __future__ import annotations

import asyncio
import csv
from collections.abc import AsyncIterator, Iterator, Sequence

LINE = 8000  # bytes of commands in one line: HAProxy reads at most tune.bufsize (16384 by default)
# Of what is said to one line of commands: four times what 1,000 backends of 20 servers each need (2 MiB).
REPLY_BYTES = 8 << 20
REPLY_LINES = 80_000
SLICE = 1 << 16  # bytes that are read, or characters that are looked at, before others get their turn
LINE_COST = 64  # a line costs as much as so many characters


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
            replies = await self._line(line)
            if len(replies) != len(line):
                raise ConnectionError(f"{self.socket}: the reply ended early")
            said += replies
        return said

    async def _line(self, commands: Sequence[str]) -> list[str]:
        """One line on a connection of its own, which HAProxy closes when it has said all."""
        reader, writer = await self._connect()
        said = Replies(len(commands))
        try:
            writer.write(";".join(commands).encode() + b"\n")
            while part := await reader.read(SLICE):
                said.take(part)
                await asyncio.sleep(0)
        except ConnectionError as error:
            raise type(error)(f"{self.socket}: {error}") from None
        finally:
            writer.transport.abort()
        return said.whole

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if not self.socket.startswith("/"):
            host, _, port = self.socket.rpartition(":")
            return await asyncio.open_connection(host.strip("[]"), int(port))
        try:
            return await asyncio.open_unix_connection(self.socket)
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.socket) from None  # with the path, which it lacks


class Replies:
    """Puts together what was said to so many commands. Each reply ends with an empty line; one that succeeded and has
    nothing to say is that line alone."""

    def __init__(self, commands: int) -> None:
        self.whole: list[str] = []
        self._commands, self._bytes, self._lines = commands, 0, 0
        self._said: list[str] = []
        self._torn = bytearray()  # a line whose end has not come

    def take(self, part: bytes) -> None:
        """Raises ConnectionError for more than HAProxy would say."""
        self._bytes += len(part)
        self._lines += part.count(b"\n")
        if self._bytes > REPLY_BYTES or self._lines > REPLY_LINES:
            raise ConnectionError(f"the reply is longer than {REPLY_BYTES} bytes, or {REPLY_LINES} lines")
        end = part.rfind(b"\n")
        self._torn += part[: end + 1] or part
        if end < 0:
            return
        for line in self._torn.decode(errors="replace").split("\n")[:-1]:
            if line:
                self._said.append(line)
                continue
            if len(self.whole) == self._commands:
                raise ConnectionError("it says more than it was asked")
            self.whole.append("\n".join(self._said))
            self._said = []
        self._torn = bytearray(part[end + 1 :])


async def rows(text: str, separator: str) -> AsyncIterator[dict[str, str]]:
    """The lines of `show servers state` (separator " ") or `show stat` (","), by the names that their "# " line has.
    Raises ConnectionError for what is neither."""
    names: list[str] = []
    looked_at = 0
    for line in text.split("\n"):
        looked_at += len(line) + LINE_COST
        if looked_at > SLICE:
            looked_at = 0
            await asyncio.sleep(0)
        try:
            words = next(csv.reader((line,), delimiter=separator), [])  # each line by itself: no quote spans two
        except csv.Error as error:
            raise ConnectionError(f"a reply that cannot be read: {error}") from None
        if words and words[0].startswith("#"):
            names = [words[0].removeprefix("# "), *words[1:]] if separator == "," else words[1:]
        elif len(words) >= len(names) > 0:
            yield dict(zip(names, words, strict=False))


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
