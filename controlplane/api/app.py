"""The HTTP API: JSON over loopback (see guard.py for why only that).

server = await serve(make_app(node), "127.0.0.1", 0)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiohttp import web

from controlplane.api import adopting, metrics, mutations, reads
from controlplane.api.guard import MAX_BODY_BYTES, guard
from controlplane.api.listen import ListenError, Server, serve
from controlplane.api.node import NODE, Api, NodeApi

__all__ = ["ListenError", "NodeApi", "Server", "make_app", "serve"]


def make_app(node: NodeApi, lacks: Callable[[], Sequence[str]] | None = None) -> web.Application:
    """The API of one node. `lacks`: what it still waits for, in words, () = ready; None: what its view says."""
    app = web.Application(middlewares=[guard], client_max_size=MAX_BODY_BYTES)
    app[NODE] = Api(node, lacks)
    app.add_routes(
        [
            web.get("/v1/status", reads.get_status),
            web.get("/v1/explain/{service}", reads.get_explain),
            web.get("/v1/decisions/{id}", reads.get_decision),
            web.get("/v1/decisions/{id}/record", reads.get_record),
            web.get("/v1/overrides", reads.get_overrides),
            web.get("/v1/config", reads.get_config),
            web.get("/v1/whatif", reads.get_whatif),
            web.get("/v1/verify", reads.get_verify),
            web.get("/v1/events", reads.get_events),
            web.get("/metrics", metrics.get_metrics),
            web.get("/healthz", reads.get_healthz),
            web.get("/readyz", reads.get_readyz),
            web.post("/v1/overrides", mutations.post_override),
            web.delete("/v1/overrides/{id}", mutations.delete_override),
            web.post("/v1/unfreeze", mutations.post_unfreeze),
            web.post("/v1/adopt", adopting.post_adopt),
            web.post("/v1/apply", mutations.post_apply),
        ]
    )
    return app
