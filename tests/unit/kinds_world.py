"""How the kinds are tested: one probe by the real prober, against a server on loopback; and certificates."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path
from typing import Any

import msgspec
import trustme

from probes.kinds import http, tcp, tls
from probes.kinds.prober import KindProber
from probes.target import Sample, Target
from tests.support import run
from tests.unit.probe_servers import (
    HOST,
    Handler,
    server,
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


def at_port(kind: str, port: int) -> msgspec.Struct:
    return {"tcp": tcp.Options(port), "http": http.Options(port, host=NAME), "tls": tls.Options(port, NAME)}[kind]
