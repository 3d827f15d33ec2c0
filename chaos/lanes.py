"""A history as lanes over time: who answered what, whose requests failed, who led. Pictures are drawn from it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from msgspec import Struct

from chaos.history import Answered, Committed, Faulted, History, Led, Probed, Served
from chaos.report import Failover
from chaos.timeline import Shares, by_operator, causes, goes_on, moved
from controlplane.documents import DecisionDoc

NOBODY = ""  # in a mix: no site; in a client's lane: it knows none
ERROR = "!"  # begins the value of a client's or a prober's lane while requests fail: "!time-out"

Mix = tuple[tuple[str, float], ...]  # (site, part of 1), by site


class Span(Struct, frozen=True):
    """A value that held from start to end, in seconds of the scenario."""

    start: float
    end: float
    value: str


class Blend(Struct, frozen=True):
    """What several name servers and regions were told, from start to end."""

    start: float
    end: float
    mix: Mix


class Mark(Struct, frozen=True):
    """A decision. change: "site-a -> site-b", from what the service had before, in these regions. forced: a site lost
    its traffic because it had to."""

    at: float
    decision: DecisionDoc
    change: str
    regions: tuple[str, ...]
    forced: bool


def faults(history: History) -> list[Span]:
    """Each fault while it was in force, in the order in which they began. A deed has no length; those of operators are
    left out: they have records of their own."""
    began: dict[int, Faulted] = {}
    found: list[tuple[int, Span]] = []
    for record in history.records:
        if not isinstance(record, Faulted):
            continue
        if record.began:
            began[record.index] = record
        elif record.index in began:
            first = began.pop(record.index)
            found.append((record.index, Span(first.at, record.at, first.text)))
    for index, first in began.items():
        end = history.duration_s if goes_on(first.text) else first.at
        found.append((index, Span(first.at, end, first.text)))
    ordered = sorted(found, key=lambda item: (item[1].start, item[0]))
    return [span for _, span in ordered if not by_operator(span.value)]


def leaders(history: History) -> list[Span]:
    """Who led in its own eyes; two may, for a while."""
    since: dict[str, float] = {}
    found = []
    for record in history.records:
        if not isinstance(record, Led):
            continue
        if record.leading:
            since.setdefault(record.node, record.at)
        elif record.node in since:
            found.append(Span(since.pop(record.node), record.at, record.node))
    found += [Span(start, history.duration_s, node) for node, start in since.items()]
    return sorted(found, key=lambda span: span.start)


def decisions(history: History) -> list[Mark]:
    """Those that gave a new generation, from 0 on."""
    before: dict[str, Shares] = {}
    found = []
    for record in history.records:
        if not isinstance(record, Committed):
            continue
        decision = record.decision
        if decision.new_generation and record.at >= 0:
            old, new = before.get(decision.service, {}), decision.desired.shares
            regions = tuple(region for region in sorted({*old, *new}) if old.get(region) != new.get(region))
            forced = any(event.forced for event in causes(decision))
            found.append(Mark(record.at, decision, moved(old, new), regions, forced))
        before[decision.service] = decision.desired.shares
    return found


def answers(history: History, service: str, server: str = "", regions: Collection[str] = ()) -> list[Blend]:
    """What the name servers (or this one) that can be reached told of a service, over all regions (or these); nothing
    where none can be reached."""
    told: dict[tuple[str, str], tuple[str, ...] | None] = {}
    changes: list[tuple[float, Mix]] = []
    for record in history.records:
        if not isinstance(record, Answered) or record.service != service or (server and record.server != server):
            continue
        if regions and record.region not in regions:
            continue
        told[record.server, record.region] = record.sites if record.reachable else None
        mix = _mix(told.values())
        if changes and changes[-1][0] == record.at:
            changes.pop()
        if not changes or changes[-1][1] != mix:
            changes.append((record.at, mix))
    ends = [at for at, _ in changes[1:]] + [history.duration_s]
    return [Blend(at, end, mix) for (at, mix), end in zip(changes, ends, strict=False) if end > at]


def _mix(answers: Iterable[tuple[str, ...] | None]) -> Mix:
    heard = [sites for sites in answers if sites is not None]
    parts: dict[str, float] = {}
    for sites in heard:
        for site in sites or (NOBODY,):
            parts[site] = parts.get(site, 0.0) + 1 / (len(heard) * max(len(sites), 1))
    return tuple(sorted((site, round(part, 4)) for site, part in parts.items()))


def servers(history: History, service: str) -> list[str]:
    """Name servers that were asked for it, in the order of their names."""
    return sorted({r.server for r in history.records if isinstance(r, Answered) and r.service == service})


def clients(history: History, service: str, region: str, resolver: str = "keeps") -> list[Span]:
    """Where the requests of a region's clients went: a site, or "!error" while one of them failed."""
    now: dict[str, str] = {}
    changes: list[tuple[float, str]] = []
    for record in history.records:
        if not isinstance(record, Served) or (record.service, record.region, record.resolver) != (
            service,
            region,
            resolver,
        ):
            continue
        now[record.client] = f"{ERROR}{record.error}" if record.error else record.site
        changes.append((record.at, min(now.values(), key=lambda value: not value.startswith(ERROR))))
    return _spans(changes, history.duration_s)


def kinds(history: History, service: str) -> list[tuple[str, str]]:
    """(region, resolver) of the service's clients; those that keep TTLs first."""
    found = {(r.region, r.resolver) for r in history.records if isinstance(r, Served) and r.service == service}
    return sorted(found, key=lambda kind: (kind[1] != "keeps", kind[1], kind[0]))


def probes(history: History, vantage: str, site: str, service: str) -> list[Span]:
    """How a vantage's probes of a service at a site (and of the site itself) went: "ok", or "!reason"."""
    now: dict[str, str] = {}
    changes: list[tuple[float, str]] = []
    for record in history.records:
        if isinstance(record, Probed) and record.vantage == vantage and record.site == site:
            if record.service not in (service, ""):
                continue
            now[record.target] = "ok" if record.passed else f"{ERROR}{record.reason}"
            changes.append((record.at, min(now.values(), key=lambda value: not value.startswith(ERROR))))
    return _spans(changes, history.duration_s)


def vantages(history: History, site: str) -> list[str]:
    """Whose probes of a site were recorded, by name; the site's own, which has no vote, is left out."""
    found = {r.vantage for r in history.records if isinstance(r, Probed) and r.site == site}
    return sorted(found - {site})


def silenced(history: History, vantage: str) -> list[Span]:
    """While faults kept a vantage from probing at all: then it has no opinion, and its last one is history."""
    return [span for span in faults(history) if span.value in {f"{verb} {vantage}" for verb in _SILENCING}]


_SILENCING = ("power_off", "pause", "kill", "restart")


def changed(history: History) -> list[str]:
    """Services whose answers or clients saw a change from 0 on, by name; and all services if none did."""
    services = {r.service for r in history.records if isinstance(r, Answered | Served)}
    moving = {
        service
        for service in services
        if any(blend.start > 0 for blend in answers(history, service))
        or any(
            span.value.startswith(ERROR) and span.end > 0
            for region, resolver in kinds(history, service)
            for span in clients(history, service, region, resolver)
        )
    }
    return sorted(moving or services)


def incidents(failovers: Sequence[Failover]) -> list[list[Failover]]:
    """Failovers that went on at the same time, the longest outage of each group first."""
    groups: list[list[Failover]] = []
    over_s = float("-inf")
    for failover in sorted(failovers, key=lambda f: (f.at_s, f.service)):
        if failover.at_s - (failover.detect_s or 0.0) > over_s:
            groups.append([])
        groups[-1].append(failover)
        took_s = min((failover.apply_s or 0.0) + (failover.ttl_s or 0.0), failover.worst_case_s)
        over_s = max(over_s, failover.at_s + took_s)
    return [sorted(group, key=lambda f: (-(f.outage_s or 0.0), f.service)) for group in groups]


def decision_of(history: History, failover: Failover) -> Mark | None:
    """The commit that a failover was measured from."""
    for mark in decisions(history):
        if mark.decision.service == failover.service and abs(mark.at - failover.at_s) < 1e-6:
            return mark
    return None


def _spans(changes: Sequence[tuple[float, str]], end: float) -> list[Span]:
    """Each value until the next other one; of several at one moment the last counts."""
    kept: list[tuple[float, str]] = []
    for at, value in changes:
        if kept and kept[-1][0] == at:
            kept.pop()
        if not kept or kept[-1][1] != value:
            kept.append((at, value))
    ends = [at for at, _ in kept[1:]] + [end]
    return [Span(at, until, value) for (at, value), until in zip(kept, ends, strict=False) if until > at]
