"""A History of what happens in the lab, as far as it can be seen from outside: by clients, in answers, in the store."""

from __future__ import annotations

import time
from collections import defaultdict

from msgspec import Struct

from chaos.history import Answered, AnyRecord, Asked, Committed, Configured, Led, Pooled, Rewound, Served
from chaos.scenario import Scenario
from chaos.worlds.lab import adapt, layout
from chaos.worlds.lab.client import SPREAD_S, TIMEOUT_S, Record
from chaos.worlds.lab.measure import Feed
from chaos.worlds.lab.poller import Change
from chaos.worlds.lab.storewatch import KEYS, Event, StoreWatch
from chaos.worlds.lab.world import Lab
from chaos.worlds.world import Say
from controlplane.documents import DecisionDoc, LeaderDoc, decode
from policies.topology import Config

POOLS_S = 0.5
# A request is known when it has ended: after this, all that had begun before have.
LATE_S = 2 * TIMEOUT_S + 0.3


class Holder(Struct, frozen=True):
    """Who holds the leader key from a revision of the store on; "" = nobody."""

    rev: int
    node: str


def heard(lab: Lab, scenario: Scenario) -> bool:
    """Has every name server answered the poller, for every service and region?"""
    config = scenario.config
    found = {(c.name, c.server, c.region) for c in Feed(lab.poller.log, Change).all() if c.reachable}
    return len(found) == len(config.services) * len(layout.SITES) * len(config.regions)


class Recorder:
    """Of one play. Nothing is recorded before begin(): what came before has negative times. zero: when the scenario
    began, of CLOCK_MONOTONIC."""

    def __init__(self, lab: Lab, scenario: Scenario, watch: StoreWatch, say: Say) -> None:
        self._lab, self._say, self._watch = lab, say, watch
        self._requests, self._changes = Feed(lab.clients.log, Record), Feed(lab.poller.log, Change)
        self._services = {layout.name(service): service for service in scenario.config.services}
        self._clients = adapt.clients(scenario.config)
        self._duration_s = scenario.duration_s
        self._read = [0, 0]  # of requests, of changes
        self._pools = [n for n, s in scenario.config.services.items() if s.pools and n in layout.POOLS]
        self._pools_due = 0.0
        self._weights: dict[tuple[str, str], dict[str, int]] = {}
        self._waiting: list[Record] = []
        self._last: dict[str, tuple[str, str]] = {}
        self._count: dict[str, list[int]] = defaultdict(lambda: [0, 0])  # client -> requests, failed
        self._holders = [Holder(0, "")]
        self.records: list[AnyRecord] = []
        self.zero = 0.0

    # ---- what goes in

    def add(self, record: AnyRecord) -> None:
        self.records.append(record)
        self._say(record)

    def now(self) -> float:
        """Seconds of the scenario."""
        return self.at(time.monotonic())

    def at(self, t: float) -> float:
        return round(t - self.zero, 4)

    @property
    def leader(self) -> str:
        """Whose the leader key is now; "" = nobody's."""
        self._store()
        return self._holders[-1].node

    def begin(self) -> bool:
        """Zero is when the last round of the clients' requests began, if all of them ended well; else not yet."""
        last = {request.client: request for request in sorted(self._requests.all(), key=lambda request: request.t)}
        began = [request.t for request in last.values() if not request.error]
        if len(began) < len(self._clients) or max(began) - min(began) > 2 * SPREAD_S:
            return False
        self.zero = min(began)
        return True

    def pump(self) -> None:
        """Record what has become known."""
        self._store()
        changes = self._changes.all()
        for change in changes[self._read[1] :]:
            self.add(self._answered(change))
        self._read[1] = len(changes)
        self._served(time.monotonic() - LATE_S)
        self._pooled()

    def finish(self) -> tuple[AnyRecord, ...]:
        """All of it, after the last request of the scenario has ended, in the order of time."""
        self.pump()
        self._served(self.zero + self._duration_s)
        for client in self._clients:
            requests, failed = self._count[client.name]
            self.add(
                Asked(
                    at=self._duration_s,
                    client=client.name,
                    service=client.name.partition("/")[0],
                    region=client.name.partition("/")[2],
                    requests=requests,
                    failed=failed,
                )
            )
        return tuple(sorted((r for r in self.records if r.at <= self._duration_s), key=lambda record: record.at))

    # ---- clients

    def _served(self, until: float) -> None:
        """Those requests that began before. A later one may have ended first, so that they have to wait."""
        requests = self._requests.all()
        self._waiting = sorted([*self._waiting, *requests[self._read[0] :]], key=lambda request: request.t)
        self._read[0] = len(requests)
        ripe = [request for request in self._waiting if request.t <= until]
        self._waiting = self._waiting[len(ripe) :]
        for request in ripe:
            if 0 <= self.at(request.t) <= self._duration_s:
                count = self._count[request.client]
                count[0] += 1
                count[1] += bool(request.error)
            now = (request.site or layout.site_of(request.address), request.error)
            if self._last.get(request.client) == now:
                continue
            self._last[request.client] = now
            service, _, region = request.client.partition("/")
            self.add(
                Served(
                    at=self.at(request.t),
                    client=request.client,
                    service=service,
                    region=region,
                    site=now[0],
                    error=now[1],
                )
            )

    # ---- name servers

    def _answered(self, change: Change) -> Answered:
        return Answered(
            at=self.at(change.t),
            server=change.server,
            service=self._services[change.name],
            region=change.region,
            sites=tuple(sorted({layout.site_of(address) for address in change.addresses})),
            generation=change.generation,
            reachable=change.reachable,
        )

    # ---- load balancers

    def _pooled(self) -> None:
        """As they are asked, not as they change: each twice a second."""
        if time.monotonic() < self._pools_due:
            return
        self._pools_due = time.monotonic() + POOLS_S
        for name, site in self._lab.sites.items():
            for service in self._pools if site.haproxy.alive else ():
                try:
                    weights = site.pool(service)
                except OSError:
                    continue  # it is about to die, or to start
                if weights and self._weights.get((name, service)) != weights:
                    self._weights[name, service] = weights
                    self.add(Pooled(at=self.now(), site=name, service=service, weights=weights))

    # ---- the store

    def _store(self) -> None:
        for event in self._watch.take():
            if event.key == KEYS.leader:
                self._lead(event)
            elif event.key.startswith(KEYS.decisions) and event.value is not None:
                self._committed(event, event.value)
            elif event.key == KEYS.config and event.value is not None and self.zero and event.t > self.zero:
                self.add(Configured(at=self.at(event.t), config=decode(Config, event.value)))

    def _lead(self, event: Event) -> None:
        node = decode(LeaderDoc, event.value).node if event.value is not None else ""
        self._led(self.at(event.t), self._holders[-1].node, node)
        self._holders.append(Holder(event.rev, node))

    def _led(self, at: float, before: str, node: str) -> None:
        if before:
            why = f"{node} took the leader key" if node else "the leader key is gone"
            self.add(Led(at=at, node=before, leading=False, why=why))
        if node:
            self.add(Led(at=at, node=node, leading=True, why="has the leader key"))

    def _committed(self, event: Event, value: bytes) -> None:
        holder = self._holders[-1]
        self.add(
            Committed(
                at=self.at(event.t),
                decision=decode(DecisionDoc, value),
                holder=holder.node,
                holder_token=holder.rev if holder.node else 0,
            )
        )

    def rewind(self, at: float, to: float, rev: int) -> None:
        """The store is as it was at `to`, at this revision, and goes on from there."""
        self._store()
        self.add(Rewound(at=at, to=to))
        before = self._holders[-1].node
        self._holders = [holder for holder in self._holders if holder.rev <= rev]
        if before != self._holders[-1].node:
            self._led(at, before, self._holders[-1].node)
        self._watch.begin(rev + 1)
