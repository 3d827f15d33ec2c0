"""etcd's endpoints: one channel each, the one in use, and what the errors of a call mean.

An endpoint is left for the next as soon as it fails, and used until then: what a client wrote it reads fastest where
it wrote. Only what surely was not applied may be tried elsewhere (`Elsewhere.sure`), reads may always.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
from aetcd import rpc  # type: ignore[import-untyped]

from controlplane.store import OutcomeUnknown, StoreError, Unavailable
from controlplane.store.etcd.credentials import Credentials, unfit

log = logging.getLogger(__name__)

TRY_S = 1.0  # patience with one endpoint
SETTLE_S = 0.05  # gRPC's own thread hands in the ends of cancelled calls, and should find the loop still open
# Without it a member that is cut off from its peers keeps quiet on a watch, and answers as if all were well.
META = (("hasleader", "true"),)
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),  # what may be repeated is decided here
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),  # how long a connection may take to be made
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Sets TCP_USER_TIMEOUT: a connection over a link that was cut is given up, not kept for a quarter of an hour.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 3_000),
)
# With TimeoutError all that a call of grpc.aio raises; InvalidStateError: write() on a call that has ended.
CALL_ERRORS = (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError, TimeoutError)
OUT_OF_SPACE = "etcd is out of space (alarm NOSPACE): compact, defragment, then `etcdctl alarm disarm`"
# etcd refuses these before it proposes them to the others (etcdserver/v3_server.go, api/v3rpc/interceptor.go).
_NOT_PROPOSED = ("no leader", "too many requests", "not capable", "not supported for learner")
# Users or roles were changed after etcd had looked who we are. No member applies it (etcdserver/apply_auth.go).
_OLD_AUTH = "revision of auth store is old"
_UNCONNECTED = re.compile(r"failed to connect to all addresses; last error: (?:\w+: )?(?:ipv[46]:\S+ )?(.*)", re.DOTALL)


class PermissionDenied(Unavailable):
    """etcd refused the request for who we are: nothing was applied. An administrator may grant it later."""


class Elsewhere(Exception):
    """This endpoint did not serve the request: try another. sure: nothing was applied."""

    def __init__(self, why: str, sure: bool) -> None:
        super().__init__(why)
        self.sure = sure


class Again(Elsewhere):
    """This endpoint is well, and refused the request for something that is over by now: nothing was applied."""


class Gone(Exception):
    """The revision asked for is compacted, or was never there."""


class Endpoint:
    """One member: `kv`, `watch` and `maintenance` are its stubs."""

    def __init__(self, links: Endpoints, url: str, channel: grpc.aio.Channel) -> None:
        self.url = url
        self.channel = channel
        self.why = ""  # it last failed
        self.kv = rpc.KVStub(channel)
        self.watch = rpc.WatchStub(channel)
        self.maintenance = rpc.MaintenanceStub(channel)
        self.cluster = rpc.ClusterStub(channel)
        self._links = links
        self._proven = False

    async def call(self, method: Any, request: Any, timeout_s: float) -> Any:
        """One unary call. Raises Elsewhere, Gone or StoreError."""
        try:
            reply = await method(request, timeout=timeout_s, metadata=META)
        except CALL_ERRORS as error:
            self._proven = False
            raise self._links.meaning(error) from error
        except asyncio.CancelledError:
            if cancelled():
                raise
            raise Elsewhere("the channel was closed", sure=False) from None
        self.check(reply.header)
        return reply

    async def prove(self) -> None:
        """Before a write on a new connection: a member of the right cluster answers there, knows a leader, has space.

        So what then goes wrong on the way there is known not to have been applied. Raises Elsewhere or StoreError.
        """
        if self._proven and not self._links.full and self.channel.get_state() is grpc.ChannelConnectivity.READY:
            return
        try:
            status = await self.call(self.maintenance.Status, rpc.StatusRequest(), TRY_S)
        except Elsewhere as error:
            raise Elsewhere(str(error), sure=True) from error
        self._links.full = any("NOSPACE" in text for text in status.errors)
        if self._links.full:
            raise Unavailable(OUT_OF_SPACE)
        self._proven = True

    def check(self, header: Any) -> None:
        """Of any reply. Raises Elsewhere if it comes from another cluster than the first one did."""
        links = self._links
        if not links.cluster_id:
            links.cluster_id = header.cluster_id
        elif header.cluster_id != links.cluster_id:
            why = f"is a member of another etcd cluster ({header.cluster_id:x}) than before ({links.cluster_id:x})"
            raise Elsewhere(why, sure=False)
        if self.why:
            log.info("etcd at %s serves again", self.url)
            self.why = ""


class Endpoints:
    """All endpoints, in the order of preference at the start. Channels are made at the first use."""

    def __init__(self, urls: Sequence[str], credentials: Credentials | None) -> None:
        for url in urls:
            _target(url)
        if not urls:
            raise ValueError("etcd needs at least one endpoint")
        self.urls = tuple(urls)
        self.credentials = credentials
        self.cluster_id = 0  # 0: nobody has answered yet
        self.full = False  # a write was refused for want of space, and since then no member has said that all is well
        self._all: list[Endpoint] = []
        self._at = 0
        self._closed = False
        self._ending: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self.urls)

    @property
    def closed(self) -> bool:
        return self._closed

    def all(self) -> list[Endpoint]:
        """Raises Unavailable if closed, or if a certificate's file cannot be read."""
        if self._closed:
            raise Unavailable("this store was closed")
        if not self._all:
            self._all = self._connect()
        return self._all

    @property
    def current(self) -> Endpoint:
        return self.all()[self._at]

    def leave(self, endpoint: Endpoint, why: str) -> None:
        """It failed: who still uses it goes to the next."""
        # Reads, writes and watches meet the same trouble in other ways: it is said once, until the endpoint serves.
        # A channel that was replaced ends what was under way on it, and that goes on at the new one.
        known = endpoint.why or endpoint not in self._all
        log.log(logging.DEBUG if known else logging.WARNING, "etcd at %s: %s", endpoint.url, why)
        endpoint.why = why
        if self._all and self._all[self._at] is endpoint:
            self._at = (self._at + 1) % len(self._all)

    def why(self) -> str:
        """Why none of them serves."""
        told = "; ".join(f"{endpoint.url}: {endpoint.why}" for endpoint in self._all if endpoint.why)
        return f"etcd does not serve: {told or 'no reply'}"

    def end(self, call: Any, reading: asyncio.Task[Any] | None) -> None:
        """Cancel a stream. Its read is not cancelled but left to end by that: what gRPC's core then hands in would
        otherwise come to a loop that may be closed."""
        call.cancel()
        if reading is not None:
            self._ending.add(reading)
            reading.add_done_callback(self._ended)

    def _ended(self, reading: asyncio.Task[Any]) -> None:
        self._ending.discard(reading)
        if not reading.cancelled():
            reading.exception()  # seen, and of no interest any more

    async def reload(self) -> None:
        """New channels with the files as they are now; what is under way on the old ones may end there within a try.
        Raises Unavailable, and changes nothing, if a file cannot be read or is of no use."""
        if self._closed or not self._all:
            return
        old, self._all = self._all, self._connect()
        await asyncio.gather(*(endpoint.channel.close(TRY_S) for endpoint in old))

    async def close(self) -> None:
        self._closed = True
        old, self._all = self._all, []
        if self._ending:
            await asyncio.wait(self._ending, timeout=TRY_S)
        for endpoint in old:
            await endpoint.channel.close()
        if old:
            await asyncio.sleep(SETTLE_S)

    def meaning(self, error: Exception) -> Exception:
        """Elsewhere, Gone or StoreError for what a call raised."""
        if not isinstance(error, grpc.aio.AioRpcError):
            return Elsewhere(str(error) or "no reply in time", sure=False)
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and not details.startswith("etcdserver:"):
            return Elsewhere("no reply in time", sure=False)
        if "required revision" in details:
            return Gone(details)
        if "database space exceeded" in details:
            # The write that uses up the quota is applied and refused (etcdserver/apply.go, quotaApplierV3); those
            # after the alarm are only refused. Which one this was is not said.
            self.full = True
            return OutcomeUnknown(OUT_OF_SPACE)
        if self.refuses(details) or code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
            return PermissionDenied(details)
        unconnected = _UNCONNECTED.match(details)
        if unconnected:  # gRPC, of a call that never left
            refused = "our certificate was refused? " if "TSI_DATA_CORRUPTED" in details else ""  # a TLS alert
            return Elsewhere(f"no connection: {refused}{unconnected[1]}", sure=True)
        if details.startswith("etcdserver:") and any(reason in details for reason in _NOT_PROPOSED):
            return Elsewhere(details, sure=True)
        if _OLD_AUTH in details:
            return Again(details, sure=True)
        if "larger than max" in details or code in (
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.FAILED_PRECONDITION,
        ):
            return StoreError(f"etcd refused the request: {details}")
        return Elsewhere(f"{code.name}: {details}", sure=False)

    @staticmethod
    def refuses(details: str) -> bool:
        """Is it about who we are?"""
        return any(reason in details for reason in ("permission denied", "user name is empty", "invalid auth token"))

    def _connect(self) -> list[Endpoint]:
        tls = _tls(self.credentials) if any(url.startswith("https:") for url in self.urls) else None
        found = []
        for url in self.urls:
            if url.startswith("https:"):
                assert tls is not None
                channel = grpc.aio.secure_channel(_target(url), tls, options=_OPTIONS)
            else:
                channel = grpc.aio.insecure_channel(_target(url), options=_OPTIONS)
            found.append(Endpoint(self, url, channel))
        return found


def _target(url: str) -> str:
    """host:port. Raises ValueError for what is no endpoint."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port is None or parts.path not in ("", "/"):
        raise ValueError(f"{url!r} is no etcd endpoint, like https://198.51.100.1:2379")
    return parts.netloc


def _tls(credentials: Credentials | None) -> grpc.ChannelCredentials:
    """Raises Unavailable. gRPC itself takes whatever it is given, and then connects to nobody."""
    if credentials is None:
        return grpc.ssl_channel_credentials()
    if faults := unfit(credentials):
        raise Unavailable("; ".join(faults.values()))
    try:
        ca, key, cert = (Path(path).read_bytes() for path in (credentials.ca, credentials.key, credentials.cert))
    except OSError as error:  # gone since
        raise Unavailable(f"cannot read {error.filename}: {error.strerror}") from error
    return grpc.ssl_channel_credentials(ca, key, cert)


def cancelled() -> bool:
    """Is this task being cancelled? grpc.aio raises CancelledError too where its channel was closed."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
