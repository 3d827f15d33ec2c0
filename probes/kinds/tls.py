"""tls: a handshake that verifies chain, name and dates. Few days left are a warning, never a failure."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from probes.kinds.base import Kind, Problem, Progress
from probes.kinds.sockets import Port, ca_problems, connect, context
from probes.target import Sample, Target

DAY_S = 86400.0


class Options(Struct, frozen=True):
    port: Port = 443
    server_name: Annotated[str, Meta(max_length=253)] = ""  # SNI, and the name to verify; "" = dns.name, else address
    ca: str = ""  # file of PEM certificates to trust; "" = the system's
    warn_left_s: Annotated[float, Meta(ge=0, le=365 * DAY_S)] = 14 * DAY_S
    host: Annotated[str, Meta(max_length=253)] = ""  # site and vantage checks only: whom to ask, a name or address


async def probe(target: Target, options: Options, progress: Progress) -> Sample:
    trust = context(True, options.ca)
    sock = await connect(target.address, options.port, progress)
    progress.stage = "tls"
    try:
        transport, _ = await asyncio.get_running_loop().create_connection(
            asyncio.Protocol, sock=sock, ssl=trust, server_hostname=options.server_name or target.address
        )
    except BaseException:
        sock.close()  # harmless if the transport has it already
        raise
    try:
        left_s = _left_s(transport, progress.wall_s())
    finally:
        transport.abort()  # what was to be seen was seen; a polite close would cost a round trip
    warning = f"certificate expires in {int(left_s // DAY_S)} d" if left_s < options.warn_left_s else ""
    return Sample(passed=True, answered=True, reason="ok", took_s=0.0, warning=warning)


def _left_s(transport: asyncio.Transport, wall_s: float) -> float:
    """Seconds until the (verified) certificate of the other side expires."""
    certificate = transport.get_extra_info("peercert")
    return ssl.cert_time_to_seconds(certificate["notAfter"]) - wall_s


def complete(options: Options, name: str) -> Options:
    return msgspec.structs.replace(options, server_name=options.server_name or options.host or name)


def check_name(options: Options) -> str:
    return f"tls:{options.port}"


def problems(options: Options) -> Sequence[Problem]:
    return ca_problems(options.ca, ("ca",)) if options.ca else ()


KIND = Kind(options=Options, probe=probe, complete=complete, check_name=check_name, problems=problems)
