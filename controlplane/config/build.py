"""What was read of the file -> topology.Config: names looked up, defaults filled in.

Always gives a Config, so that the rules can be checked even where something else is wrong: what refers to nothing
is reported and left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from controlplane.config import checks
from controlplane.config.build_drivers import dns_drivers, pool_drivers
from controlplane.config.countries import COUNTRIES
from controlplane.config.problems import Log, Path, known_or
from policies.topology import (
    Check,
    Config,
    Data,
    Dns,
    Failback,
    Governor,
    Guards,
    Location,
    Policy,
    Pools,
    ProbePolicy,
    Quorum,
    Region,
    Service,
    Site,
    Slo,
    Steering,
)

Values = Mapping[str, Any]


def build(data: Values, log: Log) -> Config:
    """data: what tables.FILE has read."""
    policy = _policy(data["policy"], data["policy"], ("policy",), log)
    sites = {name: _site(values, ("sites", name), policy.probe, log) for name, values in data["sites"].items()}
    regions = {name: _region(values) for name, values in data["regions"].items()}
    regions = regions or {"world": Region(default=True)}
    roles = {name: site.role for name, site in sites.items()}
    return Config(
        cluster=data["cluster"],
        target_s=data["target"],
        sites=sites,
        regions=regions,
        services={
            name: _Service(values, ("services", name), roles, regions, log).build(data)
            for name, values in data["services"].items()
        },
        policy=policy,
        store_members=_known(data["store"]["members"], ("store", "members"), sites, log),
        dns=dns_drivers(data["drivers"]["dns"], sites, log),
        pools=pool_drivers(data["drivers"]["pools"], sites, log),
        references=checks.checks(data["vantage"]["references"], ("vantage", "references"), policy.probe, "", log),
    )


def _policy(values: Values, given: Values, path: Path, log: Log) -> Policy:
    """given: of the values, those that this place in the file says (a service's policy repeats the general one)."""
    share = values["quorum"]["share"]
    own_share = "share" in given.get("quorum", {})
    if own_share and abs(share * 1000 - round(share * 1000)) > 1e-9:
        log.error((*path, "quorum", "share"), f"counted in thousandths, got {share}; write {round(share, 3)}")
    ramp = values["failback"]["ramp"]
    if "failback" in given and "ramp" in given["failback"] and not _rises_to_100(ramp):
        got = ", ".join(str(step) for step in ramp)
        log.error((*path, "failback", "ramp"), f"expected rising percentages that end at 100, got [{got}]")
    failback = values["failback"]
    return Policy(
        probe=checks.probe(given.get("probe", {}), (*path, "probe"), _probe(values["probe"]), log),
        quorum=Quorum(share_permille=round(share * 1000), min_vantages=values["quorum"]["min_vantages"]),
        guards=Guards(**values["guards"]),
        governor=Governor(share=values["governor"]["share"], window_s=values["governor"]["window"]),
        failback=Failback(
            mode=failback["mode"], soak_s=failback["soak"], ramp=failback["ramp"], step_s=failback["step"]
        ),
        freshness_s=values["freshness"],
        hold_s=values["hold"],
    )


def _probe(values: Values) -> ProbePolicy:
    durations = {key + "_s": values[key] for key in ("interval", "fast_interval", "timeout")}
    return ProbePolicy(**durations, **{key: values[key] for key in ("fall", "rise", "clear", "jitter")})


def _rises_to_100(ramp: tuple[int, ...]) -> bool:
    return ramp == tuple(sorted(set(ramp))) and ramp[-1:] == (100,)


def _merged(general: Values, own: Values) -> dict[str, Any]:
    """Deep merge: what is own wins, table by table."""
    return {
        key: _merged(value, own[key]) if isinstance(value, dict) and key in own else own.get(key, value)
        for key, value in general.items()
    }


def _site(values: Values, path: Path, probe: ProbePolicy, log: Log) -> Site:
    capacity, role = values["capacity"], values["role"]
    if role == "witness" and capacity is not None:
        log.error((*path, "capacity"), "a witness takes no traffic; leave capacity out")
    if role != "witness" and capacity is None and not log.broken((*path, "capacity")):
        log.error(path, 'missing key "capacity" (or role: witness)', key=True)
    return Site(
        capacity=0.0 if role == "witness" else capacity or 0.0,
        role=role,
        country=values["country"],
        location=_location(values["location"]) or centre((values["country"],)),
        checks=checks.checks(values["checks"], (*path, "checks"), probe, "", log),
    )


def _region(values: Values) -> Region:
    countries = values["countries"]
    on_continents = [code for code, (continent, _, _) in COUNTRIES.items() if continent in values["continents"]]
    return Region(
        countries=countries,
        continents=values["continents"],
        networks=values["networks"],
        location=_location(values["location"]) or centre(countries or tuple(on_continents)),
        default=values["default"],
    )


def _location(values: Values | None) -> Location | None:
    return Location(lat=values["lat"], lon=values["lon"]) if values else None


def centre(countries: tuple[str, ...]) -> Location | None:
    """The mean of the countries' centres of population, taken on the sphere, or None without any."""
    points = [COUNTRIES[code][1:] for code in countries if code in COUNTRIES]
    if not points:
        return None
    radians = [(math.radians(lat), math.radians(lon)) for lat, lon in points]
    x = sum(math.cos(lat) * math.cos(lon) for lat, lon in radians)
    y = sum(math.cos(lat) * math.sin(lon) for lat, lon in radians)
    z = sum(math.sin(lat) for lat, _ in radians)
    lat, lon = math.degrees(math.atan2(z, math.hypot(x, y))), math.degrees(math.atan2(y, x))
    return Location(lat=round(lat, 2), lon=round(lon, 2))


def _known(names: tuple[str, ...], path: Path, sites: Values, log: Log) -> tuple[str, ...]:
    return tuple(name for index, name in enumerate(names) if known_or(log, (*path, index), name, sites, "site"))


class _Service:
    """Builds one service."""

    def __init__(self, values: Values, path: Path, roles: Mapping[str, str], regions: Values, log: Log) -> None:
        self._values = values
        self._path = path
        self._roles = roles
        self._regions = regions
        self._log = log

    def build(self, data: Values) -> Service:
        values, path, log = self._values, self._path, self._log
        policy = _policy(_merged(data["policy"], values["policy"]), values["policy"], (*path, "policy"), log)
        endpoints = self._endpoints()
        dns = values["dns"]
        name = dns["name"] if dns else ""
        asked = "" if name.startswith("*") else name  # nobody's Host is a wildcard
        return Service(
            endpoints=endpoints,
            demand=self._demand(),
            checks=self._checks(policy, asked),
            policy=policy,
            target_s=values["target"] or data["target"],
            priority=values["priority"],
            steering=self._steering(endpoints),
            at_least=values["at_least"],
            dns=Dns(name=name, ttl_s=int(dns["ttl"])) if dns else None,
            pools=self._pools(endpoints),
            data=self._data(policy, asked),
            slo=Slo(values["slo"]["objective"], values["slo"]["window"]) if values["slo"] else None,
        )

    def _endpoints(self) -> dict[str, tuple[str, ...]]:
        path = (*self._path, "endpoints")
        found: dict[str, tuple[str, ...]] = {}
        for site, addresses in self._values["endpoints"].items():
            here = (*path, site)
            if not known_or(self._log, here, site, self._roles, "site", key=True):
                continue
            if self._roles[site] == "witness":
                self._log.error(here, f"{site} is a witness: it takes no traffic", key=True)
                continue
            for other, theirs in found.items():
                for address in sorted(set(theirs) & set(addresses)):
                    self._log.error(here, f"{address} is {other}'s address too; each site needs its own")
            found[site] = addresses
        return found

    def _demand(self) -> dict[str, float]:
        given = self._values["demand"]
        if isinstance(given, dict):
            path = (*self._path, "demand")
            for region in given:
                known_or(self._log, (*path, region), region, self._regions, "region", key=True)
            return {region: given.get(region, 0.0) for region in self._regions}
        return {region: given / len(self._regions) for region in self._regions}

    def _checks(self, policy: Policy, name: str) -> tuple[Check, ...]:
        path = (*self._path, "checks")
        for index, read in enumerate(self._values["checks"]):
            for site in read["sites"] if read else ():
                here = (*path, index, read["kind"], "sites")
                known_or(self._log, here, site, self._values["endpoints"], "endpoint")
        return checks.checks(self._values["checks"], path, policy.probe, name, self._log)

    def _steering(self, endpoints: Values) -> Steering:
        given = self._values["steering"]
        path = (*self._path, "steering")
        for index, site in enumerate(given["order"]):
            known_or(self._log, (*path, "order", index), site, self._values["endpoints"], "endpoint")
        for site in given["weights"]:
            known_or(self._log, (*path, "weights", site), site, self._values["endpoints"], "endpoint", key=True)
        weights = {site: given["weights"].get(site, 0) for site in endpoints} if given["weights"] else {}
        order = given["order"] or tuple(site for site in endpoints if self._roles[site] == "active")
        return Steering(mode=given["mode"], order=order if given["mode"] == "priority" else (), weights=weights)

    def _pools(self, endpoints: Values) -> Pools | None:
        given = self._values["pools"]
        if given is None:
            return None
        named = given["servers"] or {}
        path = (*self._path, "pools", "servers")
        for site in named:
            known_or(self._log, (*path, site), site, self._values["endpoints"], "endpoint", key=True)
        return Pools(given["backend"], {site: named.get(site, (site,)) for site in endpoints})

    def _data(self, policy: Policy, name: str) -> Data | None:
        given = self._values["data"]
        if given is None or given["check"] is None:
            return None
        path = (*self._path, "data")
        known_or(self._log, (*path, "source"), given["source"], self._values["endpoints"], "endpoint")
        made = checks.check(given["check"], (*path, "check"), policy.probe, name, self._log)
        return Data(given["source"], given["rpo"], made) if made else None
