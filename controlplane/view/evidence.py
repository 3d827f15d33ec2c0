"""What the vantages say of a service, and which nodes run: what `explain` and `status` show."""

from __future__ import annotations

import asyncio

from msgspec import Struct

from controlplane.documents import NodeDoc
from controlplane.view.view import View
from probes.target import Health


class Evidence(Struct, frozen=True):
    """One vantage on one target. age_s: of its beat; since_s: how long it has said so; None: not known."""

    vantage: str
    target: str
    site: str
    health: Health
    reason: str
    answered: bool
    fresh: bool
    blind: bool
    own: bool
    warning: str
    age_s: float | None
    since_s: float | None


def evidence(view: View, service: str) -> list[Evidence]:
    """Every target of the service, every vantage that reports on it; what was never reported is left out."""
    view.look()
    now = asyncio.get_running_loop().time()
    found: list[Evidence] = []
    for row in view.votes.rows.get(service, ()):
        for name in sorted(view.votes.eyes):
            eye = view.votes.eyes[name]
            seen = eye.observations.get(row.id)
            if seen is None:
                continue
            since = eye.changed_at.get(row.id)
            found.append(
                Evidence(
                    vantage=eye.site,
                    target=row.id,
                    site=row.site,
                    health=seen.health,
                    reason=seen.reason,
                    answered=seen.answered,
                    fresh=eye.fresh,
                    blind=eye.blind,
                    own=eye.site == row.site,
                    warning=seen.warning,
                    age_s=None if eye.moved_at is None else now - eye.moved_at,
                    since_s=None if since is None else now - since,
                )
            )
    return found


def doubted_for_s(view: View, service: str, site: str) -> float | None:
    """Since the first report, still standing, that something of the service at the site is DOWN; None: none."""
    ages = [
        e.since_s
        for e in evidence(view, service)
        if e.site == site and e.fresh and e.health is Health.DOWN and e.since_s is not None
    ]
    return max(ages, default=None)


def running_nodes(view: View) -> list[NodeDoc]:
    """Nodes whose beat moved within the freshness window, by name."""
    nodes = view.mirror.nodes
    return [nodes[name] for name in sorted(nodes) if view.age_s(view.keys.node(name)) < view.freshness_s]
