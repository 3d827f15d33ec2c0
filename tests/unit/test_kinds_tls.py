"""TLS, alone and under http, against real servers with good and bad certificates."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from probes.kinds import http, tls
from probes.target import Sample
from tests.support import run
from tests.unit.kinds_world import (
    HUNG_S,
    NAME,
    PATIENT_S,
    Certificates,
    outcome,
    sample,
)
from tests.unit.probe_servers import (
    replies,
    reply,
    resets,
    server,
    stalls,
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


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


def test_redirect_back_to_plain_text_is_not_followed(certificates: Certificates) -> None:
    async def main() -> Sample:
        moved = reply("302 Found", "", f"Location: http://{NAME}:1/")
        async with server(replies(moved), certificates.good) as port:
            options = http.Options(port, host=NAME, tls=http.Tls(ca=certificates.ca), redirects=3)
            return await sample("http", options)

    assert outcome(run(main())) == ("redirect", False, True)
