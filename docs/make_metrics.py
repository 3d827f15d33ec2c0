"""Writes docs/metrics.md from controlplane/telemetry: `python docs/make_metrics.py`. A test compares the two."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from controlplane.telemetry.metrics import METRICS, PREFIX  # noqa: E402  (the path must be set first)

INTRO = f"""\
# Metrics and traces

This page is generated from the code (`python docs/make_metrics.py`); a test compares the two.

Each node with the `api` role has them at `/metrics`, in Prometheus' format, on loopback. Every name begins with
`{PREFIX}`. A gauge is what that node sees: put nodes together with `max`. Counters and histograms are counted where it
happens: put nodes together with `sum`. Worth an alert: `max({PREFIX}alarm) by (name, subject) > 0`, and
`max({PREFIX}leader) < 1`.

| metric | kind | labels | meaning |
| --- | --- | --- | --- |
"""

OUTRO = """
`outcome` of a probe: `passed`, `failed` (something answered), `silent`, `broken` (a bug in the probe); of a write:
`ok`, `transient`, `fenced`, `terminal`. `phase`: `detect` from the first report of DOWN to the decision, `decide` with
its commit, then `apply`, `verify` and `ttl` from the commit. What clients themselves saw (canaries, outages, what is
left of the error budget) and the age of drills are not measured yet.

## OpenTelemetry

Nothing is sent anywhere unless an endpoint is named. Then traces, metrics and logs go there by OTLP over HTTP:

| variable | meaning |
| --- | --- |
| `OTEL_EXPORTER_OTLP_ENDPOINT` | a collector, such as `http://127.0.0.1:4318` |
| `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `..._METRICS_ENDPOINT`, `..._LOGS_ENDPOINT` | one for a signal alone |
| `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER`, `OTEL_LOGS_EXPORTER` | `none` leaves that signal out |
| `OTEL_METRIC_EXPORT_INTERVAL` | milliseconds |
| `OTEL_SDK_DISABLED` | `true`: nothing at all |

A failover is one trace, whichever nodes take part: the root span `failover`, and in it `detect` (one for each vantage
that said DOWN), `quorum`, `decide`, `commit`, `apply` (one for each driver, by the agent that wrote), `verify` (one for
each name server) and `propagate` (until old TTLs are over). A collector that is away disturbs nobody: queues are
bounded, and what does not fit is dropped.
"""


def page() -> str:
    rows = [
        f"| `{name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels) or '-'} | {metric.help} |"
        for name, metric in METRICS.items()
    ]
    return INTRO + "\n".join(rows) + "\n" + OUTRO


if __name__ == "__main__":
    (HERE / "metrics.md").write_text(page(), encoding="utf-8")
