"""Worst-case failover arithmetic (DESIGN section 10). Pure.

The site, the leader and the store's leader all die at once, the last check passed a moment before, every check
hangs, the deputy has to write, and the resolver asked a moment before the change.
"""

from __future__ import annotations

import math
from collections.abc import Collection

from msgspec import Struct

from policies.topology import Check, Config, ProbePolicy, Service

PUBLISH_S = 0.5
TAKEOVER_S = 5.0  # the store's election 2, a current view 1, silence 2
DECIDE_S = 0.1
DECIDE_PER_SERVICE_S = 1.0 / 1000
DEPUTY_S = 2.0  # how long a deputy waits for the home agent
WRITE_S = 0.2  # one message
NAMES_PER_WRITE = 200
NO_DNS_APPLY_S = 1.0  # pools only: each site's own agent writes to it
RESOLVER_S = 1.0  # resolvers keep a TTL for up to a second more


class WorstCase(Struct, frozen=True):
    """Seconds. worst_case_s = max(detect_s + publish_s, takeover_s) + decide_s + apply_s + ttl_s."""

    worst_case_s: float
    target_s: float
    detect_s: float
    publish_s: float
    takeover_s: float
    decide_s: float
    apply_s: float
    ttl_s: float

    @property
    def fits(self) -> bool:
        return self.worst_case_s <= self.target_s

    @property
    def longest_ttl_s(self) -> int:
        """The TTL in whole seconds with which the target would be met; under 1 if none would."""
        return math.floor(self.target_s - (self.worst_case_s - self.ttl_s) - RESOLVER_S + 1e-9)


class _Shared(Struct, frozen=True):
    """What the bounds of all services have in common, so that 10,000 of them cost one pass each."""

    names: dict[str, int]  # zone -> names in it
    movable: dict[str, float]  # site -> demand of the services that are there and could be elsewhere
    limit: float  # what may move at once without the governor


def worst_case(config: Config, service: str) -> WorstCase:
    """The bound for one service of the configuration. Raises KeyError if there is no such service."""
    return _worst_case(config, config.services[service], _shared(config))


def worst_cases(config: Config) -> dict[str, WorstCase]:
    """The bounds of all services, by name."""
    shared = _shared(config)
    return {name: _worst_case(config, config.services[name], shared) for name in sorted(config.services)}


def detection_s(probe: ProbePolicy) -> float:
    """From the last probe that passed to DOWN, if every further probe hangs until its time-out.

    At least two failures count even with `fall: 1`: the first silent one only raises the question whether the vantage
    itself can see, which its references have answered by the second (probes/sight.py).
    """
    longest_s = probe.interval_s * (1 + probe.jitter)
    return longest_s + max(probe.fall, 2) * max(probe.timeout_s, probe.fast_interval_s)


def zone_of(name: str, zones: Collection[str]) -> str:
    """The longest of the zones that the name is in, or "". All lower case, without the final dot."""
    while name and name not in zones:
        name = name.partition(".")[2]
    return name


def zones_of(config: Config) -> frozenset[str]:
    """Every zone that a driver writes."""
    return frozenset(zone for driver in config.dns for zone in driver.zones)


def _worst_case(config: Config, spec: Service, shared: _Shared) -> WorstCase:
    detect_s = max((detection_s(check.probe) for check in _deciding(config, spec)), default=0.0)
    if _governor_may_wait(config, spec, shared):
        detect_s += config.policy.freshness_s
    decide_s = DECIDE_S + DECIDE_PER_SERVICE_S * len(config.services)
    apply_s = _apply_s(config, spec, shared)
    ttl_s = spec.dns.ttl_s + RESOLVER_S if spec.dns else 0.0
    known_s = max(detect_s + PUBLISH_S, TAKEOVER_S)
    return WorstCase(
        worst_case_s=round(known_s + decide_s + apply_s + ttl_s, 6),
        target_s=spec.target_s,
        detect_s=round(detect_s, 6),
        publish_s=PUBLISH_S,
        takeover_s=TAKEOVER_S,
        decide_s=round(decide_s, 6),
        apply_s=round(apply_s, 6),
        ttl_s=ttl_s,
    )


def _shared(config: Config) -> _Shared:
    zones = zones_of(config)
    names: dict[str, int] = {}
    movable: dict[str, float] = {}
    total = 0.0
    for _, spec in sorted(config.services.items()):
        demand = sum(spec.demand[region] for region in sorted(spec.demand))
        total += demand
        if spec.dns:
            zone = zone_of(spec.dns.name, zones)
            names[zone] = names.get(zone, 0) + 1
        for site in spec.endpoints if len(spec.endpoints) > 1 else ():
            movable[site] = movable.get(site, 0.0) + demand
    return _Shared(names=names, movable=movable, limit=config.policy.governor.share * total)


def _governor_may_wait(config: Config, spec: Service, shared: _Shared) -> bool:
    """Could losing one of the service's sites be held back by the governor?

    Yes where it could move more than the governor's share of all demand (at worst all that has an endpoint there
    and somewhere else to go), and where a quorum short of all voters suffices, so that one of them may dissent.
    """
    voters = len(config.sites) - 1  # a dead site's own vantage is dead too
    unanimous = -(-spec.policy.quorum.share_permille * voters // 1000) >= voters
    most = max((shared.movable.get(site, 0.0) for site in spec.endpoints), default=0.0)
    return not unanimous and most > shared.limit + 1e-9


def _deciding(config: Config, spec: Service) -> list[Check]:
    """The checks whose failure can take a site from the service: its own, and those of its sites."""
    own = [check for site in sorted(spec.endpoints) for check in config.sites[site].checks]
    return [*spec.checks, *own]


def _apply_s(config: Config, spec: Service, shared: _Shared) -> float:
    """Until the last name server of the service's zone has its names, if the home agents are dead."""
    if spec.dns is None:
        return NO_DNS_APPLY_S
    zone = zone_of(spec.dns.name, zones_of(config))
    write_s = WRITE_S * math.ceil(shared.names[zone] / NAMES_PER_WRITE)
    drivers = [driver for driver in config.dns if zone in driver.zones]
    return max(
        (max((DEPUTY_S if len(d.writers) > 1 else 0.0) + write_s, d.apply_within_s) for d in drivers),
        default=NO_DNS_APPLY_S,
    )
