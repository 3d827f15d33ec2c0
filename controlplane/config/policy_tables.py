"""The keys of `policy`, and those of them that a service may set for itself."""

from __future__ import annotations

from controlplane.config import scalars
from controlplane.config.readers import Field, Seq, Table, choice

DAY_S = scalars.DAY_S

PROBE = Table(
    {
        "interval": Field(scalars.duration(0.05, 3600), 1.0),
        "fast_interval": Field(scalars.duration(0.05, 3600), 0.2),
        "timeout": Field(scalars.duration(0.05, 30), 1.5),
        "fall": Field(scalars.integer(1, 100), 3),
        "rise": Field(scalars.integer(1, 100), 5),
        "clear": Field(scalars.integer(1, 100), 10),
        "jitter": Field(scalars.number(0, 0.5), 0.1),
    }
)
_QUORUM = Table(
    {
        "share": Field(scalars.number(0.5, 1, above=True), 0.6),
        "min_vantages": Field(scalars.integer(2, 100), 2),
    }
)
_GUARDS = Table(
    {
        "min_sites": Field(scalars.integer(1, 100), 1),
        "n_plus": Field(scalars.integer(0, 100), 1),
        "max_utilisation": Field(scalars.number(0, 1, above=True), 0.9),
    }
)
_GOVERNOR = Table(
    {
        "share": Field(scalars.number(0, 1, above=True), 0.7),
        "window": Field(scalars.duration(1, DAY_S), 60.0),
    }
)
_FAILBACK = Table(
    {
        "mode": Field(choice(("auto", "manual")), "auto"),
        "soak": Field(scalars.duration(0, 3600), 300.0),
        "ramp": Field(Seq(scalars.integer(1, 100), at_least=1, what="percentages"), (10, 50, 100)),
        "step": Field(scalars.duration(0, DAY_S), 60.0),
    }
)
POLICY = Table(
    {
        "probe": Field(PROBE, PROBE.empty()),
        "quorum": Field(_QUORUM, _QUORUM.empty()),
        "guards": Field(_GUARDS, _GUARDS.empty()),
        "governor": Field(_GOVERNOR, _GOVERNOR.empty()),
        "failback": Field(_FAILBACK, _FAILBACK.empty()),
        "freshness": Field(scalars.duration(2, 30), 3.0),
        "hold": Field(scalars.duration(0, 3600), 60.0),
    }
)
_CLUSTER_WIDE = "it holds for the whole cluster; set it in policy"
SERVICE_POLICY = POLICY.partial(
    {
        "guards.n_plus": "it counts the loss of sites for all services together; set it in policy",
        "guards.max_utilisation": _CLUSTER_WIDE,
        "governor": _CLUSTER_WIDE,
        "freshness": _CLUSTER_WIDE,
        "quorum.min_vantages": _CLUSTER_WIDE,
    }
)
