"""A reading as OTLP metrics, sent by a thread of its own."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from opentelemetry.sdk.metrics import export as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from controlplane.telemetry.metrics import METRICS, PREFIX, Buckets, Metric, Reading, Rows

log = logging.getLogger(__name__)

UNITS = {"_seconds": "s", "_ratio": "1"}
CUMULATIVE = sdk.AggregationTemporality.CUMULATIVE


class MetricSender:
    """Sends what it is offered, one after the other; what comes meanwhile is dropped."""

    def __init__(self, exporter: sdk.MetricExporter, resource: Resource, wall: Callable[[], float]) -> None:
        self._exporter, self._resource, self._wall = exporter, resource, wall
        self._began_ns = int(wall() * 1e9)
        self._queue: queue.Queue[Reading | None] = queue.Queue(1)
        self._thread = threading.Thread(target=self._run, name="otlp metrics", daemon=True)
        self._thread.start()

    def offer(self, reading: Reading) -> None:
        if self._queue.empty():
            self._queue.put(reading)

    def shutdown(self) -> None:
        """Blocks until what was offered is sent, or could not be."""
        self._queue.put(None)
        self._thread.join()
        self._exporter.shutdown()

    def _run(self) -> None:
        while (reading := self._queue.get()) is not None:
            try:
                self._exporter.export(metrics_data(reading, self._resource, self._began_ns, int(self._wall() * 1e9)))
            except Exception:  # of the library; the next reading may do better
                log.exception("metrics were not sent")


def metrics_data(reading: Reading, resource: Resource, began_ns: int, now_ns: int) -> sdk.MetricsData:
    """OTel's own data model. Names have the suffixes that Prometheus gives them, and units to match: translators add
    none that is there already, so they are the same on every way."""
    found = [
        sdk.Metric(
            name=PREFIX + name,
            description=metric.help,
            unit=next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), ""),
            data=_data(metric, rows, began_ns, now_ns),
        )
        for name, metric in METRICS.items()
        if (rows := reading.get(name))
    ]
    scope = InstrumentationScope("failover")
    return sdk.MetricsData([sdk.ResourceMetrics(resource, [sdk.ScopeMetrics(scope, found, "")], "")])


def _data(metric: Metric, rows: Rows, began_ns: int, now_ns: int) -> sdk.Gauge | sdk.Sum | sdk.Histogram:
    if metric.kind == "histogram":
        return sdk.Histogram(_histograms(metric, rows, began_ns, now_ns), CUMULATIVE)
    start_ns = began_ns if metric.kind == "counter" else 0
    points = [
        sdk.NumberDataPoint(dict(zip(metric.labels, labels, strict=True)), start_ns, now_ns, value)
        for labels, value in rows.items()
        if not isinstance(value, Buckets)
    ]
    return sdk.Sum(points, CUMULATIVE, is_monotonic=True) if metric.kind == "counter" else sdk.Gauge(points)


def _histograms(metric: Metric, rows: Rows, began_ns: int, now_ns: int) -> list[sdk.HistogramDataPoint]:
    return [
        sdk.HistogramDataPoint(
            attributes=dict(zip(metric.labels, labels, strict=True)),
            start_time_unix_nano=began_ns,
            time_unix_nano=now_ns,
            count=value.count,
            sum=value.total,
            bucket_counts=value.counts,
            explicit_bounds=metric.bounds,
            min=None,  # type: ignore[arg-type]  # optional in the protocol: not known here
            max=None,  # type: ignore[arg-type]
        )
        for labels, value in rows.items()
        if isinstance(value, Buckets)
    ]
