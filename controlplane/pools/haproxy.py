"""haproxy: HAProxy's runtime API. This version checks its options but does not run it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct

from controlplane.drivers import Capabilities, Kind
from policies.topology import Config, PoolDriver
from probes.kinds.base import Problem

_WHAT = "a path or a loopback address:port"


class Options(Struct, frozen=True):
    socket: Annotated[str, Meta(min_length=1, max_length=4096, description=_WHAT)]
    state_file: str = ""
    timeout_s: Annotated[float, Meta(ge=0.05, le=30)] = 2.0


def capabilities(_: Options) -> Capabilities:
    return Capabilities(geo=False, weights=True, cas=False, expires=False, batch=200)


def problems(options: Options, entry: PoolDriver, config: Config) -> Iterator[Problem]:
    text = options.socket
    if text.startswith("/"):
        return
    try:
        host, _, port = text.removeprefix("[").rpartition(":")
        loopback = ipaddress.ip_address(host.removesuffix("]")).is_loopback and 0 < int(port) <= 65535
    except ValueError:
        yield Problem(("socket",), f'expected {_WHAT}, got "{text}"')
        return
    if not loopback:
        message = f"HAProxy's runtime API has no authentication: use a path or a loopback address, not {text}"
        yield Problem(("socket",), message)


KIND = Kind(options=Options, capabilities=capabilities, problems=problems)
