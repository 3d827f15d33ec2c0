"""What was read of drivers -> topology.DnsDriver and PoolDriver, with the driver's own defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from controlplane.config import derive
from controlplane.config.checks import canonical
from controlplane.config.problems import Log, Path, known_or
from controlplane.dns import DRIVERS as DNS
from controlplane.drivers import Kind
from controlplane.pools import DRIVERS as POOLS
from policies.topology import DnsDriver, PoolDriver, Site

Values = Mapping[str, Any]
_UNREADABLE = DnsDriver("", "", "", (), (), 0.0, "freeze", (), "")  # stands in, reported already


def dns_drivers(read: tuple[Values | None, ...], sites: Mapping[str, Site], log: Log) -> tuple[DnsDriver, ...]:
    """One for each entry, so that paths can be told from indexes; options "" where they cannot be used."""
    found: list[DnsDriver] = []
    for index, values in enumerate(read):
        path: Path = ("drivers", "dns", index)
        if values is None:
            found.append(_UNREADABLE)
            continue
        site = values["site"]
        sound = bool(site) and known_or(log, (*path, "site"), site, sites, "site")
        writers = tuple(
            writer
            for at, writer in enumerate(values["writers"])
            if known_or(log, (*path, "writers", at), writer, sites, "site")
        )
        if writers and sound and writers[0] != site:
            log.error((*path, "writers", 0), f"expected {site} first: the home agent writes, the others stand in")
        options = _options(DNS[values["driver"]], values, values["zones"], path, log)
        found.append(
            DnsDriver(
                driver=values["driver"],
                name=values["name"] or (f"{values['driver']}-{site}" if site else ""),
                site=site,
                zones=values["zones"],
                writers=writers or (site,),
                apply_within_s=values["apply_within"],
                isolation=values["isolation"],
                servers=values["servers"],
                options=canonical(options) if options else "",
            )
        )
    return tuple(found)


def pool_drivers(read: tuple[Values | None, ...], sites: Mapping[str, Site], log: Log) -> tuple[PoolDriver, ...]:
    """One for each entry; `sites: all` are those that take traffic."""
    found: list[PoolDriver] = []
    for index, values in enumerate(read):
        path: Path = ("drivers", "pools", index)
        if values is None:
            found.append(PoolDriver("", "", (), ""))
            continue
        given = values["sites"]
        if given == "all":
            chosen = tuple(name for name, site in sites.items() if site.role != "witness")
        else:
            chosen = tuple(
                site for at, site in enumerate(given or ()) if known_or(log, (*path, "sites", at), site, sites, "site")
            )
        options = _options(POOLS[values["driver"]], values, (), path, log)
        name = values["name"] or values["driver"]
        found.append(PoolDriver(values["driver"], name, chosen, canonical(options) if options else ""))
    return tuple(found)


def _options(kind: Kind, values: Values, zones: tuple[str, ...], path: Path, log: Log) -> msgspec.Struct | None:
    """None if they cannot be used (reported)."""
    try:
        made: msgspec.Struct = kind.complete(derive.convert(kind.options, values["options"]), zones)
        return made
    except msgspec.ValidationError as error:
        if not log.broken(path):
            log.error(path, str(error))
        return None
