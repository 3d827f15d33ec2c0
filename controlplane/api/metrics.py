"""GET /metrics: what this node sees and counts, for Prometheus."""

from __future__ import annotations

import asyncio

from aiohttp import web

from controlplane.api.node import NODE
from controlplane.telemetry.prometheus import render

MOST_ACCEPT = 1024  # characters of the Accept header that are looked at


async def get_metrics(request: web.Request) -> web.Response:
    """Prometheus text, or OpenMetrics for whoever accepts that. The view is read in slices of the event loop; all
    else is done in a thread, for a thousand services have 60,000 series."""
    telemetry = request.app[NODE].node.telemetry
    accept = request.headers.get("Accept", "")[:MOST_ACCEPT]
    moment = await telemetry.look()
    body, content_type = await asyncio.to_thread(lambda: render(moment.reading(), telemetry.resource, accept))
    return web.Response(body=body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})
