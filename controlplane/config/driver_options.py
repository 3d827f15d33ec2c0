"""What the configuration knows of each driver: its options, what it can express, and what is wrong with them.

A new driver is one entry here and its own file in controlplane/dns or controlplane/pools. `runs`: can this version
run it, or only check it?
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from controlplane.config import scalars
from controlplane.config.readers import Reader, Scalar, Seq, Wrong
from controlplane.dns.options import EmbeddedOptions
from controlplane.drivers import Capabilities
from policies.topology import Config, DnsDriver
from probes.kinds.base import Problem, Secret

Port = Annotated[int, Meta(ge=1, le=65535)]


class Tsig(Struct, frozen=True):
    """The key that signs updates (RFC 8945)."""

    name: Annotated[str, Meta(min_length=1, max_length=253)]
    key: Secret
    algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = "hmac-sha256"


class Rfc2136Options(Struct, frozen=True):
    """A name server that takes UPDATE messages (RFC 2136)."""

    address: str
    port: Port = 53
    tsig: Tsig | None = None
    dialect: Literal["plain", "powerdns", "bind"] = "plain"
    views: dict[str, Tsig] = {}  # region -> the key of its view; bind only


class HaproxyOptions(Struct, frozen=True):
    """HAProxy's runtime API."""

    socket: str  # path, or loopback:port
    state_file: str = ""
    timeout_s: Annotated[float, Meta(ge=0.05, le=30)] = 2.0


class Kind(Struct, frozen=True):
    """A driver, as the configuration reader sees it.

    by_hand: readers of options whose types do not say enough. problems(options, driver, config): what is wrong
    beside the types; paths are inside the driver's entry. The driver is None for pools.
    """

    options: type[Struct]
    runs: bool
    by_hand: Mapping[str, Reader]
    capabilities: Callable[[Any], Capabilities]
    problems: Callable[[Any, DnsDriver, Config], Iterator[Problem]]


def _embedded(_: EmbeddedOptions) -> Capabilities:
    return Capabilities(geo=True, weights=True, cas=True, expires=False, batch=200)


def _rfc2136(options: Rfc2136Options) -> Capabilities:
    """PowerDNS answers from Lua records: by region, with weights. BIND's views know regions, not weights."""
    lua = options.dialect == "powerdns"
    return Capabilities(geo=lua or bool(options.views), weights=lua, cas=True, expires=False, batch=200)


def _haproxy(_: HaproxyOptions) -> Capabilities:
    return Capabilities(geo=False, weights=True, cas=False, expires=False, batch=200)


def _embedded_problems(options: EmbeddedOptions, driver: DnsDriver, config: Config) -> Iterator[Problem]:
    if len(driver.writers) > 1:
        message = "an embedded name server is written by its own site alone; the other writers have no effect"
        yield Problem(("writers",), message, warning=True)
    for name, region in config.regions.items():
        if (region.countries or region.continents) and not region.networks and not options.mmdb:
            message = f'region "{name}" uses countries and has no networks: give mmdb, a MaxMind file'
            yield Problem(("mmdb",), message)
    for first, second in _repeated(options.listen):
        yield Problem(("listen", str(second)), f"{options.listen[first]} is in the list twice")


def _repeated(listen: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    for index, text in enumerate(listen):
        if text in listen[:index] and not text.endswith(":0"):
            yield listen.index(text), index


def _rfc2136_problems(options: Rfc2136Options, driver: DnsDriver, config: Config) -> Iterator[Problem]:
    if len(driver.writers) > 1 and ipaddress.ip_address(options.address).is_loopback:
        others = ", ".join(driver.writers[1:])
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


def _no_problems(options: Any, driver: DnsDriver, config: Config) -> Iterator[Problem]:
    return iter(())


def _socket() -> Scalar:
    """A path, or loopback:port: the runtime API has no authentication."""
    path = scalars.string("a path or a loopback address:port", least=1, most=4096)

    def parse(value: Any) -> str:
        text = str(value)
        if isinstance(value, str) and text.startswith("/"):
            return text
        try:
            host, _, port = text.removeprefix("[").rpartition(":")
            loopback = ipaddress.ip_address(host.removesuffix("]")).is_loopback and 0 < int(port) <= 65535
        except ValueError:
            raise Wrong(f"expected a path or a loopback address:port, got {scalars.quote(value)}") from None
        if not loopback:
            raise Wrong(f"HAProxy's runtime API has no authentication: use a path or a loopback address, not {text}")
        return text

    return Scalar(parse, "a path or a loopback address:port", path.schema(), empty="")


DNS: dict[str, Kind] = {
    "embedded": Kind(
        options=EmbeddedOptions,
        runs=True,
        by_hand={
            "listen": Seq(scalars.socket_address(loopback=True), at_least=1, what="address:port"),
            "ns": Seq(scalars.domain(), what="domain names"),
        },
        capabilities=_embedded,
        problems=_embedded_problems,
    ),
    "rfc2136": Kind(
        options=Rfc2136Options,
        runs=False,
        by_hand={"address": scalars.address()},
        capabilities=_rfc2136,
        problems=_rfc2136_problems,
    ),
}
POOLS: dict[str, Kind] = {
    "haproxy": Kind(
        options=HaproxyOptions,
        runs=False,
        by_hand={"socket": _socket()},
        capabilities=_haproxy,
        problems=_no_problems,
    ),
}
