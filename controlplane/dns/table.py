"""What one embedded name server holds: its zones, and the names written into it under their fences. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum

import dns.name
from msgspec import Struct

from controlplane.dns.fencing import refusal
from controlplane.drivers import Actual, Change, Fence, Result
from policies.timing import zone_of
from policies.world import Answer

FENCE_LABEL = "_failover"


def fence_name(name: str) -> str:
    """The name whose TXT record fences `name` (4.8)."""
    return f"{FENCE_LABEL}.{name}"


def key(name: dns.name.Name) -> str:
    """Lower case, no trailing dot: how the configuration writes names."""
    return name.canonicalize().to_text(omit_final_dot=True)


class Zone(Struct, frozen=True):
    """`ns`: the zone's name servers, each with its addresses (used only for names inside the zone)."""

    name: str
    ns: Mapping[str, tuple[str, ...]]


class Site(Struct, frozen=True):
    """One possible answer: all addresses of one family at one site."""

    site: str
    weight: int
    addresses: tuple[str, ...]


class Record:
    """One name's fence and answers, and whose turn it is."""

    def __init__(self, fence: Fence | None, ttl_s: int, answers: tuple[Answer, ...]) -> None:
        self.fence, self.ttl_s, self.answers = fence, ttl_s, answers
        groups: dict[tuple[str, str], dict[str, list[Answer]]] = {}
        for answer in answers:
            if answer.weight > 0:
                sites = groups.setdefault((answer.region, answer.rtype), {})
                sites.setdefault(answer.site, []).append(answer)
        self._sites: dict[tuple[str, str], tuple[Site, ...]] = {
            group: tuple(
                Site(site, sum(a.weight for a in rows), tuple(a.address for a in rows)) for site, rows in sites.items()
            )
            for group, sites in groups.items()
        }
        self._turns: dict[tuple[str, str], dict[str, int]] = {}
        self._rotation = 0

    def pick(self, region: str, fallback: str, rtype: str) -> tuple[str, ...]:
        """The addresses to answer with; () if the name has none of that family.

        Smooth weighted round robin: every site gains its weight, the highest answers and pays the sum, so that
        turns are spread evenly and need no randomness. Never empty outranks the region: clients of a region
        without answers get those of `fallback`, else those of any region. A site's addresses are rotated.
        """
        group = next((g for g in ((region, rtype), (fallback, rtype)) if g in self._sites), None)
        if group is None:
            group = next((g for g in self._sites if g[1] == rtype), None)
            if group is None:
                return ()
        sites = self._sites[group]
        if len(sites) == 1:
            return self._rotate(sites[0].addresses)
        turns = self._turns.setdefault(group, {s.site: 0 for s in sites})
        for s in sites:
            turns[s.site] += s.weight
        chosen = max(sites, key=lambda s: turns[s.site])
        turns[chosen.site] -= sum(s.weight for s in sites)
        return self._rotate(chosen.addresses)

    def _rotate(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        """Clients use the first address: every one of them has to be it in its turn."""
        self._rotation += 1
        first = self._rotation % len(addresses)
        return addresses[first:] + addresses[:first]


class Kind(Enum):
    """What stands at a name."""

    SERVICE = "service"
    FENCE = "fence"
    APEX = "apex"
    SERVER = "server"
    EMPTY = "empty"  # exists only because something stands below it (RFC 8020)
    ABSENT = "absent"
    UNREADY = "unready"  # should be there, and was not written since the start


class Found(Struct, frozen=True):
    kind: Kind
    record: Record | None = None
    addresses: tuple[str, ...] = ()  # of a name server


class Table:
    """Names under their fences. `expected`: names that are going to be written, as the configuration says."""

    def __init__(self, zones: Sequence[Zone], expected: Collection[str] = ()) -> None:
        self.records: dict[str, Record] = {}
        self.written = False  # anything, since the start
        self.configure(zones, expected)

    def configure(self, zones: Sequence[Zone], expected: Collection[str] = ()) -> None:
        """Take other zones over; what was written stays."""
        self.zones = {zone.name: zone for zone in zones}
        self.expected = frozenset(expected)
        self._servers = {name: a for zone in zones for name, a in zone.ns.items() if zone_of(name, self.zones)}
        self._exists = set(self.zones)
        self._serials = dict.fromkeys(self.zones, 1)
        for name, record in self.records.items():
            self._count(name, record, 1)
        for name in (*self._servers, *self.expected, *self.records):
            self._add(name)

    def _add(self, name: str) -> None:
        """A name exists, and with it its fence and all names between it and its zone."""
        for each in (name, fence_name(name)):
            while zone_of(each, self.zones) and each not in self._exists:
                self._exists.add(each)
                each = each.partition(".")[2]

    def _count(self, name: str, record: Record | None, sign: int) -> None:
        zone = zone_of(name, self.zones)
        if zone and record is not None and record.fence is not None:
            self._serials[zone] += sign * record.fence.generation

    # ---- writing

    def read(self, name: str) -> Actual | None:
        record = self.records.get(name)
        return None if record is None else Actual(record.fence, record.ttl_s, record.answers)

    def apply(self, change: Change) -> tuple[Result, str]:
        """Compare-and-set on the fence, and the rules of 4.8 on generations and incarnations."""
        name, desired = change.desired.name, change.desired
        if not zone_of(name, self.zones):
            return Result.TERMINAL, f"{name} is in none of the zones served here"
        held = self.records.get(name)
        current = held.fence if held else None
        if current != change.expect:
            return Result.FENCED, f"found {current.text() if current else 'no fence'}"
        if refused := refusal(change):
            return Result.FENCED, refused
        self.edit(name, Actual(change.fence, desired.ttl_s, desired.answers))
        return Result.DONE, ""

    def edit(self, name: str, actual: Actual | None) -> None:
        """Write without asking the fence: what somebody with an editor does to a zone file. None removes."""
        self.written = True
        if actual is None:
            self.records.pop(name, None)
            self.configure(tuple(self.zones.values()), self.expected)
            return
        self._count(name, self.records.get(name), -1)
        self.records[name] = Record(actual.fence, actual.ttl_s, actual.answers)
        self._count(name, self.records[name], 1)
        self._add(name)

    # ---- answering

    def zone(self, name: dns.name.Name) -> Zone | None:
        """The longest zone around a name that was asked for."""
        while key(name) not in self.zones:
            if name == dns.name.root:
                return None
            name = name.parent()
        return self.zones[key(name)]

    def serial(self, zone: Zone) -> int:
        """SOA serial: one more than the sum of all generations, so that every change raises it, and a server
        that was restarted comes back to it."""
        return self._serials[zone.name] % 2**32

    def find(self, name: dns.name.Name) -> Found:
        """What stands at a name inside one of the zones, wildcards included (RFC 4592).

        Before the first write since the start every name is UNREADY, and an expected one until it is written:
        an empty server that answered "no such name" would be believed, and its "no" cached; one that fails is
        skipped, and the next one is asked.
        """
        if not self.written:
            return Found(Kind.UNREADY)
        text = key(name)
        if text in self._exists:
            return self._at(text)
        encloser = name.parent()
        while key(encloser) not in self._exists:
            encloser = encloser.parent()
        wildcard = "*." + key(encloser)
        if wildcard in self._exists:
            return self._at(wildcard)
        return Found(Kind.ABSENT)

    def _at(self, text: str) -> Found:
        if text in self.zones:
            # A name at the apex of its zone answers beside SOA and NS.
            return Found(Kind.APEX, self.records.get(text))
        if text in self.records:
            return Found(Kind.SERVICE, self.records[text])
        if text in self._servers:
            return Found(Kind.SERVER, addresses=self._servers[text])
        label, _, rest = text.partition(".")
        fenced = label == FENCE_LABEL and (rest in self.records or rest in self.expected)
        if fenced and rest in self.records:
            return Found(Kind.FENCE, self.records[rest])
        if fenced or text in self.expected:
            return Found(Kind.UNREADY)
        return Found(Kind.EMPTY)
