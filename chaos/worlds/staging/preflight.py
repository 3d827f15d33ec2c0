"""Before anything is broken: is it the right cluster, is it well, and can all that is broken be healed again?

Everything is looked at, and every problem is told at once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from chaos.scenario import CLIENTS, EVERYTHING, Scenario
from chaos.worlds.staging.clients import Client
from chaos.worlds.staging.faults import places_of
from chaos.worlds.staging.file import Measured, Staging
from chaos.worlds.staging.toxiproxy import Proxy, Toxiproxy, ToxiproxyError
from chaos.worlds.staging.watching import API_S, sites_by_address
from controlplane.cli.client import FRESH_S, ApiError, Unreachable, is_current
from controlplane.cli.client import Client as ApiClient
from controlplane.dns.verify import geo_file, probes_for
from policies.timing import worst_cases
from policies.topology import Config

Doc = dict[str, Any]
_KNOWN = re.compile(r"git|v?2\.[0-9]+\.[0-9]+.*")  # what `go install` builds calls itself "git"
_HALT = "failoverctl drill halt heals what an earlier drill left"


class Looked(Struct, frozen=True, kw_only=True):
    """What the preflight found. config None: it could not be had (which is a problem)."""

    problems: tuple[str, ...]
    config: Config | None = None
    clients: tuple[Client, ...] = ()


async def preflight(scenario: Scenario, staging: Staging, yes_on: str) -> Looked:
    """Look at everything; breaks nothing. yes_on: the cluster's name as it was given, "" = it will be asked for."""
    proxies, (status, config, silent) = await asyncio.gather(_proxies(staging), _cluster(staging))
    problems = [*proxies, *silent]
    if yes_on and yes_on != staging.cluster:
        problems.append(f'--yes-on {yes_on}: {staging.file} is of cluster "{staging.cluster}"')
    if status is not None:
        problems += _health(status, staging)
    clients: tuple[Client, ...] = ()
    if config is not None:
        problems += _configuration(config, scenario, staging)
        clients = clients_of(staging, config)
        await asyncio.gather(*(client.request() for client in clients))
        problems += [
            f"client {c.name} cannot get {c.spec.url} through {c.spec.resolver}: {c.error}" for c in clients if c.error
        ]
    return Looked(problems=tuple(problems), config=config, clients=clients)


# ---- toxiproxy


async def _proxies(staging: Staging) -> list[str]:
    places = places_of(staging)
    found = await asyncio.gather(*(asyncio.to_thread(_look, url, names) for url, names in places.items()))
    return [problem for problems in found for problem in problems]


def _look(url: str, names: tuple[str, ...]) -> list[str]:
    toxiproxy = Toxiproxy(url)
    try:
        version = toxiproxy.version()
        if not _KNOWN.fullmatch(version):
            return [
                f'toxiproxy {url} says that its version is "{version}"; known are 2.x and "git" (built from source)'
            ]
        there = toxiproxy.proxies()
    except ToxiproxyError as error:
        return [f"{error}; start it, or mend its address in the staging file"]
    return [problem for name in names for problem in _proxy(url, name, there)]


def _proxy(url: str, name: str, there: Mapping[str, Proxy]) -> Iterator[str]:
    proxy = there.get(name)
    if proxy is None:
        yield f'toxiproxy {url} has no proxy "{name}"; there are {", ".join(sorted(there)) or "none"}'
        return
    ours = [toxic.name for toxic in proxy.toxics if toxic.ours]
    theirs = [toxic.name for toxic in proxy.toxics if not toxic.ours]
    if ours:
        yield f'proxy "{name}" at {url} has {", ".join(ours)} of a drill; {_HALT}'
    if theirs:
        yield f'proxy "{name}" at {url} has toxics that somebody left: {", ".join(theirs)}; remove them'
    if not proxy.enabled and not ours:
        yield f'proxy "{name}" at {url} is disabled; enable it'


# ---- the control plane


async def _cluster(staging: Staging) -> tuple[Doc | None, Config | None, list[str]]:
    """(status, configuration, why one is not to be had)."""
    status: Doc | None = None
    try:
        async with ApiClient(staging.api, API_S) as client:
            status = await client.get("/v1/status")
            if status["cluster"] != staging.cluster:
                return (
                    None,
                    None,
                    [f'the API is of cluster "{status["cluster"]}", {staging.file} of "{staging.cluster}"'],
                )
            return status, msgspec.convert((await client.get("/v1/config"))["config"], Config), []
    except Unreachable as error:
        return status, None, [f"the control plane does not answer: {error}"]
    except (ApiError, msgspec.ValidationError, KeyError, TypeError) as error:
        return status, None, [f"the control plane cannot say what it runs: {error}"]


def _health(status: Doc, staging: Staging) -> Iterator[str]:
    age_s = status["source"]["age_s"]
    if not is_current(status) or age_s is None or age_s > FRESH_S:
        yield f"no API of {', '.join(staging.api)} is current; doctor says more"
    if not status["leader"]:
        yield "nobody leads the cluster"
    for alarm in status["alarms"]:
        yield f"alarm {alarm['name']} {alarm['subject']}: {alarm['remedy']}".rstrip(": ")
    for override in status["overrides"]:
        whom = " ".join(override["sites"]) or "all"
        yield f"override {override['id']} ({override['command']} {whom}) is in force; end it first"
    for name, service in status["services"].items():
        if service["state"] != "converged":
            yield f"service {name} is {service['state']}, not converged"
        for site, standing in service["standing"].items():
            if standing["rule"] != "ready":
                yield f"service {name} at {site} is {standing['rule']}: {standing['reason']}".rstrip(": ")


def _configuration(config: Config, scenario: Scenario, staging: Staging) -> Iterator[str]:
    """Has the running configuration what the scenario and the file speak of?"""
    revision = f"the running configuration (rev {config.revision})"
    for site, place in staging.sites.items():
        if site not in config.sites:
            yield f"{revision} has no site {site}, which {staging.file} names"
        for service in place.services:
            if service not in config.services:
                yield f"{revision} has no service {service}, which {staging.file} names"
            elif site in config.sites and site not in config.services[service].endpoints:
                yield f"{revision} has no {service} at {site}, which {staging.file} names"
    for client in staging.clients:
        if client.region and client.region not in config.regions:
            yield f"{revision} has no region {client.region}, which {staging.file} names"
    sites, services = _named(scenario)
    for site in sorted(sites - set(config.sites)):
        yield f"{revision} has no site {site}, which scenario {scenario.name} names"
    for service in sorted(services - set(config.services)):
        yield f"{revision} has no service {service}, which scenario {scenario.name} names"


def _named(scenario: Scenario) -> tuple[set[str], set[str]]:
    """(sites, services) that faults and expectations name."""
    conditions = [condition for expect in scenario.expect for condition in expect.conditions]
    sites = {end for fault in scenario.faults for end in (fault.one, fault.other, fault.site)}
    sites |= {site for condition in conditions for site in condition.sites}
    services = {fault.service for fault in scenario.faults} | {condition.service for condition in conditions}
    services |= {service for expect in scenario.expect for service in expect.outages}
    return sites - {"", EVERYTHING, CLIENTS}, services - {""}


# ---- clients


def clients_of(staging: Staging, config: Config) -> tuple[Client, ...]:
    """Named "www/eu-west", and "www/eu-west/2" if there are more. Of what the configuration does not know, none."""
    default = next((name for name, region in config.regions.items() if region.default), next(iter(config.regions)))
    subnets = {p.region: p.client for p in reversed(probes_for(config.regions, geo_file(config))) if p.client}
    places = sites_by_address(config)
    found: dict[str, Client] = {}
    for measured in staging.clients:
        spec: Measured = replace(measured, region=measured.region or default)
        if spec.service not in places or spec.region not in config.regions:
            continue
        first = f"{spec.service}/{spec.region}"
        count = sum(c.spec.service == spec.service and c.spec.region == spec.region for c in found.values())
        name = f"{first}/{count + 1}" if count else first
        found[name] = Client(name, spec, places[spec.service], subnets.get(spec.region))
    return tuple(found.values())


def allowed_s(scenario: Scenario, config: Config) -> dict[str, float]:
    """How long a client of each service may fail after a fault: what the scenario says, else the worst case."""
    found = {name: bound.worst_case_s for name, bound in worst_cases(config).items()}
    for expect in scenario.expect:
        found |= expect.outages
    return found
