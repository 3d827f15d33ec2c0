"""capacity, and what room there was (DESIGN 4.5). Pure; counts by itself, never with the running policy."""

from __future__ import annotations

from collections.abc import Mapping

from chaos.history import Committed, Configured, History
from chaos.report import Invariant
from chaos.scenario import Scenario
from chaos.trace import Findings, Shares, Timed, before, by_time, optional
from controlplane.documents import DecisionDoc
from policies.topology import Config

ROUNDED = 0.01  # whole percentages: capacity is judged before rounding, within 1 % of the demand
WORTH = 0.02  # a smaller relief of overload is not worth a move
OPEN = ("ready", "pinned")  # rules of sites that take any traffic


class Rooms:
    """What every service sends where, by what was committed; feed it all commits of an instant, then ask."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._shares: dict[str, Shares] = {}

    def take(self, decision: DecisionDoc) -> None:
        self._shares[decision.service] = decision.desired.shares

    def left(self, service: str) -> dict[str, float]:
        """Site -> usable capacity less what services that are placed before this one are served there."""
        config, mine = self.config, self._rank(service)
        limit = config.policy.guards.max_utilisation
        room = {name: site.capacity * limit for name, site in config.sites.items() if site.role != "witness"}
        for other, shares in self._shares.items():
            if other in config.services and self._rank(other) < mine:
                for site, amount in loads(config, other, shares).items():
                    room[site] = room.get(site, 0.0) - amount
        return room

    def coarse(self, service: str) -> float:
        """By how much whole percentages may be off, of this service and those before it together."""
        mine = self._rank(service)
        ranked = [name for name in self._shares if name in self.config.services and self._rank(name) <= mine]
        return ROUNDED * sum(demand(self.config, name) for name in ranked) + 1e-6

    def _rank(self, service: str) -> tuple[int, str]:
        return (-self.config.services[service].priority, service)


def demand(config: Config, service: str) -> float:
    return sum(config.services[service].demand.values())


def loads(config: Config, service: str, shares: Shares) -> dict[str, float]:
    """Site -> demand that these shares send there."""
    found: dict[str, float] = {}
    for region, amount in config.services[service].demand.items():
        for site, percent in shares.get(region, {}).items():
            found[site] = found.get(site, 0.0) + amount * percent / 100
    return found


def spare(
    config: Config, decision: DecisionDoc, room: Mapping[str, float], rules: tuple[str, ...] = OPEN
) -> dict[str, float]:
    """Site -> room that it has left under a decision; sites whose standing is one of these rules."""
    sent = loads(config, decision.service, decision.desired.shares)
    return {
        site: max(0.0, room.get(site, 0.0) - sent.get(site, 0.0))
        for site, state in decision.desired.sites.items()
        if state.rule in rules and site in config.services[decision.service].endpoints
    }


def capacity(scenario: Scenario, history: History) -> Invariant:
    """No move gives a site more than it can carry while another that may take it has room; no overload without a
    shortfall that says so."""
    found = Findings("capacity", "no generation is recorded")
    timed = Timed(history)
    rooms = Rooms(history.config)
    for _, records in by_time(history):
        made = [record for record in records if isinstance(record, Committed)]
        for record in records:
            if isinstance(record, Configured):
                rooms.config = record.config
        for record in made:
            rooms.take(record.decision)
        for record in made:
            config = timed.of(record.decision, record.at)
            if record.decision.new_generation and record.decision.service in config.services:
                rooms.config = config
                found.looked()
                _judge(record, rooms, found)
    return found.invariant()


def _judge(record: Committed, rooms: Rooms, found: Findings) -> None:
    decision, config = record.decision, rooms.config
    service, room, all_ = decision.service, rooms.left(decision.service), demand(config, decision.service)
    coarse = rooms.coarse(service)
    now = loads(config, service, decision.desired.shares)
    was = loads(config, service, before(decision))
    over = {site: amount - max(0.0, room.get(site, 0.0)) for site, amount in now.items()}
    too_much = sum(amount for amount in over.values() if amount > 0)
    if too_much > all_ * ROUNDED + coarse and not decision.desired.shortfall:
        text = f"{decision.id} sends {too_much:g} of {all_:g} of {service} where there is no room, and does not say so"
        found.wrong(record.at, text)
    if decision.desired.tier or decision.input.ahead is not None:
        return
    grown = {s: o for s, o in over.items() if o > all_ * WORTH + coarse and now[s] > was.get(s, 0.0) + coarse}
    free = {s: left for s, left in spare(config, decision, room).items() if left > all_ * WORTH + coarse}
    kind = "an optional" if optional(decision) else "a forced"
    for site in sorted(grown) if free else ():
        where = ", ".join(f"{other} has room for {left:g}" for other, left in sorted(free.items()))
        text = f"{decision.id}, {kind} move of {service}, gives {site} {grown[site]:g} more than its room"
        found.wrong(record.at, f"{text}, while {where}")
