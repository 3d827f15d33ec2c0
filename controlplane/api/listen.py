"""Listening. Loopback only, until the API has authentication."""

from __future__ import annotations

import asyncio
import errno
import logging

from aiohttp import web
from aiohttp.http import HttpProcessingError

from controlplane.api.guard import is_loopback

log = logging.getLogger(__name__)


class _OurFaults(logging.Filter):
    """Lets through what aiohttp's server says, but for what clients do: anybody can send nonsense, or hang up."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError):
            return True
        log.debug("%s: %s", record.getMessage(), " ".join(str(error).split())[:200])
        return False


_server_log = logging.getLogger(f"{__name__}.server")
_server_log.addFilter(_OurFaults())


class ListenError(Exception):
    """The address is not loopback, or cannot be had."""


class Server:
    """An API that listens. `url` has the port that was given."""

    def __init__(self, runner: web.AppRunner, url: str, port: int) -> None:
        self._runner = runner
        self.url = url
        self.port = port

    async def aclose(self) -> None:
        """Stop listening, and end open event streams."""
        await self._runner.cleanup()


async def serve(app: web.Application, host: str, port: int) -> Server:
    """Listen on `host`, a loopback address; port 0 takes a free one. Raises ListenError."""
    if not is_loopback(host):
        raise ListenError(
            f"the API has no authentication yet and listens on loopback only: {host} is refused; use 127.0.0.1"
        )
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0, logger=_server_log)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
    except OSError as error:
        await runner.cleanup()
        why = "in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error))
        raise ListenError(f"cannot listen on {host}:{port}: {why}") from None
    except asyncio.CancelledError:
        await runner.cleanup()
        raise
    given: int = runner.addresses[0][1]
    name = f"[{host}]" if ":" in host else host
    return Server(runner, f"http://{name}:{given}", given)
