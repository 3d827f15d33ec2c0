"""Asking a cluster's API: every endpoint is tried, and every answer says where it came from and how old it is."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from controlplane.cli.context import Code, Run, Stop
from controlplane.cli.discovery import DiscoveryError, find

Doc = dict[str, Any]
FRESH_S = 3.0  # an answer older than this is stale: the other endpoints are asked too
HEDGE_S = 1.0  # without an answer for so long, the next endpoint is asked as well
DEFAULT_API = "http://127.0.0.1:8600"  # where failoverd listens, if it is not told otherwise
_MAX_EVENT_BYTES = 16 * 1024 * 1024


class Unreachable(Exception):
    """Nobody answered. `sent`: an endpoint may have received the request all the same."""

    def __init__(self, reasons: Mapping[str, str], sent: bool) -> None:
        said = [f"{url}: {why}" for url, why in reasons.items()]
        if list(reasons) == [DEFAULT_API]:
            said.append("start a cluster with `failoverctl dev` or failoverd, or name one's API with --api URL")
        super().__init__("; ".join(said))
        self.sent = sent


class ApiError(Exception):
    """The API said no. `status` is HTTP's; `doc` has at least `error`."""

    def __init__(self, status: int, doc: Doc) -> None:
        super().__init__(str(doc.get("error", f"HTTP {status}")))
        self.status = status
        self.doc = doc


def endpoints(run: Run) -> tuple[str, ...]:
    """The API addresses to try: --api, else those of the one dev cluster that runs here, else this machine's own
    failoverd.

    Raises Stop: the directory of dev clusters cannot be trusted (4), or there are several to choose from (2).
    """
    if run.api:
        return run.api
    try:
        running = find()
    except DiscoveryError as error:
        raise Stop(Code.UNKNOWN, f"{error}. Or name a cluster's API with --api URL.") from None
    if not running:
        return (DEFAULT_API,)
    if len(running) > 1:
        choices = "\n".join(f"  {r.cluster}: --api {','.join(r.api)}" for r in running)
        raise Stop(Code.USAGE, f"Several clusters run here; choose one:\n{choices}")
    return running[0].api


class Client:
    """An asynchronous context manager. The endpoint that answered last is asked first next time."""

    def __init__(self, urls: Sequence[str], timeout_s: float) -> None:
        self._urls = list(urls)
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._run: Run | None = None
        self._reasons: dict[str, str] = {}

    @classmethod
    def of(cls, run: Run) -> Client:
        urls = endpoints(run)
        client = (run.connect or cls)(sorted(urls, key=lambda url: url != run.answered), run.timeout_s)
        client._run = run
        return client

    async def __aenter__(self) -> Client:
        # No proxies from the environment: what we ask is on this machine.
        self._session = aiohttp.ClientSession(trust_env=False, cookie_jar=aiohttp.DummyCookieJar())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, params: Sequence[tuple[str, str]] = ()) -> Doc:
        """The freshest answer: the first of a node whose view is current and not stale, else the youngest.

        Raises ApiError for a refusal, Unreachable if nobody answers.
        """
        youngest: Doc | None = None
        async with aclosing(self._answers("GET", path, params, None)) as answers:
            async for url, doc in answers:
                if is_current(doc) and _age_s(doc) <= FRESH_S:
                    self._prefer(url)
                    return doc
                if youngest is None or _age_s(doc) < _age_s(youngest):
                    youngest = doc
        if youngest is None:
            raise Unreachable(self._reasons, sent=False)
        return youngest

    async def send(self, method: str, path: str, body: Doc, *, harmless: bool = False) -> Doc:
        """A mutation, or a harmless dry run of one. Once somebody may have received a mutation, nobody else is
        asked: it must not take effect twice.

        Raises ApiError for a refusal, Unreachable if nobody said what became of it.
        """
        if harmless:
            async with aclosing(self._answers(method, path, (), body)) as answers:
                async for url, doc in answers:
                    self._prefer(url)
                    return doc
            raise Unreachable(self._reasons, sent=False)
        reasons: dict[str, str] = {}
        for url in list(self._urls):
            try:
                doc = await self.once(method, url, path, (), body)
            except NoAnswer as error:
                reasons[url] = error.why
                if error.sent:
                    raise Unreachable(reasons, sent=True) from None
                continue
            except ApiError as error:
                if error.status < 500:
                    raise
                reasons[url] = str(error)
                if error.doc.get("sent"):
                    raise Unreachable(reasons, sent=True) from None
                continue
            self._prefer(url)
            return doc
        raise Unreachable(reasons, sent=False)

    async def _answers(
        self, method: str, path: str, params: Sequence[tuple[str, str]], body: Doc | None
    ) -> AsyncGenerator[tuple[str, Doc], None]:
        """(endpoint, document) as they come, of a request that changes nothing.

        The next endpoint is asked as soon as one failed, or did not answer within HEDGE_S, while the others are
        still waited for; all within the time-out.
        Why the others gave none stands in `_reasons`. Raises ApiError for a refusal."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout_s
        self._reasons = {}
        waiting = list(self._urls)
        asked: dict[asyncio.Task[Doc], str] = {}
        try:
            while (waiting or asked) and loop.time() < until:
                if waiting:
                    url = waiting.pop(0)
                    asked[asyncio.ensure_future(self.once(method, url, path, params, body))] = url
                left_s = until - loop.time()
                patience_s = min(HEDGE_S, left_s) if waiting else left_s
                done, _ = await asyncio.wait(asked, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in asked if task in done]:  # in the order in which they were asked
                    url = asked.pop(task)
                    try:
                        doc = task.result()
                    except NoAnswer as error:
                        self._reasons[url] = error.why
                    except ApiError as error:
                        if error.status < 500:
                            raise
                        self._reasons[url] = str(error)
                    else:
                        yield url, doc
            self._reasons |= dict.fromkeys((*asked.values(), *waiting), "time-out")
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def events(self, path: str) -> AsyncGenerator[tuple[str, Doc], None]:
        """(endpoint, document) of a stream of server-sent events, from whoever answers first. Ends when that
        one goes away or falls silent for longer than the time-out; raises Unreachable if nobody answers."""
        reasons: dict[str, str] = {}
        for url in list(self._urls):
            heard = False
            try:
                async with aclosing(self._stream(url, path)) as stream:
                    async for doc in stream:
                        heard = True
                        yield url, doc
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                reasons[url] = _why(error)
            else:
                reasons[url] = "ended"
            if heard:
                self._urls.append(self._urls.pop(self._urls.index(url)))
                return
        raise Unreachable(reasons, sent=False)

    async def _stream(self, url: str, path: str) -> AsyncGenerator[Doc, None]:
        # A healthy stream speaks each second: silence for longer is a reason to ask somebody else.
        patience_s = min(self._timeout_s, FRESH_S)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=patience_s, sock_read=patience_s)
        headers = {"Accept": "text/event-stream"}
        async with self._http.get(url + path, timeout=timeout, headers=headers, allow_redirects=False) as reply:
            if reply.status != 200:
                raise ValueError(f"HTTP {reply.status}")
            pending = b""
            async for chunk in reply.content.iter_any():
                pending += chunk
                *whole, pending = pending.split(b"\n\n")
                if len(pending) > _MAX_EVENT_BYTES:
                    raise ValueError("an event without end")
                for block in whole:
                    lines = (line[5:] for line in block.split(b"\n") if line.startswith(b"data:"))
                    data = b"\n".join(line.removeprefix(b" ") for line in lines)
                    if data:
                        yield json.loads(data)

    def _prefer(self, url: str) -> None:
        self._urls.remove(url)
        self._urls.insert(0, url)
        if self._run is not None:
            self._run.answered = url

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("use the client as a context manager")
        return self._session

    async def once(self, method: str, url: str, path: str, params: Sequence[tuple[str, str]], body: Doc | None) -> Doc:
        """Ask one endpoint. Raises NoAnswer, or ApiError for a refusal."""
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            async with self._http.request(
                method, url + path, params=list(params), json=body, timeout=timeout, allow_redirects=False
            ) as reply:
                raw = await reply.read()
                return decode_reply(reply.status, raw)
        except aiohttp.ClientConnectorError as error:
            raise NoAnswer(_why(error), sent=False) from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NoAnswer(_why(error), sent=True) from None


class NoAnswer(Exception):
    """Of one endpoint. `sent`: it may have received the request all the same."""

    def __init__(self, why: str, sent: bool) -> None:
        super().__init__(why)
        self.why = why
        self.sent = sent


def decode_reply(status: int, raw: bytes) -> Doc:
    """The document of a reply. Raises ApiError for a refusal, NoAnswer for what is no document of ours."""
    try:
        doc = json.loads(raw)
    except ValueError:
        doc = None
    if not isinstance(doc, dict):
        raise NoAnswer(f"HTTP {status}, and not a document of ours", sent=True)
    if status >= 400:
        raise ApiError(status, doc)
    return doc


def _age_s(doc: Doc) -> float:
    age_s = doc.get("source", {}).get("age_s")
    return float("inf") if age_s is None else float(age_s)


def is_current(doc: Doc) -> bool:
    """Does the node that said this see the store's changes as they come? True for what says nothing of it."""
    return bool(doc.get("source", {}).get("current", True))


def _why(error: BaseException) -> str:
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return "time-out"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        return os.strerror(number).lower() if number else str(error.os_error)
    return str(error) or type(error).__name__


def nobody(error: Unreachable) -> Stop:
    """The end of a read that nobody answered."""
    return Stop(Code.UNKNOWN, f"Nobody to ask. {error}")


def port_of(url: str) -> str:
    """ "127.0.0.1:8053": an endpoint as people read it."""
    return urlsplit(url).netloc
