"""A reading as Prometheus text or OpenMetrics, whichever is asked for.

https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://prometheus.io/docs/specs/om/open_metrics_spec/. Written line by line: with an object for each of a thousand
services' 70,000 series, every scrape would end in a garbage collection that stops the event loop.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import accumulate

from controlplane.telemetry.metrics import METRICS, PREFIX, Buckets, Labels, Metric, Reading, Rows

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def render(reading: Reading, resource: Mapping[str, str], accept: str) -> tuple[bytes, str]:
    """(body, content type). resource: what the metrics are of, told as `target_info`; accept: the HTTP header."""
    open_metrics = any(part.split(";")[0].strip() == OPEN.split(";")[0] for part in accept.split(","))
    text = "".join(_lines(reading, resource, open_metrics))
    return text.encode(), OPEN if open_metrics else TEXT


def _lines(reading: Reading, resource: Mapping[str, str], open_metrics: bool) -> Iterator[str]:
    named = tuple(name.replace(".", "_") for name in resource)
    yield "# TYPE target info\n" if open_metrics else "# TYPE target_info gauge\n"
    yield f"target_info{_labels(named, tuple(resource.values()))} 1.0\n"
    for name, metric in METRICS.items():
        full = PREFIX + name
        family = full.removesuffix("_total") if open_metrics else full
        yield f"# HELP {family} {metric.help}\n# TYPE {family} {metric.kind}\n"
        yield from _series(full, metric, reading.get(name, {}))
    if open_metrics:
        yield "# EOF\n"


def _series(name: str, metric: Metric, rows: Rows) -> Iterator[str]:
    for labels, value in rows.items():
        if isinstance(value, Buckets):
            yield from _histogram(name, metric, labels, value)
        else:
            yield f"{name}{_labels(metric.labels, labels)} {_number(value)}\n"


def _histogram(name: str, metric: Metric, labels: Labels, value: Buckets) -> Iterator[str]:
    """Prometheus counts what is at most each bound."""
    bounds = (*(_number(bound) for bound in metric.bounds), "+Inf")
    for bound, count in zip(bounds, accumulate(value.counts), strict=True):
        yield f"{name}_bucket{_labels((*metric.labels, 'le'), (*labels, bound))} {count}\n"
    own = _labels(metric.labels, labels)
    yield f"{name}_count{own} {value.count}\n{name}_sum{own} {_number(value.total)}\n"


def _labels(names: tuple[str, ...], values: Labels) -> str:
    if not names:
        return ""
    pairs = [f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(names, values, strict=True)]
    return "{" + ",".join(pairs) + "}"


def _number(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(float(value))
