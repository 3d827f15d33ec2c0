"""The configuration file, key by key: which keys there are, what reads them, and their defaults."""

from __future__ import annotations

from controlplane.config import scalars
from controlplane.config.entries import CheckReader, DriverReader
from controlplane.config.policy_tables import POLICY, SERVICE_POLICY
from controlplane.config.readers import Either, Field, Map, OneOrMany, Scalar, Seq, Table, choice
from controlplane.config.scalars import DAY_S
from controlplane.dns import DRIVERS as DNS
from controlplane.pools import DRIVERS as POOLS

SITE = scalars.name("a site's name")
REGION = scalars.name("a region's name")
_LOCATION = Table({"lat": Field(scalars.number(-90, 90)), "lon": Field(scalars.number(-180, 180))})
_SITE = Table(
    {
        "country": Field(scalars.country(), ""),
        "location": Field(_LOCATION, None),
        "capacity": Field(scalars.number(0, above=True), None),
        "role": Field(choice(("active", "backup", "witness")), "active"),
        "checks": Field(Seq(CheckReader(own=True), what="checks", keep=True), ()),
    }
)
_REGION = Table(
    {
        "countries": Field(Seq(scalars.country(), unique=True, what="country codes"), ()),
        "continents": Field(Seq(scalars.continent(), unique=True, what="continents"), ()),
        "networks": Field(Seq(scalars.network(), unique=True, what="networks"), ()),
        "location": Field(_LOCATION, None),
        "default": Field(scalars.boolean(), False),
    }
)
_SITES_OF_SERVICE = Seq(SITE, at_least=1, unique=True, what="sites")
_STEERING = Table(
    {
        "mode": Field(choice(("priority", "nearest", "weighted")), "priority"),
        "order": Field(_SITES_OF_SERVICE, ()),
        "weights": Field(Map(SITE, scalars.integer(0, 1000), at_least=1, what="site: weight"), {}),
    }
)
_WORD: Scalar = scalars.string("a name of letters, digits and _ . : -", "[A-Za-z0-9_.:-]+", most=128)
_SERVICE = Table(
    {
        "endpoints": Field(
            Map(SITE, OneOrMany(scalars.address(), "IP addresses"), at_least=1, what="site: address"),
        ),
        "demand": Field(
            Either(
                {"scalar": scalars.number(0), "map": Map(REGION, scalars.number(0), what="region: number")},
                "a number, or a mapping of region: number",
            ),
            0.0,
        ),
        "priority": Field(scalars.integer(-1000, 1000), 0),
        "steering": Field(_STEERING, _STEERING.empty()),
        "checks": Field(Seq(CheckReader(own=False), at_least=1, what="checks", keep=True)),
        "at_least": Field(scalars.integer(1, 10_000), None),
        "dns": Field(
            Table(
                {
                    # 243: `_failover.` stands in front of it
                    "name": Field(scalars.domain(wildcard=True, most=243)),
                    "ttl": Field(scalars.duration(1, DAY_S, whole=True), 20.0),
                }
            ),
            None,
        ),
        "pools": Field(
            Table(
                {
                    "backend": Field(_WORD),
                    "servers": Field(
                        Map(SITE, Seq(_WORD, at_least=1, unique=True, what="servers"), what="site: [server]"), None
                    ),
                }
            ),
            None,
        ),
        "data": Field(
            Table(
                {
                    "source": Field(SITE),
                    "rpo": Field(scalars.duration(0.001)),
                    "check": Field(CheckReader(own=False)),
                }
            ),
            None,
        ),
        "slo": Field(
            Table(
                {
                    "objective": Field(scalars.number(50, 100, below=True, percent=True)),
                    "window": Field(scalars.duration(DAY_S, 366 * DAY_S), 30 * DAY_S),
                }
            ),
            None,
        ),
        "policy": Field(SERVICE_POLICY, {}),
        "target": Field(scalars.duration(1, 3600), None),
    }
)
_DNS = DriverReader(
    DNS,
    {
        "driver": Field(choice(DNS)),
        "name": Field(scalars.name(), ""),
        "site": Field(SITE),
        "zones": Field(Seq(scalars.domain(), at_least=1, unique=True, what="zones")),
        "writers": Field(Seq(SITE, at_least=1, unique=True, what="sites"), ()),
        "apply_within": Field(scalars.duration(0.05, 600), 1.0),
        "isolation": Field(choice(("freeze", "withdraw")), "freeze"),
        "servers": Field(Seq(scalars.server(), unique=True, what="addresses"), ()),
    },
)
_POOLS = DriverReader(
    POOLS,
    {
        "driver": Field(choice(POOLS), "haproxy"),
        "name": Field(scalars.name(), ""),
        "sites": Field(
            Either(
                {"scalar": choice(("all",)), "list": Seq(SITE, at_least=1, unique=True, what="sites")},
                "all, or a list of sites",
            )
        ),
    },
)
_STORE = Table({"members": Field(Seq(SITE, at_least=1, unique=True, what="sites"))})
_DRIVERS = Table(
    {"dns": Field(Seq(_DNS, what="drivers", keep=True), ()), "pools": Field(Seq(_POOLS, what="drivers", keep=True), ())}
)
_VANTAGE = Table({"references": Field(Seq(CheckReader(own=True), what="checks", keep=True), ())})

FILE = Table(
    {
        "version": Field(scalars.const(1)),
        "cluster": Field(scalars.name("a name")),
        "target": Field(scalars.duration(1, 3600), 60.0),
        "sites": Field(Map(scalars.name("a site's name", scalars.RESERVED), _SITE, at_least=1, what="sites")),
        "store": Field(_STORE, _STORE.empty()),
        "regions": Field(Map(REGION, _REGION, what="regions"), {}),
        "services": Field(Map(scalars.name("a service's name"), _SERVICE, what="services"), {}),
        "policy": Field(POLICY, POLICY.empty()),
        "drivers": Field(_DRIVERS, _DRIVERS.empty()),
        "vantage": Field(_VANTAGE, _VANTAGE.empty()),
    },
    extra="x-",
)
