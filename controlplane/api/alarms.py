"""What somebody has to know: {name, subject, since_s, remedy}. Pure functions of a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from controlplane.api.picture import Picture, ServicePicture, stuck_at
from controlplane.api.propagation import DIVERGED, WORD_S, Word
from controlplane.drivers import Fence
from probes.target import Health

Alarm = dict[str, Any]


def alarms(picture: Picture) -> list[Alarm]:
    """All alarms, sorted by name and subject."""
    found = [*_cluster(picture), *_vantages(picture), *_drivers(picture)]
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
            yield _alarm("unwritable", f"{doc.driver} by {doc.writer}", doc.unwritable, word.age_s)
    working = {n["site"] for n in p.nodes.values() if n["fresh"] and "agent" in n.get("roles", ())}
    for driver in p.config.dns if p.config else ():
        # Its home speaks for it; a deputy only while the home is dead. A dead site is said elsewhere.
        writers = {driver.site} if driver.site in working else working & set(driver.writers)
        yield from _silent(p, driver.name, driver.site, writers, driver.name)
    for pool in p.config.pools if p.config else ():
        for site in pool.sites:
            yield from _silent(p, pool.name, site, working & {site}, f"{pool.name} at {site}")
    for incarnation, where in foreign(p.words).items():
        remedy = f"{_some(sorted(where))}: not touched; if they are to be ours: failoverctl adopt {incarnation}"
        yield _alarm("foreign", incarnation, remedy)


def _silent(p: Picture, driver: str, at: str, writers: set[str], subject: str) -> Iterator[Alarm]:
    words = [w for w in p.words if (w.doc.driver, w.doc.site) == (driver, at) and w.doc.writer in writers]
    since_s = min((w.age_s for w in words), default=p.config_age_s)
    if writers and min(since_s, p.config_age_s) >= WORD_S:
        who = " and ".join(sorted(writers))
        remedy = f"{who} runs and says nothing of this driver: it is not open; see the log of {who}"
        yield _alarm("driver_silent", subject, remedy, round(since_s, 3))


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
