"""What happened in a lab since a moment: to clients, at the name servers, in the journals; and whether it is over."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from chaos.worlds.lab import layout, measure
from chaos.worlds.lab.client import Record
from chaos.worlds.lab.measure import Feed
from chaos.worlds.lab.poller import Change
from chaos.worlds.lab.world import Lab

CALM_S = 3.0  # longer than a request may take
FRESH_S = 1.5


class Moment(Struct, frozen=True):
    """`t`: CLOCK_MONOTONIC; `wall_s`: seconds since 1970, which decisions are dated in."""

    t: float
    wall_s: float


def now() -> Moment:
    return Moment(time.monotonic(), datetime.now(UTC).timestamp())


class Observer:
    """Of one lab, for as long as it runs."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._records, self._changes = Feed(lab.clients.log, Record), Feed(lab.poller.log, Change)

    # ---- clients

    def requests(self, since: Moment) -> dict[str, list[Record]]:
        """By client, all of them."""
        found = measure.by_client(self._records.all(), since.t)
        return {client.name: found.get(client.name, []) for client in layout.clients()}

    def fresh(self) -> None:
        """Let the resolver have asked a moment ago: the worst that a TTL can do."""
        self._lab.resolver.restart()
        time.sleep(FRESH_S)
        self._lab.until(lambda: self.calm(FRESH_S), "every client is served")

    def failed(self, since: Moment, through: str = "") -> list[Record]:
        """Of all clients, or those whose name has `through` in it: "/" = those who ask the resolver."""
        found = self.requests(since)
        return [r for client in found if through in client for r in measure.failed(found[client])]

    def failed_of(self, since: Moment, client: str) -> list[Record]:
        """Of one client."""
        return measure.failed(self.requests(since)[client])

    def calm(self, for_s: float = CALM_S) -> bool:
        """For so long now every client got an answer to every request, as far as they have ended."""
        since = Moment(time.monotonic() - for_s, 0.0)
        found = self.requests(since)
        return all(found.values()) and not any(r.error for requests in found.values() for r in requests)

    def told(self, since: Moment, site: str) -> list[Record]:
        """Requests that were answered by a site, or sent there."""
        addresses = addresses_of(site)
        requests = [r for requests in self.requests(since).values() for r in requests]
        return [r for r in requests if r.site == site or r.address in addresses]

    # ---- name servers

    def left_s(self, since: Moment, name: str, site: str, servers: Collection[str]) -> float | None:
        """How long until none of these name servers (by site) told anybody to go to `site` for `name`; None: one
        still does, or was never heard."""
        addresses, found = addresses_of(site), measure.histories(self._changes.all(), since.t)
        left = [
            measure.left_at(history, addresses)
            for (asked, server, _), history in found.items()
            if asked == layout.name(name) and server in servers
        ]
        if not left or any(at is None for at in left):
            return None
        return max(0.0, max(at for at in left if at is not None) - since.t)

    # ---- decisions

    def decided_s(self, since: Moment, service: str, site: str) -> float | None:
        """How long until the first decision by which `site` has no share of the service any more."""
        for failoverd in self._lab.failoverds.values():
            for decision in measure.decisions(failoverd.journal) if failoverd.process.alive else ():
                out = not any(site in shares for shares in decision.desired.shares.values())
                if decision.service == service and decision.wall_s > since.wall_s and out:
                    return decision.wall_s - since.wall_s
        return None

    # ---- all together

    def rows(
        self, scenario: str, since: Moment, services: Sequence[str], site: str, servers: Collection[str], note: str = ""
    ) -> list[measure.Row]:
        """What the loss of `services` at `site` was like; `servers`: the name servers that survived."""
        found = []
        for service in services:
            outages = [
                outage
                for client, requests in self.requests(since).items()
                if client.startswith(f"{service}/") and (outage := measure.outage(requests)) is not None
            ]
            bound = self._lab.bounds[service]["phases"]
            detect = max(bound["detect_s"] + bound["publish_s"], bound["takeover_s"]) + bound["decide_s"]
            found.append(
                measure.Row(
                    scenario,
                    service,
                    self.decided_s(since, service, site),
                    self.left_s(since, service, site, servers),
                    max((outage.ended - since.t for outage in outages), default=0.0),
                    sum(outage.failed for outage in outages),
                    (detect, bound["apply_s"], bound["ttl_s"]),
                    note,
                )
            )
        return found


def addresses_of(site: str) -> frozenset[str]:
    """Of all its services."""
    return frozenset(layout.web(site, service) for service in layout.SERVICES)
