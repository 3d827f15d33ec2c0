"""What every service sends where by what was decided, and the room that this leaves (DESIGN 4.5). Pure; counts by
itself, never with the running policy."""

from __future__ import annotations

from collections.abc import Mapping

from chaos.trace import Shares
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
