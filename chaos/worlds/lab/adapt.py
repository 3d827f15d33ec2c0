"""A scenario's configuration for the lab: with the lab's own addresses, checks, names and drivers in the place of those
that the file has. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec.structs import replace

from chaos.scenario import Scenario
from chaos.worlds.lab import layout, profile
from controlplane.config.reading import read_config
from controlplane.config.render import render
from policies.topology import Config, DnsDriver, Region, Service

PLAYABLE = tuple(name for name, spec in layout.SERVICES.items() if spec.dns)


def misfits(scenario: Scenario) -> list[str]:
    """Why the lab cannot play this configuration, one line each."""
    config, found = scenario.config, []

    def say(word: str, problem: str) -> None:
        found.append(f"{scenario.file}: configuration, line {_line_of(word, scenario.config_text)}: {problem}")

    for site in config.sites:
        if site not in layout.NODES:
            say(site, f"{site} is not a site of the lab, which has {', '.join(layout.NODES)}")
        elif config.sites[site].checks:
            say(site, f"{site} has checks of its own, which nothing in the lab answers")
    for site in layout.NODES:
        if site not in config.sites:
            say("sites", f"the lab's {site} is missing")
        elif (config.sites[site].role == "witness") != (site == layout.WITNESS):
            say(site, f"of the lab's sites, {layout.WITNESS} is the witness, and no other")
    if set(config.store_members) != set(layout.SITES):
        say("store", f"the lab's store has the members {', '.join(layout.SITES)}")
    for name, region in config.regions.items():
        if name not in layout.REGIONS and not region.default:
            say(name, f"{name} is not a region of the lab, which has {', '.join(layout.REGIONS)}, and a default one")
    for name, spec in config.services.items():
        if name not in PLAYABLE:
            say(name, f"{name} is not a service of the lab, which has {', '.join(PLAYABLE)}")
        elif spec.dns is None or spec.data is not None:
            say(name, f"{name}: the lab's services have a DNS name, and no data that can lag behind")
    if sorted(driver.site for driver in config.dns) != sorted(layout.SITES):
        say("drivers", f"the lab has one name server each at {', '.join(layout.SITES)}")
    if config.references:
        say("references", "nothing in the lab answers references")
    return found


def sources(config: Config) -> dict[str, str]:
    """Region -> the address of a client in it."""
    return {region: layout.SOURCES.get(region, layout.ELSEWHERE) for region in config.regions}


def clients(config: Config) -> tuple[layout.Client, ...]:
    """One of every service and region, "www/eu-west"."""
    return tuple(
        layout.Client(f"{service}/{region}", source, spec.url(layout.name(service)), spec.server_name)
        for service in config.services
        for spec in (layout.SERVICES[service],)
        for region, source in sources(config).items()
    )


def adapted(config: Config, original: Config, site_dir: Path, ca: Path, key: Path) -> str:
    """The configuration file for the lab, YAML. original: the scenario's own; an address that `config` has and it has
    not is one that nobody listens at, in the lab too."""
    base = read_config(profile.text(profile.DEFAULTS, site_dir, ca, key)).config
    assert base is not None
    return render(
        replace(
            config,
            cluster=layout.CLUSTER,
            regions={name: _region(name, region) for name, region in config.regions.items()},
            services={
                name: _service(name, spec, base.services[name], original.services.get(name))
                for name, spec in config.services.items()
            },
            dns=tuple(_driver(driver, {d.site: d for d in base.dns}) for driver in config.dns),
            pools=base.pools if any(spec.pools and n in layout.POOLS for n, spec in config.services.items()) else (),
        )
    )


def _region(name: str, region: Region) -> Region:
    networks = (layout.REGIONS[name],) if name in layout.REGIONS else ()
    return replace(region, networks=networks, countries=(), continents=())


def _service(name: str, spec: Service, ours: Service, original: Service | None) -> Service:
    assert spec.dns is not None and ours.dns is not None
    endpoints = {
        site: ours.endpoints[site] if _same(site, addresses, original) else (layout.nobody(site),)
        for site, addresses in spec.endpoints.items()
    }
    return replace(
        spec,
        endpoints=endpoints,
        checks=tuple(replace(ours.checks[0], name=c.name, sites=c.sites, probe=c.probe) for c in spec.checks),
        dns=replace(spec.dns, name=ours.dns.name),
        pools=ours.pools if spec.pools else None,
    )


def _same(site: str, addresses: tuple[str, ...], original: Service | None) -> bool:
    return original is None or original.endpoints.get(site, addresses) == addresses


def _driver(driver: DnsDriver, ours: Mapping[str, DnsDriver]) -> DnsDriver:
    return replace(
        ours[driver.site],
        writers=driver.writers,
        apply_within_s=driver.apply_within_s,
        isolation=driver.isolation,
    )


def _line_of(word: str, text: str) -> int:
    """Where it stands as a key, or at all; 1 if it does not."""
    lines = text.splitlines()
    for found in (f"{word}:", word):
        for number, line in enumerate(lines, 1):
            if line.strip().removeprefix("- ").startswith(found):
                return number
    return 1
