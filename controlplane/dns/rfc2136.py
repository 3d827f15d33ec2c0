"""rfc2136: a name server that takes UPDATE messages (RFC 2136). This version checks its options but does not run it."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

from msgspec import Meta, Struct

from controlplane.dns.server import join
from controlplane.drivers import Address, Capabilities, Kind, Port
from policies.topology import Config, DnsDriver
from probes.kinds.base import Problem, Secret


class Tsig(Struct, frozen=True):
    """The key that signs updates (RFC 8945)."""

    name: Annotated[str, Meta(min_length=1, max_length=253)]
    key: Secret
    algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = "hmac-sha256"


class Options(Struct, frozen=True):
    address: Address
    port: Port = 53
    tsig: Tsig | None = None
    dialect: Literal["plain", "powerdns", "bind"] = "plain"
    views: dict[str, Tsig] = {}  # region -> the key of its view; bind only


def capabilities(options: Options) -> Capabilities:
    """PowerDNS answers from Lua records: by region, with weights. BIND's views know regions, not weights."""
    lua = options.dialect == "powerdns"
    return Capabilities(geo=lua or bool(options.views), weights=lua, cas=True, expires=False, batch=200)


def problems(options: Options, entry: DnsDriver, config: Config) -> Iterator[Problem]:
    if len(entry.writers) > 1 and ipaddress.ip_address(options.address).is_loopback:
        others = ", ".join(entry.writers[1:])
        message = f"{options.address} is a loopback address: {others} cannot write there; give one that all can reach"
        yield Problem(("address",), message)
    if options.tsig is None and not options.views:
        message = "updates are not signed; give tsig: {name: ..., key: {env: NAME}}"
        yield Problem(("address",), message, warning=True)
    if options.views and options.dialect != "bind":
        yield Problem(("views",), f"only dialect bind has views, not {options.dialect}")
    if options.views:
        unknown = sorted(set(options.views) - set(config.regions))
        missing = sorted(set(config.regions) - set(options.views))
        for region in unknown:
            yield Problem(("views", region), f'unknown region "{region}"')
        if missing:
            yield Problem(("views",), f"no view for {', '.join(missing)}; name every region")


def servers(options: Options) -> Sequence[str]:
    return (join(options.address, options.port),)


KIND = Kind(options=Options, capabilities=capabilities, problems=problems, servers=servers)
