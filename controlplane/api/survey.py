"""Asking every name server itself, for `verify`: with a cluster or without one."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from controlplane.dns.ask import Ask
from controlplane.dns.ask import ask as ask_sockets
from controlplane.dns.verify import Reading, probes_for, survey, verify
from controlplane.documents import Seen
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
    """{ok, reachable, services: {NAME: {name, generation, ok, servers: [...]}}}.

    With `desired` each answer is compared with it; without, servers have to agree with each other and with the
    configuration. `ok` None: no server could be reached. Never raises for what a server does.
    """
    readings = await survey(config, ask, tuple(services))
    judged = await _judge(config, readings, desired or {}, incarnation, ask)
    result: Doc = {}
    for reading in readings:
        entry = result.setdefault(
            reading.service,
            {
                "name": _name(config, reading.service),
                "generation": desired[reading.service].generation if desired and reading.service in desired else None,
                "servers": [],
            },
        )
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
    oks = [entry["ok"] for entry in result.values()]
    reachable = sum(1 for r in readings if r.reachable)
    known = [ok for ok in oks if ok is not None]
    return {
        "cluster": config.cluster,
        "ok": None if not known else all(known) and len(known) == len(oks),
        "reachable": reachable,
        "asked": len(readings),
        "services": result,
    }


def _plain(reason: str) -> str:
    """Without the number that only programmers know: "[Errno 111] Connection refused" -> "connection refused"."""
    found = re.match(r"\[Errno \d+\] (.)", reason)
    return found[1].lower() + reason[found.end() :] if found else reason


async def _judge(
    config: Config, readings: tuple[Reading, ...], desired: Mapping[str, Desired], incarnation: str, ask: Ask
) -> dict[tuple[str, str], Seen]:
    probes = probes_for(config.regions)
    by_server: dict[str, list[Desired]] = {}
    for reading in readings:
        if reading.reachable and reading.service in desired:
            by_server.setdefault(reading.server, []).append(desired[reading.service])
    found: dict[tuple[str, str], Seen] = {}
    for server, wanted in by_server.items():
        for service, seen in (await verify(ask, server, wanted, incarnation, probes)).items():
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
        if line["generation"] is None:
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
