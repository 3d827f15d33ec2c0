"""What one simulated name server holds and tells: a real table and a real responder."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence

import dns.message

from controlplane.dns.embedded import EmbeddedServer
from controlplane.dns.regions import Client, Place, Regions
from controlplane.dns.table import FENCE_LABEL, Zone
from controlplane.drivers import Actual, Change, Result
from policies.world import Answer

FENCE = FENCE_LABEL.encode()
TURNS = 3  # different answers to one question that are worked out

Told = tuple[tuple[str, ...], int | None]  # sites in the answers, and the fence's generation


class Named(Regions):
    """It also takes a region's own name for the place where a question comes from: the key of a view says so."""

    def locate(self, source: str, client: Client | None) -> Place:
        name = source.removeprefix("region ")
        return Place(name, 0) if name != source else super().locate(source, client)


class Replies:
    """To one question, as long as what they come from is `basis`."""

    def __init__(self, basis: object, count: int) -> None:
        self.basis = basis
        self.messages: deque[dns.message.Message] = deque(maxlen=count)


class Server:
    """One server's contents. `name`: "site-a", or "site-a/2" for its first secondary. geo: it tells clients of
    different regions different things. expected: see EmbeddedServer."""

    def __init__(
        self, name: str, zones: Sequence[Zone], regions: Named, geo: bool, expected: Sequence[str] = ()
    ) -> None:
        self.name, self.geo = name, geo
        self._configured = 0  # times
        self._server = EmbeddedServer(zones, regions, expected=expected)
        self._replies: dict[Hashable, Replies] = {}

    @property
    def names(self) -> list[str]:
        return list(self._server.table.records)

    @property
    def zones(self) -> tuple[str, ...]:
        return tuple(self._server.table.zones)

    def configure(self, regions: Named, expected: Sequence[str]) -> None:
        zones = tuple(self._server.table.zones.values())
        self._server.configure(zones, regions, expected=expected)
        self._configured += 1

    def read(self, name: str) -> Actual | None:
        return self._server.table.read(name)

    def put(self, name: str, actual: Actual | None) -> None:
        self._server.table.edit(name, actual)

    def apply(self, change: Change) -> tuple[Result, str]:
        return self._server.table.apply(change)

    def forget(self) -> None:
        """As after a start: it fails every question until it is written."""
        table = self._server.table
        for name in self.names:
            table.edit(name, None)
        table.written = False

    def close(self) -> None:
        self._server.responder.regions.close()

    # --- answering ---

    def told(self, name: str, region: str) -> Told | None:
        """What clients of a region are told of a name, over all address families. None: no answer (SERVFAIL)."""
        table = self._server.table
        actual = table.read(name)
        if actual is None:
            return ((), None) if table.written and name not in table.expected else None
        rows = [row for rtype in ("A", "AAAA") for row in self._rows(actual.answers, region, rtype)]
        return tuple(sorted({row.site for row in rows})), actual.fence.generation if actual.fence else None

    def pick(self, name: str, region: str) -> tuple[tuple[str, ...], int] | None:
        """One answer to one client, and its TTL: its turn is used up. None: no answer."""
        record = self._server.table.records.get(name)
        if record is None:
            return None if self.told(name, region) is None else ((), 0)
        if not self.geo:  # and without weights it names all of them
            rows = [row for rtype in ("A", "AAAA") for row in self._rows(record.answers, region, rtype)]
            return tuple(row.address for row in rows), record.ttl_s
        found = [record.pick(region, self._server.responder.regions.default, rtype) for rtype in ("A", "AAAA")]
        return tuple(address for each in found for address in each), record.ttl_s

    def reply(self, query: dns.message.Message, source: str) -> dns.message.Message:
        """`source`: an address, or "region NAME". The same message for the same question, while nothing changes; or, if
        those who ask take turns, the same TURNS messages again and again. (Of an SOA's serial this is not true.)"""
        asked = query.question[0]
        key = (source, asked.name.labels, asked.rdtype, tuple([option.to_wire() for option in query.options]))
        known = self._replies.get(key)
        labels = asked.name.labels[asked.name.labels[0] == FENCE :]
        actual = self.read(b".".join(labels[:-1]).decode("ascii").lower())
        basis = (actual, self._configured, self._server.table.written)
        if known is None or known.basis != basis:
            known = self._replies[key] = Replies(basis, TURNS if _turns(actual) else 1)
        if len(known.messages) == known.messages.maxlen:
            known.messages.rotate(-1)
            return known.messages[-1]
        answer = self._server.answer(query.to_wire(), source, tcp=True)
        assert answer is not None, "a question is always answered"
        known.messages.append(dns.message.from_wire(answer))
        return known.messages[-1]

    def _rows(self, answers: Sequence[Answer], region: str, rtype: str) -> list[Answer]:
        """As the table picks them: the region's, else the default one's, else anybody's."""
        rows = [a for a in answers if a.rtype == rtype and a.weight > 0]
        for each in (region, self._server.responder.regions.default):
            if mine := [a for a in rows if a.region == each]:
                return mine
        return [a for a in rows if a.region == rows[0].region]


def _turns(actual: Actual | None) -> bool:
    """May the next one who asks be told something else?"""
    sets = [(a.region, a.rtype) for a in actual.answers if a.weight > 0] if actual else []
    return len(set(sets)) < len(sets)
