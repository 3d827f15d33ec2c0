"""A headless Chromium for tests, driven over its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

BINARY = "/usr/bin/chromium"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
START_S, ANSWER_S = 30.0, 20.0

Doc = dict[str, Any]


class Missing(Exception):
    """There is no Chromium here; says what installs it."""


class Chromium:
    """An asynchronous context manager: one browser with one page. `profile`: a directory that is not there yet."""

    def __init__(self, profile: Path, binary: str = BINARY) -> None:
        if shutil.which(binary) is None:
            raise Missing(f"{binary} is missing: apt-get install --yes chromium (or: make servers)")
        self._profile, self._binary = profile, binary
        self.events: list[Doc] = []
        self._replies: dict[int, asyncio.Future[Doc]] = {}
        self._numbers = itertools.count(1)
        self._loaded = asyncio.Event()

    async def __aenter__(self) -> Chromium:
        self._process = await asyncio.create_subprocess_exec(
            self._binary,
            *FLAGS,
            f"--user-data-dir={self._profile}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # so that all of its processes can be ended
        )
        self._session = aiohttp.ClientSession(trust_env=False)
        try:
            await self._connect()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader
        await self._socket.close()
        await self._end()

    async def _end(self) -> None:
        await self._session.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()

    async def _connect(self) -> None:
        port = await self._wait(self._port)
        self._socket = await self._session.ws_connect(await self._wait(lambda: self._page(port)), max_msg_size=2**27)
        self._reader = asyncio.ensure_future(self._read())
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")

    async def _wait(self, look: Callable[[], Any]) -> str:
        """What `look` gives, as soon as it gives something."""
        until = asyncio.get_running_loop().time() + START_S
        while True:
            found: str = await look()
            if found:
                return found
            code = self._process.returncode
            if code is not None or asyncio.get_running_loop().time() > until:
                raise RuntimeError(f"{self._binary} did not start within {START_S:g} s (exit code {code})")
            await asyncio.sleep(0.05)

    async def _port(self) -> str:
        """Chromium writes its port there once it listens."""
        with suppress(FileNotFoundError):
            return (self._profile / "DevToolsActivePort").read_text().split("\n")[0]
        return ""

    async def _page(self, port: str) -> str:
        async with self._session.get(f"http://127.0.0.1:{port}/json/list") as reply:
            pages = await reply.json(content_type=None)
        return next((str(p["webSocketDebuggerUrl"]) for p in pages if p["type"] == "page"), "")

    async def _read(self) -> None:
        async for message in self._socket:
            doc: Doc = json.loads(message.data)
            if "id" in doc:
                self._replies.pop(doc["id"]).set_result(doc)
                continue
            self.events.append(doc)
            if doc["method"] == "Page.loadEventFired":
                self._loaded.set()

    async def call(self, method: str, **params: Any) -> Doc:
        """One command of the protocol. Raises RuntimeError with what Chromium says against it."""
        number = next(self._numbers)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        doc = await asyncio.wait_for(reply, ANSWER_S)
        if "error" in doc:
            raise RuntimeError(f"{method}: {doc['error']}")
        result: Doc = doc["result"]
        return result

    async def open(self, url: str, width: int, dark: bool = False, media: str = "screen") -> None:
        """Load a page in a window of this width; what happens from now on is in `events`."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.events.clear()
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), ANSWER_S)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"])
        return result["result"].get("value")

    async def screenshot(self) -> bytes:
        """All of the page, also what is below the window, as PNG."""
        shot = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def said(self) -> list[str]:
        """Errors, exceptions and console messages since the page was opened."""
        found = []
        for event in self.events:
            params = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(params["exceptionDetails"]))
            elif event["method"] == "Runtime.consoleAPICalled":
                found.append(f"console.{params['type']}: {params['args']}")
            elif event["method"] == "Log.entryAdded":
                found.append(f"{params['entry']['level']}: {params['entry']['text']}")
        return found

    def requested(self) -> list[str]:
        """URLs that were asked for since the page was opened."""
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]
