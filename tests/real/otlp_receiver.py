"""A collector that keeps what it is sent: OTLP over HTTP, read with OpenTelemetry's own protocol messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MOST_BYTES = 64 * 1024 * 1024


class Receiver:
    """`url` while it runs. spans, lines: with the resource they came from; metrics: name -> its latest, by site."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[tuple[dict[str, Any], Any]] = []
        self.lines: list[tuple[dict[str, Any], Any]] = []
        self.metrics: dict[str, dict[str, Any]] = {}
        app = web.Application(client_max_size=MOST_BYTES)
        app.add_routes(
            [
                web.post("/v1/traces", self._traces),
                web.post("/v1/metrics", self._metrics),
                web.post("/v1/logs", self._logs),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def start(self) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def aclose(self) -> None:
        await self._runner.cleanup()

    async def _traces(self, request: web.Request) -> web.Response:
        for part in ExportTraceServiceRequest.FromString(await request.read()).resource_spans:
            about = attributes(part.resource)
            self.spans += [(about, span) for scope in part.scope_spans for span in scope.spans]
        return web.Response()

    async def _metrics(self, request: web.Request) -> web.Response:
        for part in ExportMetricsServiceRequest.FromString(await request.read()).resource_metrics:
            site = attributes(part.resource)["service.instance.id"]
            for metric in (m for scope in part.scope_metrics for m in scope.metrics):
                self.metrics.setdefault(site, {})[metric.name] = metric
        return web.Response()

    async def _logs(self, request: web.Request) -> web.Response:
        for part in ExportLogsServiceRequest.FromString(await request.read()).resource_logs:
            about = attributes(part.resource)
            self.lines += [(about, line) for scope in part.scope_logs for line in scope.log_records]
        return web.Response()


def attributes(of: Any) -> Mapping[str, Any]:
    """The attributes of a span, a line or a resource as plain values."""
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in of.attributes}
