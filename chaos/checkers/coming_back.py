"""hold_time and no_flap: how soon and how often traffic may move (DESIGN 4.6, 4.7). Pure; clocks are counted by
itself, from the records' times."""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from chaos.history import Committed, Configured, History, Rewound
from chaos.loads import WORTH, Rooms, demand, spare
from chaos.report import Invariant
from chaos.scenario import Scenario
from chaos.trace import Findings, Timed, before, by_time, commits, moves, optional, share, total
from controlplane.documents import DecisionDoc
from policies.topology import Config, Failback
from policies.world import SiteState

DRIFT = 0.005  # clocks of machines that run no worse than this
LATE_S = 0.25  # between a leader's reading of a clock and the commit that is recorded
LONGEST_SOAK_S = 3600.0  # DESIGN 4.7
QUIET_S = 86400.0
HOUR_S = 3600.0


class Return(Struct):
    """A site on its way back to a service: it was left (or is new, or was out), and is up again since `since_s`."""

    since_s: float
    soak_s: float
    step_s: float
    why: str

    def percent(self, at: float, failback: Failback) -> int:
        """The most of a region's clients that it may have by now, unless the others have no room."""
        ramped_s = (at - self.since_s + LATE_S) * (1 + DRIFT) - self.soak_s
        if ramped_s < 0:
            return 0
        step = int(ramped_s / self.step_s) if self.step_s > 0 else len(failback.ramp)
        return failback.ramp[min(step, len(failback.ramp) - 1)]


def hold_time(scenario: Scenario, history: History) -> Invariant:
    """No two optional moves of a service within `hold`; no site that failed, was out or is new gets back what its
    soak and ramp do not allow yet, unless by a pin, on a last resort, or because the others have no room."""
    found = Findings("hold_time", "no decision is recorded")
    timed, rooms, hold = Timed(history), Rooms(history.config), _Hold(found)
    back = _Back(found, rooms)
    for _, records in by_time(history):
        made = [record for record in records if isinstance(record, Committed)]
        for record in records:
            if isinstance(record, Rewound):  # what was remembered of sites and moves is gone with the store
                hold.forget()
                back.forget()
            elif isinstance(record, Configured):
                back.configure(record.config)
        for record in made:
            rooms.take(record.decision)
        for record in made:
            config = timed.of(record.decision, record.at)
            if record.decision.service in config.services:
                rooms.config = config
                found.looked()
                hold.commit(record, config)
                back.commit(record, config)
    return found.invariant()


class _Hold:
    def __init__(self, found: Findings) -> None:
        self._found = found
        self._last: dict[str, tuple[float, float, str]] = {}  # service -> at, hold of that time, decision

    def forget(self) -> None:
        self._last.clear()

    def commit(self, record: Committed, config: Config) -> None:
        decision = record.decision
        if decision.input.desired is None or not optional(decision):
            return
        hold_s = config.services[decision.service].policy.hold_s
        if decision.service in self._last:
            at, held_s, before_id = self._last[decision.service]
            least_s = min(held_s, hold_s) * (1 - DRIFT) - LATE_S
            if record.at - at < least_s:
                text = f"{decision.id} moves {decision.service} {record.at - at:.1f}s after {before_id} did"
                self._found.wrong(record.at, f"{text}; both might have waited, and hold is {hold_s:g}s")
        self._last[decision.service] = (record.at, hold_s, decision.id)


class _Back:
    def __init__(self, found: Findings, rooms: Rooms) -> None:
        self._found = found
        self._rooms = rooms
        self._returns: dict[tuple[str, str], Return] = {}  # service, site
        self._failed_at: dict[tuple[str, str], list[float]] = {}  # automatic failovers of a site

    def forget(self) -> None:
        self._returns.clear()
        self._failed_at.clear()

    def configure(self, config: Config) -> None:
        """What runs already may end sooner under another configuration, never later."""
        for (service, _), back in self._returns.items():
            if service in config.services:
                failback = config.services[service].policy.failback
                back.soak_s = min(back.soak_s, failback.soak_s)
                back.step_s = min(back.step_s, failback.step_s)

    def commit(self, record: Committed, config: Config) -> None:
        decision = record.decision
        if decision.input.desired is None:
            return
        failback = config.services[decision.service].policy.failback
        for site, now in sorted(decision.desired.sites.items()):
            self._phase(record, site, decision.input.desired.sites.get(site, SiteState()), now, failback)
        if decision.new_generation:
            for site in sorted(decision.desired.sites):
                self._gain(record, config, site, failback)
            self._count(record)

    def _phase(self, record: Committed, site: str, was: SiteState, now: SiteState, failback: Failback) -> None:
        key, at = (record.decision.service, site), record.at
        carried = total(before(record.decision), site) > 0
        if now.verdict == "down":
            self._returns.pop(key, None)
        elif was.verdict != "up" and now.verdict == "up" and not carried:
            times = self._failovers(key, at) if was.verdict == "down" else 0
            soak_s = min(failback.soak_s * 2.0 ** max(0, times - 1), LONGEST_SOAK_S)
            why = "it failed" if was.verdict == "down" else "it is new"
            self._returns[key] = Return(at, soak_s, failback.step_s, why)
        elif was.rule == "out" and now.rule != "out" and not carried:
            back = self._returns.get(key)
            if back is None:
                self._returns[key] = Return(at, 0.0, failback.step_s, "it was out")
            else:  # what was left of its soak ran on; the ramp begins now
                back.soak_s = max(0.0, back.since_s + back.soak_s - at)
                back.since_s = at

    def _failovers(self, key: tuple[str, str], at: float) -> int:
        """Since the last quiet day."""
        times, until = 0, at
        for failed_at in reversed(self._failed_at.get(key, [])):
            if until - failed_at >= QUIET_S * (1 - DRIFT):
                break
            times, until = times + 1, failed_at
        return times

    def _count(self, record: Committed) -> None:
        decision = record.decision
        for site in sorted({event.site for event in decision.events if event.rule == "failed" and event.forced}):
            had, has = total(before(decision), site), total(decision.desired.shares, site)
            if had and not has and not decision.input.freeze:
                self._failed_at.setdefault((decision.service, site), []).append(record.at)

    def _gain(self, record: Committed, config: Config, site: str, failback: Failback) -> None:
        decision = record.decision
        back = self._returns.get((decision.service, site))
        excused = decision.desired.tier or decision.input.ahead or decision.desired.sites[site].rule == "pinned"
        if back is None or excused:
            return
        allowed = back.percent(record.at, failback)
        for region in sorted(decision.desired.shares):
            had, has = share(before(decision), region, site), share(decision.desired.shares, region, site)
            most = max(had, allowed + 1 if allowed else 0)  # one percent of rounding
            if has <= most or self._full(decision, config):
                continue
            after_s = record.at - back.since_s
            text = (
                f"{decision.id} gives {site} {has} % of {decision.service} in {region} {after_s:.1f}s after it was back"
            )
            limits = f"soak {back.soak_s:g}s, then {', '.join(map(str, failback.ramp))} % each {back.step_s:g}s"
            self._found.wrong(record.at, f"{text} ({back.why}; {limits}), while others have room")

    def _full(self, decision: DecisionDoc, config: Config) -> bool:
        """Have the sites that take any traffic no room left, each but for what rounding to whole percents leaves?"""
        left = max(spare(config, decision, self._rooms.left(decision.service)).values(), default=0.0)
        return left <= demand(config, decision.service) * WORTH + self._rooms.coarse(decision.service)


def no_flap(scenario: Scenario, history: History) -> Invariant:
    """No service moves more often than `most_moves` in any hour."""
    found = Findings("no_flap", "no decision is recorded")
    moved: dict[str, deque[float]] = {}
    for record in commits(history):
        found.looked()
        if not moves(record.decision):
            continue
        times = moved.setdefault(record.decision.service, deque())
        times.append(record.at)
        while times[0] <= record.at - HOUR_S:
            times.popleft()
        if len(times) > scenario.most_moves:
            text = f"{record.decision.id} is move {len(times)} of {record.decision.service} within an hour"
            found.wrong(record.at, f"{text}; {scenario.most_moves} are the most")
    return found.invariant()
