"""Certificates as the other side sees them, and its clock by the Date of an HTTP answer (RFC 9110, 6.6.1)."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from controlplane.doctor.finding import CALL_S, Wall
from controlplane.store.etcd import Credentials

HEADER_BYTES = 16384
DATE_S = 1.5  # a Date is cut to the second, and travels


class Identity(Struct, frozen=True):
    """What a certificate says. name: its subject's common name."""

    name: str
    left_s: float


class Visit(Struct, frozen=True):
    """certificate None: over plain http. clock_ahead_s None: it did not say what time it is."""

    certificate: Identity | None
    clock_ahead_s: float | None


class Unfit(Exception):
    """A certificate that the other side would refuse; says why."""


def identity(files: Credentials, wall: Wall) -> Identity:
    """Our own certificate, as a server that trusts `files.ca` sees it: by a handshake in memory. Raises Unfit."""
    try:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.verify_mode = ssl.CERT_REQUIRED
        server.load_verify_locations(files.ca)
        server.load_cert_chain(files.cert, files.key)
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.verify_mode = ssl.CERT_NONE  # here only the client's certificate is looked at
        client.load_cert_chain(files.cert, files.key)
        return _identity(_handshake(server, client), wall)
    except ssl.SSLCertVerificationError as error:
        raise Unfit(error.verify_message or str(error)) from error
    except (OSError, ValueError) as error:
        raise Unfit(str(error)) from error


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, Any]:
    """The client's certificate, verified. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_side=False),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):  # flights: hello, answer, certificate, session tickets
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[1].getpeercert() or {}


async def visit(url: str, credentials: Credentials | None, wall: Wall) -> Visit:
    """Ask for /version over HTTP. Raises OSError (ssl.SSLError among them) or TimeoutError."""
    parts = urlsplit(url)
    context = None
    if parts.scheme == "https":
        context = credentials.context() if credentials else ssl.create_default_context()
    async with asyncio.timeout(CALL_S):
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=context)
        try:
            before_s = wall()
            writer.write(f"GET /version HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
            head = await _head(reader)
            now_s = (before_s + wall()) / 2
            peer = writer.get_extra_info("peercert") or {}
        finally:
            writer.close()
    date_s = _date_s(head)
    return Visit(
        certificate=_identity(peer, wall) if peer else None,
        clock_ahead_s=None if date_s is None else date_s + 0.5 - now_s,
    )


async def _head(reader: asyncio.StreamReader) -> str:
    head = b""
    while b"\r\n\r\n" not in head and len(head) < HEADER_BYTES:
        part = await reader.read(4096)
        if not part:
            break
        head += part
    return head.decode("latin-1")


def _date_s(head: str) -> float | None:
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name.lower() == "date":
            try:
                return parsedate_to_datetime(value.strip()).timestamp()
            except ValueError:
                return None
    return None


def _identity(certificate: dict[str, Any], wall: Wall) -> Identity:
    names = [value for rdn in certificate.get("subject", ()) for kind, value in rdn if kind == "commonName"]
    return Identity(names[0] if names else "", ssl.cert_time_to_seconds(certificate["notAfter"]) - wall())
