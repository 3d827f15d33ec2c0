"""What a drill says in the end (DESIGN section 10, and more). Durations are seconds; None: not known, or none."""

from __future__ import annotations

from msgspec import Struct


class Met(Struct, frozen=True):
    """One expectation, condition by condition."""

    text: str
    passed: bool
    at_s: float | None  # when it came true for good, or when it was broken first
    detail: str


class Invariant(Struct, frozen=True):
    """One checker. checked: how many things it looked at; nothing to look at is a failure. notes: what it did not
    judge, and why (a failover with a second fault is outside the bound)."""

    name: str
    passed: bool
    checked: int
    violations: tuple[str, ...]
    notes: tuple[str, ...] = ()


class Failover(Struct, frozen=True, kw_only=True):
    """A forced move of a service away from a site that failed.

    detect_s: from the last probe that passed, as seen by the latest of the voters that made the quorum (in worlds that
    cannot know it: from the fault), to the commit, less decide_s. decide_s: from when the last voter's shard was there
    to the commit, as far as it is known. apply_s: from the commit until the last reachable name server answers so.
    ttl_s: from then until the last client that keeps TTLs gets through. outage_s: its longest run of failed requests.
    """

    service: str
    left: str
    at_s: float  # of the commit
    fault_at_s: float | None  # of the fault that was its cause, if it can be told
    detect_s: float | None
    decide_s: float | None
    apply_s: float | None
    ttl_s: float | None
    outage_s: float | None
    worst_case_s: float
    bounds: dict[str, float]  # of the phases: detect_s, publish_s, takeover_s, decide_s, apply_s, ttl_s


class Outage(Struct, frozen=True, kw_only=True):
    """What the clients of a service in a region had."""

    service: str
    region: str
    resolver: str  # keeps | stretch | stale
    requests: int
    failed: int
    longest_s: float
    began_s: float | None


class Report(Struct, frozen=True, kw_only=True):
    scenario: str
    about: str
    world: str
    seed: int
    passed: bool
    history_sha256: str
    duration_s: float
    expectations: tuple[Met, ...]
    invariants: tuple[Invariant, ...]
    failovers: tuple[Failover, ...]
    outages: tuple[Outage, ...]
    faults: int
    left: tuple[str, ...]  # faults that could not be healed
    began: str = ""
    took_s: float = 0.0
    stopped: str = ""  # why the drill ended before its time: "Ctrl-C", "client errors 12 % > 5 %"
