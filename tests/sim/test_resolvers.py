"""Caching resolvers and the clients behind them, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from chaos.history import AnyRecord, Asked, Served
from chaos.scenario import Resolvers
from chaos.worlds.loop import Kernel
from chaos.worlds.sim.clients import Clients
from chaos.worlds.sim.resolvers import KEEPS, SERVFAIL, STALE, STRETCH, Resolver, name_servers, resolvers_of
from policies.topology import Config
from tests.sim.setting import config

TTL_S = 20.0
A, B = "192.0.2.10", "198.51.100.10"
SERVERS = ("site-a", "site-b", "site-c")


class Zone:
    """Name servers that all answer `sites`, but for those that are silent; `asked` counts."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sites = {A: "site-a"}
        self.silent: set[str] = set()
        self.asked: list[str] = []

    def ask(self, server: str, service: str, address: str) -> tuple[dict[str, str], float] | None:
        self.asked.append(server)
        return None if server in self.silent else (self.sites, TTL_S)

    def resolver(self, kind: str = KEEPS, seed: str = "1") -> Resolver:
        return Resolver(
            "world/1",
            "world",
            "198.51.100.99",
            kind,
            self.ask,
            lambda: self.now,
            random.Random(seed),
            servers=lambda service: SERVERS,
            stretch_s=30.0,
            stale_s=30.0,
        )


@pytest.fixture
def zone() -> Zone:
    return Zone()


def lasts_s(zone: Zone, resolver: Resolver, site: str) -> float:
    """How long the resolver goes on with another site than `site`, looked at ten times a second."""
    began = zone.now
    while resolver.look("www").site != site:
        zone.now += 0.1
        assert zone.now - began < 200.0
    return zone.now - began


@pytest.mark.parametrize(
    ("kind", "least_s", "most_s"), [(KEEPS, 20.0, 21.1), (STRETCH, 50.0, 51.1), (STALE, 20.0, 21.1)]
)
def test_an_answer_is_kept_for_its_ttl_and_up_to_a_second(zone: Zone, kind: str, least_s: float, most_s: float) -> None:
    kept = []
    for seed in range(20):
        resolver = zone.resolver(kind, str(seed))
        zone.sites = {A: "site-a"}
        assert resolver.look("www").site == "site-a"
        zone.sites = {B: "site-b"}
        kept.append(lasts_s(zone, resolver, "site-b"))
    assert least_s <= min(kept) and max(kept) <= most_s
    assert max(kept) - min(kept) > 0.3  # not always the same second


def test_within_its_ttl_nobody_is_asked_again(zone: Zone) -> None:
    resolver = zone.resolver()
    for second in range(20):
        zone.now = float(second)
        resolver.look("www")
    assert len(zone.asked) == 1


def test_one_address_of_several_and_the_same_until_the_answer_is_over(zone: Zone) -> None:
    zone.sites = {A: "site-a", B: "site-b"}
    resolver = zone.resolver()
    met = set()
    for _ in range(12):
        sites = {resolver.look("www").site}
        zone.now += 19.0
        sites.add(resolver.look("www").site)
        assert len(sites) == 1
        met |= sites
        zone.now += 3.0
    assert met == {"site-a", "site-b"}


def test_a_silent_server_costs_one_wait_and_is_gone_round(zone: Zone) -> None:
    zone.silent = {"site-a"}
    waits = []
    for seed in range(30):
        resolver = zone.resolver(seed=str(seed))
        first = resolver.look("www").ready - zone.now
        for _ in range(10):
            zone.now += 30.0
            before = zone.now
            first = max(first, resolver.look("www").ready - before)
        waits.append(first)
    met = [wait for wait in waits if wait > 0.0]
    assert len(met) > 20 and all(0.2 <= wait <= 1.8 for wait in met)


def test_where_nobody_replies_it_says_so_and_tries_again(zone: Zone) -> None:
    zone.silent = set(SERVERS)
    resolver = zone.resolver()
    assert (resolver.look("www").error, sorted(zone.asked)) == (SERVFAIL, list(SERVERS))
    zone.silent = set()
    zone.now += 1.0
    assert resolver.look("www").site == "site-a"


@pytest.mark.parametrize(("kind", "site"), [(KEEPS, ""), (STALE, "site-a")])
def test_a_stale_answer_is_served_only_by_who_does_that_and_only_for_a_while(zone: Zone, kind: str, site: str) -> None:
    resolver = zone.resolver(kind)
    resolver.look("www")
    zone.silent = set(SERVERS)
    zone.now = 45.0
    assert resolver.look("www").site == site
    zone.now = 52.0
    assert resolver.look("www").error == SERVFAIL


def test_an_answer_without_addresses_is_no_site(zone: Zone) -> None:
    zone.sites = {}
    told = zone.resolver().look("www")
    assert (told.site, told.error) == ("", "no answer")


def test_a_scenario_has_one_that_keeps_to_the_rules_and_those_that_do_not(zone: Zone) -> None:
    spec = Resolvers(stretch=1, stale=2)
    found = resolvers_of(spec, {"eu": "1", "us": "2"}, lambda s: SERVERS, zone.ask, lambda: 0.0, "7")
    assert [(r.name, r.kind, r.address) for r in found] == [
        ("eu/1", KEEPS, "1"),
        ("eu/2", STRETCH, "1"),
        ("eu/3", STALE, "1"),
        ("eu/4", STALE, "1"),
        ("us/1", KEEPS, "2"),
        ("us/2", STRETCH, "2"),
        ("us/3", STALE, "2"),
        ("us/4", STALE, "2"),
    ]


def test_name_servers_are_those_of_the_zone_and_their_secondaries() -> None:
    cfg = config()
    assert name_servers(cfg, "www") == SERVERS
    assert name_servers(cfg, "www", secondaries=True)[3:] == ("site-a/2", "site-b/2", "site-c/2")
    without = replace(cfg, services={"www": replace(cfg.services["www"], dns=None)})
    assert name_servers(without, "www") == ()


# --- clients ----------------------------------------------------------------------------------------------------


class Street:
    """Clients of one resolver, and a way to break the site that they go to."""

    def __init__(self, kernel: Kernel, zone: Zone, kind: str = KEEPS) -> None:
        self.kernel, self.zone = kernel, zone
        self.broken: set[str] = set()
        self.records: list[AnyRecord] = []
        self.config = config()
        resolver = Resolver(
            "world/1", "world", "", kind, zone.ask, self.now, random.Random(1), servers=lambda s: SERVERS
        )
        self.clients = Clients(kernel, self._config, [resolver], self.connect, self.records.append, self.now)

    def now(self) -> float:
        return self.kernel.now - 100.0

    def _config(self) -> Config:
        return self.config

    def connect(self, service: str, site: str, region: str) -> str:
        return "refused" if site in self.broken else ""

    def at(self, when: float, deed: Callable[[], object]) -> None:
        self.kernel.at(when, deed)


def test_clients_say_what_changed_and_count_all() -> None:
    with Kernel() as kernel:
        street = Street(kernel, zone := Zone())
        street.at(30.5, lambda: street.broken.add("site-a"))
        street.at(30.6, lambda: zone.sites.update({A: "site-b"}))
        street.clients.begin()
        kernel.run_until(99.5)
        street.clients.end()
        kernel.run_until(300.0)
    served = [r for r in street.records if isinstance(r, Served)]
    assert [(r.site, r.error) for r in served] == [("site-a", ""), ("site-a", "refused"), ("site-b", "")]
    assert served[0].at == -100.0 and served[1].at == -69.0
    (asked,) = [r for r in street.records if isinstance(r, Asked)]
    assert (asked.requests, asked.region, asked.client) == (100, "world", "www@world/1")
    assert asked.failed == served[2].at - served[1].at


def test_requests_wait_while_a_silent_name_server_is_tried() -> None:
    with Kernel() as kernel:
        street = Street(kernel, zone := Zone())
        zone.silent = {"site-a", "site-b"}
        street.clients.begin()
        kernel.run_until(60.2)
        street.clients.end()
    served = [r for r in street.records if isinstance(r, Served)]
    assert [(r.site, r.error) for r in served] == [("site-a", "")]
    assert served[0].at in (-99.0, -98.0, -97.0, -96.0)
    (asked,) = [r for r in street.records if isinstance(r, Asked)]
    assert (asked.requests, asked.failed) == (61, 0)


def test_a_service_that_is_configured_later_gets_clients() -> None:
    with Kernel() as kernel:
        street = Street(kernel, Zone())
        street.clients.begin()
        kernel.run_until(10.0)
        services = street.config.services
        street.config = replace(street.config, services={**services, "shop": services["www"]})
        kernel.run_until(20.0)
        street.clients.end()
    assert [r.service for r in street.records if isinstance(r, Asked)] == ["www", "shop"]
