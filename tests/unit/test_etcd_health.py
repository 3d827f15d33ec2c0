"""What is made of whatever answers at an etcd's /metrics."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.store.etcd.health import METRICS_BYTES, _quota_bytes
from tests.support import run

LINE = b"etcd_server_quota_backend_bytes %s\n"


def quota(head: bytes, *body: bytes) -> int:
    async def main() -> int:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            try:
                writer.write(head + b"Connection: close\r\n\r\n")
                for part in body:
                    writer.write(part)
                    await writer.drain()
            except ConnectionError:
                pass  # it had enough
            finally:
                writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            return await _quota_bytes(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", None)

    return run(main())


OK = b"HTTP/1.1 200 OK\r\n"


def test_the_quota_is_found() -> None:
    assert quota(OK, b"# HELP x\n", LINE % b"2.147483648e+09") == 2 << 30


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (OK, (LINE % b"NaN",)),
        (OK, (LINE % b"+Inf",)),
        (OK, (LINE % b"many",)),
        (OK, (b"\xff\xfe",)),
        (OK, ()),
        (OK, (*[b"x" * 65536] * (METRICS_BYTES // 65536), LINE % b"5")),
        (b"HTTP/1.1 404 Not Found\r\n", (LINE % b"5",)),
        (b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n", (LINE % b"5",)),
        (b"nonsense\r\n", ()),
    ],
)
def test_anything_else_is_no_quota(head: bytes, body: tuple[bytes, ...]) -> None:
    assert quota(head, *body) == 0
