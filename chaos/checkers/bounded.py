"""bounded: no measured phase of a failover is longer than what `failoverctl check` computes, and none is missing
(DESIGN 10). Pure.

The bound is for one accident: a site, or a service there, and whatever of the leader and the store's leader dies in
that moment. A leader that dies or stalls later adds one takeover; the TTL's phase, and only that, a resolver's wait for
name servers that are dead. Everything else that is broken meanwhile is a second fault: such a failover is named and not
judged.
"""

from __future__ import annotations

from chaos.checkers.accidents import ASKED_S, PARTLY, Accident, silent_s
from chaos.checkers.missed import missed
from chaos.history import Committed, History
from chaos.measure import failovers, touches
from chaos.report import Failover, Invariant
from chaos.scenario import Scenario
from chaos.trace import Findings, Span, Timed, commits, has_family, spans, total
from policies.timing import RESOLVER_S
from policies.topology import Config
from policies.world import Desired

HAIR_S = 0.001  # records are rounded


def bounded(scenario: Scenario, history: History) -> Invariant:
    """Each phase of each failover, and the outage of its clients that keep TTLs; and failovers that never came."""
    found = Findings("bounded", "no failover is within the conditions of the bound")
    made = {(r.decision.service, r.at): r for r in commits(history)}
    all_, timed = spans(scenario, history), Timed(history)
    for failover in failovers(scenario, history):
        record = made[failover.service, failover.at_s]
        causes = [
            s for s in all_ if s.from_s == failover.fault_at_s and touches(s.fault, failover.service, failover.left)
        ]
        why, later = _outside(failover, record, timed.of(record.decision, record.at), causes, all_)
        if why:
            found.note(f"{failover.service} left {failover.left} at {failover.at_s:.1f}s: not judged, {why}")
            continue
        waits_s = silent_s(history, failover.service, failover.at_s)
        _judge(failover, later, waits_s, any(cause.fault.verb in PARTLY for cause in causes), found)
    for missing in missed(scenario, history):
        found.looked()
        found.wrong(missing.at, missing.text)
    return found.invariant()


def _judge(failover: Failover, later: int, waits_s: float, partly: bool, found: Findings) -> None:
    bounds = failover.bounds
    more_s = later * bounds["takeover_s"]
    # Detection counts from the last probe that passed, a new leader from the death of the old one: the fault. Both have
    # to be over; which of them was the later one, nobody can say beforehand.
    seen_s, led_s = bounds["detect_s"] + bounds["publish_s"], bounds["takeover_s"]
    before_s = 0.0
    if failover.detect_s is not None and failover.fault_at_s is not None:
        before_s = max(0.0, failover.detect_s - (failover.at_s - failover.fault_at_s))
    known_s = max(seen_s, led_s + before_s) + bounds["decide_s"] + more_s
    phases: list[tuple[str, float | None, float]] = [
        ("detecting and deciding", failover.detect_s, known_s),
        ("applying", failover.apply_s, bounds["apply_s"]),
    ]
    if not partly:
        ttl_s = bounds["ttl_s"] or RESOLVER_S
        phases.append(("the TTL", failover.ttl_s, ttl_s + waits_s + ASKED_S))
        phases.append(("the whole outage", failover.outage_s, failover.worst_case_s + more_s + ASKED_S))
    for name, took_s, bound_s in phases:
        if took_s is None:
            continue
        found.looked()
        if took_s > bound_s + HAIR_S:
            text = f"{failover.service} left {failover.left}: {name} took {took_s:.1f}s of at most {bound_s:.1f}s"
            found.wrong(failover.at_s, text)


def _alone(failover: Failover, desired: Desired, config: Config) -> bool:
    """Is it still served for want of another site with a share and an address of that family?"""
    return any(
        answer.site == failover.left
        and not any(has_family(site, answer.rtype, desired, config) for site in desired.shares.get(answer.region, {}))
        for answer in desired.answers
    )


def _outside(
    failover: Failover, record: Committed, config: Config, causes: list[Span], all_: list[Span]
) -> tuple[str, int]:
    """Why the bound says nothing of this failover, or ""; how many takeovers it may have on top."""
    decision = record.decision
    if decision.input.freeze or decision.input.rewound:
        return "the service was frozen" if decision.input.freeze else "the store was rewound", 0
    if not causes or failover.fault_at_s is None:
        return "no fault explains it", 0
    was = decision.input.desired.sites.get(failover.left) if decision.input.desired else None
    if failover.detect_s is None and was is not None and was.verdict == "down":
        return "the site was down before, and nothing else could take its traffic", 0
    if decision.desired.tier:
        return f"on a last resort: {decision.desired.tier}", 0
    if total(decision.desired.shares, failover.left):
        return "it keeps a part: nobody else has room", 0  # or `capacity` would say so
    if _alone(failover, decision.desired, config):
        return "some of its addresses are still served: no other site has that family", 0
    goes_to = [site for site in decision.desired.sites if total(decision.desired.shares, site)]
    accident = Accident(failover.service, failover.left, failover.fault_at_s, causes, goes_to)
    return accident.outside(all_, failover.at_s + (failover.apply_s or 0.0) + (failover.ttl_s or 0.0))
