"""Traces, metrics and logs to an OpenTelemetry collector: OTLP over HTTP, where an endpoint is configured.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ say how: OTEL_EXPORTER_OTLP_ENDPOINT
or one for each signal, with their headers, certificates and time-outs; OTEL_TRACES_EXPORTER=none and the like;
OTEL_SDK_DISABLED; OTEL_RESOURCE_ATTRIBUTES; OTEL_METRIC_EXPORT_INTERVAL.

Sending is done in threads that the process does not wait for. A collector that does not answer costs what stands in
bounded queues, and one line of the log in ten minutes.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Status, StatusCode

from controlplane.telemetry.context import ids
from controlplane.telemetry.course import Attributes, Spans
from controlplane.telemetry.metrics import Reading
from controlplane.telemetry.otlp_logs import OtlpHandler, parent_of
from controlplane.telemetry.otlp_metrics import MetricSender
from controlplane.telemetry.telemetry import Clock, resource_of

INTERVAL_S = 60.0
QUEUED_SPANS = 16_384  # a thousand services that fail over at once make some 14,000
BATCH = 512
LAST_WORDS_S = 2.0  # patience with the collector at the end
QUIET_S = 600.0  # between two complaints of the same library module
LIBRARIES = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.sdk._shared_internal",
)


class OtlpExports:
    """Telemetry's Exports. signals: what to send, of TRACES, METRICS, LOGS. `environ` is this process's environment,
    from which the exporters read their settings themselves.

    Raises ValueError for settings that they cannot use."""

    def __init__(
        self, site: str, cluster: str, wall: Callable[[], float], environ: Mapping[str, str], signals: Collection[str]
    ) -> None:
        for name in LIBRARIES:
            logging.getLogger(name).addFilter(_once)
        resource = Resource.create(resource_of(site, cluster))
        self.interval_s = 0.0
        self._ids = _Ids()
        self._tracing: TracerProvider | None = None
        self._metrics: MetricSender | None = None
        self._logging: LoggerProvider | None = None
        if "TRACES" in signals:
            self._tracing = TracerProvider(
                resource=resource, id_generator=self._ids, shutdown_on_exit=False, meter_provider=NoOpMeterProvider()
            )
            spans = BatchSpanProcessor(
                OTLPSpanExporter(),
                max_queue_size=QUEUED_SPANS,
                max_export_batch_size=BATCH,
                meter_provider=NoOpMeterProvider(),
            )
            self._tracing.add_span_processor(spans)
        if "LOGS" in signals:
            self._logging = LoggerProvider(
                resource=resource, shutdown_on_exit=False, meter_provider=NoOpMeterProvider()
            )
            lines = BatchLogRecordProcessor(OTLPLogExporter(), meter_provider=NoOpMeterProvider())
            self._logging.add_log_record_processor(lines)
        if "METRICS" in signals:
            self.interval_s = _interval_s(environ)
            self._metrics = MetricSender(OTLPMetricExporter(max_export_batch_size=10_000), resource, wall)

    def spans(self, wall: Clock) -> Spans | None:
        return _OtlpSpans(self._tracing, self._ids, wall) if self._tracing else None

    def send(self, reading: Reading) -> None:
        if self._metrics is not None:
            self._metrics.offer(reading)

    def log_handler(self, redact: Callable[[str], str], trace_of: Callable[[str], str]) -> logging.Handler | None:
        return OtlpHandler(self._logging, redact, trace_of) if self._logging else None

    async def aclose(self) -> None:
        parts = [part.shutdown for part in (self._tracing, self._logging, self._metrics) if part is not None]
        threads = [threading.Thread(target=part, name="otlp last words", daemon=True) for part in parts]
        for thread in threads:
            thread.start()
        until = asyncio.get_running_loop().time() + LAST_WORDS_S
        while any(thread.is_alive() for thread in threads) and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(0.02)


def _interval_s(environ: Mapping[str, str]) -> float:
    try:
        interval_s = float(environ.get("OTEL_METRIC_EXPORT_INTERVAL") or INTERVAL_S * 1000) / 1000
    except ValueError:
        raise ValueError("OTEL_METRIC_EXPORT_INTERVAL is a number of milliseconds") from None
    return interval_s if interval_s > 0 else INTERVAL_S


class _Ids(RandomIdGenerator):
    """Random ones, but for the root of a failover: those were in `desired` before it was made."""

    def __init__(self) -> None:
        self.root: tuple[int, int] | None = None

    def generate_trace_id(self) -> int:
        return self.root[0] if self.root else super().generate_trace_id()

    def generate_span_id(self) -> int:
        return self.root[1] if self.root else super().generate_span_id()


class _OtlpSpans:
    """Implements Spans. `wall` dates a reading of the loop's clock."""

    def __init__(self, provider: TracerProvider, ids_: _Ids, wall: Clock) -> None:
        self._tracer = provider.get_tracer("failover")
        self._ids, self._wall = ids_, wall

    def span(
        self, traceparent: str, name: str, begin: float, end: float, attributes: Attributes, error: str = ""
    ) -> None:
        known = ids(traceparent)
        if known is not None:
            self._make(name, parent_of(known), begin, end, attributes, error)

    def root(self, traceparent: str, begin: float, end: float, attributes: Attributes, error: str = "") -> None:
        self._ids.root = ids(traceparent)
        try:
            if self._ids.root is not None:
                self._make("failover", Context(), begin, end, attributes, error)
        finally:
            self._ids.root = None

    def _make(self, name: str, context: Context, begin: float, end: float, attributes: Attributes, error: str) -> None:
        begun_s = self._wall(begin)
        span = self._tracer.start_span(name, context, attributes=dict(attributes), start_time=int(begun_s * 1e9))
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(int((begun_s + max(0.0, end - begin)) * 1e9))


class _Once(logging.Filter):
    """Lets one complaint of each library module through, then none for a while: they come with every batch."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._said_at.get(record.name, -QUIET_S) < QUIET_S:
            return False
        self._said_at[record.name] = now
        return True


_once = _Once()  # of the process, as the library's loggers are
