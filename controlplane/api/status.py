"""The status document (DESIGN section 10), computed from a view. Pure functions of what the view holds.

Fields are only ever added. What is not known is None, never 0.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from controlplane.api.alarms import alarms
from controlplane.api.picture import Picture, ServicePicture
from policies.placing import load
from policies.topology import Config, Override

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
        "summary": summary(picture, services, raised),
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
    if service.desired.refused:
        notes.append(f"waits: {service.desired.refused}")
    for site, standing in sorted(service.stage.standings.items()):
        if standing.rule in ("soak", "ramp"):
            notes.append(f"{site} {standing.rule}")
    return notes


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
    carried = loads(picture)
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
            "dns": _dns(picture, picture.config, name),
            "notes": _site_notes(picture, name),
        }
    return result


def _observed(picture: Picture, site: str) -> str | None:
    """One word for all services at a site: the word that all share, else "mixed"."""
    words = {seen(s, site) for s in picture.services.values() if site in s.stage.states}
    if not words:
        return None
    return words.pop() if len(words) == 1 else "mixed"


def _dns(picture: Picture, config: Config, site: str) -> str | None:
    """The site's own name servers: ok, or the worst that is known of them."""
    drivers = [d.name for d in config.dns if d.site == site]
    if not drivers:
        return None
    words = [w for w in picture.words if w.doc.driver in drivers]
    if not any(w.alive for w in words):
        return "silent"
    if any(w.doc.unwritable for w in words if w.alive):
        return "unwritable"
    home = [w for w in words if w.alive and w.doc.writer == site]
    results = {a.result for w in home or words for a in w.doc.services.values()}
    for word in ("terminal", "foreign", "ahead", "manual", "transient"):
        if word in results:
            return word
    return "ok"


def _site_notes(picture: Picture, site: str) -> list[str]:
    notes = []
    for override in picture.overrides:
        if site in override.sites:
            left_s = picture.left_s.get(override.id)
            ends = "no expiry" if left_s is None else f"{_minutes(left_s)} left"
            scope = f" for {' '.join(override.services)}" if override.services else ""
            notes.append(f"◆ {override.command}{scope}, {ends}")
    down = sorted(n for n, s in picture.services.items() if site in s.stage.states and seen(s, site) == "down")
    if down and _observed(picture, site) == "mixed":
        more = f" and {len(down) - 3} more" if len(down) > 3 else ""
        notes.append(f"down: {' '.join(down[:3])}{more}")
    return notes


def _minutes(value_s: float) -> str:
    whole = round(value_s)
    if whole < 60:
        return f"{whole}s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m"


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
    """One word and a few facts: {state: ok | degraded | failing over | unknown, facts}."""
    if picture.config is None:
        return {"state": "unknown", "facts": ["no configuration is applied"]}
    facts: list[str] = []
    failing = sorted(n for n, s in picture.services.items() if _failing_over(s))
    if failing:
        facts.append(" ".join(failing[:3]) + (f" and {len(failing) - 3} more" if len(failing) > 3 else ""))
    for command in sorted({o.command for o in picture.overrides}):
        n = sum(1 for o in picture.overrides if o.command == command)
        facts.append(f"{n} {command}{'s' if n > 1 else ''}")
    ailing = sorted(
        {f"{site} {x['rule']}" for d in services.values() for site, x in d["standing"].items() if x["rule"] in AILING}
    )
    facts += [*ailing[:4], *([f"and {len(ailing) - 4} more"] if len(ailing) > 4 else [])]
    names = [a["name"] for a in raised]
    facts += [f"{names.count(name)} {name}" if names.count(name) > 1 else name for name in sorted(set(names))]
    converged = sum(1 for d in services.values() if d["state"] == "converged")
    facts.append(f"{converged}/{len(services)} services converged")
    calm = not raised and not picture.overrides and converged == len(services)
    well = calm and all(x["rule"] == "ready" for d in services.values() for x in d["standing"].values())
    return {"state": "failing over" if failing else "ok" if well else "degraded", "facts": facts}


def _failing_over(service: ServicePicture) -> bool:
    """A site that failed still carries traffic, or the move away from one has not arrived everywhere."""
    failed = [s for s, x in service.stage.standings.items() if x.rule == "failed"]
    if not failed or service.desired is None:
        return False
    if any(region.get(site) for region in service.desired.shares.values() for site in failed):
        return True
    return service.arrival is not None and service.arrival.state != "converged"
