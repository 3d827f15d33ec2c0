"""What stands before every handler: who may ask, what may be sent, and that every error is JSON.

Until the API has authentication, being on this machine is the only credential. So it listens on loopback only;
a Host header that is not loopback is refused (a web page whose name is rebound to 127.0.0.1 sends its own name);
and what changes something has to be application/json, which no web page can send to another origin unasked.
"""

from __future__ import annotations

import ipaddress
import logging
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 4 * 1024 * 1024  # a configuration of 1 MiB, escaped


class Refusal(Exception):
    """Ends a request with an error document. `detail` is added to it."""

    def __init__(self, status: int, error: str, **detail: Any) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.detail = detail


def reply(document: Any, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(document),
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def is_loopback(host: str) -> bool:
    """ "127.0.0.1", "::1", "[::1]", "localhost": names and addresses that are this machine only."""
    host = host.removeprefix("[").removesuffix("]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host_of(header: str) -> str:
    """The host that is meant by a Host header, or ""."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""


def _origin_of(header: str) -> str:
    """The host of an Origin header (RFC 6454), or "" for what has none."""
    try:
        return urlsplit(header).hostname or ""
    except ValueError:
        return ""


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what does not come from this machine's own tools; turn every error into JSON."""
    try:
        if not is_loopback(_host_of(request.headers.get("Host", ""))):
            raise Refusal(403, "the Host header does not name this machine")
        if request.method not in ("GET", "HEAD"):
            if request.content_type != "application/json":
                raise Refusal(415, "send Content-Type: application/json")
            origin = request.headers.get("Origin")
            if origin is not None and not is_loopback(_origin_of(origin)):
                raise Refusal(403, "requests from other origins are refused")
        return await handler(request)
    except Refusal as refusal:
        return reply({"ok": False, "error": refusal.error, **refusal.detail}, refusal.status)
    except web.HTTPException as error:
        return reply({"ok": False, "error": f"{error.status} {error.reason}"}, error.status)
    except Exception:
        log.exception("%s %s", request.method, request.path)
        # A bug may have struck after the store was asked.
        return reply({"ok": False, "error": "internal error; the log has it", "sent": True}, 500)
