"""Asking every name server itself, for `verify`: with a cluster or without one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from controlplane.dns.ask import Ask
from controlplane.dns.ask import ask as ask_sockets
from controlplane.dns.nameservers import beside
from controlplane.dns.verify import Reading, geo_file, probes_for, survey, verify
from controlplane.documents import Seen
from controlplane.pools.survey import pools_asked
from controlplane.routes import Routes
from policies.timing import zones_of
from policies.topology import Config
from policies.world import Desired

Doc = dict[str, Any]


async def verified(
    config: Config,
    services: Collection[str] = (),
    desired: Mapping[str, Desired] | None = None,
    incarnation: str = "",
    ask: Ask = ask_sockets,
) -> Doc:
    """{ok, reachable, services: {NAME: {name, generation, ok, servers: [...], pools: [...]}}, regions, zones}.

    With `desired` each answer is compared with it, as far as the server's driver can express it; without, servers
    have to agree with each other and with the configuration. `ok` None: no server could be reached. `regions`: did
    what is told to each agree? None: somebody could not be asked for it. `zones`: what each zone's own NS set says.
    Never raises for what a server does.
    """
    mmdb = geo_file(config)
    probes = await asyncio.to_thread(probes_for, config.regions, mmdb) if mmdb else probes_for(config.regions)
    names = sorted(zones_of(config))
    zones = dict(zip(names, await asyncio.gather(*[beside(ask, config, zone) for zone in names]), strict=True))
    more = {zone: servers for zone, (servers, _) in zones.items()}
    routes = Routes(config, "", more, probes)
    readings = await survey(config, ask, tuple(services), routes.probes, more)
    judged = await _judge(routes, readings, desired or {}, incarnation, ask)
    result = _by_service(config, readings, judged, desired)
    pools = await pools_asked(config, services, desired)
    for service, lines in pools.items():
        entry = result.setdefault(service, _nothing(config, desired, service))
        entry["pools"] = lines
        agree = [line["agrees"] for line in lines if line["agrees"] is not None]
        if False in agree:
            entry["ok"] = False
        elif agree and not entry["servers"]:  # with a name, its name servers have the word
            entry["ok"] = True
    oks = [entry["ok"] for entry in result.values() if entry["servers"] or entry["ok"] is not None]
    reachable = sum(1 for r in readings if r.reachable)
    known = [ok for ok in oks if ok is not None]
    return {
        "cluster": config.cluster,
        "ok": None if not known else all(known) and len(known) == len(oks),
        "reachable": reachable,
        "asked": len(readings),
        "services": result,
        "regions": _regions(config, readings, result),
        "zones": {
            zone: {"servers": list(told.servers), "unknown": list(told.unknown), "reason": told.reason}
            for zone, (_, told) in zones.items()
        },
    }


def _by_service(
    config: Config,
    readings: Sequence[Reading],
    judged: Mapping[tuple[str, str], Seen],
    desired: Mapping[str, Desired] | None,
) -> Doc:
    """What the name servers say, and whether that is right."""
    result: Doc = {}
    for reading in readings:
        entry = result.setdefault(reading.service, _nothing(config, desired, reading.service))
        line = msgspec.to_builtins(reading) | {"agrees": None}
        entry["servers"].append(line | {"reason": _plain(line["reason"])})
    for service, entry in result.items():
        for line in entry["servers"]:
            if line["reachable"]:
                seen = judged.get((line["server"], service))
                line["agrees"] = seen.agrees if seen else None
                line["reason"] = line["reason"] or (seen.reason if seen else "")
        if desired is None or service not in desired:
            _among_themselves(config, service, entry["servers"])
        words = [line["agrees"] for line in entry["servers"] if line["reachable"]]
        entry["ok"] = all(words) if words else None
    return result


def _nothing(config: Config, desired: Mapping[str, Desired] | None, service: str) -> Doc:
    """Of a service of which nobody was asked yet."""
    known = desired.get(service) if desired else None
    generation = known.generation if known else None
    return {"name": _name(config, service), "generation": generation, "ok": None, "servers": [], "pools": []}


def _regions(config: Config, readings: Sequence[Reading], result: Doc) -> dict[str, bool | None]:
    """A region for which everybody who answered could be asked agrees if all that was asked does."""
    known = [entry["ok"] for entry in result.values() if entry["ok"] is not None]
    reachable = [reading for reading in readings if reading.reachable]
    unknown = {name for reading in reachable for name in reading.not_asked}
    return {name: None if name in unknown or not reachable else all(known) for name in config.regions}


def _plain(reason: str) -> str:
    """Without the number that only programmers know: "[Errno 111] Connection refused" -> "connection refused"."""
    found = re.match(r"\[Errno \d+\] (.)", reason)
    return found[1].lower() + reason[found.end() :] if found else reason


async def _judge(
    routes: Routes,
    readings: Sequence[Reading],
    desired: Mapping[str, Desired],
    incarnation: str,
    ask: Ask,
) -> dict[tuple[str, str], Seen]:
    by_server: dict[str, list[Desired]] = {}
    for reading in readings:
        lens = routes.lens_of(reading.server)
        told = lens(desired[reading.service]) if lens and reading.service in desired else None
        if reading.reachable and told is not None:
            by_server.setdefault(reading.server, []).append(told)
    found: dict[tuple[str, str], Seen] = {}
    for server, wanted in by_server.items():
        for service, seen in (await verify(ask, server, wanted, incarnation, routes.probes[server])).items():
            found[server, service] = seen
    return found


def _name(config: Config, service: str) -> str:
    dns = config.services[service].dns
    return dns.name if dns else ""


def _among_themselves(config: Config, service: str, lines: list[Doc]) -> None:
    """Without `desired`: the highest generation is right, and addresses have to be the configuration's."""
    known = {address for addresses in config.services[service].endpoints.values() for address in addresses}
    fences = [(x["generation"], x["incarnation"]) for x in lines if x["reachable"] and x["generation"] is not None]
    newest = max(fences, default=None)
    for line in lines:
        if not line["reachable"]:
            continue
        strange = sorted({a for told in line["answers"].values() for a in told} - known)
        if line["generation"] is None or line["reason"]:
            line["agrees"] = False
        elif (line["generation"], line["incarnation"]) != newest:
            line["agrees"] = False
            line["reason"] = f"generation {line['generation']}, another has {newest[0] if newest else '?'}"
        elif strange:
            line["agrees"], line["reason"] = False, f"answers {', '.join(strange)}, which the file does not have"
        elif line["op"].startswith("manual"):
            line["agrees"], line["reason"] = False, f"changed by hand ({line['op']})"
        else:
            line["agrees"] = True
