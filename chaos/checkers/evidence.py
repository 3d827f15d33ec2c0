"""quorum_backed: what left a site because it failed did so on the word of enough vantages whose own probes had failed
(DESIGN 4.3). Pure; counts by itself, never with the running policy."""

from __future__ import annotations

from math import inf

from chaos.history import Committed, History, Led
from chaos.report import Invariant
from chaos.scenario import Scenario
from chaos.sights import Ballot, Sights, ballots
from chaos.trace import Findings, Span, Timed, before, commits, left, share, spans
from controlplane.documents import DecisionDoc
from policies.frame import Frame, frames
from policies.topology import Config, Service

CALLS_S = 5.0  # a call of the store may lie between a report and a commit, with its patience
TAKEOVER_S = 5.0
ROUNDING = 1  # percent
SLOWING = ("delay", "slow", "pause")  # a decision may be committed so much later than it was made


def quorum_backed(scenario: Scenario, history: History) -> Invariant:
    """Each verdict that turned down, and each move away from a site that failed."""
    found = Findings("quorum_backed", "no decision is recorded")
    judge = _Judge(scenario, history, found)
    for record in commits(history):
        judge.commit(record)
    return found.invariant()


class _Judge:
    def __init__(self, scenario: Scenario, history: History, found: Findings) -> None:
        self._found = found
        self._timed = Timed(history)
        self._sights = Sights(scenario, history)
        self._slowing = [span for span in spans(scenario, history) if span.fault.verb in SLOWING]
        self._led: dict[str, list[float]] = {}  # node -> when it became the leader
        for record in history.records:
            if isinstance(record, Led) and record.leading:
                self._led.setdefault(record.node, []).append(record.at)
        self._frames: dict[int, dict[str, Frame]] = {}

    def commit(self, record: Committed) -> None:
        decision = record.decision
        config = self._timed.of(decision, record.at)
        frame = self._framed(config).get(decision.service)
        if frame is None:
            return
        self._found.looked()
        was = decision.input.desired.sites if decision.input.desired else {}
        now = decision.desired.sites
        turned = [s for s in now if now[s].verdict == "down" and (s not in was or was[s].verdict != "down")]
        for site in turned:
            self._turned(record, frame, site)
        if loser := _lost_for_doubt(decision):
            text = f"{decision.id} took {decision.service} from {loser} for nothing but that it has no quorum any more"
            self._found.wrong(record.at, text)
        for site in left(decision):
            if site in now and now[site].verdict != "down":
                text = f"{decision.id} took {decision.service} from {site}, whose verdict was {now[site].verdict}"
                self._found.wrong(record.at, text)

    def _framed(self, config: Config) -> dict[str, Frame]:
        return self._frames.setdefault(id(config), frames(config))

    def _turned(self, record: Committed, frame: Frame, site: str) -> None:
        """A site was called down: enough votes in the slice, and enough raw failures behind them."""
        decision = record.decision
        rows = [ballot for ballot in ballots(frame, decision) if ballot.row.site == site]
        down = [ballot for ballot in rows if ballot.down]
        if not down and not _stands(decision, frame, site):
            tally = ", ".join(f"{len(b.fails)} of {len(b.voters)} voters at {b.row.id}" for b in rows) or "no target"
            self._found.wrong(record.at, f"{decision.id} called {site} down for {decision.service} on {tally}")
            return
        if not self._sights.any or not down:
            return
        tallies: list[str] = []
        for ballot in down:
            since = record.at - self._window_s(frame.spec, ballot, record)
            fresh = record.at - self._fresh_s(frame.spec, record)
            seen = [
                v
                for v in sorted(self._eyes(ballot, frame))
                if self._sights.failing(v, ballot.row.id, since, record.at) and self._sights.ran(v, fresh, record.at)
            ]
            if len(seen) >= ballot.needed:
                return
            tallies.append(f"{ballot.row.id} failed for {', '.join(seen) or 'nobody'}, {ballot.needed} are needed")
        self._found.wrong(record.at, f"{decision.id} called {site} down for {decision.service}: {'; '.join(tallies)}")

    @staticmethod
    def _eyes(ballot: Ballot, frame: Frame) -> frozenset[str]:
        """Whose probes may count: a site's own vantage only while too few others have a vote."""
        others = frozenset(vantage for vantage in ballot.voters if vantage != ballot.row.site)
        return others if len(others) >= frame.spec.policy.quorum.min_vantages else ballot.voters

    def _window_s(self, spec: Service, ballot: Ballot, record: Committed) -> float:
        """How long before a commit the probes may have failed on which it rests: until `rise` passes made them good
        again, and were reported, and a leader read that; longer while something is slow."""
        probe = ballot.row.check.probe
        step_s = max(probe.fast_interval_s, probe.timeout_s)
        return probe.interval_s * (1 + probe.jitter) + probe.rise * step_s + self._fresh_s(spec, record)

    def _fresh_s(self, spec: Service, record: Committed) -> float:
        """How old a vote may be: fresh, as the leader of that time read it, whose commit takes its time; longer while
        something is slow, or where that leader is a new one."""
        usual_s = spec.policy.freshness_s + CALLS_S
        if any(record.at - usual_s - TAKEOVER_S <= at <= record.at for at in self._led.get(record.decision.node, ())):
            usual_s += TAKEOVER_S
        late = [span for span in self._slowing if span.overlaps(record.at - 2 * usual_s, record.at)]
        return usual_s + sum(_length_s(span) for span in late)


def _lost_for_doubt(decision: DecisionDoc) -> str:
    """A site that lost traffic in the very decision in which it became held, while nothing else has changed; "" = none.
    What has no quorum keeps what it has."""
    was, now = decision.input.desired, decision.desired
    if was is None or was.config_rev != now.config_rev or was.overrides != now.overrides or decision.input.ahead:
        return ""
    changed = [s for s in now.sites if s not in was.sites or was.sites[s].rule != now.sites[s].rule]
    if len(changed) != 1 or now.sites[changed[0]].rule != "held":
        return ""
    site = changed[0]
    lost = any(share(now.shares, r, site) < sites.get(site, 0) - ROUNDING for r, sites in before(decision).items())
    return site if lost else ""


def _stands(decision: DecisionDoc, frame: Frame, site: str) -> bool:
    """Can a target have been down before, on a quorum of that time, without its site being so? Where `at_least` of
    them suffice, and where another configuration looks at others of them."""
    was = decision.input.desired
    if was is None or site not in was.sites or "down" not in was.sites[site].last.values():
        return False
    return frame.spec.at_least is not None or was.config_rev != decision.config_rev


def _length_s(span: Span) -> float:
    lasted = span.to_s - span.from_s
    return min(60.0, lasted if lasted < inf else 60.0) + span.late_s
