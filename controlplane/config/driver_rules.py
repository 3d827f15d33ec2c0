"""The rules for drivers, and what a configuration asks for that its drivers cannot express (DESIGN 4.5, 4.9)."""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.config.problems import Log, Path
from controlplane.dns import DRIVERS as DNS
from controlplane.drivers import Capabilities
from controlplane.pools import DRIVERS as POOLS
from policies.timing import zone_of, zones_of
from policies.topology import Config, DnsDriver, Service
from probes.kinds.base import Problem


def drivers(config: Config, log: Log) -> None:
    names: dict[str, str] = {}
    for index, driver in enumerate(config.dns):
        path: Path = ("drivers", "dns", index)
        kind = DNS.get(driver.driver)
        if kind is None or not driver.options:
            continue  # could not be read (reported)
        options = kind.options_of(driver)
        if not log.broken(path):
            _report(kind.problems(options, driver, config), path, log)
        _unique(driver.name, path, names, log)
        _zones(config.dns[:index], driver, path, log)
        if driver.isolation == "withdraw" and not kind.capabilities(options).expires:
            message = f"what {driver.driver} wrote does not expire by itself; only freeze can be promised"
            log.error((*path, "isolation"), message)
        if len(driver.writers) == 1 and not kind.in_process:
            message = f"one writer: a dead control node at {driver.site} is outside the bound; add a deputy to writers"
            log.warn((*path, "writers"), message)
    _pools(config, names, log)


def _pools(config: Config, names: dict[str, str], log: Log) -> None:
    taken: dict[str, str] = {}
    for index, driver in enumerate(config.pools):
        path: Path = ("drivers", "pools", index)
        kind = POOLS.get(driver.driver)
        if kind is not None and driver.options and not log.broken(path):
            _report(kind.problems(kind.options_of(driver), driver, config), path, log)
        _unique(driver.name, path, names, log)
        for at, site in enumerate(driver.sites):
            here = (*path, "sites", at)
            if config.sites[site].role == "witness":
                log.error(here, f"{site} is a witness: it has no pool")
            elif site in taken:
                log.error(here, f"{site} has the pool driver {taken[site]} already; each site has one")
            taken.setdefault(site, driver.name)


def _unique(name: str, path: Path, names: dict[str, str], log: Log) -> None:
    if name and name in names:
        log.error((*path, "name"), f'"{name}" is the name of {names[name]} too; give one of them another')
    list_, index = path[1], path[2]
    names.setdefault(name, f"drivers.{list_}[{index}]")


def _zones(others: tuple[DnsDriver, ...], driver: DnsDriver, path: Path, log: Log) -> None:
    """Two drivers of one site may not write the same names."""
    for index, zone in enumerate(driver.zones):
        for other in others:
            for theirs in other.zones if other.site == driver.site else ():
                if zone_of(zone, (theirs,)) or zone_of(theirs, (zone,)):
                    message = f"{zone} overlaps {theirs} of {other.name}, at the same site"
                    log.error((*path, "zones", index), message)


def _report(problems: Iterable[Problem], path: Path, log: Log) -> None:
    for problem in problems:
        report = log.warn if problem.warning else log.error
        report((*path, *problem.path), problem.message)


def expressible(config: Config, log: Log) -> None:
    """Warn of services that want more than the drivers of their zone can say."""
    zones = zones_of(config)
    kinds = [(driver, DNS[driver.driver]) for driver in config.dns]
    capabilities = {driver.name: kind.capabilities(kind.options_of(driver)) for driver, kind in kinds}
    for name, spec in config.services.items():
        if spec.dns and len(spec.endpoints) > 1:
            zone = zone_of(spec.dns.name, zones)
            serving = [driver for driver in config.dns if zone in driver.zones]
            for driver in serving:
                _express(config, spec, driver, capabilities[driver.name], ("services", name, "steering", "mode"), log)


def _express(config: Config, spec: Service, driver: DnsDriver, can: Capabilities, path: Path, log: Log) -> None:
    mode = spec.steering.mode
    if mode == "nearest" and len(config.regions) > 1 and not can.geo:
        message = f"{driver.name} cannot answer by region: everyone gets one answer, with demand-weighted shares"
        log.warn(path, message)
    if mode == "weighted" and len(set(spec.steering.weights.values())) > 1 and not can.weights:
        message = f"{driver.name} cannot weigh answers: every site with at least 10 % is in them, all alike"
        log.warn(path, message)


def references(config: Config, log: Log) -> None:
    """A vantage without two references cannot tell that it is blind: the targets at all other sites, where at least
    two of those have any, and `vantage.references` (DESIGN 4.1)."""
    if log.broken(("services",), ("sites",), ("vantage",)):
        return
    targets: dict[str, int] = {
        name: len({(check.name, check.host) for check in site.checks}) for name, site in config.sites.items()
    }
    for spec in config.services.values():
        for site, addresses in spec.endpoints.items():
            here = sum(1 for check in spec.checks if not check.sites or site in check.sites)
            targets[site] += here * len(addresses)
    seen: dict[str, int] = {}
    for name in config.sites:
        others = [count for site, count in targets.items() if site != name and count]
        # With targets at one other site only, its death and ours would look the same (probes/vantage.py).
        seen[name] = (sum(others) if len(others) >= 2 else 0) + len(config.references)
    fewest = min(seen, key=lambda name: seen[name], default="")
    if fewest and seen[fewest] < 2:
        path: Path = ("vantage", "references")
        message = f"{fewest} has {seen[fewest]} of at least 2 references, and could not tell that it is blind"
        place = path if log.given(path) else ("sites",)
        log.warn(path, message + "; add checks of hosts outside", at=place, key=True)


def locations(config: Config, log: Log) -> None:
    """Nearest needs to know where: warn of what has no location."""
    nearest = [name for name, spec in config.services.items() if spec.steering.mode == "nearest"]
    if not nearest:
        return
    for name, region in config.regions.items():
        if region.location is None:
            message = f"no location: services.{nearest[0]} takes its sites as listed there"
            log.warn(("regions", name), message + "; give location", key=True)
    used = {site for name in nearest for site in config.services[name].endpoints}
    for name in sorted(used):
        if config.sites[name].location is None:
            log.warn(("sites", name), "no location: it counts as the farthest; give country or location", key=True)
