"""Every metric, in one table. Pure.

A name here is the exported one without its prefix: `leader` is `failover_leader`. Ages, never timestamps; a state
set has one series for each state, 0 or 1. What every node tells is what it sees, so that series of several nodes are
put together with `max`; only what is counted where it happens (COUNTED_HERE) is put together with `sum`.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

PREFIX = "failover_"

# Seconds. Probes and writes take from a millisecond to their time-out; phases from moments to a long TTL.
SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
LONG_S = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)


class Metric(Struct, frozen=True):
    """kind: gauge | counter | histogram. bounds: of a histogram's buckets, in seconds."""

    kind: str
    labels: tuple[str, ...]
    help: str
    bounds: tuple[float, ...] = ()


class Buckets(Struct, frozen=True):
    """A histogram's value: how many in each bucket (the last one has no bound), and the sum of what was observed."""

    counts: tuple[int, ...]
    total: float

    @property
    def count(self) -> int:
        return sum(self.counts)


Labels = tuple[str, ...]
Value = float | Buckets
Rows = Mapping[Labels, Value]
Reading = Mapping[str, Rows]  # name -> its series


METRICS: dict[str, Metric] = {
    "leader": Metric("gauge", ("node",), "1 for the node that leads, as seen here."),
    "store_up": Metric("gauge", ("node",), "1 while this node's view of the store is current."),
    "leader_token": Metric("gauge", ("node",), "The leader's fencing token."),
    "leader_changes_total": Metric("counter", ("node",), "Times this node took the leadership."),
    "voting_vantages": Metric("gauge", (), "Vantages that report and see."),
    "min_vantages": Metric("gauge", (), "Voting vantages that a verdict needs at least."),
    "vantage_beat_age_seconds": Metric("gauge", ("vantage",), "Since the vantage's beat moved last."),
    "vantage_blind": Metric("gauge", ("vantage",), "1 while nothing answers the vantage."),
    "probes_total": Metric("counter", ("vantage", "kind", "outcome"), "Probes made here that gave a result."),
    "probe_duration_seconds": Metric("histogram", ("vantage", "kind", "outcome"), "What they took.", SHORT_S),
    "verdict": Metric("gauge", ("service", "site", "verdict"), "1 for what is observed of a site."),
    "standing": Metric("gauge", ("service", "site", "rule"), "1 for the rule that decides a site's standing."),
    "share_ratio": Metric("gauge", ("service", "region", "site"), "Share of the region's clients."),
    "site_load": Metric("gauge", ("site",), "Demand that the site is given now."),
    "site_usable": Metric("gauge", ("site",), "Capacity that may be used."),
    "shortfall": Metric("gauge", ("service",), "Demand that has no room."),
    "desired_generation": Metric("gauge", ("service",), "Generation that clients are to be told."),
    "applied_generation": Metric("gauge", ("service", "site", "driver"), "Generation that the driver serves."),
    "apply_total": Metric("counter", ("site", "driver", "outcome"), "Names written by this node."),
    "apply_duration_seconds": Metric(
        "histogram", ("site", "driver", "outcome"), "What writing a name took, with reading it back.", SHORT_S
    ),
    "state": Metric("gauge", ("service", "state"), "1 for how far the desired state has arrived."),
    "decisions_total": Metric("counter", ("service", "rule"), "Decisions committed by this node."),
    "refused_total": Metric("counter", ("service", "guard"), "Decisions of this node that a guard made wait."),
    "failovers_total": Metric("counter", ("service", "site"), "Times this node's decision left a failed site."),
    "phase_duration_seconds": Metric(
        "histogram", ("service", "site", "phase"), "What each phase of a failover decided here took.", LONG_S
    ),
    "worst_case_seconds": Metric("gauge", ("service",), "Bound on a failover's client outage."),
    "target_seconds": Metric("gauge", ("service",), "What that bound is meant to be at most."),
    "override_remaining_seconds": Metric(
        "gauge", ("kind", "site"), "Until the last override of this kind ends; +Inf for one without an end."
    ),
    "alarm": Metric("gauge", ("name", "subject"), "1 for each alarm that is raised."),
}

COUNTED_HERE = tuple(name for name, metric in METRICS.items() if metric.kind != "gauge")
