"""What somebody has to know: {name, subject, since_s, remedy}. Pure functions of a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from controlplane.api.picture import Picture, ServicePicture, stuck_at
from controlplane.api.propagation import DIVERGED, WORD_S, Word
from controlplane.dns import DRIVERS
from controlplane.drivers import Fence
from probes.target import Health

Alarm = dict[str, Any]
LATE_S = 5.0  # until what answers should have a new generation, if apply_within is not longer


def alarms(picture: Picture) -> list[Alarm]:
    """All alarms, sorted by name and subject."""
    found = [*_cluster(picture), *_vantages(picture), *_drivers(picture), *_late(picture)]
    for service in picture.services.values():
        found += _service(picture, service)
    return sorted(found, key=lambda a: (a["name"], a["subject"]))


def _alarm(name: str, subject: str, remedy: str, since_s: float | None = None) -> Alarm:
    return {"name": name, "subject": subject, "since_s": since_s, "remedy": remedy}


def _cluster(p: Picture) -> Iterator[Alarm]:
    node = p.source["node"]
    if p.config is None:
        yield _alarm("no_configuration", p.cluster, "apply one: failoverctl apply FILE")
    if p.leader is None:
        yield _alarm("no_leader", p.cluster, "what is served stays; see that the store and two controllers run")
    if not p.source["current"]:
        yield _alarm("view_stale", node, "this node does not see the store's changes; see its log and the store")
    if p.clock_suspect:
        yield _alarm("clock_suspect", node, "its wall clock differs from the others' by over 5s; see its NTP")
    if p.rewound:
        yield _alarm(
            "rewound",
            p.cluster,
            f"{p.rewound}; see that drains are as you want them, then: failoverctl unfreeze",
        )
    if p.loss is not None and p.loss.drop > 0:
        lost = " and ".join(p.loss.lost)
        share = f"{p.loss.drop:g} of {p.loss.total:g} ({p.loss.drop / p.loss.total:.0%})"
        too = " too" if _lost_already(p) else ""
        what = f"losing {lost}{too} would drop {share}" if lost else f"no site is left to lose; {share} has no room"
        yield _alarm("n_plus", p.cluster, f"{what}; bring sites back, or add room")
    for name, doc in p.nodes.items():
        if doc["unreadable"]:
            yield _alarm("unreadable", name, f"upgrade this node, it cannot read {doc['unreadable']}")


def _lost_already(p: Picture) -> bool:
    return any(x.rule in ("out", "failed") for s in p.services.values() for x in s.stage.standings.values())


def _vantages(p: Picture) -> Iterator[Alarm]:
    for site in p.config.sites if p.config else ():
        word = p.vantages.get(site, "silent")
        if word == "silent":
            yield _alarm("vantage_silent", site, "its prober does not report; see whether the site is up")
        elif word == "blind":
            yield _alarm("vantage_blind", site, "nothing that it probes answers; see its own network")


def _drivers(p: Picture) -> Iterator[Alarm]:
    for word in p.words:
        doc = word.doc
        if word.alive and doc.unwritable:
            remedy = f"{doc.unwritable}; until that is mended {doc.writer} cannot change what it serves"
            yield _alarm("unwritable", _by(doc.driver, doc.site, doc.writer), remedy, word.age_s)
    working = {n["site"] for n in p.nodes.values() if n["fresh"] and "agent" in n.get("roles", ())}
    for driver in p.config.dns if p.config else ():
        # Each of them, before it is needed. A dead site is said elsewhere.
        kind = DRIVERS.get(driver.driver)
        writers = driver.writers if kind and kind.open_deputy else (driver.site,)
        for writer in writers:
            if writer in working:
                yield from _unheard(p, driver.name, driver.site, writer)
    for pool in p.config.pools if p.config else ():
        for site in pool.sites:
            if site in working:
                yield from _unheard(p, pool.name, site, site)
    for incarnation, where in foreign(p.words).items():
        remedy = f"{_some(sorted(where))}: not touched; if they are to be ours: failoverctl adopt {incarnation}"
        yield _alarm("foreign", incarnation, remedy)


def _unheard(p: Picture, driver: str, at: str, writer: str) -> Iterator[Alarm]:
    """A writer that runs, and says nothing of its driver or could not open it as it is configured now."""
    words = [w for w in p.words if (w.doc.driver, w.doc.site, w.doc.writer) == (driver, at, writer)]
    faults = [n.get("driver_faults", {}).get(driver) for n in p.nodes.values() if n["fresh"] and n["site"] == writer]
    fault = next(filter(None, faults), "")
    since_s = min((w.age_s for w in words), default=p.config_age_s)
    if fault:
        name = "driver_stale" if any(w.alive for w in words) else "driver_silent"
        yield _alarm(name, _by(driver, at, writer), f"{driver} {fault}; {writer} tries again by itself")
    elif min(since_s, p.config_age_s) >= WORD_S:
        remedy = f"{writer} runs and says nothing of this driver: it is not open; see the log of {writer}"
        yield _alarm("driver_silent", _by(driver, at, writer), remedy, round(since_s, 3))


def _late(p: Picture) -> Iterator[Alarm]:
    """Name servers and pools that answer, and do not have what was desired though they had their time. (A secondary
    that is not transferred to has no writer who could say so.)"""
    within_s = max([LATE_S, *(driver.apply_within_s for driver in (p.config.dns if p.config else ()))])
    late: dict[str, list[str]] = {}
    for s in p.services.values():
        if s.desired is None or s.arrival is None or s.arrival.state == DIVERGED or s.age_s < within_s:
            continue
        for seen in s.arrival.servers:
            if seen.generation is not None and seen.generation < s.desired.generation:
                late.setdefault(seen.server, []).append(s.name)
        for pool in s.arrival.pools:
            if pool.generation is not None and not pool.agrees:
                late.setdefault(f"{pool.driver} at {pool.site}", []).append(s.name)
    for where, services in late.items():
        remedy = f"it answers, and has an older generation of {_some(services)}; see what its writers say, and its log"
        yield _alarm("late", where, remedy)


def _by(driver: str, at: str, writer: str) -> str:
    return f"{driver} at {at}" + (f", by {writer}" if writer != at else "")


def foreign(words: Iterable[Word]) -> dict[str, dict[str, set[str]]]:
    """Foreign incarnations whose records stand where ours should: incarnation -> service -> drivers, as agents that
    live report them."""
    found: dict[str, dict[str, set[str]]] = {}
    for word in words:
        for service, done in word.doc.services.items() if word.alive else ():
            fence = Fence.parse(done.reason) if done.result == "foreign" else None
            if fence is not None:
                there = found.setdefault(fence.incarnation, {}).setdefault(service, set())
                there.add(f"{word.doc.driver} at {word.doc.site}")
    return found


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _service(p: Picture, s: ServicePicture) -> Iterator[Alarm]:
    if s.desired is None:
        return
    if s.desired.tier:
        yield _alarm("last_resort", s.name, f"served by class: {s.desired.tier}; bring a site back")
    if s.desired.shortfall:
        yield _alarm("shortfall", s.name, f"{s.desired.shortfall:g} of demand has no room; add room or shed demand")
    if s.arrival and s.arrival.state == DIVERGED:
        yield _alarm("diverged", s.name, "; ".join(s.arrival.why))
    for site in stuck_at(s):
        remedy = f"{s.freeze} freezes it on a failed site: failoverctl unfreeze, or failoverctl drain {site}"
        yield _alarm("frozen_on_failed", f"{s.name}@{site}", remedy)
    for site, standing in sorted(s.stage.standings.items()):
        if any(region.get(site) for region in s.desired.shares.values()):
            if standing.rule == "out" and not standing.ladder:
                yield _alarm("hard_out_ignored", f"{s.name}@{site}", "no other site can answer; bring one back")
            if standing.rule == "held":
                yield from _held(p, s, site)
    yield from _warnings(s)


def _held(p: Picture, s: ServicePicture, site: str) -> Iterator[Alarm]:
    """A carrying site that is dead and yet has no quorum against it: said aloud after `target`."""
    down = [e for e in s.evidence if e.site == site and e.fresh and e.health is Health.DOWN]
    ages = [e.since_s for e in down if e.since_s is not None]
    frame = p.frames.get(s.name)
    if ages and frame and max(ages) > frame.spec.target_s:
        remedy = "some vantage says DOWN, but there is no quorum; bring vantages back, or drain the site"
        yield _alarm("held_while_down", f"{s.name}@{site}", remedy, round(max(ages), 3))


def _warnings(s: ServicePicture) -> Iterator[Alarm]:
    """What is only going to be wrong: a certificate with few days left."""
    told: set[str] = set()
    for e in s.evidence:
        if e.fresh and e.warning and e.target not in told:
            told.add(e.target)
            yield _alarm("probe_warning", e.target, e.warning)
