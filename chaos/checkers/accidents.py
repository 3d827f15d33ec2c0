"""Is a failover one accident, of which the bound speaks, or is something else broken meanwhile (DESIGN 10)? Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from chaos.history import Answered, History
from chaos.measure import touches
from chaos.scenario import CLIENTS, EVERYTHING, LEADER, STORE_LEADER
from chaos.trace import Span

TOGETHER_S = 1.0  # what breaks within so long of the cause is one accident with it
SETTLED_S = 30.0  # after a fault, until the cluster is as it was: vantages have opinions again, a leader leads
ASKED_S = 1.0  # clients ask once a second: so much later they notice
SILENT_S = 1.8  # what a resolver may wait for a name server that is dead, before it asks another (measured, unbound)
# What the control plane itself suffers from, beside the services that it watches.
IMPAIRING = (
    *("cut", "cut_one_way", "loss", "delay", "pause", "kill", "restart", "power_off", "lie", "clock_step"),
    *("store_down", "store_compact", "store_rewind", "dns_api_down"),
)
PARTLY = ("flaky", "loss", "slow", "bandwidth", "lag")  # some requests go well: there is no moment from which to count
PROCESS = ("pause", "kill", "restart")


class Accident:
    """A service fails at a site. causes: what broke it, at `from_s`; goes_to: where its traffic may go."""

    def __init__(
        self, service: str, site: str, from_s: float, causes: Sequence[Span], goes_to: Collection[str]
    ) -> None:
        self.service, self.site, self.from_s = service, site, from_s
        self._causes, self._goes_to = causes, goes_to

    def outside(self, all_: Sequence[Span], to_s: float) -> tuple[str, int]:
        """Why the bound says nothing of it until to_s, or ""; how many takeovers it may have on top."""
        for cause in self._causes:
            text = cause.fault.text or cause.fault.verb
            if cause.fault.verb in ("cut", "cut_one_way") and EVERYTHING not in (cause.fault.one, cause.fault.other):
                return f"{text} is seen by some and not by others", 0
            if cause.fault.verb in ("loss", "slow") and not cause.fault.service:
                return f"{text} hits the control plane's own messages as well", 0
        later = 0
        for span in all_:
            near = span.overlaps(self.from_s - SETTLED_S, to_s)
            if span in self._causes or not near or not self._disturbs(span):
                continue
            if _of_the_leader(span) and span.from_s >= self.from_s - TOGETHER_S:
                later += span.from_s > self.from_s + TOGETHER_S
                continue
            if _hits(span, self.site) and abs(span.from_s - self.from_s) <= TOGETHER_S:
                continue
            return f"a second fault: {span.fault.text or span.fault.verb} at {span.from_s:.0f}s", 0
        return "", later

    def _disturbs(self, span: Span) -> bool:
        """Does it impair the control plane, the clients' way, or a site to which the traffic goes?"""
        fault = span.fault
        if fault.verb in IMPAIRING or (fault.verb == "slow" and not fault.service):
            return True
        return any(touches(fault, self.service, site) for site in self._goes_to)


def silent_s(history: History, service: str, at: float) -> float:
    """What resolvers may have to wait longer for name servers that clients could not reach then."""
    reachable: dict[str, bool] = {}
    for record in history.records:
        if record.at <= at and isinstance(record, Answered) and record.service == service:
            reachable[record.server] = record.reachable
    return SILENT_S * sum(1 for answers in reachable.values() if not answers)


def _of_the_leader(span: Span) -> bool:
    return span.fault.verb in PROCESS and span.fault.node in (LEADER, STORE_LEADER)


def _hits(span: Span, site: str) -> bool:
    """All of the site, or the process there."""
    fault = span.fault
    if site in (fault.site, span.node):
        return True
    return {fault.one, fault.other} in ({site, EVERYTHING}, {site, CLIENTS}) and fault.verb != "loss"
