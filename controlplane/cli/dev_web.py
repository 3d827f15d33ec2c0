"""The demo web service of `failoverctl dev`: says which site it is, and that it is well."""

from __future__ import annotations

from aiohttp import web


class WebService:
    """One site's service, on its own loopback address. stop() ends it as a crash would: connections refused."""

    def __init__(self, site: str, address: str, port: int) -> None:
        self.site, self.address, self.port = site, address, port
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Raises OSError if the address cannot be bound."""
        app = web.Application()
        app.router.add_get("/{path:.*}", self._hello)  # whatever path a check asks for
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.address, self.port, reuse_address=True).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _hello(self, request: web.Request) -> web.Response:
        return web.Response(text=f"hello from {self.site}\nok\n")
