"""tcp: a full handshake with the target's address and port, then an orderly close. Nothing is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from probes.kinds.base import Kind, Problem, Progress
from probes.kinds.sockets import Port, connect
from probes.target import Sample, Target


class Options(Struct, frozen=True):
    port: Port
    host: Annotated[str, Meta(max_length=253)] = ""  # site and vantage checks only: whom to ask, a name or address


async def probe(target: Target, options: Options, progress: Progress) -> Sample:
    sock = await connect(target.address, options.port, progress)
    sock.close()
    return Sample(passed=True, answered=True, reason="ok", took_s=0.0)


def complete(options: Options, name: str) -> Options:
    return options


def check_name(options: Options) -> str:
    return f"tcp:{options.port}"


def problems(options: Options) -> Sequence[Problem]:
    return ()


KIND = Kind(options=Options, probe=probe, complete=complete, check_name=check_name, problems=problems)
