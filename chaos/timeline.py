"""A history in words: what people read while a drill runs, and in its report. Pure.

`Teller` takes records one by one, as they happen, and gives events; what many servers do at once is one event.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec import Struct

from chaos.history import (
    Answered,
    AnyRecord,
    Committed,
    Configured,
    Edited,
    Faulted,
    History,
    Led,
    Operated,
    Pooled,
    Rewound,
    Served,
    Wrote,
)
from chaos.report import Failover, Report
from chaos.scenario import VERBS
from controlplane.documents import DecisionDoc
from policies.world import Event as Reason

TOGETHER_S = 0.25  # answers that change within so long of each other are told as one
KNOWN_S = 1.0  # what is heard of for the first time until then was so before
CALM_S = 5.0  # without a failed request for so long, a region's clients are well again
SAID = 160  # characters of what a command said
BAD, GOOD, PLAIN = "bad", "good", ""

Shares = Mapping[str, Mapping[str, int]]


class Event(Struct, frozen=True):
    """Something to tell. at: seconds of the scenario. kind: fault | leader | decision | answers | clients | pool |
    operator | config | store | edit | write. tone: bad | good | ""."""

    at: float
    kind: str
    text: str
    tone: str = PLAIN


def timeline(history: History) -> list[Event]:
    """All that happened from 0 on, in the order of time."""
    teller = Teller(history.duration_s)
    told = [event for record in history.records for event in teller.tell(record)]
    return sorted([*told, *teller.end(history.duration_s)], key=lambda event: event.at)


def clock(at: float) -> str:
    """ "1:25.3", "1:02:05.0"; negative before the scenario's start."""
    tenths = round(abs(at) * 10)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    sign = "-" if at < 0 and tenths else ""
    text = f"{rest // 10:02d}.{rest % 10}"
    return f"{sign}{hours}:{minutes:02d}:{text}" if hours else f"{sign}{minutes}:{text}"


def phases(failover: Failover) -> list[tuple[str, float | None, float]]:
    """(phase, measured, bound) in seconds. A failover is seen and taken over at once: the longer of the two bounds."""
    b = failover.bounds
    seen_s = max(b.get("detect_s", 0.0) + b.get("publish_s", 0.0), b.get("takeover_s", 0.0))
    return [
        ("detect", failover.detect_s, round(seen_s, 6)),
        ("decide", failover.decide_s, b.get("decide_s", 0.0)),
        ("apply", failover.apply_s, b.get("apply_s", 0.0)),
        ("ttl", failover.ttl_s, b.get("ttl_s", 0.0)),
    ]


def goes_on(fault: str) -> bool:
    """Is a fault of these words in force after it began? A deed (a clock's step, a command) is done then."""
    verb = VERBS.get(fault.partition(" ")[0])
    return verb is None or verb.heals


def by_operator(fault: str) -> bool:
    """Is it a command of an operator? Those have records of their own: Operated."""
    return fault.startswith("operator ")


def broke_bounds(report: Report) -> bool:
    """Was a bound broken that should have held? It is for one accident; a second fault may take a failover over it."""
    return any(invariant.name == "bounded" and not invariant.passed for invariant in report.invariants)


class Teller:
    """Remembers just enough to tell what is new. What happens before 0 is learned, not told."""

    def __init__(self, end: float = float("inf")) -> None:
        self._end = end  # that the world is taken down then is no news
        self._shares: dict[str, Shares] = {}
        self._pools: dict[tuple[str, str], dict[str, int]] = {}
        self._writes: dict[tuple[str, str, str], str] = {}  # server, writer, service -> result
        self._answers = _Answers()
        self._clients = _Clients()

    def tell(self, record: AnyRecord) -> list[Event]:
        """The events that this record completes; their times may lie up to CALM_S back."""
        told = [*self._answers.before(record.at), *self._clients.before(record.at), *self._one(record)]
        return [event for event in told if event.at >= 0]

    def end(self, at: float) -> list[Event]:
        """What waited for something that might have come with it."""
        told = [*self._answers.before(at + TOGETHER_S), *self._clients.before(at + CALM_S)]
        return [event for event in told if event.at >= 0]

    def _one(self, record: AnyRecord) -> Iterator[Event]:
        if isinstance(record, Committed):
            yield from self._decided(record)
        elif isinstance(record, Answered):
            self._answers.take(record)
        elif isinstance(record, Served):
            self._clients.take(record)
        elif isinstance(record, Wrote):
            yield from self._wrote(record)
        elif isinstance(record, Pooled):
            yield from self._pooled(record)
        elif not (isinstance(record, Led) and record.at >= self._end):
            yield from _plain(record)

    def _decided(self, record: Committed) -> Iterator[Event]:
        decision = record.decision
        before = self._shares.get(decision.service, {})
        self._shares[decision.service] = decision.desired.shares
        if decision.new_generation:
            yield Event(record.at, "decision", in_words(decision, before))
        for event in decision.events:
            if event.kind == "alarm":
                yield Event(record.at, "decision", f"{decision.id} {decision.service}: alarm: {event.reason}", BAD)

    def _wrote(self, record: Wrote) -> Iterator[Event]:
        key = (record.server, record.writer, record.service)
        before = self._writes.get(key, "ok")
        self._writes[key] = record.result
        if record.result in ("fenced", "terminal") and record.result != before:
            what = f"{record.writer}'s update of {record.service} to gen {record.generation}"
            yield Event(record.at, "write", f"name server {record.server} refused {what}: {record.result}")

    def _pooled(self, record: Pooled) -> Iterator[Event]:
        key = (record.site, record.service)
        before = self._pools.get(key)
        self._pools[key] = record.weights
        if before != record.weights and (before is not None or record.at >= KNOWN_S):
            weights = " ".join(f"{site}={weight}" for site, weight in sorted(record.weights.items()))
            yield Event(record.at, "pool", f"load balancer {record.site}: {record.service} {weights}")


def in_words(decision: DecisionDoc, before: Shares) -> str:
    """ "d-3 www gen 3: site-a -> site-b. site-a failed: down 3/3 (timeout connect: site-b, site-c)"."""
    text = f"{decision.id} {decision.service} gen {decision.desired.generation}"
    text += f": {moved(before, decision.desired.shares) or 'other addresses'}"
    first = causes(decision)[:1]
    return text + "".join(f". {e.site} {e.rule}: {e.reason.partition('; ')[2] or e.reason}" for e in first)


def causes(decision: DecisionDoc) -> list[Reason]:
    """The moves of a decision, what made it first: sites that lost traffic because they had to."""
    carries = {site for shares in decision.desired.shares.values() for site in shares}
    moves = [event for event in decision.events if event.kind == "move"]
    return sorted(moves, key=lambda e: (not e.forced, e.site in carries, e.site))


def moved(before: Shares, after: Shares) -> str:
    """ "site-a -> site-b"; regions are named where they differ; "" if no share changed."""
    changes: dict[str, list[str]] = {}
    for region in sorted({*before, *after}):
        old, new = before.get(region, {}), after.get(region, {})
        if old != new:
            changes.setdefault(f"{shared(old) or 'nothing'} -> {shared(new) or 'nothing'}", []).append(region)
    if len(changes) == 1 and len(next(iter(changes.values()))) == len({*before, *after}):
        return next(iter(changes))
    return "; ".join(f"{', '.join(regions)}: {change}" for change, regions in changes.items())


def shared(shares: Mapping[str, int]) -> str:
    """ "site-a", or "site-a 60 site-b 40"."""
    if len(shares) == 1:
        return next(iter(shares))
    return " ".join(f"{site} {percent}" for site, percent in sorted(shares.items(), key=lambda i: (-i[1], i[0])))


def _plain(record: AnyRecord) -> Iterator[Event]:
    """Those that need no memory."""
    if isinstance(record, Faulted):
        if by_operator(record.text):
            return
        if record.began:
            yield Event(record.at, "fault", record.text, BAD)
        elif record.left:
            yield Event(record.at, "fault", f"not healed: {record.text}: {record.left}", BAD)
        else:
            yield Event(record.at, "fault", f"healed: {record.text}", GOOD)
    elif isinstance(record, Led):
        word = "leads" if record.leading else "no longer leads"
        yield Event(record.at, "leader", f"{record.node} {word}" + (f": {record.why}" if record.why else ""))
    elif isinstance(record, Operated):
        said = " ".join(record.said.split())
        said = said if len(said) <= SAID else said[: SAID - 1] + "…"
        text = f"failoverctl {' '.join(record.argv)}: exit {record.code}" + (f", {said}" if said else "")
        yield Event(record.at, "operator", text)
    elif isinstance(record, Configured):
        yield Event(record.at, "config", f"configuration revision {record.config.revision} is in force")
    elif isinstance(record, Rewound):
        yield Event(record.at, "store", f"the store is what it was at {clock(record.to)}", BAD)
    elif isinstance(record, Edited):
        how = "by hand, as the manual says" if record.manual else "by hand"
        yield Event(record.at, "edit", f"name server {record.server}: {record.service} changed {how}", BAD)


class _Answers:
    """What each name server tells each region; changes at about the same moment become one event for each answer."""

    def __init__(self) -> None:
        self._told: dict[str, dict[tuple[str, str], tuple[str, ...] | None]] = {}  # server -> service, region -> sites
        self._silent: set[str] = set()  # servers that were told to be
        self._changed: dict[tuple[str, str], tuple[int | None, list[str]]] = {}  # server, service -> gen, regions
        self._since = 0.0

    def take(self, record: Answered) -> None:
        told = self._told.setdefault(record.server, {})
        now = record.sites if record.reachable else None
        where = (record.service, record.region)
        if where in told and told[where] == now:
            return
        first = where not in told
        told[where] = now
        if first and record.at < KNOWN_S:
            return
        if not self._changed:
            self._since = record.at
        _, regions = self._changed.get((record.server, record.service), (None, []))
        self._changed[record.server, record.service] = (record.generation, [*regions, record.region])

    def before(self, at: float) -> Iterator[Event]:
        if not self._changed or at - self._since < TOGETHER_S:
            return
        changed, self._changed = self._changed, {}
        silent = [s for s in _unique(server for server, _ in changed) if self._mute(s) and s not in self._silent]
        self._silent |= set(silent)
        if silent:
            yield Event(self._since, "answers", f"no answer from name {_servers(silent)}", BAD)
        groups: dict[tuple[str, str, int | None], list[str]] = {}
        for (server, service), (generation, regions) in changed.items():
            if not self._mute(server):
                groups.setdefault((service, self._words(server, service, regions), generation), []).append(server)
        for (service, words, generation), servers in groups.items():
            again = " again" if self._silent & set(servers) else ""
            which = "" if generation is None else f" (gen {generation})"
            verb = "answer" if len(servers) > 1 else "answers"
            yield Event(self._since, "answers", f"{service}: name {_servers(servers)} {verb}{again} {words}{which}")
        self._silent -= {server for servers in groups.values() for server in servers}

    def _mute(self, server: str) -> bool:
        return all(sites is None for sites in self._told[server].values())

    def _words(self, server: str, service: str, changed: list[str]) -> str:
        """ "site-b", or "site-b in eu-west and rest, site-c in eu-south", of the regions that changed."""
        told = self._told[server]
        groups: dict[str, list[str]] = {}
        for region in _unique(iter(changed)):
            sites = told[service, region]
            word = "not at all" if sites is None else "+".join(sites) or "nothing"
            groups.setdefault(word, []).append(region)
        everywhere = {region for s, region in told if s == service}
        if len(groups) == 1 and set(changed) == everywhere:
            return next(iter(groups))
        return ", ".join(f"{word} in {' and '.join(regions)}" for word, regions in groups.items())


class _Clients:
    """Each region's clients with resolvers that keep TTLs: since when requests fail, and until when. Regions that
    begin to fail (or are well again) at about the same moment are told in one event."""

    def __init__(self) -> None:
        self._failing: dict[tuple[str, str], set[str]] = {}
        self._since: dict[tuple[str, str], float] = {}
        self._over: dict[tuple[str, str], tuple[float, str]] = {}  # the last failed client got through: when, where
        self._began: dict[tuple[str, str], tuple[float, list[str]]] = {}  # service, error -> when, regions: not told

    def take(self, record: Served) -> None:
        if record.resolver != "keeps":
            return
        key = (record.service, record.region)
        failing = self._failing.setdefault(key, set())
        if not record.error:
            was = record.client in failing
            failing.discard(record.client)
            if was and not failing:
                self._over[key] = (record.at, record.site)
            return
        failing.add(record.client)
        self._over.pop(key, None)
        if key not in self._since:
            self._since[key] = record.at
            error = f"at {record.site}: {record.error}" if record.site else record.error
            self._began.setdefault((record.service, error), (record.at, []))[1].append(record.region)

    def before(self, at: float) -> Iterator[Event]:
        for (service, error), (began, regions) in list(self._began.items()):
            if at - began >= TOGETHER_S:
                del self._began[service, error]
                yield Event(began, "clients", f"{service}: requests fail in {', '.join(regions)} ({error})", BAD)
        well: dict[tuple[str, str, str, float], list[str]] = {}
        for (service, region), (over, site) in list(self._over.items()):
            if at - over >= CALM_S:
                del self._over[service, region]
                took = f"{over - self._since.pop((service, region)):.1f}s"
                well.setdefault((service, site, took, over), []).append(region)
        for (service, site, took, over), regions in well.items():
            yield Event(over, "clients", f"{service}: served by {site} in {', '.join(regions)} after {took}", GOOD)


def _servers(names: list[str]) -> str:
    return f"server{'s' * (len(names) > 1)} {', '.join(names)}"


def _unique(names: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(names))
