"""etcd as it is: does it have a majority, would it survive a site, does it stay small, who may write what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from aetcd import rpc  # type: ignore[import-untyped]

from controlplane.doctor import rights, tls
from controlplane.doctor.finding import CALL_S, Findings, Wall
from controlplane.documents import Keys, NodeDoc, SchemaTooNew, decode
from controlplane.store import StoreError, Unavailable
from controlplane.store.etcd import Credentials, MemberHealth, PermissionDenied, StoreHealth
from controlplane.store.etcd.health import ask
from controlplane.store.etcd.link import Elsewhere, Endpoint, Endpoints, Gone
from controlplane.store.etcd.watch import range_end
from policies.topology import Config

KEPT = 50_000  # revisions: an hour of what three sites write; compaction keeps ten to twenty minutes of it
BEATS_S = 1.5  # a node writes its beat each second
RENEW = "renew it: examples/deploy/certificates.sh"
UNFIT = ("3.5.0", "3.5.1", "3.5.2")  # may lose or diverge data; their own authors say not to use them


async def examine(
    config: Config, endpoints: Sequence[str], credentials: Credentials | None, site: str, wall: Wall
) -> Findings:
    found = Findings()
    if not endpoints:
        found.unknown("etcd", config.cluster, "not asked", "give --etcd URL,URL, or FAILOVERD_ETCD")
        return found
    try:
        links = Endpoints(endpoints, credentials)
    except (Unavailable, ValueError) as error:
        found.error("etcd", config.cluster, str(error), "see --etcd and --etcd-ca, --etcd-cert, --etcd-key", None)
        return found
    try:
        await _examine(config, links, site, wall, found)
    finally:
        await links.close()
    return found


async def _examine(config: Config, links: Endpoints, site: str, wall: Wall, found: Findings) -> None:
    health = await ask(links)
    _members(config, health, found)
    by_url = {endpoint.url: endpoint for endpoint in links.all()}
    serving = [by_url[member.endpoint] for member in health.members if member.reachable]
    user = _own_certificate(links.credentials, wall, found)
    await asyncio.gather(*(_visit(endpoint.url, links.credentials, wall, found) for endpoint in serving))
    if not serving:
        return
    keys = Keys(config.cluster)
    for check in (
        _membership(config, serving[0], health, found),
        _compaction(keys, serving[0], found),
        rights.examine(keys, serving[0], user, site, found),
        _node_clocks(keys, serving[0], wall, found),
    ):
        try:
            async with asyncio.timeout(2 * CALL_S):
                await check
        except (Elsewhere, Gone, StoreError, TimeoutError) as error:
            found.unknown("etcd", serving[0].url, str(error) or "no answer in time", "look again", False)


# ---- what the members say of themselves


def _members(config: Config, health: StoreHealth, found: Findings) -> None:
    for member in health.members:
        if _leaderless(member):
            found.error("etcd member", member.endpoint, "knows no leader", "can it reach the others' peer ports?")
        elif not member.reachable:
            remedy = "is etcd running there, and does a firewall let its client port through?"
            found.error("etcd member", member.endpoint, member.why, remedy, False)
        else:
            _member(member, found)
    _majority(config, health, found)
    versions = sorted({member.version for member in health.members if member.reachable})
    if len(versions) > 1:
        remedy = "finish the upgrade: all members should run the same version"
        found.warn("etcd version", config.cluster, " and ".join(versions), remedy)
    for version in set(versions) & set(UNFIT):
        remedy = "upgrade: etcd's authors do not recommend it for production"
        found.error("etcd version", config.cluster, f"{version} may corrupt data", remedy)


def _leaderless(member: MemberHealth) -> bool:
    """It answers, but without a majority it may not be asked for anything."""
    return not member.reachable and "no leader" in member.why


def _member(member: MemberHealth, found: Findings) -> None:
    name = f"{member.name} " if member.name else ""
    detail = f"{name}{member.version}{', leads' if member.leader else ''}, {member.fills}"
    remedy = "etcdctl compact, defrag, alarm disarm; run etcd with ETCD_AUTO_COMPACTION_RETENTION=10m"
    if member.alarms:
        found.error("etcd member", member.endpoint, f"{detail}, alarm {', '.join(member.alarms)}", remedy)
    elif member.half_full:  # there `readyz` fails
        found.warn("etcd member", member.endpoint, detail, remedy)
    else:
        found.ok("etcd member", member.endpoint, detail)


def _majority(config: Config, health: StoreHealth, found: Findings) -> None:
    answer, of = sum(m.reachable or _leaderless(m) for m in health.members), len(health.members)
    detail = f"{answer} of {of} members answer"
    if not health.majority:
        remedy = "start the others; without a majority nothing is decided, and the last answers stay"
        found.error("etcd majority", config.cluster, detail, remedy, answer > 0)
    elif 2 * (answer - 1) <= of:
        remedy = "three members at three sites survive the loss of one" if of < 3 else "start the others"
        found.warn("etcd majority", config.cluster, f"{detail}; it does not survive the loss of one more", remedy)
    else:
        found.ok("etcd majority", config.cluster, f"{detail}, and one of them may be lost")


async def _membership(config: Config, endpoint: Endpoint, health: StoreHealth, found: Findings) -> None:
    reply = await endpoint.call(endpoint.cluster.MemberList, rpc.MemberListRequest(), CALL_S)
    names = sorted(member.name or f"{member.ID:x}" for member in reply.members)
    asked, wanted = len(health.members), len(config.store_members)
    if len(names) != asked:
        remedy = "name all of them in --etcd (FAILOVERD_ETCD) of every node"
        found.warn("etcd members", config.cluster, f"has {', '.join(names)}; asked {asked} endpoint(s)", remedy)
    elif wanted and wanted != len(names):
        sites = ", ".join(config.store_members)
        remedy = "make store.members what it is: `check` proves the majority from it"
        found.warn("etcd members", config.cluster, f"has {', '.join(names)}; store.members is {sites}", remedy)
    else:
        found.ok("etcd members", config.cluster, f"{', '.join(names)}")


# ---- what is in it


async def _compaction(keys: Keys, endpoint: Endpoint, found: Findings) -> None:
    """etcd does not tell its settings. But a revision that can still be read was not compacted."""

    async def read(revision: int) -> int:
        """The store's revision. Raises Gone if `revision` is compacted."""
        request = rpc.RangeRequest(
            key=keys.prefix.encode(), range_end=range_end(keys.prefix), limit=1, keys_only=True, revision=revision
        )
        return int((await endpoint.call(endpoint.kv.Range, request, CALL_S)).header.revision)

    remedy = "start etcd with ETCD_AUTO_COMPACTION_MODE=periodic and ETCD_AUTO_COMPACTION_RETENTION=10m"
    try:
        now = await read(0)
    except PermissionDenied as error:
        found.unknown("etcd compaction", keys.cluster, str(error), "ask with a certificate that may read", True)
        return
    try:
        await read(max(1, now - KEPT))
    except Gone:
        found.ok("etcd compaction", keys.cluster, f"at revision {now}, and forgets old ones")
        return
    if now > KEPT:
        found.warn("etcd compaction", keys.cluster, f"at revision {now}, and keeps {KEPT} or more", remedy)
    else:
        detail = f"at revision {now}, and has forgotten none yet: too young to tell"
        found.unknown("etcd compaction", keys.cluster, detail, remedy, True)


async def _node_clocks(keys: Keys, endpoint: Endpoint, wall: Wall, found: Findings) -> None:
    """The wall clocks of the nodes that run, by the beats that move while we look."""

    async def beats() -> dict[str, NodeDoc]:
        request = rpc.RangeRequest(key=keys.nodes.encode(), range_end=range_end(keys.nodes))
        return _nodes((await endpoint.call(endpoint.kv.Range, request, CALL_S)).kvs)

    try:
        before = await beats()
        if not before:
            return
        await asyncio.sleep(BEATS_S)
        after, now_s = await beats(), wall()
    except PermissionDenied:
        return  # told of already, under compaction
    for name, node in after.items():
        if name not in before or (node.run, node.n) != (before[name].run, before[name].n):
            found.clock(f"node {name}", node.wall_s + BEATS_S / 2 - now_s, BEATS_S)


def _nodes(kvs: Sequence[Any]) -> dict[str, NodeDoc]:
    found = {}
    for kv in kvs:
        try:
            node = decode(NodeDoc, kv.value)
        except (SchemaTooNew, msgspec.DecodeError):
            continue  # a newer node's: `failoverctl nodes` says so
        found[node.node] = node
    return found


# ---- certificates and clocks


def _own_certificate(credentials: Credentials | None, wall: Wall, found: Findings) -> str:
    """Its common name, "" if there is none or it is not fit."""
    if credentials is None:
        return ""
    try:
        own = tls.identity(credentials, wall)
    except tls.Unfit as error:
        found.error("certificate", credentials.cert, str(error), RENEW, None)
        return ""
    found.certificate(f"{credentials.cert} (CN {own.name})", own.left_s, RENEW)
    return own.name


async def _visit(url: str, credentials: Credentials | None, wall: Wall, found: Findings) -> None:
    try:
        seen = await tls.visit(url, credentials, wall)
    except (OSError, TimeoutError) as error:
        found.unknown("clock", f"etcd {url}", str(error) or "no answer over HTTP", "look again", False)
        return
    if seen.certificate is not None:
        found.certificate(f"etcd {url}", seen.certificate.left_s, RENEW)
    if seen.clock_ahead_s is not None:
        found.clock(f"etcd {url}", seen.clock_ahead_s, tls.DATE_S)
