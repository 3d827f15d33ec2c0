"""The Driver port: one thing outside that can be brought to what is desired (a name server, a pool).

And `Kind`, what is known of a driver before it is opened: a driver is one file with a frozen Options struct and a
`KIND`, and one line in DRIVERS of controlplane/dns or controlplane/pools.

Names of options are the keys of the configuration file; a field whose name ends in `_s` is a duration in seconds,
and its key has no `_s`. What a text has to look like is said by its type: Address, Domain or Listen.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec
from msgspec import Meta, Struct

from policies.topology import Config, DnsDriver, PoolDriver
from policies.world import Answer, Desired
from probes.kinds.base import Problem


class Fence(Struct, frozen=True):
    """Stands beside each name as TXT `_failover.<name>` = "c=<incarnation> g=<generation> op=<id>" (4.8).

    `op` begins with the decision's stamp ("d-1042-3fd2a1.9f3c-1"), or with "manual" for a fix made by hand.
    """

    incarnation: str
    generation: int
    op: str

    @property
    def decision(self) -> str:
        return self.op.partition(".")[0]

    @property
    def manual(self) -> bool:
        return self.op.startswith("manual")

    def text(self) -> str:
        return f"c={self.incarnation} g={self.generation} op={self.op}"

    @classmethod
    def parse(cls, text: str) -> Fence | None:
        """None for what is not a fence, or not one as `text()` writes it: a server compares bytes."""
        match = _FENCE.fullmatch(text)
        return cls(match[1], int(match[2]), match[3]) if match else None


_FENCE = re.compile(r"c=([!-~]{1,64}) g=(0|[1-9][0-9]{0,17}) op=([!-~]{1,120})")


class Actual(Struct, frozen=True):
    """What a driver reads back for one name. fence None: never written by us."""

    fence: Fence | None
    ttl_s: int
    answers: tuple[Answer, ...]
    sessions: dict[str, int] = {}  # pools: site -> sessions there now, of sites that get no new ones


class Change(Struct, frozen=True):
    """Bring `desired.name` to desired, if the fence there still is `expect` (None = there is none).

    adopted: `expect` is of another incarnation, which an admin gave to this cluster: it may be overwritten."""

    desired: Desired
    expect: Fence | None
    fence: Fence
    adopted: bool = False


class Result(StrEnum):
    DONE = "ok"
    FENCED = "fenced"  # somebody newer wrote: re-read desired
    TRANSIENT = "transient"  # try again
    TERMINAL = "terminal"  # alarm, and again in 10 s


class Capabilities(Struct, frozen=True):
    geo: bool  # different answers for different regions
    weights: bool
    cas: bool  # compare-and-set on the fence
    expires: bool  # its effect expires by itself (isolation: withdraw)
    batch: int  # names a write may hold
    patience_s: float = 2.0  # after which a call is given up; the driver's own time-outs end it before, with a reason


class Driver(Protocol):
    """Every call may raise OSError or TimeoutError (transient); nothing else is expected."""

    name: str
    capabilities: Capabilities

    async def read(self, names: Sequence[str]) -> Mapping[str, Actual]:
        """What is there now; names that are not there are left out."""
        ...

    async def apply(self, changes: Sequence[Change]) -> Mapping[str, tuple[Result, str]]:
        """By name: the result and its reason."""
        ...

    async def probe_write(self) -> None:
        """Prove that a write would be accepted, without changing anything; raises if not."""
        ...

    async def aclose(self) -> None: ...


Entry = DnsDriver | PoolDriver


def written_by(config: Config, site: str) -> dict[str, Entry]:
    """The drivers that a site writes, by name."""
    servers: dict[str, Entry] = {d.name: d for d in config.dns if site in d.writers}
    return servers | {d.name: d for d in config.pools if site in d.sites}


def site_of(entry: Entry, writer: str) -> str:
    """Where it is: a name server has one site, of a pool each writer has its own."""
    return writer if isinstance(entry, PoolDriver) else entry.site


# ---- what is known of a driver before it is opened

Port = Annotated[int, Meta(ge=1, le=65535)]
# The configuration reader knows each format, and writes such a text in one way (config/derive.py).
Address = Annotated[str, Meta(extra_json_schema={"format": "address"})]  # an IP address
Domain = Annotated[str, Meta(extra_json_schema={"format": "domain"})]  # lower case, without the final dot
Listen = Annotated[str, Meta(extra_json_schema={"format": "listen"})]  # "address:port"; port 0 = any

Open = Callable[[DnsDriver, Config], Awaitable[Driver]]


class Place(Struct, frozen=True):
    """Where a pool driver runs: its site, and the directory on local disk that is this process's own."""

    site: str
    state_dir: Path


OpenPool = Callable[[PoolDriver, Config, Place], Awaitable[Driver]]


def no_problems(options: Any, entry: Any, config: Config) -> Iterable[Problem]:
    """Its types say all."""
    return ()


def complete(options: Any, zones: Sequence[str]) -> Any:
    """They are complete."""
    return options


def no_servers(options: Any) -> Sequence[str]:
    """Nothing that could be asked."""
    return ()


async def reopen(running: Driver, entry: Any, config: Config) -> bool:
    """It has to be opened anew."""
    return False


class Kind(Struct, frozen=True, kw_only=True):
    """A driver, as the configuration reader, `verify` and a node see it.

    options: the type of its options.
    capabilities(options): what it can express; warnings come from it.
    problems(options, entry, config): what the types cannot say. Paths are inside the entry. May read the files that
        the options name, nothing else.
    complete(options, zones): fills in what depends on the entry's zones.
    servers(options): "address:port" of each server that it writes to, to be asked by `verify`.
    in_process: it is part of its home site's own process, so no other site can stand in as its writer.
    open(entry, config): opens it at its home site, with what has to run there. May raise anything; nothing is left
        open then. None: this version can check its options but not run it.
    open_pool(entry, config, place): what `open` is to a DNS driver.
    open_deputy(entry, config): opens it at another of its writers; None where that cannot write.
    reconfigure(running, entry, config): gives an open driver another configuration without a gap in what it serves.
        `entry` is a DnsDriver or a PoolDriver. False: it cannot, it is opened anew. Raises what `open` raises; it
        goes on serving then.
    """

    options: type[Struct]
    capabilities: Callable[[Any], Capabilities]
    problems: Callable[[Any, Any, Config], Iterable[Problem]] = no_problems
    complete: Callable[[Any, Sequence[str]], Any] = complete
    servers: Callable[[Any], Sequence[str]] = no_servers
    in_process: bool = False
    open: Open | None = None
    open_pool: OpenPool | None = None
    open_deputy: Open | None = None
    reconfigure: Callable[[Driver, Any, Config], Awaitable[bool]] = reopen

    @property
    def runs(self) -> bool:
        return self.open is not None or self.open_pool is not None

    def options_of(self, entry: Entry) -> Any:
        """The options of an entry of the configuration that names this driver."""
        return msgspec.json.decode(entry.options, type=self.options)
