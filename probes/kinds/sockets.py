"""Sockets and TLS for the kinds: a connected socket, a verifying context, and errors in the kinds' own words."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

from msgspec import Meta

from probes.kinds.base import Failed, Problem, Progress

Port = Annotated[int, Meta(ge=1, le=65535)]

# The other side, or the way to it, said no.
_UNREACHABLE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})
# X509_V_ERR_* of openssl/x509_vfy.h
_NOT_YET_VALID, _EXPIRED = 9, 10
_NAME_CODES = frozenset({62, 64})  # HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH


async def connect(address: str, port: int, progress: Progress) -> socket.socket:
    """A connected TCP socket, non-blocking. `address` is an IP address, or a name (site and vantage checks).

    Raises Failed("no address") and OSError. Sets progress.answered once the handshake is done.
    """
    progress.stage = "connect"
    family, where = await _resolve(address, port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    progress.answered = True
    return sock


async def _resolve(address: str, port: int) -> tuple[int, Any]:
    """Address family and socket address; a name costs a thread, an address does not."""
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(address, port, type=socket.SOCK_STREAM)
        except socket.gaierror as err:
            raise Failed("no address", answered=False) from err
    return found[0][0], found[0][4]


def explain(err: OSError) -> Failed | None:
    """An operating system's or TLS error as a failure of the target; None where it is no doing of the target's
    (no file descriptors or ports left, a local firewall, a missing CA file): that is a broken probe."""
    if isinstance(err, ssl.SSLCertVerificationError):
        return Failed(_certificate_reason(err), answered=True)
    if isinstance(err, ssl.SSLError):
        return Failed("tls error", answered=True)
    if isinstance(err, ConnectionRefusedError):
        return Failed("refused", answered=True)
    if isinstance(err, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)):
        return Failed("reset", answered=True)
    if err.errno in _UNREACHABLE:
        return Failed("unreachable", answered=False)
    if err.errno == errno.ETIMEDOUT:  # the kernel's own patience, shorter than ours
        return Failed("timeout connect", answered=False)
    return None


def _certificate_reason(err: ssl.SSLCertVerificationError) -> str:
    if err.verify_code in _NAME_CODES:
        return "tls name"
    if err.verify_code == _EXPIRED:
        return "tls expired"
    if err.verify_code == _NOT_YET_VALID:
        return "tls not yet valid"
    return "tls untrusted"


def context(verify: bool, ca: str) -> ssl.SSLContext:
    """A client context. `ca` is a file of PEM certificates that are trusted instead of the system's, or "".

    Raises OSError if that file cannot be read, ValueError if it has no certificate.
    """
    # A renewed file is another context: the key has its time of change.
    return _context(verify, ca, os.stat(ca).st_mtime_ns if ca else 0)


@lru_cache(maxsize=64)
def _context(verify: bool, ca: str, changed_ns: int) -> ssl.SSLContext:
    try:
        made = ssl.create_default_context(cafile=ca or None)
    except ssl.SSLError as err:  # an OSError too, and no doing of the target's
        raise ValueError(f'"{ca}" has no PEM certificate') from err
    if not verify:
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    return made


def ca_problems(ca: str, path: tuple[str, ...]) -> Sequence[Problem]:
    """What is wrong with a `ca` key, if anything."""
    try:
        context(True, ca)
    except ValueError as err:
        return (Problem(path, str(err)),)
    except OSError as err:
        return (Problem(path, f'cannot read "{ca}": {err.strerror}'),)
    return ()
