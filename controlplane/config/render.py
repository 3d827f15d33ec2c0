"""A configuration -> the file that would say all of it, defaults included."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import msgspec
from ruamel.yaml import YAML

from controlplane.config import derive
from controlplane.config.scalars import seconds
from controlplane.dns import DRIVERS as DNS
from controlplane.pools import DRIVERS as POOLS
from policies.topology import Check, Config, DnsDriver, Location, Policy, PoolDriver, Region, Service, Site
from probes.kinds import KINDS

Values = dict[str, Any]
_INLINE = 100  # characters: shorter tables stand on one line
_DURATIONS_OF_PROBE = ("interval", "fast_interval", "timeout")


def render(config: Config) -> str:
    """YAML that `read_config` reads back as an equal configuration (but for `revision`)."""
    document = {
        "version": 1,
        "cluster": config.cluster,
        "target": seconds(config.target_s),
        "sites": {name: _site(site) for name, site in config.sites.items()},
        "store": {"members": config.store_members} if config.store_members else None,
        "regions": {name: _region(region) for name, region in config.regions.items()},
        "services": {name: _service(spec) for name, spec in config.services.items()},
        "policy": _policy(config.policy),
        "drivers": {
            "dns": [_dns(driver) for driver in config.dns],
            "pools": [_pool(driver) for driver in config.pools],
        },
        "vantage": {"references": [_check(check, own=True) for check in config.references]},
    }
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 4 * _INLINE
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    yaml.dump(_styled(_pruned(document), yaml), out)
    return out.getvalue()


def _site(site: Site) -> Values:
    return {
        "country": site.country,
        "location": _location(site.location),
        "capacity": None if site.role == "witness" else _number(site.capacity),
        "role": site.role,
        "checks": [_check(check, own=True) for check in site.checks],
    }


def _region(region: Region) -> Values:
    return {
        "countries": region.countries,
        "continents": region.continents,
        "networks": region.networks,
        "location": _location(region.location),
        "default": region.default,
    }


def _service(spec: Service) -> Values:
    steering = {"mode": spec.steering.mode, "order": spec.steering.order, "weights": spec.steering.weights}
    data = spec.data
    return {
        "endpoints": spec.endpoints,
        "demand": {region: _number(demand) for region, demand in spec.demand.items()},
        "priority": spec.priority,
        "steering": steering if spec.steering.mode == "weighted" else {**steering, "weights": None},
        "checks": [_check(check, own=False) for check in spec.checks],
        "at_least": spec.at_least,
        "dns": {"name": spec.dns.name, "ttl": seconds(spec.dns.ttl_s)} if spec.dns else None,
        "pools": {"backend": spec.pools.backend, "servers": spec.pools.servers} if spec.pools else None,
        "data": {"source": data.source, "rpo": seconds(data.rpo_s), "check": _check(data.check, own=False)}
        if data
        else None,
        "slo": {"objective": spec.slo.objective, "window": seconds(spec.slo.window_s)} if spec.slo else None,
        "policy": _own_policy(spec.policy),
        "target": seconds(spec.target_s),
    }


def _policy(policy: Policy) -> Values:
    failback = policy.failback
    return {
        "probe": _probe(policy),
        "quorum": {"share": policy.quorum.share_permille / 1000, "min_vantages": policy.quorum.min_vantages},
        "guards": msgspec.to_builtins(policy.guards),
        "governor": {"share": policy.governor.share, "window": seconds(policy.governor.window_s)},
        "failback": {
            "mode": failback.mode,
            "soak": seconds(failback.soak_s),
            "ramp": failback.ramp,
            "step": seconds(failback.step_s),
        },
        "freshness": seconds(policy.freshness_s),
        "hold": seconds(policy.hold_s),
    }


def _own_policy(policy: Policy) -> Values:
    """Without what only the whole cluster has."""
    values = _policy(policy)
    return {
        **{key: value for key, value in values.items() if key not in ("governor", "freshness")},
        "quorum": {"share": values["quorum"]["share"]},
        "guards": {"min_sites": policy.guards.min_sites},
    }


def _probe(holder: Policy | Check) -> Values:
    values: Values = msgspec.to_builtins(holder.probe)
    durations = {key: seconds(values.pop(key + "_s")) for key in _DURATIONS_OF_PROBE}
    return durations | values


def _check(check: Check, own: bool) -> Values:
    kind = KINDS[check.kind].options
    options = _options(kind, check.options)
    if own:
        options["host"] = check.host
    return {check.kind: {"name": check.name, "sites": check.sites, **options, **_probe(check)}}


def _dns(driver: DnsDriver) -> Values:
    return {
        "driver": driver.driver,
        "name": driver.name,
        "site": driver.site,
        "zones": driver.zones,
        "writers": driver.writers,
        "apply_within": seconds(driver.apply_within_s),
        "isolation": driver.isolation,
        "servers": driver.servers,
        **_options(DNS[driver.driver].options, driver.options),
    }


def _pool(driver: PoolDriver) -> Values:
    options = _options(POOLS[driver.driver].options, driver.options)
    return {"driver": driver.driver, "name": driver.name, "sites": driver.sites, **options}


def _options(type_: type[msgspec.Struct], options: str) -> Values:
    values: Values = msgspec.json.decode(options)
    keys = derive.keys(type_)
    found: Values = {}
    for field, value in values.items():
        key = keys[field]
        found[key] = value if key == field else seconds(value)
    return found


def _location(location: Location | None) -> Values | None:
    return {"lat": location.lat, "lon": location.lon} if location else None


def _number(value: float) -> float | int:
    return int(value) if value.is_integer() else value


def _pruned(value: Any) -> Any:
    """Without what is not there: None, "" and empty lists or tables."""
    if isinstance(value, Mapping):
        kept = {key: _pruned(item) for key, item in value.items()}
        return {
            key: item for key, item in kept.items() if item is not None and item != "" and item != [] and item != {}
        }
    return [_pruned(item) for item in value] if isinstance(value, list | tuple) else value


def _styled(value: Any, yaml: YAML, depth: int = 0) -> Any:
    """Short tables and lists on one line, as people write them."""
    if isinstance(value, dict):
        made = yaml.map()
        for key, item in value.items():
            made[key] = _styled(item, yaml, depth + 1)
    elif isinstance(value, list):
        made = yaml.seq([_styled(item, yaml, depth + 1) for item in value])
    else:
        return value
    if depth > 1 and len(str(value)) <= _INLINE:
        made.fa.set_flow_style()
    return made
