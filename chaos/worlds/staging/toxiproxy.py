"""One toxiproxy server's API (github.com/Shopify/toxiproxy, README "HTTP API"), over toxiproxy-python.

Only its APIConsumer is used, as a subclass for each server. The classes above it (Toxiproxy, Proxy) share one
APIConsumer, whose host and port are class attributes, and give their requests no time-out: one server that hangs
would keep a drill from healing all others.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct
from toxiproxy.api import APIConsumer  # type: ignore[import-untyped]
from toxiproxy.exceptions import InvalidToxic, NotFound, ProxyExists  # type: ignore[import-untyped]

TIMEOUT_S = 2.0  # for the connection, and again for each piece of the answer
# What a drill adds to a proxy has a name that begins so: whoever looks can tell it from what others added.
PREFIX = "drill-"


class Toxic(Struct, frozen=True):
    """toxicity: the share of connections that it is for, drawn for each. Units of attributes: ms, KB/s."""

    name: str
    type: str
    stream: str = "downstream"  # to the client; upstream: from it
    toxicity: float = 1.0
    attributes: dict[str, int] = {}

    @property
    def ours(self) -> bool:
        return self.name.startswith(PREFIX)


class Proxy(Struct, frozen=True):
    name: str
    listen: str
    upstream: str
    enabled: bool
    toxics: tuple[Toxic, ...] = ()


class ToxiproxyError(Exception):
    """It did not answer, or refused; says which server and why."""


class _Absent(ToxiproxyError):
    """What was asked for is not there."""


class _There(ToxiproxyError):
    """One of that name is there already."""


class Toxiproxy:
    """Synchronous, and safe to use in several threads. Every method raises ToxiproxyError."""

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urlsplit(url)
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        self._api = type("_Api", (APIConsumer,), {"host": host, "port": parts.port or 80})

    def version(self) -> str:
        """ "2.12.0"; "git" if it was built by `go install`."""
        reply = self._call("get", "/version")
        try:  # before 2.5 the bare word
            return str(msgspec.json.decode(reply, type=dict[str, str])["version"])
        except (msgspec.MsgspecError, KeyError):
            return str(reply.decode("ascii", "replace").strip()[:40])

    def proxies(self) -> dict[str, Proxy]:
        reply = self._call("get", "/proxies")
        try:
            return msgspec.json.decode(reply, type=dict[str, Proxy])
        except msgspec.MsgspecError as error:
            raise ToxiproxyError(f"toxiproxy {self.url}: not an answer of toxiproxy: {error}") from None

    def add(self, proxy: str, toxic: Toxic) -> None:
        """One of that name that is there already stays as it is."""
        try:
            self._call("post", f"/proxies/{proxy}/toxics", msgspec.to_builtins(toxic))
        except _There:
            return

    def remove(self, proxy: str, toxic: str) -> None:
        """One that is not there is removed."""
        try:
            self._call("delete", f"/proxies/{proxy}/toxics/{toxic}")
        except _Absent:
            return

    def enable(self, proxy: str, enabled: bool) -> None:
        """A disabled proxy refuses connections, and has ended those that there were."""
        self._call("post", f"/proxies/{proxy}", {"enabled": enabled})

    def _call(self, method: str, path: str, body: Any = None) -> bytes:
        """What it answered."""
        # Without proxies of the environment: like failoverctl, what is asked is asked directly.
        more: dict[str, Any] = {"timeout": TIMEOUT_S, "proxies": {"http": None, "all": None}, "allow_redirects": False}
        if body is not None:
            more["json"] = body
        try:
            reply = getattr(self._api, method)(path, **more)
        except NotFound:
            raise _Absent(f"toxiproxy {self.url} knows nothing of {path}") from None
        except ProxyExists:
            raise _There(f"toxiproxy {self.url} has {path} already") from None
        except OSError as error:  # what requests raises is one
            raise ToxiproxyError(f"toxiproxy {self.url} does not answer: {_why(error)}") from error
        except InvalidToxic as error:
            raise ToxiproxyError(f"toxiproxy {self.url} refuses {method} {path}: {error}") from error
        if reply.status_code >= 300:
            raise ToxiproxyError(f"toxiproxy {self.url}: HTTP {reply.status_code} to {method} {path}")
        found: bytes = reply.content
        return found


def _why(error: BaseException) -> str:
    """The first words of what is at the bottom of it."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, TimeoutError) or "Timeout" in type(inner).__name__:
            return "time-out"
        if isinstance(inner, OSError) and inner.strerror:
            return inner.strerror.lower()
        inner = inner.__context__
    return type(error).__name__
