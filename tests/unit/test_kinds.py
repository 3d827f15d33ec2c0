"""tcp, http and tls against real sockets on loopback: every reason, and whether anything answered."""

from __future__ import annotations

import asyncio
import datetime
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme

from probes.kinds import KINDS, http, tcp, tls
from probes.kinds.base import Secret
from probes.kinds.prober import KindProber
from probes.kinds.sockets import explain
from probes.target import Sample, Target
from tests.support import run
from tests.unit.probe_servers import (
    HOST,
    Handler,
    dropping,
    refusing,
    replies,
    reply,
    resets,
    server,
    stalls,
)

NAME = "www.example.org"
HUNG_S = 0.25  # time-out where the other side is known to hang
PATIENT_S = 10.0  # where it is known to answer


def target(kind: str, options: msgspec.Struct, timeout_s: float = PATIENT_S, address: str = HOST) -> Target:
    return Target("t", "site-b", "www", address, kind, msgspec.json.encode(options).decode(), timeout_s=timeout_s)


async def sample(kind: str, options: msgspec.Struct, timeout_s: float = PATIENT_S) -> Sample:
    prober = KindProber()
    try:
        return await prober.sample(target(kind, options, timeout_s))
    finally:
        await prober.aclose()


def outcome(seen: Sample) -> tuple[str, bool, bool]:
    assert not seen.broken
    return seen.reason, seen.passed, seen.answered


def http_options(port: int, **options: Any) -> http.Options:
    return http.Options(port=port, host=NAME, **options)


def http_sample(handler: Handler, timeout_s: float = PATIENT_S, **options: Any) -> Sample:
    async def main() -> Sample:
        async with server(handler) as port:
            return await sample("http", http_options(port, **options), timeout_s)

    return run(main())


class Certificates:
    """An authority, and server contexts with good and bad certificates of it."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.ca = str(folder / "ca.pem")
        self.authority.cert_pem.write_to_path(self.ca)
        now = datetime.datetime.now(tz=datetime.UTC)
        self.good = self._server(self.authority.issue_cert(NAME, not_after=now + datetime.timedelta(days=60, hours=1)))
        self.other_name = self._server(self.authority.issue_cert("other.example.org"))
        self.expired = self._server(self.authority.issue_cert(NAME, not_after=now - datetime.timedelta(days=1)))
        self.not_yet = self._server(self.authority.issue_cert(NAME, not_before=now + datetime.timedelta(days=1)))
        self.untrusted = self._server(trustme.CA().issue_cert(NAME))
        self.address = self._server(self.authority.issue_cert(HOST))

    def _server(self, certificate: trustme.LeafCert) -> ssl.SSLContext:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(made)
        return made


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


# --- whatever the kind: the way to the port ----------------------------------------------------------------------


def at_port(kind: str, port: int) -> msgspec.Struct:
    return {"tcp": tcp.Options(port), "http": http.Options(port, host=NAME), "tls": tls.Options(port, NAME)}[kind]


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(
    ("port", "timeout_s", "said"),
    [(refusing, PATIENT_S, ("refused", False, True)), (dropping, HUNG_S, ("timeout connect", False, False))],
)
def test_no_connection(
    kind: str, port: Callable[[], AbstractContextManager[int]], timeout_s: float, said: tuple[str, bool, bool]
) -> None:
    with port() as number:
        assert outcome(run(sample(kind, at_port(kind, number), timeout_s))) == said


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_name_without_address(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*args: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nothing)

    async def main() -> Sample:
        return await KindProber().sample(target(kind, at_port(kind, 1), address="gw.example.org"))

    assert outcome(run(main())) == ("no address", False, False)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENETUNREACH, "unreachable"),
        (errno.EHOSTUNREACH, "unreachable"),
        (errno.ETIMEDOUT, "timeout connect"),
        (errno.ECONNREFUSED, "refused"),
        (errno.ECONNRESET, "reset"),
    ],
)
def test_operating_system_errors(code: int, reason: str) -> None:
    failed = explain(OSError(code, "x"))
    assert failed is not None
    assert (failed.reason, failed.answered) == (reason, reason in ("refused", "reset"))


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL, errno.EPERM, errno.ENOENT])
def test_what_is_no_doing_of_the_target(code: int) -> None:
    assert explain(OSError(code, "x")) is None


# --- tcp -----------------------------------------------------------------------------------------------------------


def test_tcp_connects() -> None:
    async def main() -> Sample:
        async with server(stalls()) as port:
            return await sample("tcp", tcp.Options(port))

    seen = run(main())
    assert outcome(seen) == ("ok", True, True)
    assert 0 < seen.took_s < PATIENT_S


# --- http ----------------------------------------------------------------------------------------------------------


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


# --- TLS, alone and under http ---------------------------------------------------------------------------------------

BAD = [
    ("other_name", "tls name"),
    ("expired", "tls expired"),
    ("not_yet", "tls not yet valid"),
    ("untrusted", "tls untrusted"),
]


@asynccontextmanager
async def tls_server(certificates: Certificates, which: str) -> AsyncIterator[int]:
    async with server(replies(reply()), getattr(certificates, which)) as port:
        yield port


def tls_sample(
    running: AbstractAsyncContextManager[int],
    options: Callable[[int], msgspec.Struct],
    timeout_s: float = PATIENT_S,
) -> Sample:
    async def main() -> Sample:
        async with running as port:
            made = options(port)
            return await sample("http" if isinstance(made, http.Options) else "tls", made, timeout_s)

    return run(main())


@pytest.fixture(params=["tls", "http"])
def asks(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[Callable[[int], msgspec.Struct]]:
    if request.param == "tls":
        yield lambda port: tls.Options(port, NAME, certificates.ca)
    else:
        yield lambda port: http.Options(port, host=NAME, tls=http.Tls(ca=certificates.ca))


@pytest.mark.parametrize(("which", "reason"), BAD)
def test_bad_certificates(
    certificates: Certificates, asks: Callable[[int], msgspec.Struct], which: str, reason: str
) -> None:
    assert outcome(tls_sample(tls_server(certificates, which), asks)) == (reason, False, True)


def test_good_certificate(certificates: Certificates, asks: Callable[[int], msgspec.Struct]) -> None:
    seen = tls_sample(tls_server(certificates, "good"), asks)
    assert seen.passed and seen.answered and seen.warning == ""


def test_no_tls_there(asks: Callable[[int], msgspec.Struct]) -> None:
    assert outcome(tls_sample(server(stalls("SSH-2.0-OpenSSH_9.2\r\n")), asks)) == ("tls error", False, True)


def test_tls_hangs(asks: Callable[[int], msgspec.Struct]) -> None:
    assert outcome(tls_sample(server(stalls()), asks, HUNG_S)) == ("timeout tls", False, True)


def test_tls_reset(asks: Callable[[int], msgspec.Struct]) -> None:
    assert outcome(tls_sample(server(resets()), asks)) == ("reset", False, True)


def test_tls_of_an_address(certificates: Certificates) -> None:
    seen = tls_sample(tls_server(certificates, "address"), lambda port: tls.Options(port, ca=certificates.ca))
    assert outcome(seen) == ("ok", True, True)


def test_system_certificates_are_the_default(certificates: Certificates) -> None:
    seen = tls_sample(tls_server(certificates, "good"), lambda port: tls.Options(port, NAME))
    assert outcome(seen) == ("tls untrusted", False, True)


def test_http_without_verification(certificates: Certificates) -> None:
    seen = tls_sample(
        tls_server(certificates, "untrusted"), lambda port: http.Options(port, tls=http.Tls(verify=False))
    )
    assert outcome(seen) == ("status 200", True, True)


def test_http_server_name_is_apart_from_host(certificates: Certificates) -> None:
    def options(port: int) -> http.Options:
        return http.Options(port, host=NAME, tls=http.Tls(ca=certificates.ca, server_name="other.example.org"))

    assert tls_sample(tls_server(certificates, "other_name"), options).passed


@pytest.mark.parametrize("days", [59, 61])
def test_few_days_left_are_a_warning(certificates: Certificates, days: int) -> None:
    seen = tls_sample(
        tls_server(certificates, "good"),
        lambda port: tls.Options(port, NAME, certificates.ca, warn_left_s=days * 86400.0),
    )
    assert outcome(seen) == ("ok", True, True)
    assert seen.warning == ("certificate expires in 60 d" if days == 61 else "")


def test_missing_or_empty_ca_is_broken(tmp_path: Path, certificates: Certificates) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for ca in ("/nonexistent/ca.pem", str(empty)):
        for options in (
            lambda port, ca=ca: tls.Options(port, NAME, ca),
            lambda port, ca=ca: http.Options(port, host=NAME, tls=http.Tls(ca=ca)),
        ):
            seen = tls_sample(tls_server(certificates, "good"), options)
            assert seen.broken and not seen.passed


# --- the prober ------------------------------------------------------------------------------------------------------


def test_prober_calls_done_once_and_never_inside_start() -> None:
    async def main() -> list[Sample]:
        prober = KindProber()
        seen: list[Sample] = []
        with refusing() as port:
            prober.start(target("tcp", tcp.Options(port)), seen.append)
            assert seen == []
            while not seen:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
        await prober.aclose()
        return seen

    assert [one.reason for one in run(main())] == ["refused"]


def test_prober_says_nothing_after_cancel_or_close() -> None:
    async def main() -> list[Sample]:
        prober = KindProber()
        seen: list[Sample] = []
        async with server(stalls()) as port:
            cancel = prober.start(target("http", http.Options(port, host=NAME)), seen.append)
            await asyncio.sleep(0.02)
            cancel()
            prober.start(target("http", http.Options(port, host=NAME)), seen.append)
            await asyncio.sleep(0.02)
            await prober.aclose()
        await asyncio.sleep(0.01)
        return seen

    assert run(main()) == []


def test_prober_calls_its_own_bugs_broken() -> None:
    async def main() -> list[Sample]:
        prober = KindProber()
        return [
            await prober.sample(Target("t", "a", "", HOST, "no-such-kind", "{}")),
            await prober.sample(Target("t", "a", "", HOST, "tcp", '{"port": "x"}')),
        ]

    unknown, invalid = run(main())
    assert unknown.broken and unknown.reason == "broken: KeyError: 'no-such-kind'"
    assert invalid.broken and invalid.reason.startswith("broken: ValidationError")


# --- what the configuration reader asks ------------------------------------------------------------------------------


def test_complete_and_check_names() -> None:
    def name(kind: str, options: msgspec.Struct) -> str:
        return KINDS[kind].check_name(KINDS[kind].complete(options, NAME))

    assert name("http", http.Options()) == "http:80"
    assert name("http", http.Options(tls=True)) == "http:443"
    assert name("http", http.Options(port=8080)) == "http:8080"
    assert name("tcp", tcp.Options(5432)) == "tcp:5432"
    assert name("tls", tls.Options()) == "tls:443"
    complete = http.complete(http.Options(tls=True, status=204), NAME)
    assert (complete.host, complete.tls, complete.status, complete.port) == (NAME, http.Tls(), "204", 443)
    assert http.complete(http.Options(host="x"), NAME).host == "x"
    assert tls.complete(tls.Options(), NAME).server_name == NAME
    assert tls.complete(tls.Options(host="gw.example.org"), NAME).server_name == "gw.example.org"


def test_host_may_be_an_address() -> None:
    assert [http.problems(http.Options(host=host)) for host in ("", "192.0.2.1", "2001:db8::1", "a_b.x")] == [[]] * 4


@pytest.mark.parametrize("kind", list(KINDS))
def test_options_survive_json(kind: str) -> None:
    options = KINDS[kind].complete(at_port(kind, 99), NAME)
    text = msgspec.json.encode(options, order="deterministic")
    assert msgspec.json.decode(text, type=KINDS[kind].options) == options
    assert list(KINDS[kind].problems(options)) == []


@pytest.mark.parametrize(
    ("options", "path", "message"),
    [
        (http.Options(path="health"), ("path",), 'starts with "/"'),
        (http.Options(path="/a\r\nX: y"), ("path",), "no blanks"),
        (http.Options(host="a b"), ("host",), "without port"),
        (http.Options(host="http://x/"), ("host",), "without port"),
        (http.Options(host="x:80"), ("host",), "without port"),
        (http.Options(status="2xx"), ("status",), '"2xx" is not a status'),
        (http.Options(status="299-200"), ("status",), "from 100 to 599"),
        (http.Options(status=99), ("status",), "from 100 to 599"),
        (http.Options(matches="(a"), ("matches",), "not a regular expression"),
        (http.Options(method="HEAD", contains="x"), ("contains",), "HEAD has no body"),
        (http.Options(tls=http.Tls(verify=False)), ("tls", "verify"), "accepts any certificate"),
        (http.Options(tls=http.Tls(ca="/nonexistent/ca")), ("tls", "ca"), "cannot read"),
        (http.Options(headers={"a b": "x"}), ("headers", "a b"), "not a header name"),
        (http.Options(headers={"authorization": "x"}), ("headers", "authorization"), "secret in clear"),
        (http.Options(headers={"x": "a\nb"}), ("headers", "x"), "line breaks"),
        (http.Options(headers={"x": Secret()}), ("headers", "x"), "exactly one"),
        (http.Options(headers={"x": Secret("A", "b")}), ("headers", "x"), "exactly one"),
        (tls.Options(ca="/nonexistent/ca"), ("ca",), "cannot read"),
    ],
)
def test_problems(options: msgspec.Struct, path: tuple[str, ...], message: str) -> None:
    kind = KINDS["http" if isinstance(options, http.Options) else "tls"]
    (found,) = kind.problems(options)
    assert found.path == path
    assert message in found.message
    assert found.warning is (path == ("tls", "verify"))


def test_redirect_back_to_plain_text_is_not_followed(certificates: Certificates) -> None:
    async def main() -> Sample:
        moved = reply("302 Found", "", f"Location: http://{NAME}:1/")
        async with server(replies(moved), certificates.good) as port:
            options = http.Options(port, host=NAME, tls=http.Tls(ca=certificates.ca), redirects=3)
            return await sample("http", options)

    assert outcome(run(main())) == ("redirect", False, True)
