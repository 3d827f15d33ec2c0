"""A history laid out for looking things up: what was in force, broken, decided or answered at a moment. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import inf

from msgspec import Struct

from chaos.history import Answered, AnyRecord, Committed, Configured, Edited, Faulted, History, Led, Wrote
from chaos.report import Invariant
from chaos.scenario import CLIENTS, EVERYTHING, LEADER, VERBS, Fault, Scenario
from chaos.told import Told, primary
from controlplane.documents import DecisionDoc
from policies.topology import Config
from policies.world import Desired

SIM = "sim"  # the world whose Answered has all that a server tells; elsewhere it may be a part, drawn by lot
# What, as long as it lasts, may keep a name server from its clients, or from being written.
SILENCING = (
    *("cut", "cut_one_way", "loss", "delay", "slow", "power_off", "kill", "pause", "restart"),
    *("store_down", "dns_api_down"),
)
MOST_TOLD = 50  # violations of one checker that are told one by one

Shares = Mapping[str, Mapping[str, int]]  # region -> site -> percent


class Findings:
    """What one checker found. `nothing`: what it would have looked at, for when there was none of it."""

    def __init__(self, name: str, nothing: str) -> None:
        self._name = name
        self._nothing = nothing
        self._checked = 0
        self._wrong: list[str] = []
        self._notes: list[str] = []
        self._more = 0

    def looked(self, times: int = 1) -> None:
        self._checked += times

    def wrong(self, at: float, text: str) -> None:
        if len(self._wrong) < MOST_TOLD:
            self._wrong.append(f"at {at:.1f}s {text}")
        else:
            self._more += 1

    def note(self, text: str) -> None:
        """Something that was not judged, and why."""
        self._notes.append(text)

    def invariant(self) -> Invariant:
        wrong = list(self._wrong)
        if self._more:
            wrong.append(f"and {self._more} more")
        if not self._checked and not wrong:
            wrong.append(f"nothing to look at: {self._nothing}")
        return Invariant(self._name, not wrong, self._checked, tuple(wrong), tuple(self._notes))


class Span(Struct, frozen=True):
    """A fault while it lasted; a deed has no length. to_s: inf = to the end. late_s: what it held back comes up to so
    much after its end. node: whom it hit, if it names a process (the leader of that moment by name)."""

    index: int
    fault: Fault
    from_s: float
    to_s: float
    late_s: float = 0.0
    node: str = ""

    def overlaps(self, from_s: float, to_s: float) -> bool:
        return self.from_s <= to_s and self.to_s + self.late_s >= from_s


def spans(scenario: Scenario, history: History) -> list[Span]:
    """The faults as the world played them, in the order in which they began."""
    began: dict[int, float] = {}
    ended: dict[int, float] = {}
    nodes: dict[int, str] = {}
    leader = ""
    for record in history.records:
        if isinstance(record, Led):
            leader = record.node if record.leading else "" if record.node == leader else leader
        elif isinstance(record, Faulted) and record.index < len(scenario.faults):
            if record.began:
                began.setdefault(record.index, record.at)
                node = scenario.faults[record.index].node
                nodes[record.index] = leader if node == LEADER else node
            else:
                ended[record.index] = record.at
    return [
        _span(index, scenario.faults[index], at, ended.get(index, inf), nodes[index])
        for index, at in sorted(began.items(), key=lambda item: (item[1], item[0]))
    ]


def _span(index: int, fault: Fault, from_s: float, to_s: float, node: str) -> Span:
    if not VERBS[fault.verb].heals:
        return Span(index, fault, from_s, from_s, node=node)
    return Span(index, fault, from_s, to_s, fault.by_s if fault.verb in ("delay", "slow") else 0.0, node)


class Timed:
    """Which configuration was in force when."""

    def __init__(self, history: History) -> None:
        self._at: list[float] = [-inf]
        self._configs: list[Config] = [history.config]
        for record in history.records:
            if isinstance(record, Configured):
                self._at.append(record.at)
                self._configs.append(record.config)

    def at(self, at: float) -> Config:
        return self._configs[bisect_right(self._at, at) - 1]

    def of(self, decision: DecisionDoc, at: float) -> Config:
        """What a decision was based on. A commit compares the configuration, so it is the one in force; but a store
        may have been rewound to another one, and one that was never applied has no revision."""
        now = self.at(at)
        others = [config for config in self._configs if config.revision == decision.config_rev]
        return others[-1] if others and now.revision not in (0, decision.config_rev) else now


def commits(history: History) -> list[Committed]:
    return [record for record in history.records if isinstance(record, Committed)]


def before(decision: DecisionDoc) -> Shares:
    """The shares that clients had as it was decided: of desired, or as they were found served (a rewound store)."""
    desired, ahead = decision.input.desired, decision.input.ahead
    given = dict(desired.shares) if desired else {}
    return {**given, **{r: s for r, s in ahead.shares.items() if s}} if ahead else given


def moves(decision: DecisionDoc) -> bool:
    """Are other shares served by it than before?"""
    return (
        decision.new_generation and decision.input.desired is not None and decision.desired.shares != before(decision)
    )


def optional(decision: DecisionDoc) -> bool:
    """Did it move something that might have waited (DESIGN 4.6)?"""
    return decision.new_generation and any(event.kind == "move" and not event.forced for event in decision.events)


def share(shares: Shares, region: str, site: str) -> int:
    return shares.get(region, {}).get(site, 0)


def total(shares: Shares, site: str) -> int:
    """Over all regions; 0 = it carries nothing."""
    return sum(sites.get(site, 0) for sites in shares.values())


def has_family(site: str, rtype: str, desired: Desired, config: Config) -> bool:
    """Had it addresses of that family as this was decided?"""
    addresses = desired.sites[site].addresses or config.services[desired.service].endpoints.get(site, ())
    return any((":" in address) == (rtype == "AAAA") for address in addresses)


def left(decision: DecisionDoc) -> list[str]:
    """The sites that it takes all or part of their share because they failed."""
    return sorted(
        event.site
        for event in decision.events
        if decision.new_generation
        and (event.kind, event.rule) == ("move", "failed")
        and any(
            share(decision.desired.shares, r, event.site) < n.get(event.site, 0) for r, n in before(decision).items()
        )
    )


class Board:
    """What the name servers answer, and what was decided last: feed it the records in their order. whole: each answer
    has all that a server tells clients of a region, not a part of it."""

    def __init__(self, config: Config, whole: bool = True) -> None:
        self.config = config
        self._whole = whole
        self._told = Told(config)
        self.rows: dict[tuple[str, str], dict[str, Answered]] = {}  # server, service -> region -> answer
        self.decided: dict[str, Desired] = {}  # service -> of its last generation
        self.by_hand: set[tuple[str, str]] = set()  # server, service: its fence is not ours to overwrite

    def take(self, record: AnyRecord, kept: bool = False) -> None:
        """kept: this edit left a fence that the control plane has to leave alone."""
        if isinstance(record, Answered):
            self.rows.setdefault((record.server, record.service), {})[record.region] = record
        elif isinstance(record, Committed):
            if record.decision.new_generation:
                self.decided[record.decision.service] = record.decision.desired
        elif isinstance(record, Configured):
            self._configure(record.config)
        elif isinstance(record, Edited):
            key = (record.server, record.service)
            (self.by_hand.add if record.manual or kept else self.by_hand.discard)(key)
        elif isinstance(record, Wrote) and record.result == "ok":
            self.by_hand.discard((record.server, record.service))

    def _configure(self, config: Config) -> None:
        self.config, self._told = config, Told(config)
        for (server, service), regions in list(self.rows.items()):
            if service not in config.services:
                del self.rows[server, service]
            else:
                self.rows[server, service] = {r: row for r, row in regions.items() if r in config.regions}

    def reachable(self, service: str) -> dict[str, dict[str, Answered]]:
        """Server -> region -> answer, of those that clients of that region reach."""
        found: dict[str, dict[str, Answered]] = {}
        for (server, of), regions in self.rows.items():
            seen = {region: row for region, row in regions.items() if row.reachable}
            if of == service and seen:
                found[server] = seen
        return found

    def sites(self, service: str) -> dict[str, frozenset[str]]:
        """Reachable server -> the sites in its answers, over all regions."""
        return {
            server: frozenset(site for row in regions.values() for site in row.sites)
            for server, regions in self.reachable(service).items()
        }

    def behind(self, service: str) -> Iterator[tuple[str, str]]:
        """Of each reachable server: its name, and how it differs from what was decided last ("" = it does not)."""
        desired = self.decided.get(service)
        for server, regions in self.reachable(service).items():
            if (primary(server), service) in self.by_hand or desired is None or not self._told.serves(server, service):
                continue
            yield server, next((text for row in regions.values() if (text := self._differs(row, desired))), "")

    def silent(self, service: str, excused: Collection[str]) -> Iterator[tuple[str, str]]:
        """Servers of a service that leave clients of some region without an answer, and which region; `excused`:
        sites where something is broken, "*" = everywhere. A new service whose machines never came up has no answer."""
        if service not in self.decided:
            return
        for (server, of), regions in self.rows.items():
            if of != service or EVERYTHING in excused or primary(server) in excused:
                continue
            if self._told.serves(server, service):
                yield from [(server, region) for region, row in regions.items() if not row.reachable][:1]

    def _differs(self, row: Answered, desired: Desired) -> str:
        if row.generation is not None and row.generation != desired.generation:
            return f"generation {row.generation}, not {desired.generation}"
        answered = frozenset(row.sites)
        right = list(self._told.sites(row.server, desired, row.region))
        if any(answered == sites or (not self._whole and answered and answered < sites) for sites in right):
            return ""
        return f"{words(row.sites)} in {row.region}, not what generation {desired.generation} says: {words(right[0])}"

    def services(self) -> list[str]:
        return sorted(name for name, spec in self.config.services.items() if spec.dns is not None)


def broken(all_: Sequence[Span], at: float) -> frozenset[str]:
    """Sites whose name server something keeps from its clients, or from being written, at a moment; "*": all sites."""
    found: set[str] = set()
    for span in all_:
        fault = span.fault
        if span.from_s <= at < span.to_s and fault.verb in SILENCING and not fault.service:
            found |= {fault.site, fault.one, fault.other, span.node} - {"", EVERYTHING, CLIENTS} or {EVERYTHING}
    return frozenset(found)


def hands_off(scenario: Scenario, edit: Edited) -> bool:
    """Did this edit leave a fence that the control plane may not overwrite: one made by hand, or a foreign one?"""
    if edit.manual:
        return True
    faults = [
        f for f in scenario.faults if f.verb == "edit_zone" and (f.site, f.service) == (edit.server, edit.service)
    ]
    past = [fault for fault in faults if fault.at_s <= edit.at + 1.0]
    return bool(past) and past[-1].how == "foreign"


def words(sites: tuple[str, ...] | frozenset[str] | list[str]) -> str:
    return f"[{', '.join(sorted(sites))}]"


def by_time(history: History) -> Iterator[tuple[float, list[AnyRecord]]]:
    """Records of one instant together: between them nothing is as anybody could see it."""
    together: list[AnyRecord] = []
    for record in history.records:
        if together and record.at != together[0].at:
            yield together[0].at, together
            together = []
        together.append(record)
    if together:
        yield together[0].at, together
