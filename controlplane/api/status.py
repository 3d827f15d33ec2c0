"""The status document (DESIGN section 10), computed from a view. Pure functions of what the view holds.

Fields are only ever added. What is not known is None, never 0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from controlplane.api.alarms import alarms
from controlplane.api.picture import Picture, ServicePicture, stuck_at
from controlplane.api.propagation import Word
from controlplane.config.scalars import seconds
from controlplane.dns.verify import servers_of
from policies.placing import load
from policies.standing import Standing
from policies.topology import Config, Override
from policies.world import Desired

Doc = dict[str, Any]
AILING = ("failed", "unknown", "data", "held", "soak", "ramp")


def status_document(picture: Picture, only: Collection[str] = ()) -> Doc:
    """`only`: names of services to show; () = all. The summary and the sites always speak of all."""
    services = {name: service_status(picture, picture.services[name]) for name in picture.services}
    raised = alarms(picture)
    return {
        "cluster": picture.cluster,
        "config_rev": picture.config.revision if picture.config else None,
        "source": picture.source,
        "leader": picture.leader,
        "token": picture.token,
        "decision": picture.latest or None,
        "summary": summary(picture, services, raised),
        "failovers": list(picture.failovers),
        "services": {n: d for n, d in services.items() if not only or n in only},
        "sites": sites(picture),
        "nodes": picture.nodes,
        "overrides": [override_status(o, picture.left_s.get(o.id)) for o in picture.overrides],
        "n_plus": picture.loss,
        "alarms": raised,
    }


def service_status(picture: Picture, service: ServicePicture) -> Doc:
    """One service: what it is told to be, what is seen of it, and whether that arrived."""
    desired, stage, arrival = service.desired, service.stage, service.arrival
    bound = picture.bounds.get(service.name)
    return {
        "generation": desired.generation if desired else None,
        "decision": (desired.decision or None) if desired else None,
        "state": arrival.state if arrival else "propagating",
        "name": desired.name if desired else "",
        "shares": desired.shares if desired else {},
        "standing": {s: {"rule": x.rule, "reason": x.reason} for s, x in sorted(stage.standings.items())},
        "verdicts": {s: seen(service, s) for s in sorted(stage.standings)},
        "shortfall": desired.shortfall if desired else None,
        "tier": desired.tier if desired else "",
        "refused": desired.refused if desired else "",
        "overrides": list(desired.overrides) if desired else [],  # that the last decision knew
        "in_force": list(stage.applied),  # that the next one will know
        "worst_case_s": bound.worst_case_s if bound else None,
        "target_s": bound.target_s if bound else None,
        "servers": list(arrival.servers) if arrival else [],
        "pools": list(arrival.pools) if arrival else [],
        "old_ttl_left_s": arrival.old_ttl_left_s if arrival else None,
        "notes": _notes(service),
    }


def seen(service: ServicePicture, site: str) -> str:
    """up | down | held | unknown: what is observed, whatever overrides say."""
    state = service.stage.states[site]
    return "held" if state.verdict == "up" and state.held else state.verdict


def _notes(service: ServicePicture) -> list[str]:
    notes: list[str] = []
    if service.desired is None:
        return ["not decided yet"]
    if service.arrival and service.arrival.state != "converged":
        notes += service.arrival.why[:3]
    if service.freeze:
        notes.append(f"◆ frozen by {service.freeze}")
    if service.desired.tier:
        notes.append(f"▲ last resort: {service.desired.tier}")
    if service.desired.shortfall:
        notes.append(f"▲ shortfall {service.desired.shortfall:g}")
    notes += _waits(service, service.desired)
    for site, standing in sorted(service.stage.standings.items()):
        if standing.rule in ("soak", "ramp"):
            notes.append(f"{site} {coming_back(standing)}")
    return notes


def _waits(service: ServicePicture, desired: Desired) -> list[str]:
    """Why what would be better waits, and for how long."""
    left_s = desired.hold_left_s - service.age_s
    if desired.refused == "hold":
        return [f"next move waits {seconds(max(1, round(left_s)))} (hold)"] if left_s > 0 else []
    if desired.refused == "governor":
        return ["waits: a voter dissents, and most of all demand would move"]
    if desired.refused == "rewound":
        return ["waits for failoverctl unfreeze: the store was restored"]
    if desired.refused == "freeze" and service.freeze:
        return [f"would leave {' '.join(stuck_at(service)) or 'where it is'}, but is frozen"]
    return [f"waits: {desired.refused}"] if desired.refused and not service.freeze else []


def coming_back(standing: Standing) -> str:
    """What is left of a soak or a ramp, in a few words: its reason without the tally."""
    said = standing.reason.split(", ", 1)[-1]
    if standing.rule == "soak":
        return "waits for failback" if "failback" in said else said.replace("soaking", "soak")
    return said.replace("ramping at ", "ramp ")


def loads(picture: Picture) -> dict[str, float]:
    """Site -> demand that it is served now."""
    total: dict[str, float] = {}
    for name, service in picture.services.items():
        frame = picture.frames.get(name)
        if frame is None or service.desired is None:
            continue
        shares = {region: service.desired.shares.get(region, {}) for region in frame.regions}
        for site, amount in load(frame, shares).items():
            total[site] = total.get(site, 0.0) + amount
    return total


def sites(picture: Picture) -> dict[str, Doc]:
    """Every site of the configuration: what is seen of it, what it carries, who works there."""
    if picture.config is None:
        return {}
    carried, answered = loads(picture), _answered(picture)
    limit = picture.config.policy.guards.max_utilisation
    result: dict[str, Doc] = {}
    for name, site in picture.config.sites.items():
        serves = site.role != "witness"
        result[name] = {
            "role": site.role,
            "observed": _observed(picture, name) if serves else None,
            "load": round(carried.get(name, 0.0), 3) if serves else None,
            "usable": round(site.capacity * limit, 3) if serves else None,
            "capacity": site.capacity if serves else None,
            "vantage": picture.vantages.get(name, "silent"),
            "dns": _dns(picture, picture.config, name, answered),
            "pool": _pool(picture, picture.config, name),
            "notes": _site_notes(picture, name),
        }
    return result


def _observed(picture: Picture, site: str) -> str | None:
    """One word for all services at a site: the word that all share, else "mixed"."""
    words = {seen(s, site) for s in picture.services.values() if site in s.stage.states}
    if not words:
        return None
    return words.pop() if len(words) == 1 else "mixed"


def _answered(picture: Picture) -> dict[str, bool]:
    """Name server -> did it answer for any service? Only of those that were asked."""
    found: dict[str, bool] = {}
    for service in picture.services.values():
        for told in service.arrival.servers if service.arrival else ():
            found[told.server] = found.get(told.server, False) or told.generation is not None
    return found


def _dns(picture: Picture, config: Config, site: str, answered: Mapping[str, bool]) -> str | None:
    """The site's own name servers: ok, or the worst that is known of them."""
    drivers = {d.name: d for d in config.dns if d.site == site}
    if not drivers:
        return None
    words = [w for w in picture.words if w.alive and w.doc.driver in drivers]
    if {w.doc.driver for w in words} != set(drivers):
        return "silent"
    if any(w.doc.unwritable for w in words):
        return "unwritable"
    own = {server for driver in drivers.values() for server in servers_of(driver)}
    if answered.keys() & own and not any(answered.get(server) for server in own):
        return "unreachable"
    home = [w for w in words if w.doc.writer == site]
    return _worst(home or words)


def _pool(picture: Picture, config: Config, site: str) -> str | None:
    """How the site's load balancer fares; None: it has none."""
    drivers = {d.name for d in config.pools if site in d.sites}
    if not drivers:
        return None
    words = [w for w in picture.words if w.alive and w.doc.driver in drivers and w.doc.site == site == w.doc.writer]
    if {w.doc.driver for w in words} != drivers:
        return "silent"
    if any(a.gone for w in words for a in w.doc.services.values()):
        return "unreachable"
    if any(w.doc.unwritable for w in words):
        return "unwritable"
    return _worst(words)


def _worst(words: Sequence[Word]) -> str:
    results = {a.result for w in words for a in w.doc.services.values()}
    return next((word for word in ("terminal", "foreign", "ahead", "manual", "transient") if word in results), "ok")


def _site_notes(picture: Picture, site: str) -> list[str]:
    notes = []
    for override in picture.overrides:
        if site in override.sites:
            left_s = picture.left_s.get(override.id)
            ends = "no expiry" if left_s is None else f"{_about(left_s)} left"
            scope = f" for {' '.join(override.services)}" if override.services else ""
            notes.append(f"◆ {override.command}{scope}, {ends}")
    down = sorted(n for n, s in picture.services.items() if site in s.stage.states and seen(s, site) == "down")
    if down and _observed(picture, site) == "mixed":
        more = f" and {len(down) - 3} more" if len(down) > 3 else ""
        notes.append(f"down: {' '.join(down[:3])}{more}")
    return notes


def _about(value_s: float) -> str:
    """In whole minutes, or in seconds under one."""
    return seconds(value_s // 60 * 60 if value_s >= 60 else round(value_s))


def override_status(override: Override, left_s: float | None) -> Doc:
    """`left_s` None: no expiry."""
    return {
        "id": override.id,
        "command": override.command,
        "verb": override.verb,
        "hard": override.hard,
        "sites": list(override.sites),
        "services": list(override.services),
        "author": override.author,
        "reason": override.reason,
        "created_at": override.created_at,
        "left_s": None if left_s is None else round(left_s, 3),
        "accepts": list(override.accepts),
        "op": override.op,
    }


def summary(picture: Picture, services: Mapping[str, Doc], raised: list[Doc]) -> Doc:
    """One word and a few facts: {state: ok | degraded | failing over | frozen | unknown, facts}.

    frozen: a service would leave a failed site, and may not."""
    if picture.config is None:
        return {"state": "unknown", "facts": ["no configuration is applied"]}
    facts: list[str] = []
    frozen = [f"{n} would leave {' '.join(at)}" for n, s in picture.services.items() if (at := stuck_at(s))]
    under_way = {f.service for f in picture.failovers}
    failing = sorted(n for n, s in picture.services.items() if _failing_over(s) or n in under_way)
    facts += _few(frozen, 3)
    if failing:
        facts.append(" ".join(_few(failing, 3)))
    for command in sorted({o.command for o in picture.overrides}):
        n = sum(1 for o in picture.overrides if o.command == command)
        facts.append(f"{n} {command}{'s' if n > 1 else ''}")
    ailing = sorted(
        {f"{site} {x['rule']}" for d in services.values() for site, x in d["standing"].items() if x["rule"] in AILING}
    )
    facts += _few(ailing, 4)
    names = [a["name"] for a in raised]
    facts += [f"{names.count(name)} {name}" if names.count(name) > 1 else name for name in sorted(set(names))]
    converged = sum(1 for d in services.values() if d["state"] == "converged")
    facts.append(f"{converged}/{len(services)} services converged")
    calm = not raised and not picture.overrides and converged == len(services)
    well = calm and all(x["rule"] == "ready" for d in services.values() for x in d["standing"].values())
    state = "frozen" if frozen else "failing over" if failing else "ok" if well else "degraded"
    return {"state": state, "facts": facts}


def _few(words: list[str], most: int) -> list[str]:
    return [*words[:most], *([f"and {len(words) - most} more"] if len(words) > most else [])]


def _failing_over(service: ServicePicture) -> bool:
    """A site that failed still carries traffic, and is about to be left."""
    failed = [s for s, x in service.stage.standings.items() if x.rule == "failed"]
    if not failed or service.desired is None or service.freeze:
        return False
    return any(region.get(site) for region in service.desired.shares.values() for site in failed)
