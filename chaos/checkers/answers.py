"""What clients are told: never_empty, converged, audited (DESIGN 1, 4.5, 4.9). Pure."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.history import Answered, AnyRecord, Committed, Configured, Edited, History, Pooled, Wrote
from chaos.report import Invariant
from chaos.scenario import Scenario
from chaos.told import Told, primary
from chaos.trace import (
    SIM,
    Board,
    Findings,
    Span,
    Timed,
    before,
    broken,
    by_time,
    commits,
    hands_off,
    has_family,
    left,
    share,
    spans,
    words,
)
from controlplane.documents import DecisionDoc
from policies.express import region_of
from policies.topology import Config
from policies.world import Desired

LONGEST_SOAK_S = 3600.0  # DESIGN 4.7
HEARD_S = 1.0  # by how much one observer of a real world may be behind another

# ---- never_empty


def never_empty(scenario: Scenario, history: History) -> Invariant:
    """Every decision gives each region 100 % and an answer; no server that answered ever says "nothing"."""
    found = Findings("never_empty", "no decision and no answer of a name server is recorded")
    timed = Timed(history)
    had: set[tuple[str, str, str]] = set()
    names: dict[str, str] = _names(history.config)
    for record in history.records:
        if isinstance(record, Committed):
            found.looked()
            _whole(record, timed.of(record.decision, record.at), found)
        elif isinstance(record, Configured):
            # Under another name nothing was answered yet.
            renamed = {s for s, name in _names(record.config).items() if names.get(s, name) != name}
            had = {key for key in had if key[1] not in renamed}
            names = _names(record.config)
        elif isinstance(record, Answered) and record.reachable:
            found.looked()
            key = (record.server, record.service, record.region)
            if record.sites:
                had.add(key)
            elif key in had:
                text = f"{record.server} has no answer any more for {record.service} in {record.region}"
                found.wrong(record.at, text)
    return found.invariant()


def _names(config: Config) -> dict[str, str]:
    return {service: spec.dns.name if spec.dns else "" for service, spec in config.services.items()}


def _whole(record: Committed, config: Config, found: Findings) -> None:
    desired, at = record.decision.desired, record.at
    for region in config.regions if config.revision in (0, record.decision.config_rev) else desired.shares:
        given = sum(desired.shares.get(region, {}).values())
        who = f"{record.decision.id} of {desired.service}"
        if given != 100:
            found.wrong(at, f"{who} gives {region} {given} % in all, not 100")
        if desired.name and not any(answer.region == region for answer in desired.answers):
            found.wrong(at, f"{who} has no answer for {region}")


# ---- converged


def allowance_s(scenario: Scenario, history: History) -> float:
    """How long after the last fault all is to be quiet: what `after_heal` says, else the longest way back that the
    configuration knows (soak, as often doubled as sites failed over; ramp; hold; TTL) and a minute."""
    said = [expect.from_s for expect in scenario.expect if expect.kind == "after_heal"]
    if said:
        return max(said)
    failed: dict[tuple[str, str], int] = {}
    for record in commits(history):
        for site in left(record.decision):
            failed[record.decision.service, site] = failed.get((record.decision.service, site), 0) + 1
    most = max(failed.values(), default=1)
    longest = 0.0
    for spec in scenario.config.services.values():
        failback = spec.policy.failback
        soak_s = min(failback.soak_s * 2.0 ** (most - 1), LONGEST_SOAK_S)
        way_s = soak_s + len(failback.ramp) * max(failback.step_s, spec.policy.hold_s) + spec.policy.hold_s
        longest = max(longest, way_s + (spec.dns.ttl_s if spec.dns else 0.0))
    return longest + scenario.transfer_s + 60.0


def converged(scenario: Scenario, history: History) -> Invariant:
    """After the last fault and the allowance: every server answers, unless something is still broken there; servers and
    pools give what was decided last, and nothing moves any more."""
    allowed_s = allowance_s(scenario, history)
    from_s = scenario.healed_s + allowed_s
    nothing = f"the scenario ends at {history.duration_s:.0f}s, before all may be expected to be quiet ({from_s:.0f}s)"
    found = Findings("converged", nothing)
    if from_s > history.duration_s:
        return found.invariant()
    board, all_, looked = Board(scenario.config, history.world == SIM), spans(scenario, history), False
    for at, records in by_time(history):
        if at > from_s and not looked:
            looked = _agree(board, all_, found, from_s)
        for record in records:
            board.take(record, isinstance(record, Edited) and hands_off(scenario, record))
            if at > from_s and isinstance(record, Committed) and record.decision.new_generation:
                found.wrong(at, f"{record.decision.id} still moves {record.decision.service}")
        if at > from_s:
            looked = _agree(board, all_, found, at)
    _agree(board, all_, found, history.duration_s)
    _pools(scenario, history, board, found)
    return found.invariant()


def _agree(board: Board, all_: Sequence[Span], found: Findings, at: float) -> bool:
    excused = broken(all_, at)
    for service in board.services():
        for server, region in board.silent(service, excused):
            found.looked()
            found.wrong(at, f"{server} gives clients in {region} no answer for {service}, and nothing is broken there")
        for server, differs in board.behind(service):
            found.looked()
            if differs:
                found.wrong(at, f"{server} answers {service} with {differs}")
    return True


def _pools(scenario: Scenario, history: History, board: Board, found: Findings) -> None:
    """At the end. A pool at a site that is still broken is out of reach of its agent."""
    hit = {
        site
        for span in spans(scenario, history)
        if span.to_s > history.duration_s
        for site in (span.fault.site, span.fault.one, span.fault.other, span.node)
    }
    weights = {(r.site, r.service): r.weights for r in history.records if isinstance(r, Pooled)}
    for (site, service), now in sorted(weights.items()):
        desired, spec = board.decided.get(service), board.config.services.get(service)
        if site in hit or "*" in hit or desired is None or spec is None:
            continue
        if spec.pools is None or site not in spec.pools.servers:  # what the configuration no longer has stays as it is
            continue
        found.looked()
        wanted = desired.shares.get(region_of(board.config, site), {})
        serves = {name for name, weight in now.items() if weight}
        if serves != set(wanted) & set(now) and set(wanted) & set(now):
            text = f"the pool at {site} gives {service} to {words(frozenset(serves))}, not {words(frozenset(wanted))}"
            found.wrong(history.duration_s, text)


# ---- audited


def audited(scenario: Scenario, history: History) -> Invariant:
    """Every generation has its events and their reasons; whatever a server comes to answer was decided before, and
    was written there under the name of that decision. Edits by hand are excepted."""
    found = Findings("audited", "no generation and no change of an answer is recorded")
    audit, timed = _Audit(history, found), Timed(history)
    for record in _as_it_was(history):
        if isinstance(record, Committed):
            audit.commit(record)
            if record.decision.new_generation:
                _rendered(record, timed.of(record.decision, record.at), found)
        elif isinstance(record, Configured):
            audit.told.append(Told(record.config))
        elif isinstance(record, Wrote):
            audit.write(record)
        elif isinstance(record, Edited):
            audit.edited.add((record.server, record.service))
        elif isinstance(record, Answered):
            audit.answer(record)
    return found.invariant()


def _as_it_was(history: History) -> list[AnyRecord]:
    """Where name servers and the store are watched from outside, by two observers, the store's may be the later one to
    tell: a decision counts from so much before it was heard of."""
    early_s = 0.0 if history.world == SIM else HEARD_S
    return sorted(history.records, key=lambda r: r.at - early_s if isinstance(r, Committed | Configured) else r.at)


def _rendered(record: Committed, config: Config, found: Findings) -> None:
    """Do the answers say the shares? Of each family, in proportion over the sites with a share that have it; where none
    of them has it, whoever else does."""
    decision, desired = record.decision, record.decision.desired
    spec = config.services.get(decision.service)
    given: dict[tuple[str, str], dict[str, int]] = {}
    for answer in desired.answers:
        weights = given.setdefault((answer.region, answer.rtype), {})
        weights[answer.site] = weights.get(answer.site, 0) + answer.weight
    for (region, rtype), weights in sorted(given.items() if spec is not None else ()):
        have = [site for site in desired.sites if has_family(site, rtype, desired, config)]
        wanted = {site: share(desired.shares, region, site) for site in have if share(desired.shares, region, site)}
        all_, whole = sum(weights.values()), sum(wanted.values())
        if wanted and ({*weights} != {*wanted} or any(n * whole != wanted[site] * all_ for site, n in weights.items())):
            text = f"{decision.id} answers {rtype} of {decision.service} in {region} with {weights}"
            found.wrong(record.at, f"{text}, though the shares are {wanted}")


class _Audit:
    def __init__(self, history: History, found: Findings) -> None:
        self._found = found
        # This world can see who writes.
        self._writes = any(isinstance(record, Wrote) for record in history.records)
        self._whole = history.world == SIM
        self.told = [Told(history.config)]  # by every configuration so far: an agent may not have heard of the last
        self._made: dict[tuple[str, int], dict[str, Desired]] = {}  # service, generation -> stamp -> what it says
        self._written: dict[tuple[str, str], set[int]] = {}  # server, service -> generations
        self._shown: dict[tuple[str, str, str], tuple[tuple[str, ...], int | None]] = {}
        self.edited: set[tuple[str, str]] = set()

    def commit(self, record: Committed) -> None:
        decision, at = record.decision, record.at
        who = f"{decision.id or 'a decision without a name'} of {decision.service}"
        for event in (*decision.events, *decision.refused):
            if not event.reason:
                self._found.wrong(at, f"{who}: {event.kind} of {event.site or 'the service'} without a reason")
        if not decision.new_generation:
            return
        self._found.looked()
        if not any(event.kind in ("move", "alarm") for event in decision.events) and decision.input.desired:
            self._found.wrong(at, f"{who} made generation {decision.desired.generation} and does not say why")
        for region, sites in decision.desired.shares.items() if decision.input.desired else ():
            for site in sorted({*sites, *before(decision).get(region, {})}):
                self._told(decision, region, site, at)
        made = self._made.setdefault((decision.service, decision.desired.generation), {})
        made[decision.desired.stamp] = decision.desired

    def _told(self, decision: DecisionDoc, region: str, site: str, at: float) -> None:
        was, now = share(before(decision), region, site), share(decision.desired.shares, region, site)
        taken_over = decision.input.ahead is not None or region not in before(decision)
        if was != now and not taken_over and not any(e.kind == "move" and e.site == site for e in decision.events):
            text = f"{decision.id} moves {decision.service} at {site} from {was} to {now} % of {region}, unsaid"
            self._found.wrong(at, text)

    def write(self, record: Wrote) -> None:
        if record.result != "ok":
            return
        key = (record.server, record.service)
        self._found.looked()
        self.edited.discard(key)
        stamp = record.op.partition(".")[0]
        if stamp not in self._made.get((record.service, record.generation), {}):
            text = (
                f"{record.writer} wrote generation {record.generation} of {record.service} at {record.server} ({stamp})"
            )
            self._found.wrong(record.at, f"{text}, which nobody had decided")
        self._written.setdefault(key, set()).add(record.generation)

    def answer(self, record: Answered) -> None:
        shown = (record.sites, record.generation)
        key = (record.server, record.service, record.region)
        if self._shown.get(key) == shown or not record.reachable or not record.sites:
            return
        self._shown[key] = shown
        home = (primary(record.server), record.service)
        decided = any(service == record.service for service, _ in self._made)
        if home in self.edited or not decided:  # it was so before the history began
            return
        self._found.looked()
        what = f"{record.server} answers {record.service} in {record.region} with {words(record.sites)}"
        if record.generation is None:
            made = [m for (service, _), all_ in self._made.items() if service == record.service for m in all_.values()]
        else:
            made = list(self._made.get((record.service, record.generation), {}).values())
            what += f", generation {record.generation}"
        if not any(self._says(one, record) for one in made):
            self._found.wrong(record.at, f"{what}: no decision says so")
        elif self._writes and record.generation is not None and record.generation not in self._written.get(home, ()):
            self._found.wrong(record.at, f"{what}: nobody wrote that there")

    def _says(self, desired: Desired, record: Answered) -> bool:
        """Are clients of that region told so by this decision?"""
        answered = frozenset(record.sites)
        for told in reversed(self.told):
            for sites in told.sites(record.server, desired, record.region):
                if answered == sites or (not self._whole and answered < sites):
                    return True
        return False
