"""Caching resolvers between clients and name servers, in virtual time: one that keeps TTLs as unbound does, one that
stretches them, one that serves stale answers (RFC 8767)."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from chaos.scenario import Resolvers
from controlplane.dns.verify import drivers_for
from policies.topology import Config

KEEPS, STRETCH, STALE = "keeps", "stretch", "stale"
SERVFAIL = "servfail"  # no name server replied

# Measured with unbound 1.17 and one dead name server of three: a query that meets it takes 0.2 to 1.8 s, and later
# ones go round it. unbound works in whole seconds, so that an answer lives up to one longer than its TTL.
SILENT_S = (0.2, 1.8)
ROUND_S = 1.0
AVOID_S = 900.0  # unbound's infra-host-ttl: a server that did not reply comes last for so long

Reply = tuple[Mapping[str, str], float]  # address -> site, of what is in the answer; its TTL, seconds
Ask = Callable[[str, str, str], Reply | None]  # (name server's site, service, client's address); None: no reply
Servers = Callable[[str], Sequence[str]]  # service -> its name servers, as Ask knows them


class Cached(Struct):
    """What a resolver tells for a service: a site ("" = none) or an error, from `ready` (a query may have to wait for
    a name server that is silent) until `until`."""

    site: str
    error: str
    ready: float
    until: float


class Resolver:
    """One cache. now: seconds, of any zero; rng: its own, or one resolver's chance would change another's.

    address: from where clients of its region ask, as far as name servers heed that.
    """

    def __init__(
        self,
        name: str,
        region: str,
        address: str,
        kind: str,
        ask: Ask,
        now: Callable[[], float],
        rng: random.Random,
        *,
        servers: Servers,
        stretch_s: float = 0.0,
        stale_s: float = 0.0,
    ) -> None:
        self.name, self.region, self.address, self.kind = name, region, address, kind
        self._ask, self._now, self._rng, self._servers = ask, now, rng, servers
        self._stretch_s = stretch_s if kind == STRETCH else 0.0
        self._stale_s = stale_s if kind == STALE else 0.0
        self._cache: dict[str, Cached] = {}
        self._silent: dict[str, float] = {}  # name server -> until when it comes last

    def look(self, service: str) -> Cached:
        """What clients are told now; before `ready` they wait for it."""
        now = self._now()
        held = self._cache.get(service)
        if held is not None and now < held.until:
            return held
        found = self._fetch(service, now)
        if found is None:
            if held is not None and now < held.until + self._stale_s:
                return held
            return Cached("", SERVFAIL, now, now)
        self._cache[service] = found
        return found

    def _fetch(self, service: str, now: float) -> Cached | None:
        """One server after the other until one replies, those that were silent lately last."""
        servers = list(self._servers(service))
        self._rng.shuffle(servers)
        servers.sort(key=lambda server: self._silent.get(server, now) > now)
        waited_s = 0.0
        for server in servers:
            reply = self._ask(server, service, self.address)
            if reply is None:
                self._silent[server] = now + AVOID_S
                waited_s += self._rng.uniform(*SILENT_S)
                continue
            self._silent.pop(server, None)
            sites, ttl_s = reply
            ready = now + waited_s
            # One of several, as resolvers turn them round; the same for as long as the answer lives.
            site = sites[self._rng.choice(sorted(sites))] if sites else ""
            kept_s = ttl_s + self._rng.uniform(0.0, ROUND_S) + self._stretch_s
            return Cached(site, "" if site else "no answer", ready, ready + kept_s)
        return None


def name_servers(config: Config, service: str, secondaries: bool = False) -> tuple[str, ...]:
    """Where a service's name is answered: "site-a", and with secondaries "site-a/2"."""
    spec = config.services[service]
    if spec.dns is None:
        return ()
    sites = dict.fromkeys(driver.site for driver in drivers_for(config, spec.dns.name))
    return tuple(sites) + (tuple(f"{site}/2" for site in sites) if secondaries else ())


def resolvers_of(
    spec: Resolvers,
    addresses: Mapping[str, str],
    servers: Servers,
    ask: Ask,
    now: Callable[[], float],
    seed: str,
) -> list[Resolver]:
    """A scenario's resolvers: of each region (addresses: region -> from where its clients ask) first the one that keeps
    TTLs, then those that do not."""
    kinds = [KEEPS, *[STRETCH] * spec.stretch, *[STALE] * spec.stale]
    found = []
    for region, address in addresses.items():
        for n, kind in enumerate(kinds):
            name = f"{region}/{n + 1}"
            rng = random.Random(f"{seed}/resolver/{name}")
            found.append(
                Resolver(
                    name,
                    region,
                    address,
                    kind,
                    ask,
                    now,
                    rng,
                    servers=servers,
                    stretch_s=spec.stretch_s,
                    stale_s=spec.stale_s,
                )
            )
    return found
