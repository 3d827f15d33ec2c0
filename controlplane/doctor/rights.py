"""Who may write what in etcd: is authentication on, and what does our certificate's common name open?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aetcd import rpc  # type: ignore[import-untyped]
from msgspec import Struct

from controlplane.doctor.finding import CALL_S, Findings
from controlplane.documents import Keys
from controlplane.store import StoreError
from controlplane.store.etcd import PermissionDenied
from controlplane.store.etcd.link import Endpoint
from controlplane.store.etcd.watch import range_end

ROLES = "examples/deploy/etcd-roles.sh gives each node its own rights"
READ, WRITE = 0, 1  # Permission.Type in etcd's auth.proto; 2 = both
NOBODY = "failoverctl-doctor"  # a user that does not exist


class Grant(Struct, frozen=True):
    """Keys from `key` up to `end` (b"" = `key` alone)."""

    kind: int
    key: bytes
    end: bytes

    def covers(self, kind: int, key: bytes, end: bytes = b"") -> bool:
        if self.kind not in (kind, 2):
            return False
        if not self.end:
            return key == self.key and not end
        return self.key <= key and (end or key + b"\0") <= self.end


async def examine(keys: Keys, endpoint: Endpoint, user: str, site: str, found: Findings) -> None:
    """user: the certificate's common name, "" = we have none. Raises what Endpoint.call raises."""
    auth = rpc.AuthStub(endpoint.channel)
    if not await _enabled(endpoint, auth):
        found.warn("etcd rights", keys.cluster, "authentication is off: whoever reaches it may write all", ROLES)
        return
    if not user:
        found.error("etcd rights", keys.cluster, "authentication is on, and we have no certificate", ROLES)
        return
    try:
        roles = [str(role) for role in (await _call(endpoint, auth.UserGet, rpc.AuthUserGetRequest(name=user))).roles]
        grants = [grant for role in roles for grant in await _grants(endpoint, auth, role)]
    except PermissionDenied as error:
        found.error("etcd rights", user, str(error), ROLES)
        return
    except StoreError as error:
        remedy = f"add the user, with the name of the certificate: {ROLES}"
        found.error("etcd rights", user, str(error), remedy)
        return
    _judge(keys, user, roles, grants, site, found)


def _judge(keys: Keys, user: str, roles: Sequence[str], grants: Sequence[Grant], site: str, found: Findings) -> None:
    if "root" in roles:
        remedy = "ask with a node's certificate to see what that node may do"
        found.warn("etcd rights", user, "is root: it may do all", remedy)
        return
    prefix = keys.prefix.encode()
    end = range_end(keys.prefix)
    said = f"has {', '.join(roles) or 'no role'}"
    if not any(grant.covers(READ, prefix, end) for grant in grants):
        found.error("etcd rights", user, f"{said}: cannot read {keys.prefix}", ROLES)
    elif site and not any(grant.covers(WRITE, keys.node(site).encode()) for grant in grants):
        found.error("etcd rights", user, f"{said}: cannot write {keys.node(site)}, which {site} has to", ROLES)
    elif any(grant.kind != READ and not (prefix <= grant.key and (grant.end or grant.key) <= end) for grant in grants):
        found.warn("etcd rights", user, f"{said}: may write outside of {keys.prefix}", ROLES)
    else:
        found.ok("etcd rights", user, said)


async def _enabled(endpoint: Endpoint, auth: Any) -> bool:
    """etcd 3.4 does not say so; but where it is off, it refuses to check a password for that reason."""
    try:
        await _call(endpoint, auth.Authenticate, rpc.AuthenticateRequest(name=NOBODY, password=NOBODY))
    except PermissionDenied:
        return True
    except StoreError as error:
        return "authentication is not enabled" not in str(error)
    return True


async def _grants(endpoint: Endpoint, auth: Any, role: str) -> list[Grant]:
    if role == "root":
        return []
    reply = await _call(endpoint, auth.RoleGet, rpc.AuthRoleGetRequest(role=role))
    return [Grant(perm.permType, perm.key, perm.range_end) for perm in reply.perm]


async def _call(endpoint: Endpoint, method: Any, request: Any) -> Any:
    return await endpoint.call(method, request, CALL_S)
