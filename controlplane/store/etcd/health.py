"""What etcd's members say of themselves: for readyz and doctor."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aiohttp
from aetcd import rpc  # type: ignore[import-untyped]
from msgspec import Struct

from controlplane.store import StoreError
from controlplane.store.etcd.credentials import Credentials
from controlplane.store.etcd.link import TRY_S, Elsewhere, Endpoint, Endpoints, Gone

DEFAULT_QUOTA_BYTES = 2 * 1024**3  # where etcd does not say (its documentation, "Storage size limit")
METRICS_BYTES = 4 << 20  # etcd says some 200 KB
_ALARM = re.compile(r"alarm:(\w+)")  # AlarmMember's text form, in StatusResponse.errors
_QUOTA = re.compile(r"^etcd_server_quota_backend_bytes (\S+)$", re.MULTILINE)


class MemberHealth(Struct, frozen=True):
    """One endpoint. With reachable False, `why` says why and the rest is not known.

    quota_bytes: 0 = not known (it is read from /metrics at the same address)."""

    endpoint: str
    reachable: bool
    why: str = ""
    name: str = ""
    leader: bool = False
    db_bytes: int = 0
    in_use_bytes: int = 0
    quota_bytes: int = 0
    alarms: tuple[str, ...] = ()
    version: str = ""
    cluster_id: str = ""

    @property
    def fills(self) -> str:
        """How much of its quota, for people."""
        return f"{self.db_bytes / 2**20:.0f} of {self._quota / 2**20:.0f} MiB"

    @property
    def half_full(self) -> bool:
        """There is still time to do something; at the quota it takes no writes."""
        return self.db_bytes >= self._quota / 2

    @property
    def _quota(self) -> int:
        return self.quota_bytes or DEFAULT_QUOTA_BYTES


class StoreHealth(Struct, frozen=True):
    """members: one for each endpoint, in the order given. cluster_id: hexadecimal, of the first that ever answered."""

    members: tuple[MemberHealth, ...]
    cluster_id: str

    @property
    def majority(self) -> bool:
        """Do more than half of the endpoints answer, and know a leader?"""
        return 2 * sum(member.reachable for member in self.members) > len(self.members)

    @property
    def alarms(self) -> tuple[str, ...]:
        return tuple(sorted({alarm for member in self.members for alarm in member.alarms}))


async def ask(links: Endpoints) -> StoreHealth:
    """All endpoints at once."""
    endpoints = links.all()
    members = await asyncio.gather(*(_member(endpoint, links.credentials) for endpoint in endpoints))
    return StoreHealth(tuple(members), f"{links.cluster_id:x}" if links.cluster_id else "")


async def _member(endpoint: Endpoint, credentials: Credentials | None) -> MemberHealth:
    try:
        status = await endpoint.call(endpoint.maintenance.Status, rpc.StatusRequest(), TRY_S)
    except (Elsewhere, Gone, StoreError) as error:
        return MemberHealth(endpoint.url, False, str(error))
    member = status.header.member_id
    name, quota_bytes = await asyncio.gather(_name(endpoint, member), _quota_bytes(endpoint.url, credentials))
    return MemberHealth(
        endpoint=endpoint.url,
        reachable=True,
        name=name,
        leader=status.leader == member,
        db_bytes=status.dbSize,
        in_use_bytes=status.dbSizeInUse,
        quota_bytes=quota_bytes,
        alarms=tuple(sorted({found for text in status.errors for found in _ALARM.findall(text)})),
        version=status.version,
        cluster_id=f"{status.header.cluster_id:x}",
    )


async def _name(endpoint: Endpoint, member: int) -> str:
    """ "" if it does not say."""
    try:
        found: Any = await endpoint.call(endpoint.cluster.MemberList, rpc.MemberListRequest(), TRY_S)
    except (Elsewhere, Gone, StoreError):
        return ""
    return next((str(m.name) for m in found.members if member == m.ID), "")


async def _quota_bytes(url: str, credentials: Credentials | None) -> int:
    """0 if it does not say: the gRPC API of 3.4 and 3.5 has no quota."""
    try:
        tls = credentials.context() if credentials is not None and url.startswith("https:") else True
        timeout = aiohttp.ClientTimeout(total=TRY_S)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{url.rstrip('/')}/metrics", ssl=tls, allow_redirects=False) as reply,
        ):
            text = bytearray()
            async for part in reply.content.iter_any():
                text += part
                if len(text) > METRICS_BYTES:
                    return 0
    except (OSError, aiohttp.ClientError, TimeoutError):
        return 0
    found = _QUOTA.search(text.decode(errors="replace"))
    try:
        return int(float(found[1])) if found and reply.status == 200 else 0
    except (ValueError, OverflowError):  # no number, or an infinite one
        return 0
