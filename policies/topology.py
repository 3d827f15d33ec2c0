"""The frozen types that the configuration becomes. All durations are seconds; every default is filled in by
the configuration reader, so that a stored configuration reads without this version's defaults."""

from __future__ import annotations

from msgspec import Struct

SCHEMA = 1


class Location(Struct, frozen=True):
    lat: float  # degrees, +-90
    lon: float  # degrees, +-180


class ProbePolicy(Struct, frozen=True):
    interval_s: float = 1.0
    fast_interval_s: float = 0.2
    timeout_s: float = 1.5
    fall: int = 3
    rise: int = 5
    clear: int = 10
    jitter: float = 0.1


class Quorum(Struct, frozen=True):
    share_permille: int = 600  # counted in integers
    min_vantages: int = 2


class Guards(Struct, frozen=True):
    min_sites: int = 1
    n_plus: int = 1
    max_utilisation: float = 0.9


class Governor(Struct, frozen=True):
    share: float = 0.7  # of all demand; 1 = off
    window_s: float = 60.0


class Failback(Struct, frozen=True):
    mode: str = "auto"  # auto | manual
    soak_s: float = 300.0
    ramp: tuple[int, ...] = (10, 50, 100)  # percent of each region's clients
    step_s: float = 60.0


class Policy(Struct, frozen=True):
    probe: ProbePolicy = ProbePolicy()
    quorum: Quorum = Quorum()
    guards: Guards = Guards()
    governor: Governor = Governor()
    failback: Failback = Failback()
    freshness_s: float = 3.0
    hold_s: float = 60.0


class Check(Struct, frozen=True):
    """One check. `options` is the canonical JSON of the kind's own Options struct, defaults filled in."""

    kind: str
    name: str  # unique within its service or site; "http:8080" unless named
    options: str
    probe: ProbePolicy
    host: str = ""  # site and vantage checks only: whom to ask
    sites: tuple[str, ...] = ()  # () = every site


class Site(Struct, frozen=True):
    capacity: float  # 0 for a witness
    role: str = "active"  # active | backup | witness
    country: str = ""
    location: Location | None = None  # given, or the country's centre
    checks: tuple[Check, ...] = ()


class Region(Struct, frozen=True):
    countries: tuple[str, ...] = ()
    continents: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    location: Location | None = None  # given, or the mean of its countries' centres
    default: bool = False


class Steering(Struct, frozen=True):
    mode: str = "priority"  # priority | nearest | weighted
    order: tuple[str, ...] = ()  # priority only
    weights: dict[str, int] = {}


class Dns(Struct, frozen=True):
    name: str  # lower case, no trailing dot
    ttl_s: int = 20


class Pools(Struct, frozen=True):
    backend: str
    servers: dict[str, tuple[str, ...]]


class Data(Struct, frozen=True):
    source: str
    rpo_s: float
    check: Check


class Slo(Struct, frozen=True):
    objective: float  # percent
    window_s: float


class Service(Struct, frozen=True):
    endpoints: dict[str, tuple[str, ...]]  # site -> addresses
    demand: dict[str, float]  # region -> demand, every region named
    checks: tuple[Check, ...]
    policy: Policy  # merged with the general one
    target_s: float
    priority: int = 0
    steering: Steering = Steering()
    at_least: int | None = None  # None = all
    dns: Dns | None = None
    pools: Pools | None = None
    data: Data | None = None
    slo: Slo | None = None


class DnsDriver(Struct, frozen=True):
    driver: str
    name: str
    site: str
    zones: tuple[str, ...]
    writers: tuple[str, ...]
    apply_within_s: float
    isolation: str  # freeze | withdraw
    servers: tuple[str, ...]  # extra ones to verify, "address" or "address:port"
    options: str  # canonical JSON of the driver's own Options struct


class PoolDriver(Struct, frozen=True):
    driver: str
    name: str
    sites: tuple[str, ...]
    options: str


class Config(Struct, frozen=True):
    """A whole configuration; `revision` is set when it is applied (0 = only read from a file)."""

    cluster: str
    target_s: float
    sites: dict[str, Site]
    regions: dict[str, Region]
    services: dict[str, Service]
    policy: Policy
    store_members: tuple[str, ...] = ()
    dns: tuple[DnsDriver, ...] = ()
    pools: tuple[PoolDriver, ...] = ()
    references: tuple[Check, ...] = ()
    revision: int = 0
    schema: int = SCHEMA


class Override(Struct, frozen=True):
    """What an operator (or their tool) said: take sites `out` or `in`, or `freeze`. () services = all."""

    id: str
    verb: str  # out | in | freeze
    hard: bool
    command: str  # drain | pin | failback | freeze | maintenance: the word the operator used
    sites: tuple[str, ...]  # () for freeze
    services: tuple[str, ...]
    author: str
    reason: str
    created_at: str  # ISO 8601 UTC, for people
    order: int  # rises with each override: "the newest" without a clock
    for_s: float | None  # None = no expiry; what is left of it lives in timers/overrides
    accepts: tuple[str, ...] = ()  # guards that the author accepted by name
    op: str = ""  # nonce of the write, by which an unknown outcome is recognised
    schema: int = SCHEMA
