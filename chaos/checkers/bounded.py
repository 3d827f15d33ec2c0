"""bounded: no measured phase of a failover is longer than what `failoverctl check` computes (DESIGN 10). Pure.

The bound is for one accident: a site, or a service there, and whatever of the leader and the store's leader dies in
that moment. A leader that dies or stalls later adds one takeover; the TTL's phase, and only that, a resolver's wait for
name servers that are dead. Everything else that is broken meanwhile is a second fault: such a failover is named and not
judged.
"""

from __future__ import annotations

from chaos.history import Answered, Committed, History
from chaos.measure import failovers, touches
from chaos.report import Failover, Invariant
from chaos.scenario import CLIENTS, EVERYTHING, LEADER, STORE_LEADER, Scenario
from chaos.trace import Findings, Span, commits, spans, total
from policies.timing import RESOLVER_S

TOGETHER_S = 1.0  # what breaks within so long of the cause is one accident with it
SETTLED_S = 30.0  # after a fault, until the cluster is as it was: vantages have opinions again, a leader leads
ASKED_S = 1.0  # clients ask once a second: so much later they notice
SILENT_S = 1.8  # what a resolver may wait for a name server that is dead, before it asks another (measured, unbound)
HAIR_S = 0.001  # records are rounded
# What the control plane itself suffers from, beside the services that it watches.
IMPAIRING = (
    *("cut", "cut_one_way", "loss", "delay", "pause", "kill", "restart", "power_off", "lie", "clock_step"),
    *("store_down", "store_compact", "store_rewind", "dns_api_down"),
)
PARTLY = ("flaky", "loss", "slow", "bandwidth", "lag")  # some requests go well: there is no moment from which to count
PROCESS = ("pause", "kill", "restart")


def bounded(scenario: Scenario, history: History) -> Invariant:
    """Each phase of each failover, and the outage of its clients that keep TTLs."""
    found = Findings("bounded", "no failover is within the conditions of the bound")
    made = {(r.decision.service, r.at): r for r in commits(history)}
    all_ = spans(scenario, history)
    for failover in failovers(scenario, history):
        record = made[failover.service, failover.at_s]
        causes = [
            s for s in all_ if s.from_s == failover.fault_at_s and touches(s.fault, failover.service, failover.left)
        ]
        why, later = _outside(failover, record, causes, all_)
        if why:
            found.note(f"{failover.service} left {failover.left} at {failover.at_s:.1f}s: not judged, {why}")
            continue
        silent_s = SILENT_S * _silent(history, failover)
        _judge(failover, later, silent_s, any(cause.fault.verb in PARTLY for cause in causes), found)
    return found.invariant()


def _silent(history: History, failover: Failover) -> int:
    """Name servers that clients could not reach at the commit."""
    reachable: dict[str, bool] = {}
    for record in history.records:
        if record.at <= failover.at_s and isinstance(record, Answered) and record.service == failover.service:
            reachable[record.server] = record.reachable
    return sum(1 for answers in reachable.values() if not answers)


def _judge(failover: Failover, later: int, silent_s: float, partly: bool, found: Findings) -> None:
    bounds = failover.bounds
    more_s = later * bounds["takeover_s"]
    known_s = max(bounds["detect_s"] + bounds["publish_s"], bounds["takeover_s"]) + bounds["decide_s"] + more_s
    phases: list[tuple[str, float | None, float]] = [
        ("detecting and deciding", failover.detect_s, known_s),
        ("applying", failover.apply_s, bounds["apply_s"]),
    ]
    if not partly:
        ttl_s = bounds["ttl_s"] or RESOLVER_S
        phases.append(("the TTL", failover.ttl_s, ttl_s + silent_s + ASKED_S))
        phases.append(("the whole outage", failover.outage_s, failover.worst_case_s + more_s + ASKED_S))
    for name, took_s, bound_s in phases:
        if took_s is None:
            continue
        found.looked()
        if took_s > bound_s + HAIR_S:
            text = f"{failover.service} left {failover.left}: {name} took {took_s:.1f}s of at most {bound_s:.1f}s"
            found.wrong(failover.at_s, text)


def _outside(failover: Failover, record: Committed, causes: list[Span], all_: list[Span]) -> tuple[str, int]:
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
    if any(answer.site == failover.left for answer in decision.desired.answers):
        return "some of its addresses are still served: no other site has that family", 0
    for cause in causes:
        if cause.fault.verb in ("cut", "cut_one_way") and EVERYTHING not in (cause.fault.one, cause.fault.other):
            return f"{cause.fault.text or cause.fault.verb} is seen by some and not by others", 0
        if cause.fault.verb in ("loss", "slow") and not cause.fault.service:
            return f"{cause.fault.text or cause.fault.verb} hits the control plane's own messages as well", 0
    end_s = failover.at_s + (failover.apply_s or 0.0) + (failover.ttl_s or 0.0)
    later = 0
    for span in all_:
        if span in causes or not span.overlaps(failover.fault_at_s - SETTLED_S, end_s):
            continue
        if not _second(span, failover, record):
            continue
        if _of_the_leader(span) and span.from_s >= failover.fault_at_s - TOGETHER_S:
            later += span.from_s > failover.fault_at_s + TOGETHER_S
            continue
        if _hits(span, failover.left) and abs(span.from_s - failover.fault_at_s) <= TOGETHER_S:
            continue
        return f"a second fault: {span.fault.text or span.fault.verb} at {span.from_s:.0f}s", 0
    return "", later


def _second(span: Span, failover: Failover, record: Committed) -> bool:
    """Does it impair the control plane, the clients' way, or a site to which the traffic went?"""
    fault = span.fault
    goes_to = [site for site in record.decision.desired.sites if total(record.decision.desired.shares, site)]
    if fault.verb in IMPAIRING or (fault.verb == "slow" and not fault.service):
        return True
    return any(touches(fault, failover.service, site) for site in goes_to)


def _of_the_leader(span: Span) -> bool:
    return span.fault.verb in PROCESS and span.fault.node in (LEADER, STORE_LEADER)


def _hits(span: Span, site: str) -> bool:
    """All of the site, or the process there."""
    fault = span.fault
    if site in (fault.site, span.node):
        return True
    return {fault.one, fault.other} in ({site, EVERYTHING}, {site, CLIENTS}) and fault.verb != "loss"
