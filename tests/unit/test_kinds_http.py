"""http against real servers on loopback: every reason, and whether anything answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from probes.kinds import http
from probes.kinds.base import Secret
from probes.target import Sample
from tests.support import run
from tests.unit.kinds_world import (
    HUNG_S,
    NAME,
    http_sample,
    outcome,
    sample,
    target,
)
from tests.unit.probe_servers import (
    replies,
    reply,
    resets,
    server,
    stalls,
)


@pytest.mark.parametrize(
    ("answer", "options", "said"),
    [
        (reply(), {}, ("status 200", True, True)),
        (reply("204 No Content", ""), {}, ("status 204", True, True)),
        (reply("503 Service Unavailable"), {}, ("status 503", False, True)),
        (reply("503 Service Unavailable"), {"status": "200-299, 503"}, ("status 503", True, True)),
        (reply("302 Found", "", "Location: /x"), {}, ("status 302", False, True)),
        (reply("302 Found", "", "Location: /x"), {"status": "302"}, ("status 302", True, True)),
        (reply(body="all ok"), {"contains": "ok"}, ("status 200", True, True)),
        (reply(body="oh no"), {"contains": "ok"}, ("body mismatch", False, True)),
        (reply(body="grün"), {"contains": "grün"}, ("status 200", True, True)),
        (reply(body="up 17"), {"matches": r"^up \d+$"}, ("status 200", True, True)),
        (reply(body="up x"), {"matches": r"^up \d+$"}, ("body mismatch", False, True)),
        (reply(body="x" * 99 + "ok"), {"contains": "ok", "max_body": 100}, ("body mismatch", False, True)),
        (reply(body="x" * 98 + "ok"), {"contains": "ok", "max_body": 100}, ("status 200", True, True)),
        (reply(body=""), {"method": "HEAD"}, ("status 200", True, True)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", {}, ("body cut short", False, True)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", {"max_body": 0}, ("status 200", True, True)),
        ("", {}, ("closed", False, True)),
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", {}, ("bad reply", False, True)),
    ],
)
def test_http(answer: str, options: dict[str, Any], said: tuple[str, bool, bool]) -> None:
    assert outcome(http_sample(replies(answer), **options)) == said


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("", ("timeout headers", False, True)),
        ("HTTP/1.1 200 OK\r\nContent-Le", ("timeout headers", False, True)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nslow", ("timeout body", False, True)),
    ],
)
def test_http_hangs(sent: str, said: tuple[str, bool, bool]) -> None:
    assert outcome(http_sample(stalls(sent), HUNG_S)) == said


def test_http_reset() -> None:
    assert outcome(http_sample(resets())) == ("reset", False, True)


def test_http_request_as_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    monkeypatch.setenv("TOKEN", "Bearer t0ken")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    seen: list[str] = []
    headers = {"Authorization": Secret(env="TOKEN"), "X-Key": Secret(file=str(secret)), "X-Plain": "yes"}
    said = http_sample(replies(reply(), seen=seen), headers=headers, path="//health?a=%20b", method="OPTIONS")
    assert said.passed
    lines = seen[0].split("\r\n")
    assert lines[0] == "OPTIONS //health?a=%20b HTTP/1.1"
    host = next(line for line in lines if line.startswith("Host: "))
    assert host.startswith(f"Host: {NAME}:")
    assert {"Authorization: Bearer t0ken", "X-Key: s3cret", "X-Plain: yes"} <= set(lines)


def test_http_secret_that_is_missing_is_broken() -> None:
    said = http_sample(replies(reply()), headers={"Authorization": Secret(env="NO_SUCH_VARIABLE")})
    assert said.broken
    assert "NO_SUCH_VARIABLE" in said.reason
    said = http_sample(replies(reply()), headers={"Authorization": Secret(file="/nonexistent/secret")})
    assert said.broken


@pytest.mark.parametrize(
    ("location", "redirects", "said"),
    [
        ("/next", 1, ("status 200", True, True)),
        ("next?x=1", 1, ("status 200", True, True)),
        ("http://elsewhere.example.org/", 1, ("redirect", False, True)),
        ("ftp://www.example.org/", 1, ("redirect", False, True)),
        ("http://[", 1, ("redirect", False, True)),
        ("", 1, ("redirect", False, True)),
    ],
)
def test_http_redirect(location: str, redirects: int, said: tuple[str, bool, bool]) -> None:
    moved = reply("302 Found", "", f"Location: {location}")
    assert outcome(http_sample(replies(moved, reply()), redirects=redirects)) == said


def test_http_one_redirect_too_many() -> None:
    moved = reply("302 Found", "", "Location: /again")
    seen: list[str] = []
    assert outcome(http_sample(replies(moved, seen=seen), redirects=2)) == ("redirect", False, True)
    assert len(seen) == 3


def test_http_redirect_to_another_port_of_the_host_goes_to_the_same_address_without_headers() -> None:
    seen: list[str] = []

    async def main() -> Sample:
        async with server(replies(reply(), seen=seen)) as other:
            moved = reply("303 See Other", "", f"Location: http://{NAME}:{other}/there")
            async with server(replies(moved, seen=seen)) as port:
                return await sample(
                    "http", http.Options(port, host=NAME, method="POST", headers={"X-Key": "k"}, redirects=1)
                )

    assert outcome(run(main())) == ("status 200", True, True)
    assert "X-Key: k" in seen[0] and seen[0].startswith("POST / ")
    assert "X-Key" not in seen[1] and seen[1].startswith("GET /there ")


def test_http_to_an_ipv6_address() -> None:
    hop = http._origin(target("http", http.Options(8080), address="2001:db8::1"), http.Options(8080))
    assert str(hop) == "http://[2001:db8::1]:8080"
    hop = http._origin(target("http", http.Options(443), address="2001:db8::1"), http.Options(443, tls=True))
    assert str(hop) == "https://[2001:db8::1]"
