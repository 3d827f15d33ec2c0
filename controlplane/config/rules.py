"""The rules that a whole configuration has to keep (CONFIG.md, DESIGN 4.3): sites, store, regions, services."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.config.checks import YIELD_LAG
from controlplane.config.problems import Log, Path
from policies.timing import zone_of, zones_of
from policies.topology import Config, Service


def sites(config: Config, log: Log) -> None:
    """At least one site takes traffic, and losing any one of them leaves voters."""
    if log.broken(("sites",)) and not config.sites:
        return
    if not any(site.role == "active" for site in config.sites.values()) and not log.broken(("sites",)):
        log.error(("sites",), "no site has role: active; at least one has to", key=True)
    left, needed = len(config.sites) - 1, config.policy.quorum.min_vantages
    message = f"losing any one site leaves {left} voter{'' if left == 1 else 's'}, {needed} needed: "
    asked: Path = ("policy", "quorum", "min_vantages")
    if left < needed and left >= 2 and log.given(asked):
        log.error(asked, message + f"it could never fail over; write {left}, or add a site with role: witness")
    elif left < needed:
        log.error(("sites",), message + "it could never fail over; add a site with role: witness", key=True)
    elif left == needed:
        more = "one more vantage lost and nothing fails over; add a site with role: witness"
        log.warn(("sites",), message + more, key=True)


def store(config: Config, log: Log) -> None:
    """etcd keeps its majority after the loss of any one site."""
    path: Path = ("store", "members")
    count = len(config.store_members)
    if not count and not log.broken(("store",)):
        log.warn(path, "not given: check cannot prove that the store outlives the loss of a site")
    elif count == 1 and not log.broken(("store",)):
        log.error(path, f"losing {config.store_members[0]} leaves 0 of 1 members, no majority; name 3 sites")
    elif count % 2 == 0 and not log.broken(("store",)):
        log.error(path, f"{count} members survive no more losses than {count - 1}; name an odd number of sites")


def regions(config: Config, log: Log) -> None:
    """Each country, continent and network is in one region, and exactly one region catches the rest."""
    for key in ("countries", "continents", "networks"):
        seen: dict[str, str] = {}
        for name, region in config.regions.items():
            for index, word in enumerate(getattr(region, key)):
                if word in seen:
                    message = f"{word} is in region {seen[word]} too; a client has one region"
                    log.error(("regions", name, key, index), message)
                seen.setdefault(word, name)
    default = [name for name, region in config.regions.items() if region.default]
    if not default and not log.broken(("regions",)):
        log.error(("regions",), "no region has default: true; one has to catch the rest of the world", key=True)
    for name in default[1:]:
        message = f"region {default[0]} is the default already; exactly one is"
        log.error(("regions", name, "default"), message)
    for name, region in config.regions.items():
        empty = not (region.countries or region.continents or region.networks or region.default)
        if empty and not log.broken(("regions", name)):
            message = "no client is in it: give countries, continents, networks or default: true"
            log.warn(("regions", name), message, key=True)


def services(config: Config, log: Log) -> None:
    """What each service asks for is possible, and no two of them ask for the same name or servers."""
    zones = zones_of(config)
    unread = not config.dns and log.broken(("drivers",))
    sure = not unread and all(driver.zones for driver in config.dns)  # else the zone may be one that was not read
    names: dict[str, str] = {}
    backends: dict[str, str] = {}
    for name, spec in config.services.items():
        path: Path = ("services", name)
        if spec.dns is None and spec.pools is None and not log.broken(path):
            log.error(path, 'missing key "dns" or "pools": clients could not find it', key=True)
        _checked(spec, path, log)
        _steering(config, spec, path, log)
        _data(spec, path, log)
        if spec.dns and spec.dns.name:
            _dns_name(spec.dns.name, (*path, "dns", "name"), zones if sure else None, names, log)
            names.setdefault(spec.dns.name, name)
        if spec.pools:
            if not config.pools and not log.broken(("drivers", "pools")):
                log.error((*path, "pools"), "no driver in drivers.pools could write it", key=True)
            _backend(spec, name, backends, log)


def _dns_name(name: str, path: Path, zones: frozenset[str] | None, names: Mapping[str, str], log: Log) -> None:
    """zones: None if not all of them could be read."""
    if name in names:
        log.error(path, f"{name} is services.{names[name]}'s name too; each service needs its own")
    if zones is not None and not zone_of(name, zones):
        there = f"the drivers' zones are {', '.join(sorted(zones))}" if zones else "drivers.dns has no zone"
        log.error(path, f"{name} is in no driver's zone; {there}")
    if "_failover" in name.split("."):
        log.error(path, "_failover stands in front of each name for the control plane's own record")


def _backend(spec: Service, name: str, backends: dict[str, str], log: Log) -> None:
    """A backend belongs to one service, and a server in it stands for one site."""
    if spec.pools is None:
        return
    backend = spec.pools.backend
    other = backends.setdefault(backend, name)
    if other != name:
        log.error(("services", name, "pools", "backend"), f"{backend} is services.{other}'s backend too")
    sites: dict[str, str] = {}
    for site, words in spec.pools.servers.items():
        for word in words:
            elsewhere = sites.setdefault(word, site)
            if elsewhere != site:
                message = f"server {word} stands for {elsewhere} already; a server is at one site"
                log.error(("services", name, "pools", "servers", site), message)


def _checked(spec: Service, path: Path, log: Log) -> None:
    """Each site has a target, and enough of them for at_least."""
    if log.broken((*path, "checks"), (*path, "endpoints")):
        return
    counts: dict[str, int] = {}
    for site, addresses in spec.endpoints.items():
        here = [check for check in spec.checks if not check.sites or site in check.sites]
        counts[site] = len(here) * len(addresses)
        if not here:
            message = f"no check covers {site}: it would never be known to be up; add it to a check's sites"
            log.error((*path, "checks"), message, key=True)
    fewest = min(counts, key=lambda site: counts[site], default="")
    if spec.at_least and fewest and 0 < counts[fewest] < spec.at_least:
        message = f"expected at most {counts[fewest]}, got {spec.at_least}: {fewest} has no more targets"
        log.error((*path, "at_least"), message)


def _steering(config: Config, spec: Service, path: Path, log: Log) -> None:
    mode, here = spec.steering.mode, (*path, "steering")
    given_order, given_weights = log.given((*here, "order")), log.given((*here, "weights"))
    if log.broken(here, (*path, "endpoints"), ("sites",)):
        return
    if given_order and mode != "priority":
        log.error((*here, "order"), f"only mode priority has an order, not {mode}", key=True)
    elif given_order:
        actives = [site for site in spec.endpoints if config.sites[site].role == "active"]
        for index, site in enumerate(spec.steering.order):
            if site not in actives:
                message = f"{site} has role backup: it comes after all others; leave it out"
                log.error((*here, "order", index), message)
        missing = [site for site in actives if site not in spec.steering.order]
        if missing:
            log.error((*here, "order"), f"misses {', '.join(missing)}; name every active site of endpoints")
    if given_weights and mode != "weighted":
        log.error((*here, "weights"), f"only mode weighted has weights, not {mode}", key=True)
    elif mode == "weighted" and not given_weights:
        log.error(here, 'missing key "weights": mode weighted needs site: weight', key=True)
    elif mode == "weighted" and not any(spec.steering.weights.values()):
        log.error((*here, "weights"), "all weights are 0; at least one has to be over 0")


def _data(spec: Service, path: Path, log: Log) -> None:
    if spec.data and spec.data.check.kind not in YIELD_LAG:
        there = f"those that do: {', '.join(sorted(YIELD_LAG))}" if YIELD_LAG else "no kind of this version does"
        log.error((*path, "data", "check"), f"{spec.data.check.kind} does not measure replication lag; {there}")
