"""All kinds, tcp and the prober, against real sockets; and what the configuration reader asks of them."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec
import pytest

from probes.kinds import KINDS, http, tcp, tls
from probes.kinds.base import Secret
from probes.kinds.prober import KindProber
from probes.kinds.sockets import explain
from probes.target import Sample, Target
from tests.support import run
from tests.unit.kinds_world import (
    HUNG_S,
    NAME,
    PATIENT_S,
    at_port,
    outcome,
    sample,
    target,
)
from tests.unit.probe_servers import (
    HOST,
    dropping,
    refusing,
    server,
    stalls,
)

# --- whatever the kind: the way to the port ----------------------------------------------------------------------


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
        *[
            (http.Options(headers={name: "x"}), ("headers", name), "secret in clear")
            for name in ("Proxy-Authorization", "Cookie", "X-Api-Key", "ApiKey", "X-Auth-Token", "X_Client_Secret")
        ],
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
