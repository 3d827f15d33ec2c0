"""What anybody can send to the API's port: it is refused, nothing is done, and the log stays readable."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.unit.api_cluster import Cluster, running
from tests.unit.test_api_http import ask, audits


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("api")) as (found, _):
        yield found


POST = b"POST /v1/unfreeze HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("raw", "code", "says"),
    [
        (POST + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde", 400, b"the body cannot be read"),
        (POST + b"Content-Encoding: deflate\r\nContent-Length: 5\r\n\r\nabcde", 400, b"the body cannot be read"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, b""),
        (POST + b"Content-Length: 1000000\r\n\r\n{", 0, b""),
        (b"\x00" * 5000, 400, b""),
        (b"GET / HTTP/9.9\r\n\r\n", 400, b""),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: localhost\r\n\r\n", 400, b""),
        (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", 400, b""),
    ],
    ids=lambda value: str(value)[-60:],
)
def test_whoever_sends_nonsense_hears_so_and_the_log_does_not(
    cluster: Cluster, caplog: pytest.LogCaptureFixture, raw: bytes, code: int, says: bytes
) -> None:
    """code 0: the client does not wait for an answer."""
    before, heard = len(audits(cluster)), b""
    host, _, port = cluster.urls[0].removeprefix("http://").rpartition(":")
    with caplog.at_level("DEBUG"), socket.create_connection((host, int(port)), 10) as client:
        client.sendall(raw)
        if code:
            while part := client.recv(65536):
                heard += part
                if b"ok" in part or b"xyz" in raw:
                    break
        client.close()
        if raw.startswith(POST):
            cluster.until(lambda: len(audits(cluster)) > before or b"xyz" in raw)
            assert audits(cluster)[-1][2] != "unknown", "nothing was sent to the store"
        assert ask(cluster, "GET", "/healthz")[0] == 200
    assert (f"HTTP/1.{heard[7:8].decode()} {code}".encode() in heard) == bool(code) and says in heard, heard
    loud = [record for record in caplog.records if record.levelno >= 30 or record.exc_info]
    assert not [record for record in loud if record.name != "asyncio"], caplog.text
