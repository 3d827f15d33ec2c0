"""The metrics that say how things are, from a picture of the view. `look` reads the view, the rest is pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from controlplane.api.alarms import alarms
from controlplane.api.picture import Memory, Picture, ServicePicture, take_picture
from controlplane.api.propagation import CONVERGED, DIVERGED, PROPAGATING
from controlplane.api.status import loads, seen
from controlplane.journal import Journal
from controlplane.telemetry.metrics import Labels, Reading, Rows, Value
from controlplane.view import View
from policies.frame import usable
from policies.standing import RULES

VERDICTS = ("up", "down", "held", "unknown")
STATES = (CONVERGED, PROPAGATING, DIVERGED)
RULE_NAMES = tuple(rule.name for rule in RULES)
FOREVER = float("inf")


class Look(Struct, frozen=True):
    """All that the gauges are computed from. beat_age_s, blind: of each vantage that was ever seen moving."""

    picture: Picture
    beat_age_s: dict[str, float]
    blind: dict[str, bool]


async def look(view: View, memory: Memory, journal: Journal) -> Look:
    """In slices of the event loop."""
    picture = await take_picture(view, memory, journal)
    now = view.pulse.now()
    ages: dict[str, float] = {}
    blind: dict[str, bool] = {}
    for eye in view.votes.eyes.values():
        if eye.moved_at is None:
            continue
        age_s = now - eye.moved_at
        if age_s < ages.get(eye.site, FOREVER):  # of a site's several vantages, the one that moved last
            ages[eye.site], blind[eye.site] = age_s, eye.blind
    return Look(picture, ages, blind)


def reading(look: Look) -> Reading:
    """What is not known has no series."""
    p = look.picture
    return _cluster(p) | _vantages(look) | _sites(p) | _overrides(p) | _services(p) | _applied(p) | _alarms(p)


def _cluster(p: Picture) -> dict[str, Rows]:
    controllers = [name for name, node in p.nodes.items() if "controller" in node["roles"]]
    token: dict[Labels, Value] = {}
    if p.leader is not None and p.token is not None:
        token[p.leader,] = float(p.token)
    return {
        "leader": {(name,): float(name == p.leader) for name in controllers},
        "store_up": {(p.source["node"],): float(p.source["current"])},
        "leader_token": token,
    }


def _vantages(look: Look) -> dict[str, Rows]:
    p = look.picture
    voting = sum(1 for word in p.vantages.values() if word == "ok")
    return {
        "voting_vantages": {(): float(voting)},
        "min_vantages": {(): float(p.config.policy.quorum.min_vantages)} if p.config else {},
        "vantage_beat_age_seconds": {(site,): age_s for site, age_s in sorted(look.beat_age_s.items())},
        "vantage_blind": {(site,): float(blind) for site, blind in sorted(look.blind.items())},
    }


def _sites(p: Picture) -> dict[str, Rows]:
    if p.config is None:
        return {}
    carried = loads(p)
    room = usable(p.config)
    return {
        "site_load": {(site,): carried.get(site, 0.0) for site in room},
        "site_usable": {(site,): left for site, left in room.items()},
    }


def _overrides(p: Picture) -> dict[str, Rows]:
    rows: dict[Labels, Value] = {}
    for override in p.overrides:
        left = p.left_s.get(override.id)
        left_s = FOREVER if left is None else left
        for site in override.sites or ("",):
            known = rows.get((override.command, site), 0.0)
            rows[override.command, site] = max(left_s, known) if isinstance(known, float) else left_s
    return {"override_remaining_seconds": rows}


def _services(p: Picture) -> dict[str, Rows]:
    rows: dict[str, dict[Labels, Value]] = {}

    def put(name: str, labels: Labels, value: float) -> None:
        rows.setdefault(name, {})[labels] = value

    for name, service in p.services.items():
        for site in service.stage.standings:
            verdict, rule = seen(service, site), service.stage.standings[site].rule
            _states(rows.setdefault("verdict", {}), (name, site), VERDICTS, verdict)
            _states(rows.setdefault("standing", {}), (name, site), RULE_NAMES, rule)
        if service.arrival is not None:
            _states(rows.setdefault("state", {}), (name,), STATES, service.arrival.state)
        if service.desired is not None:
            put("desired_generation", (name,), float(service.desired.generation))
            put("shortfall", (name,), service.desired.shortfall)
            for labels, share in _shares(p, service):
                put("share_ratio", labels, share)
        bound = p.bounds.get(name)
        if bound is not None:
            put("worst_case_seconds", (name,), bound.worst_case_s)
            put("target_seconds", (name,), bound.target_s)
    return dict(rows)


def _states(rows: dict[Labels, Value], labels: Labels, states: Iterable[str], now: str) -> None:
    for state in states:
        rows[(*labels, state)] = float(state == now)


def _shares(p: Picture, service: ServicePicture) -> list[tuple[Labels, float]]:
    """Every site of the service in every region, also where it is 0."""
    frame = p.frames.get(service.name)
    if frame is None or service.desired is None:
        return []
    found: list[tuple[Labels, float]] = []
    for region in frame.regions:
        shares: Mapping[str, int] = service.desired.shares.get(region, {})
        for site in dict.fromkeys((*frame.sites, *shares)):
            found.append(((service.name, region, site), shares.get(site, 0) / 100))
    return found


def _applied(p: Picture) -> dict[str, Rows]:
    """The highest generation that a living writer found or wrote; a writer that could not look says nothing."""
    rows: dict[Labels, Value] = {}
    best: dict[Labels, int] = {}
    for word in p.words:
        if not word.alive:
            continue
        for service, done in word.doc.services.items():
            labels = (service, word.doc.site, word.doc.driver)
            if service in p.services and done.generation > best.get(labels, 0):
                best[labels] = done.generation
                rows[labels] = float(done.generation)
    return {"applied_generation": rows}


def _alarms(p: Picture) -> dict[str, Rows]:
    return {"alarm": {(alarm["name"], alarm["subject"]): 1.0 for alarm in alarms(p)}}
