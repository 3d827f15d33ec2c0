"""haproxy: weights and drains through HAProxy's runtime API (2.4 or newer).

A server with a weight over 0 is `ready` with that weight; one with weight 0 is in `drain`: no new requests, the ones
under way go on. (A client that HAProxy's own persistence, a cookie or stick table, binds to a drained server still
gets there.) HAProxy's health checks stay in force beside that, and are not looked at.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from controlplane.drivers import Actual, Capabilities, Change, Driver, Kind, Place, Result
from controlplane.pools.runtime import Runtime, rows
from controlplane.pools.shelf import Entry, shelf, write
from policies.express import SERVER
from policies.topology import Config, DnsDriver, PoolDriver
from policies.world import Answer
from probes.kinds.base import Problem

log = logging.getLogger(__name__)
CAPABILITIES = Capabilities(geo=False, weights=True, cas=False, expires=False, batch=200)
_WHAT = "a path or a loopback address:port"
_WORD = re.compile(r"[A-Za-z0-9_.:-]+")  # what the configuration allows; nothing that ends a command
# srv_admin_state: bits that `state ready` clears (FMAINT, FDRAIN). The others come from tracking another server, from
# a name that does not resolve, and from "disabled" in haproxy.cfg, which stays there after `state ready`.
_OUT = 0x01 | 0x08
_NUMBER = re.compile(r"[0-9]{1,10}")
QUOTED = 200  # characters of what it says
_STATE_READ = "show servers state"
_REMEDIES = {
    "No such backend": "is pools.backend the name of a backend in haproxy.cfg?",
    "Can't find backend": "is pools.backend the name of a backend in haproxy.cfg?",
    "No such server": "are pools.servers the names of servers in that backend?",
    "Permission denied": 'the stats socket needs "level admin" in haproxy.cfg',
    "static LB": 'use "balance roundrobin", leastconn or random, or "hash-type consistent"',
}


class Options(Struct, frozen=True):
    socket: Annotated[str, Meta(min_length=1, max_length=4096, description=_WHAT)]
    state_file: str = ""
    timeout_s: Annotated[float, Meta(ge=0.05, le=30)] = 2.0


Servers = dict[str, dict[str, str]]  # backend -> server -> the site that it stands for


class HAProxyDriver:
    """The Driver port. A name is a backend; its answers are one Answer("", "SERVER", server, site, weight) for each
    server that the configuration names. The fence is kept on a shelf, because HAProxy has no place for it."""

    def __init__(self, entry: PoolDriver, config: Config, place: Place) -> None:
        self.name, self.entry = entry.name, entry
        self.options = options_of(entry)
        self.capabilities = capabilities(self.options)
        self.servers = servers_of(config)
        self._runtime = Runtime(self.options.socket)
        self._shelf = shelf(place.state_dir / f"{entry.name}.json")

    # ---- reading

    async def read(self, names: Sequence[str]) -> Mapping[str, Actual]:
        async with self._bounded():
            held = await self._shelf.read()
            known = [name for name in names if _WORD.fullmatch(name)]
            said = await self._runtime.ask([f"{_STATE_READ} {name}" for name in known])
            pools = {name: await _states(name, text) for name, text in zip(known, said, strict=True)}
            left = [name for name in known if self._drained(name, pools[name])]
            stats = await self._runtime.ask([f"show stat {name} 4 -1" for name in left])
            sessions = {name: await _sessions(text) for name, text in zip(left, stats, strict=True)}
        return {
            name: self._actual(name, held.get(name), pools.get(name, {}), sessions.get(name, {}))
            for name in names
            if name in held or pools.get(name)
        }

    def _actual(
        self, backend: str, entry: Entry | None, states: Mapping[str, int], sessions: Mapping[str, int]
    ) -> Actual:
        sites = self.servers.get(backend, {})
        answers = tuple(
            Answer("", SERVER, server, sites[server], states[server]) for server in sites if server in states
        )
        left: dict[str, int] = dict.fromkeys(self._drained(backend, states), 0)
        for server, site in sites.items():
            if site in left:
                left[site] += sessions.get(server, 0)
        return Actual(entry.fence if entry else None, 0, answers, left)

    def _drained(self, backend: str, states: Mapping[str, int]) -> set[str]:
        """Sites of which no server gets new requests."""
        sites = {server: site for server, site in self.servers.get(backend, {}).items() if server in states}
        return set(sites.values()) - {site for server, site in sites.items() if states[server] > 0}

    # ---- writing

    async def apply(self, changes: Sequence[Change]) -> Mapping[str, tuple[Result, str]]:
        """First servers are raised, then others drained, so that no pool is empty in between."""
        impossible = {change.desired.name: why for change in changes if (why := _impossible(change))}
        possible = [change for change in changes if change.desired.name not in impossible]
        async with self._bounded(), self._shelf.writing:
            refused = await self._shelf.claim(possible)
            wanted = {c.desired.name: c.desired.answers for c in possible if not refused[c.desired.name]}
            failed = await self._raise_and_drain(wanted)
            if wanted:
                await self._save_state()
        results = dict.fromkeys(wanted, (Result.DONE, ""))
        results |= {name: (Result.FENCED, why) for name, why in refused.items() if why}
        return results | {name: (Result.TERMINAL, why) for name, why in (impossible | failed).items()}

    async def _raise_and_drain(self, wanted: Mapping[str, Sequence[Answer]]) -> dict[str, str]:
        """By backend: what HAProxy refused. A backend of which nothing could be raised keeps what it has."""
        failed: dict[str, str] = {}
        raised: set[str] = set()
        ups = [(name, a) for name, answers in wanted.items() for a in answers if a.weight > 0]
        commands = [c for name, a in ups for c in _raise(name, a)]
        said = await self._runtime.ask(commands)
        for at, (name, answer) in enumerate(ups):
            wrong = said[2 * at] or said[2 * at + 1]
            if wrong:
                failed.setdefault(name, _explain(name, answer, wrong))
            else:
                raised.add(name)
        downs = [(name, a) for name in raised for a in wanted[name] if a.weight == 0]
        said = await self._runtime.ask([f"set server {name}/{a.address} state drain" for name, a in downs])
        for (name, answer), wrong in zip(downs, said, strict=True):
            if wrong:
                failed.setdefault(name, _explain(name, answer, wrong))
        return failed

    async def _save_state(self) -> None:
        """For HAProxy's next start. Without it that start is put right all the same, a second later."""
        if not self.options.state_file:
            return
        (text,) = await self._runtime.ask([_STATE_READ])
        try:
            await self._shelf.alone(lambda: write(Path(self.options.state_file), healthy(text).encode(), 0o644))
        except OSError as error:
            log.warning("%s: state_file not written: %s", self.name, error)

    async def probe_write(self) -> None:
        """Raises PermissionError if the socket's level, or a directory's mode, would stop a write."""
        directories = [self._shelf.path.parent]
        if self.options.state_file:
            directories.append(Path(self.options.state_file).parent)
        async with self._bounded():
            (level,) = await self._runtime.ask(["show cli level"])
            closed = await self._shelf.alone(lambda: [d for d in directories if not os.access(d, os.W_OK | os.X_OK)])
        if level != "admin":
            has = f"{self.options.socket}: has level {_short(level)}"
            raise PermissionError(f'{has}, and needs "level admin" in haproxy.cfg')
        if closed:
            raise PermissionError(f"{closed[0]}: cannot be written to")

    async def aclose(self) -> None:
        """Nothing is held between calls."""

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        timeout_s = self.options.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError:
            raise TimeoutError(f"{self.options.socket}: no answer within {timeout_s:g} s") from None


# ---- commands and replies


def _impossible(change: Change) -> str:
    """What is wrong with the change itself; "" if nothing."""
    words = [change.desired.name, *(answer.address for answer in change.desired.answers)]
    bad = next((word for word in words if not _WORD.fullmatch(word)), None)
    if bad is not None:
        return f'"{bad}" is not a name that can be given to HAProxy'
    if not any(answer.weight > 0 for answer in change.desired.answers):
        return f"backend {change.desired.name} would have no server left"
    return ""


def _raise(backend: str, answer: Answer) -> tuple[str, str]:
    # The weight first: a server that is made ready gets requests at once.
    server = f"{backend}/{answer.address}"
    return f"set server {server} weight {answer.weight}", f"set server {server} state ready"


def _explain(backend: str, answer: Answer, said: str) -> str:
    remedy = next((remedy for words, remedy in _REMEDIES.items() if words in said), "")
    return f"{backend}/{answer.address}: {_short(said)}" + (f" ({remedy})" if remedy else "")


def _short(said: str) -> str:
    """It goes into alarms, and into documents of the store."""
    return " ".join(said[:QUOTED].split())


async def _states(backend: str, text: str) -> dict[str, int]:
    """Weights by server; {} if there is no such backend. Raises PermissionError for a socket of too low a level, and
    ConnectionError for what HAProxy would not say."""
    if "Permission denied" in text:
        raise PermissionError(f"{_short(text)} ({_REMEDIES['Permission denied']})")
    states: dict[str, int] = {}
    async for row in rows(text.partition("\n")[2], " "):  # the first line is the format's version
        if row.get("be_name") == backend:
            if "srv_name" not in row:
                raise _unlike("srv_name")
            out = _number(row, "srv_admin_state") & _OUT
            states[row["srv_name"]] = 0 if out else _number(row, "srv_uweight")
    return states


async def _sessions(text: str) -> dict[str, int]:
    return {row["svname"]: _number(row, "scur") async for row in rows(text, ",") if "svname" in row}


def _number(row: Mapping[str, str], field: str) -> int:
    if not _NUMBER.fullmatch(row.get(field, "")):
        raise _unlike(field)
    return int(row[field])


def _unlike(field: str) -> ConnectionError:
    return ConnectionError(f"a reply without {field}: is that HAProxy 2.4 or newer?")


def healthy(text: str) -> str:
    """`show servers state` for a server-state-file, with every server's health as good as after a start without one:
    a server that happened to be down when the file was written would be down after a reload, months later."""
    lines = text.splitlines()
    header = next((line for line in lines if line.startswith("# ")), "")
    names = header.removeprefix("# ").split(" ")
    if "srv_op_state" not in names:
        return text + "\n"
    at = names.index("srv_op_state")
    running = "2"
    kept = []
    for line in lines:
        words = line.split(" ")
        if not line.startswith("#") and len(words) == len(names):
            words[at] = running
        kept.append(" ".join(words))
    return "\n".join(kept) + "\n"


# ---- before it is opened


def servers_of(config: Config) -> Servers:
    servers: Servers = {}
    for service in config.services.values():
        if service.pools is not None:
            pool = servers.setdefault(service.pools.backend, {})
            for site, names in service.pools.servers.items():
                pool |= dict.fromkeys(names, site)
    return servers


def options_of(entry: PoolDriver) -> Options:
    return msgspec.json.decode(entry.options, type=Options)


async def open_pool(entry: PoolDriver, config: Config, place: Place) -> Driver:
    """HAProxy need not run yet. Raises OSError if the state directory cannot be made."""
    await asyncio.to_thread(lambda: place.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True))
    return HAProxyDriver(entry, config, place)


async def reconfigure(running: Driver, entry: DnsDriver | PoolDriver, config: Config) -> bool:
    if not isinstance(running, HAProxyDriver) or running.entry != entry:
        return False
    running.servers = servers_of(config)
    return True


def capabilities(options: Options) -> Capabilities:
    return replace(CAPABILITIES, patience_s=options.timeout_s + 0.5)


def problems(options: Options, entry: PoolDriver, config: Config) -> Iterator[Problem]:
    if options.state_file and not options.state_file.startswith("/"):
        yield Problem(("state_file",), f'expected a path that begins with /, got "{options.state_file}"')
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


KIND = Kind(
    options=Options,
    capabilities=capabilities,
    problems=problems,
    open_pool=open_pool,
    reconfigure=reconfigure,
)
