"""rfc2136: a name server of the user's own, written by UPDATE messages (RFC 2136) signed with TSIG (RFC 8945).

Knot and any other server: plain records. PowerDNS: LUA records. BIND: plain records, or one set of them a view.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, TypeVar

import dns.rcode
import dns.tsig
import msgspec
from msgspec import Struct
from msgspec.structs import replace

from controlplane.dns.fencing import refusal
from controlplane.dns.notation import Lua, Notation, Plain, odd
from controlplane.dns.peer import ASK_S, TRANSFER_S, Peer, rejection
from controlplane.dns.server import join
from controlplane.dns.signing import Rejected, Wall, key_of
from controlplane.dns.update import TooLong, Write, proof, request
from controlplane.dns.zone import Contents, ZoneReader
from controlplane.drivers import Actual, Address, Capabilities, Change, Domain, Driver, Fence, Kind, Port, Result
from policies.timing import zone_of
from policies.topology import Config, DnsDriver
from policies.world import Answer
from probes.kinds.base import Problem, Secret

T = TypeVar("T")

# A prerequisite does not hold (RFC 2136, 2.2.2).
STALE = (dns.rcode.NXRRSET, dns.rcode.YXRRSET, dns.rcode.NXDOMAIN, dns.rcode.YXDOMAIN)
NO_NAME = "_failover-probe"

Results = dict[str, tuple[Result, str]]


class Tsig(Struct, frozen=True):
    """The key that signs updates (RFC 8945)."""

    name: Domain
    key: Secret
    algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = "hmac-sha256"

    def resolve(self) -> dns.tsig.Key:
        """Raises ValueError: the secret cannot be had, or is none; says of which key and why."""
        try:
            return key_of(self.name, self.key.resolve(), self.algorithm)
        except (LookupError, OSError) as error:
            reason = error.args[0] if isinstance(error, LookupError) else error
            raise ValueError(f"TSIG key {self.name}: {reason}") from error


class Options(Struct, frozen=True):
    address: Address
    port: Port = 53
    tsig: Tsig | None = None
    dialect: Literal["plain", "powerdns", "bind"] = "plain"
    views: dict[str, Tsig] = {}  # region -> the key of its view; bind only


# ---- one server, or one view of it


class Side:
    """What one key can see and write: the server's zones, or those of one of its views.

    region: whom it answers, "" = everybody."""

    def __init__(self, region: str, peer: Peer, zones: Iterable[str], notation: Notation) -> None:
        self.region, self.peer, self.notation = region, peer, notation
        self.zones = {zone: ZoneReader(peer, zone, notation.types) for zone in zones}

    async def write(self, zone: str, writes: Sequence[Write]) -> Results:
        """All in one message. If the server finds one of them stale, or they do not fit, by halves."""
        reader = self.zones[zone]
        names = [write.name for write in writes]
        try:
            message = request(zone, writes, self.notation.types)
        except TooLong:
            return await self._halves(zone, writes) if len(writes) > 1 else {names[0]: (Result.TERMINAL, "too long")}
        try:
            code = await reader.update(message, writes)
        except Rejected as error:
            result = Result.TERMINAL if error.terminal else Result.TRANSIENT
            return dict.fromkeys(names, (result, f"update {zone}: {error}"))
        if code == dns.rcode.NOERROR:
            return dict.fromkeys(names, (Result.DONE, ""))
        if code not in STALE and len(writes) > 1 and any(write.alias for write in writes):
            return await self._halves(zone, writes)  # it may be only that which is not permitted
        if code not in STALE:
            rejected = rejection(code, f"update {zone}")
            hint = f"; a CNAME at {names[0]} is in the way: remove it" if writes[0].alias else ""
            result = Result.TERMINAL if rejected.terminal else Result.TRANSIENT
            return dict.fromkeys(names, (result, f"{rejected}{hint}"))
        if len(writes) > 1:
            return await self._halves(zone, writes)
        if writes[0].expect is None and reader.kept.strange(names[0]):
            return {names[0]: (Result.TERMINAL, f"TXT _failover.{names[0]} is not a fence: remove it")}
        return {names[0]: (Result.FENCED, "somebody else wrote since it was read")}

    async def _halves(self, zone: str, writes: Sequence[Write]) -> Results:
        middle = len(writes) // 2
        return {**await self.write(zone, writes[:middle]), **await self.write(zone, writes[middle:])}

    async def prove(self, zone: str, name: str) -> None:
        """Raises OSError or TimeoutError."""
        reply = await self.peer.ask(proof(zone, name, self.notation.nothing))
        if reply.rcode != dns.rcode.NOERROR:
            raise rejection(reply.rcode, f"update {zone} at {self.peer.where}")


class Rfc2136Driver:
    """sides: one, or one for each view. zones: those that it writes to."""

    def __init__(self, name: str, sides: Sequence[Side], capabilities: Capabilities) -> None:
        self.name, self.capabilities = name, capabilities
        self.sides = tuple(sides)
        self._known: dict[str, str] = {}  # zone -> a name in it that we write
        self._blocked: dict[str, Fence] = {}  # name -> the fence of the view that refused it last
        self._incarnation = ""  # of what was written last

    async def read(self, names: Sequence[str]) -> Mapping[str, Actual]:
        by_zone: dict[str, list[str]] = {}
        for name in names:
            if zone := self._zone(name):
                by_zone.setdefault(zone, []).append(name)
        found: dict[str, Actual] = {}
        sides = self.sides  # others may be given to us meanwhile
        for zone, mine in by_zone.items():
            self._known[zone] = mine[0]
            contents = await _contents(sides, zone)
            for name in mine:
                actual = self._actual(name, sides, contents)
                if actual is not None:
                    found[name] = actual
        return found

    async def apply(self, changes: Sequence[Change]) -> Mapping[str, tuple[Result, str]]:
        results: Results = {}
        by_zone: dict[str, list[Change]] = {}
        for change in changes:
            name = change.desired.name
            zone = self._zone(name)
            if not zone:
                results[name] = (Result.TERMINAL, f"{name} is in none of this driver's zones")
            elif reason := refusal(change):
                results[name] = (Result.FENCED, reason)
            else:
                by_zone.setdefault(zone, []).append(change)
        for zone, mine in by_zone.items():
            results |= await self._apply(zone, mine)
        return results

    async def probe_write(self) -> None:
        for zone in self.sides[0].zones:
            name = self._known.get(zone, f"{NO_NAME}.{zone}")  # none was read yet
            await _together([side.prove(zone, name) for side in self.sides])

    async def aclose(self) -> None:
        """Nothing is held between two calls."""

    def become(self, other: Rfc2136Driver) -> None:
        """Go on with another's keys and regions."""
        self.name, self.capabilities, self.sides = other.name, other.capabilities, other.sides

    # ---- inside

    def _zone(self, name: str) -> str:
        return zone_of(name, tuple(self.sides[0].zones))

    def _fence(self, name: str, contents: Sequence[Contents]) -> Fence | None:
        """Of several views the one that a writer has to know of: one that refused a write lately, because it is newer
        than this writer's news or left alone; none at all; somebody else's; else the lowest, so that what was left
        half done is done again."""
        found = [each.fence(name) for each in contents]
        blocked = self._blocked.get(name)
        if blocked is not None and blocked in found:
            return blocked
        fences = [fence for fence in found if fence is not None]
        if len(fences) < len(found):
            return None
        return min(fences, key=lambda f: (f.incarnation == self._incarnation, f.generation, f.op))

    def _actual(self, name: str, sides: Sequence[Side], contents: Sequence[Contents]) -> Actual | None:
        """None: nothing of ours or like it is there."""
        answers: list[Answer] = []
        ttls: set[int] = set()
        for side, each in zip(sides, contents, strict=True):
            rows = each.rows.get(name, [])
            answers += side.notation.answers(rows)
            ttls |= {row.ttl for row in rows}
        fence = self._fence(name, contents)
        if fence is None and not answers:
            return None
        if len({each.fence(name) for each in contents}) > 1:
            answers.append(odd("TXT", "the views disagree"))
        if len(ttls) > 1:
            answers.append(odd("TTL", " ".join(str(ttl) for ttl in sorted(ttls))))
        return Actual(fence, max(ttls, default=0), tuple(answers))

    async def _apply(self, zone: str, changes: Sequence[Change]) -> Results:
        """Each view's own fence is the prerequisite of what is written to it; a change that one view must refuse is
        written to none."""
        sides = self.sides
        contents = await _contents(sides, zone) if len(sides) > 1 else []
        results: Results = {}
        writes: list[list[Write]] = [[] for _ in sides]
        for change in changes:
            desired = change.desired
            if contents and self._fence(desired.name, contents) != change.expect:
                results[desired.name] = (Result.FENCED, "somebody else wrote since it was read")
                continue
            found = [each.fence(desired.name) for each in contents] or [change.expect]
            if reason := self._refused(change, found):
                results[desired.name] = (Result.FENCED, reason)
                continue
            try:
                records = [side.notation.records(desired.answers) for side in sides]
            except ValueError as error:
                results[desired.name] = (Result.TERMINAL, str(error))
                continue
            results[desired.name] = (Result.DONE, "")
            for side, mine, expect, rows in zip(sides, writes, found, records, strict=True):
                alias = side.zones[zone].kept.alias(desired.name)
                mine.append(Write(desired.name, desired.ttl_s, expect, change.fence, rows, alias))
        for side, mine in zip(sides, writes, strict=True):
            # One view after the other: who loses a race for the first one leaves the others alone.
            left = [write for write in mine if results[write.name][0] is Result.DONE]
            if left:
                results |= await side.write(zone, left)
        return results

    def _refused(self, change: Change, found: Sequence[Fence | None]) -> str:
        name = change.desired.name
        self._incarnation = change.fence.incarnation
        self._blocked.pop(name, None)
        for fence in found:
            # What was adopted is one incarnation, not whatever else may stand in another view.
            same = fence is not None and change.expect is not None and fence.incarnation == change.expect.incarnation
            if reason := refusal(replace(change, expect=fence, adopted=change.adopted and same)):
                assert fence is not None
                self._blocked[name] = fence
                return reason
        return ""


async def _contents(sides: Sequence[Side], zone: str) -> list[Contents]:
    return await _together([side.zones[zone].contents() for side in sides])


async def _together(calls: Sequence[Awaitable[T]]) -> list[T]:
    """At once. Raises what the first of them raised; none goes on after that."""
    if len(calls) == 1:
        return [await calls[0]]
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# ---- opening


def driver_for(entry: DnsDriver, config: Config, wall: Wall) -> Rfc2136Driver:
    """wall: the clock that signatures carry. Raises ValueError if a key's secret cannot be had."""
    options = msgspec.json.decode(entry.options, type=Options)

    def side(region: str, tsig: Tsig | None, notation: Notation) -> Side:
        key = tsig.resolve() if tsig is not None else None
        return Side(region, Peer(options.address, options.port, key, wall), entry.zones, notation)

    if options.views:
        sides = [side(region, tsig, Plain(region)) for region, tsig in sorted(options.views.items())]
    else:
        sides = [side("", options.tsig, Lua(config.regions) if options.dialect == "powerdns" else Plain())]
    return Rfc2136Driver(entry.name, sides, capabilities(options))


async def open_driver(entry: DnsDriver, config: Config) -> Driver:
    """Connects to nothing yet. Raises ValueError."""
    return driver_for(entry, config, time.time)  # noqa: TID251 - a signature has to carry the world's time


async def reconfigure(running: Driver, entry: DnsDriver, config: Config) -> bool:
    """In place, whatever changes: regions are part of LUA records, and a secret may be another one. Raises
    ValueError; it goes on as it was then."""
    if not isinstance(running, Rfc2136Driver):
        return False
    running.become(driver_for(entry, config, time.time))  # noqa: TID251 - as above
    return True


# ---- before it is opened


def capabilities(options: Options) -> Capabilities:
    """PowerDNS answers from Lua records: by region, with weights. BIND's views know regions, not weights."""
    lua = options.dialect == "powerdns"
    geo = lua or bool(options.views)
    # A server that says nothing is given up after ASK_S, in a transfer too.
    return Capabilities(geo, weights=lua, cas=True, expires=False, batch=200, patience_s=TRANSFER_S + 2 * ASK_S)


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
    if options.views and options.tsig is not None:
        yield Problem(("tsig",), "has no effect beside views: each view has a key of its own", warning=True)
    if options.views:
        unknown = sorted(set(options.views) - set(config.regions))
        missing = sorted(set(config.regions) - set(options.views))
        for region in unknown:
            yield Problem(("views", region), f'unknown region "{region}"')
        if missing:
            yield Problem(("views",), f"no view for {', '.join(missing)}; name every region")
        keys = [tsig.name for tsig in options.views.values()]
        for region, tsig in options.views.items():
            if keys.count(tsig.name) > 1:
                message = f"key {tsig.name} is another view's too; a key opens one view"
                yield Problem(("views", region, "name"), message)


def servers(options: Options) -> Sequence[str]:
    return (join(options.address, options.port),)


KIND = Kind(
    options=Options,
    capabilities=capabilities,
    problems=problems,
    servers=servers,
    open=open_driver,
    open_deputy=open_driver,
    reconfigure=reconfigure,
)
