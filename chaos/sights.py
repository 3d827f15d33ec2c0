"""What the vantages' raw probes saw and when, and how a decision's votes count: never with the running policy
(DESIGN 4.1, 4.3). Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from msgspec import Struct

from chaos.history import History, Probed
from chaos.scenario import Scenario
from chaos.trace import Span, spans
from controlplane.documents import DecisionDoc
from policies.frame import Frame, Watched, watched
from policies.world import Vote

KILLING = ("kill", "restart", "power_off")  # who is hit by these is started anew when they end
SILENCING = ("pause", *KILLING)  # who is hit by these sees nothing


class Ballot(Struct, frozen=True):
    """The votes on one target as one decision saw them: site names of vantages."""

    row: Watched
    voters: frozenset[str]
    fails: frozenset[str]
    needed: int

    @property
    def down(self) -> bool:
        return len(self.fails) >= self.needed


def ballots(frame: Frame, decision: DecisionDoc) -> Iterator[Ballot]:
    """Counted anew from the decision's slice."""
    slice_, quorum = decision.input, frame.spec.policy.quorum
    width = len(slice_.vantages)
    for index, row in enumerate(watched(frame, slice_.desired)):
        votes = dict(zip(slice_.vantages, slice_.votes[index * width : (index + 1) * width], strict=True))
        counted = {v: vote for v, vote in votes.items() if _counts(vote)}
        others = {v: vote for v, vote in counted.items() if v != row.site}
        voting = others if len(others) >= quorum.min_vantages else counted
        fails = frozenset(v for v, vote in voting.items() if vote & Vote.DOWN)
        yield Ballot(row, frozenset(voting), fails, needed(quorum.share_permille, quorum.min_vantages, len(voting)))


def _counts(vote: int) -> bool:
    return bool(vote & Vote.FRESH) and not vote & Vote.BLIND and bool(vote & (Vote.UP | Vote.DOWN))


def needed(share_permille: int, min_vantages: int, voters: int) -> int:
    """Failing votes that make DOWN; more than there are, where there are too few voters."""
    return -(-share_permille * voters // 1000) if voters >= min_vantages else voters + 1


class Sights:
    """What the vantages' raw probes saw, and when."""

    def __init__(self, scenario: Scenario, history: History) -> None:
        self._seen: dict[tuple[str, str], list[Probed]] = {}  # vantage, target -> in the order of time
        self._others: dict[str, dict[str, str]] = {}  # vantage -> targets that are not at its own site -> their site
        self.end = history.duration_s
        for record in history.records:
            if isinstance(record, Probed):
                key = (record.vantage, record.target)
                if record.site != record.vantage:
                    self._others.setdefault(record.vantage, {})[record.target] = record.site
                self._seen.setdefault(key, []).append(record)
        self._silent = _silences(spans(scenario, history))

    @property
    def any(self) -> bool:
        return bool(self._seen)

    def states(self, vantage: str, target: str, from_s: float, to_s: float) -> Iterator[tuple[float, float, Probed]]:
        """The outcomes that lasted into this time: from, to, what."""
        records = self._seen.get((vantage, target), [])
        first = max(0, bisect_right(records, from_s, key=lambda record: record.at) - 1)
        for n in range(first, len(records)):
            record = records[n]
            until = self.end
            if n + 1 < len(records):  # between the last probe that said so and the first that did not nobody knows
                last_s = records[n + 1].before_at
                until = records[n + 1].at if last_s is None else last_s
            if record.at > to_s:
                return
            if until >= from_s:
                yield max(record.at, from_s), min(until, to_s), record

    def failing(self, vantage: str, target: str, from_s: float, to_s: float) -> bool:
        """Did its probes of the target fail within this time, while it ran and could see?"""
        return any(
            not record.passed
            and self.ran(vantage, began, ended)
            and (record.answered or self.sees(vantage, record.at if record.at < from_s else began, to_s))
            for began, ended, record in self.states(vantage, target, from_s, to_s)
        )

    def last_pass(self, vantage: str, target: str, at: float) -> float | None:
        """When the last probe of the target ended that passed before the failures that `at` has."""
        records = self._seen.get((vantage, target), [])
        n = bisect_right(records, at, key=lambda record: record.at)
        for i in range(n - 1, -1, -1):
            if records[i].passed:
                return records[i + 1].before_at if i + 1 < n else at
        return None

    def sees(self, vantage: str, from_s: float, to_s: float) -> bool:
        """Did anything at another site answer it? Who has too few such targets cannot be found blind (DESIGN 4.1)."""
        others = self._others.get(vantage, {})
        outside = [target for target, site in others.items() if not site]
        sites = {site for site in others.values() if site}
        references = list(others) if len(sites) >= 2 else outside
        return len(references) < 2 or any(
            record.answered for target in references for _, _, record in self.states(vantage, target, from_s, to_s)
        )

    def ran(self, vantage: str, from_s: float, to_s: float) -> bool:
        """Was its process alive at any moment of this time?"""
        return not any(node == vantage and since <= from_s and until >= to_s for node, since, until in self._silent)


def _silences(all_: Sequence[Span]) -> list[tuple[str, float, float]]:
    """Who could not probe, from when to when. A process that is started anew does not stand still any more."""
    found: list[tuple[str, float, float]] = []
    for span in all_:
        if span.fault.verb not in SILENCING:
            continue
        node = span.node or span.fault.site
        deaths = [
            other.to_s for other in all_ if other.fault.verb in KILLING and node in (other.node, other.fault.site)
        ]
        ends = [to_s for to_s in deaths if to_s >= span.from_s] if span.fault.verb == "pause" else []
        found.append((node, span.from_s, min([span.to_s, *ends])))
    return found
