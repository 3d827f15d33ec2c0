"""Reads and transactions on etcd."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from aetcd import rpc  # type: ignore[import-untyped]
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from controlplane.store import (
    KV,
    Compare,
    Delete,
    OutcomeUnknown,
    Put,
    Snapshot,
    Txn,
    TxnResult,
    Unavailable,
    check_txn,
)
from controlplane.store.etcd.credentials import Credentials
from controlplane.store.etcd.health import StoreHealth, ask
from controlplane.store.etcd.link import TRY_S, Again, Elsewhere, Endpoint, Endpoints, Gone, PermissionDenied
from controlplane.store.etcd.watch import EtcdWatch, any_key, range_end

CALL_S = 10.0  # after which no further endpoint is tried
PAGE = 500  # keys of a range in one reply
RESTARTS = 5  # of a range whose revision was compacted between two pages


class EtcdStore:
    """Implements Store.

    endpoints: URLs with a port, "https://198.51.100.1:2379"; the first one that serves is used until it fails.
    rng: spreads the pauses between rounds over the endpoints. To be used on one event loop, and closed there.

    A transaction that was sent and not answered within a second raises OutcomeUnknown; all else that goes wrong is
    tried at the other endpoints for ten seconds, then raises Unavailable. PermissionDenied (an Unavailable) and a
    request that is too large (StoreError) are said at once. So is want of space: OutcomeUnknown for the first write
    that meets it, Unavailable for those after it.
    """

    def __init__(
        self, endpoints: Sequence[str], credentials: Credentials | None = None, *, rng: random.Random | None = None
    ) -> None:
        self._links = Endpoints(endpoints, credentials)
        self._rng = rng or random.Random()
        self._watches: dict[EtcdWatch, None] = {}

    async def get(self, key: str) -> KV | None:
        reply = await self._read(rpc.RangeRequest(key=key.encode()), key)
        return _kv(reply.kvs[0]) if reply.kvs else None

    async def range(self, prefix: str) -> Snapshot:
        for _ in range(RESTARTS):
            try:
                return await self._pages(prefix)
            except Gone:
                continue
        raise Unavailable(f"{prefix} was compacted again and again while it was read")

    async def txn(self, txn: Txn) -> TxnResult:
        """Raises ValueError for a key written twice and for over 128 operations."""
        check_txn(txn)
        request = rpc.TxnRequest(compare=[_compare(c) for c in txn.compare], success=[_op(op) for op in txn.then])

        async def once(endpoint: Endpoint, try_s: float) -> Any:
            await endpoint.prove()
            return await endpoint.call(endpoint.kv.Txn, request, TRY_S)

        try:
            reply = await self._anywhere(once, lambda error: isinstance(error, Elsewhere) and error.sure)
        except Elsewhere as error:
            if error.sure:
                raise Unavailable(self._links.why()) from error
            raise OutcomeUnknown(f"etcd: {error}") from error
        except PermissionDenied as error:
            keys = sorted({op.key for op in txn.then} | {c.key for c in txn.compare})
            raise self._denied(error, f"write {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}") from error
        return TxnResult(reply.succeeded, reply.header.revision)

    def watch(self, prefix: str, from_rev: int) -> EtcdWatch:
        """Survives the loss of its endpoint; raises Unavailable when for ten seconds none serves."""
        if from_rev < 1:
            raise ValueError(f"a watch starts at revision 1 or later, not {from_rev}")
        watch = EtcdWatch(self, self._links, prefix, from_rev, self._rng, lambda: self._watches.pop(watch, None))
        self._watches[watch] = None
        return watch

    # --- what only etcd has ---

    async def revision(self, prefix: str) -> int:
        """The store's, by a linearizable read of whatever stands below `prefix`."""
        return int((await self._read(any_key(prefix), prefix)).header.revision)

    async def compact(self, rev: int) -> None:
        """Forget the events before `rev`; done already is done. Raises ValueError for one that is still to come."""
        try:
            await self._anywhere(
                lambda endpoint, try_s: endpoint.call(endpoint.kv.Compact, rpc.CompactionRequest(revision=rev), try_s),
                lambda error: isinstance(error, Elsewhere),
            )
        except Elsewhere as error:
            raise Unavailable(self._links.why()) from error
        except Gone as gone:
            if "future" in str(gone):
                raise ValueError(f"revision {rev} is still to come") from gone

    async def health(self) -> StoreHealth:
        """What each member says, asked for at most a second. Raises Unavailable only for certificates' files."""
        return await ask(self._links)

    async def reload(self) -> None:
        """Read the certificates again, and use them. Raises Unavailable, and goes on as before, if that fails."""
        await self._links.reload()

    async def aclose(self) -> None:
        """Ends watches and calls under way."""
        for watch in list(self._watches):
            await watch.aclose()
        await self._links.close()

    # --- inside ---

    async def _read(self, request: Any, what: str) -> Any:
        try:
            return await self._anywhere(
                lambda endpoint, try_s: endpoint.call(endpoint.kv.Range, request, try_s),
                lambda error: isinstance(error, Elsewhere),
            )
        except Elsewhere as error:
            raise Unavailable(self._links.why()) from error
        except PermissionDenied as error:
            raise self._denied(error, f"read {what}") from error

    async def _pages(self, prefix: str) -> Snapshot:
        """All pages at the revision of the first. Raises Gone."""
        items: list[KV] = []
        key, rev = prefix.encode() or b"\0", 0
        while True:
            request = rpc.RangeRequest(key=key, range_end=range_end(prefix), limit=PAGE, revision=rev)
            reply = await self._read(request, prefix)
            rev = rev or reply.header.revision
            items.extend(_kv(kv) for kv in reply.kvs)
            if not reply.more:
                return Snapshot(rev, tuple(items))
            key = reply.kvs[-1].key + b"\0"

    async def _anywhere(
        self, once: Callable[[Endpoint, float], Awaitable[Any]], again: Callable[[BaseException], bool]
    ) -> Any:
        """`once(endpoint, patience in seconds)` at one endpoint after the other; each round is more patient."""
        loop = asyncio.get_running_loop()
        until = loop.time() + CALL_S
        attempts = AsyncRetrying(
            retry=retry_if_exception(again),
            stop=lambda state: loop.time() >= until,
            wait=self._pause_s,
            sleep=asyncio.sleep,
            reraise=True,
        )
        async for attempt in attempts:
            with attempt:
                endpoint = self._links.current
                rounds = (attempt.retry_state.attempt_number - 1) // len(self._links)
                started = loop.time()
                try:
                    return await once(endpoint, TRY_S * (1 + rounds))
                except Elsewhere as error:
                    if not isinstance(error, Again):
                        self._links.leave(endpoint, str(error))
                    raise
                except asyncio.CancelledError:
                    if loop.time() - started > TRY_S / 2:  # its caller has less patience, and comes again
                        self._links.leave(endpoint, "no reply in time")
                    raise
        raise AssertionError("unreachable: the last attempt raises")

    def _pause_s(self, state: RetryCallState) -> float:
        """After each round over the endpoints."""
        return self._rng.uniform(0.1, 0.3) if state.attempt_number % len(self._links) == 0 else 0.0

    def _denied(self, error: PermissionDenied, deed: str) -> PermissionDenied:
        credentials = self._links.credentials
        who = f"the user named by {credentials.cert}" if credentials else "a client without a certificate"
        return PermissionDenied(f"etcd: {who} may not {deed} ({error})")


def _kv(kv: Any) -> KV:
    return KV(kv.key.decode(), kv.value, kv.mod_revision)


def _compare(compare: Compare) -> Any:
    key = compare.key.encode()
    if compare.value is not None:
        return rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.VALUE, key=key, value=compare.value)
    return rpc.Compare(result=rpc.Compare.EQUAL, target=rpc.Compare.MOD, key=key, mod_revision=compare.mod_rev)


def _op(op: Put | Delete) -> Any:
    if isinstance(op, Put):
        return rpc.RequestOp(request_put=rpc.PutRequest(key=op.key.encode(), value=op.value))
    return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=op.key.encode()))
