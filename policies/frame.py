"""What `decide` needs to know of the configuration for one service, derived once per configuration. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from math import asin, cos, radians, sin, sqrt

from msgspec import Struct

from policies.topology import Check, Config, Location, Service, Site
from policies.world import Desired
from probes.target import Target

EARTH_KM = 6371.0


class Watched(Struct, frozen=True):
    """One row of a slice's votes: one check of one address. own: the site's own target (uplink, power, ...)."""

    id: str
    site: str
    address: str
    check: Check
    own: bool


class Frame(Struct, frozen=True):
    """One service, ready to be decided. `preference`: region -> groups of sites, the most preferred first;
    within a group `weighted` steering asks all at once, the other modes have one site a group."""

    service: str
    spec: Service
    sites: tuple[str, ...]  # endpoints, sorted: file order must not matter
    regions: tuple[str, ...]  # sorted
    default_region: str
    capacity: dict[str, float]
    usable: dict[str, float]
    preference: dict[str, tuple[tuple[str, ...], ...]]
    demand: float  # of this service, all regions
    total_demand: float  # of all services
    rows: tuple[Watched, ...]  # at the configured addresses
    site_checks: dict[str, tuple[Check, ...]]
    config_rev: int


def target_id(service: str, site: str, check: str, address: str) -> str:
    """ "www@site-b/http:8080/198.51.100.10": stable over restarts; another address is another target."""
    return f"{service}@{site}/{check}/{address}"


def usable(config: Config) -> dict[str, float]:
    """Usable capacity of each site before anything is placed."""
    limit = config.policy.guards.max_utilisation
    return {name: site.capacity * limit for name, site in config.sites.items() if site.role != "witness"}


def frames(config: Config) -> dict[str, Frame]:
    """Every service's frame, in the order in which services are placed: priority, then the alphabet."""
    total = sum(sum(sorted(service.demand.values())) for _, service in sorted(config.services.items()))
    room = usable(config)
    order = sorted(config.services, key=lambda name: (-config.services[name].priority, name))
    return {name: _frame(config, name, room, total) for name in order}


def _frame(config: Config, name: str, room: dict[str, float], total: float) -> Frame:
    spec = config.services[name]
    sites = tuple(sorted(spec.endpoints))
    site_checks = {site: spec_.checks for site, spec_ in config.sites.items() if spec_.checks}
    return Frame(
        service=name,
        spec=spec,
        sites=sites,
        regions=tuple(sorted(config.regions)),
        default_region=next(region for region in sorted(config.regions) if config.regions[region].default),
        capacity={site: config.sites[site].capacity for site in sites},
        usable=room,
        preference={region: _preference(config, spec, region) for region in sorted(config.regions)},
        demand=sum(spec.demand[region] for region in sorted(spec.demand)),
        total_demand=total,
        rows=tuple(
            row for site in sites for row in _rows(name, spec, site, spec.endpoints[site], site_checks.get(site, ()))
        ),
        site_checks=site_checks,
        config_rev=config.revision,
    )


def _rows(
    name: str, spec: Service, site: str, addresses: tuple[str, ...], own: tuple[Check, ...]
) -> tuple[Watched, ...]:
    mine = tuple(
        Watched(target_id(name, site, check.name, address), site, address, check, own=False)
        for address in addresses
        for check in spec.checks
        if not check.sites or site in check.sites
    )
    return mine + tuple(
        Watched(target_id("", site, check.name, check.host), site, check.host, check, own=True) for check in own
    )


def watched(frame: Frame, desired: Desired | None) -> tuple[Watched, ...]:
    """The rows of Slice.votes, in order: what is configured, then what is still served and no longer is."""
    if desired is None:
        return frame.rows
    more: list[Watched] = []
    for site in sorted(desired.sites):
        configured = frame.spec.endpoints.get(site, ())
        stale = tuple(a for a in desired.sites[site].addresses if a not in configured)
        own = () if configured else frame.site_checks.get(site, ())
        if stale:
            more += _rows(frame.service, frame.spec, site, stale, own)
    return frame.rows + tuple(more) if more else frame.rows


def probe_targets(config: Config, desired: Mapping[str, Desired]) -> tuple[Target, ...]:
    """Everything that a vantage has to probe, sorted by id: services, the sites' own, references."""
    found: dict[str, Target] = {}
    for name, frame in frames(config).items():
        for row in watched(frame, desired.get(name)):
            found[row.id] = _target(row.id, row.site, "" if row.own else name, row.address, row.check)
    for site, spec in config.sites.items():
        for check in spec.checks:  # of sites without services too: they are references for the others
            id_ = target_id("", site, check.name, check.host)
            found[id_] = _target(id_, site, "", check.host, check)
    for check in config.references:
        id_ = target_id("", "", check.name, check.host)
        found[id_] = _target(id_, "", "", check.host, check)
    return tuple(found[id_] for id_ in sorted(found))


def _target(id_: str, site: str, service: str, address: str, check: Check) -> Target:
    probe = check.probe
    return Target(
        id=id_,
        site=site,
        service=service,
        address=address,
        kind=check.kind,
        options=check.options,
        interval_s=probe.interval_s,
        fast_interval_s=probe.fast_interval_s,
        timeout_s=probe.timeout_s,
        jitter=probe.jitter,
        fall=probe.fall,
        rise=probe.rise,
        clear=probe.clear,
    )


def _preference(config: Config, spec: Service, region: str) -> tuple[tuple[str, ...], ...]:
    """Groups of sites, most preferred first. Backups come after all others, the larger one first."""
    actives = [site for site in spec.endpoints if config.sites[site].role == "active"]
    backups = sorted(
        (site for site in spec.endpoints if config.sites[site].role == "backup"),
        key=lambda site: (-config.sites[site].capacity, site),
    )
    steering = spec.steering
    if steering.mode == "weighted":
        weighed = [sorted(s for s in actives if steering.weights.get(s, 0) > 0)]
        unweighed = [sorted(s for s in actives if steering.weights.get(s, 0) == 0)]
        return tuple(tuple(group) for group in (*weighed, *unweighed, sorted(backups)) if group)
    if steering.mode == "nearest":
        here = config.regions[region].location
        if here is not None:
            actives.sort(key=lambda site: (_distance_km(here, config.sites[site]), site))
            backups.sort(key=lambda site: (_distance_km(here, config.sites[site]), site))
    elif steering.order:
        actives = [site for site in steering.order if site in actives]
    return tuple((site,) for site in (*actives, *backups))


def _distance_km(here: Location, site: Site) -> float:
    """Great-circle distance by the haversine formula; a site without a location is farther than any."""
    if site.location is None:
        return 2 * EARTH_KM * 4
    lat1, lat2 = radians(here.lat), radians(site.location.lat)
    dlon = radians(site.location.lon - here.lon)
    h = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin(dlon / 2) ** 2
    return 2 * EARTH_KM * asin(min(1.0, sqrt(h)))
