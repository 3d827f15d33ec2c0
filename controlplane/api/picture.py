"""One look at a view, frozen: all that the status document and the alarms are computed from.

The only file of the API that reads the view's clocks; what comes out holds ages and flags.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from controlplane.api.propagation import CONVERGED, Arrival, Pool, Word, arrival
from controlplane.dns.verify import authoritative, drivers_for
from controlplane.journal import Incident, Journal
from controlplane.view import View
from controlplane.view.evidence import Evidence, evidence, running_nodes
from controlplane.view.words import Shards
from policies.express import has_pool
from policies.frame import Frame, usable
from policies.stage import Stage, stage
from policies.timing import WorstCase, worst_cases
from policies.topology import Config, Override
from policies.whatif import Present, worst_loss
from policies.world import Desired

SLICE_S = 0.02  # of the event loop at a time: beats, which need several turns, go on meanwhile
LEADER_SILENT_S = 2.0
LOSS_SERVICES = 2000  # with more, trying every loss on each change would be all that this node does


class ServicePicture(Struct, frozen=True):
    """One service as this node sees it now. `evidence`: every vantage on every target."""

    name: str
    stage: Stage
    desired: Desired | None
    arrival: Arrival | None
    freeze: str
    evidence: tuple[Evidence, ...]
    age_s: float = 0.0  # since `desired` was written, as seen here


class Failover(Struct, frozen=True):
    """A service that left failed sites, until every old answer is over. None: not known (yet).

    since_s: since the first report of a DOWN target; decide_s: in the leader, known only there. `servers` that
    were asked, those that answered, and those of them that agree."""

    service: str
    left: tuple[str, ...]
    since_s: float
    worst_case_s: float | None
    detect_s: float | None
    decide_s: float | None
    apply_s: float | None
    servers_agree: int
    servers_reachable: int
    servers: int
    old_ttl_left_s: float


class Loss(Struct, frozen=True):
    """The `n` further sites whose loss would leave the largest shortfall: `drop` of `total` demand."""

    n: int
    lost: tuple[str, ...]
    drop: float
    total: float


class Picture(Struct, frozen=True):
    """All durations are seconds. `leader` is "" or None when nobody leads, or when the leader is silent."""

    cluster: str
    source: dict[str, Any]  # {node, site, age_s, current}: whose view, and how old
    config: Config | None
    config_age_s: float  # since this node saw it
    frames: Mapping[str, Frame]
    services: dict[str, ServicePicture]  # in the order of the fold
    bounds: Mapping[str, WorstCase]
    loss: Loss | None
    overrides: tuple[Override, ...]
    left_s: dict[str, float | None]
    nodes: dict[str, dict[str, Any]]
    vantages: dict[str, str]  # site -> ok | blind | silent
    words: tuple[Word, ...]
    leader: str | None
    token: int | None
    rewound: str
    clock_suspect: bool
    unreadable: Mapping[str, str]
    failovers: tuple[Failover, ...] = ()
    latest: str = ""  # id of the newest decision that is known here


def source_of(view: View) -> dict[str, Any]:
    """Whose view this is and how old it is; age_s None: it never had one."""
    me = view.pulse.me
    floor = view.pulse.floor
    age_s = None if floor is None or not view.synced else round(view.pulse.now() - floor, 3)
    return {"node": me.node, "site": me.site, "age_s": age_s, "current": view.current}


async def take_picture(view: View, memory: Memory, journal: Journal) -> Picture:
    """`memory`: kept between pictures of the same view."""
    loop = asyncio.get_running_loop()
    nodes = _nodes(view)
    words, working = words_of(view), working_agents(view)
    config = view.config
    services: dict[str, ServicePicture] = {}
    begun = loop.time()
    for name in list(view.frames):
        if loop.time() - begun > SLICE_S:
            await asyncio.sleep(0)
            begun = loop.time()
        if name in view.frames and config is view.config:
            services[name] = service_picture(view, name, words, working)
    leader, token = _leader(view)
    bounds = memory.bounds(config)
    return Picture(
        cluster=view.keys.cluster,
        source=source_of(view),
        config=config,
        config_age_s=view.age_s(view.keys.config),
        frames=view.frames,
        services=services,
        bounds=bounds,
        loss=await asyncio.to_thread(memory.loss, config, view.frames, services),
        overrides=view.overrides,
        left_s={o.id: view.override_left_s(o.id) for o in view.overrides},
        nodes=nodes,
        vantages=vantages_of(view),
        words=words,
        leader=leader,
        token=token,
        rewound=view.rewound,
        clock_suspect=view.clock_suspect,
        unreadable=dict(view.mirror.unreadable),
        failovers=failovers(services, bounds, journal.under_way()),
        latest=max(view.mirror.decisions, key=number_of, default=""),
    )


def service_picture(view: View, name: str, words: tuple[Word, ...], working: Collection[str]) -> ServicePicture:
    slice_ = view.slice(name)
    desired = slice_.desired
    return ServicePicture(
        name=name,
        stage=stage(view.frames[name], slice_),
        desired=desired,
        arrival=arrival_of(view.config, desired, words, working) if desired else None,
        freeze=slice_.freeze,
        evidence=tuple(evidence(view, name)),
        age_s=slice_.age_s,
    )


def stuck_at(service: ServicePicture) -> list[str]:
    """Failed sites at which a frozen service stays."""
    if not service.freeze or service.desired is None:
        return []
    failed = [s for s, x in service.stage.standings.items() if x.rule == "failed"]
    return sorted(s for s in failed if any(region.get(s) for region in service.desired.shares.values()))


def number_of(decision: str) -> int:
    """ "d-42" -> 42."""
    return int(decision.removeprefix("d-"))


def failovers(
    services: Mapping[str, ServicePicture],
    bounds: Mapping[str, WorstCase],
    recent: Mapping[str, tuple[Incident, float]],
) -> tuple[Failover, ...]:
    """Those that go on: not yet verified, or old answers may still be kept; over when their bound is."""
    found: list[Failover] = []
    for name, (incident, age_s) in recent.items():
        service, bound = services.get(name), bounds.get(name)
        if service is None or service.arrival is None or service.arrival.state == CONVERGED:
            continue
        if bound is not None and age_s > bound.apply_s + bound.ttl_s:
            continue
        found.append(
            Failover(
                service=name,
                left=incident.sites,
                since_s=round((incident.detect_s or 0.0) + age_s, 3),
                worst_case_s=bound.worst_case_s if bound else None,
                detect_s=incident.detect_s,
                decide_s=incident.decide_s,
                apply_s=incident.apply_s,
                servers_agree=service.arrival.agreeing,
                servers_reachable=service.arrival.reachable,
                servers=len(service.arrival.servers),
                old_ttl_left_s=round(service.arrival.old_ttl_left_s, 3),
            )
        )
    return tuple(found)


class Memory:
    """What takes long to compute and seldom changes: worst cases, and the further loss that would hurt most."""

    def __init__(self) -> None:
        self._config: Config | None = None
        self._bounds: Mapping[str, WorstCase] = {}
        self._stands: object = None
        self._loss: Loss | None = None

    def bounds(self, config: Config | None) -> Mapping[str, WorstCase]:
        if config is not self._config:
            self._config, self._bounds = config, worst_cases(config) if config else {}
        return self._bounds

    def loss(
        self, config: Config | None, frames: Mapping[str, Frame], seen: Mapping[str, ServicePicture]
    ) -> Loss | None:
        """None: not known (no configuration, or too many services to try it on each look)."""
        if config is None or len(seen) > LOSS_SERVICES:
            return None
        present = [Present(frames[name], s.stage.standings, s.stage.cur) for name, s in seen.items()]
        stands = [(p.frame, [(site, x.take, x.cap_percent) for site, x in p.standings.items()], p.cur) for p in present]
        if self._loss is None or stands != self._stands:
            n = config.policy.guards.n_plus
            lost, drop = worst_loss(present, usable(config), n) if n else ((), 0.0)
            self._stands, self._loss = stands, Loss(n, lost, drop, sum(p.frame.demand for p in present))
        return self._loss


def arrival_of(config: Config | None, desired: Desired, words: tuple[Word, ...], working: Collection[str]) -> Arrival:
    """Of the name that is desired, which may differ from the configured one for a moment. `working`: sites at which
    an agent runs."""
    if config is None:
        return arrival(desired, (), (), ())
    pools = [
        Pool(driver.name, site, site in working)
        for driver in config.pools
        for site in driver.sites
        if has_pool(config, site, desired)
    ]
    drivers = {driver.name for driver in drivers_for(config, desired.name)} if desired.name else set()
    servers = authoritative(config, desired.name) if desired.name else ()
    return arrival(desired, drivers, servers, words, pools)


def working_agents(view: View) -> set[str]:
    """Sites at which a node with an agent beats."""
    return {node.site for node in running_nodes(view) if "agent" in node.roles}


def words_of(view: View) -> tuple[Word, ...]:
    """What every writer says, and whether it lives: what a site wrote before it was started anew is history."""
    nodes = view.mirror.nodes
    live = {(d.site, d.run) for name, d in nodes.items() if view.age_s(view.keys.node(name)) < view.freshness_s}
    return tuple(_word(view, shards, live) for shards in view.words.all())


def _word(view: View, shards: Shards, live: Collection[tuple[str, str]]) -> Word:
    """As old as the newest of its shards: only the first one is renewed though nothing happens."""
    ages = {name: view.age_s(view.keys.applied + name) for name in shards.names}
    age_s, doc = min(ages.values()), shards.document
    left = {
        service: left_s - ages[name] + age_s
        for name in shards.names
        for service, left_s in view.mirror.applied[name].old_ttl_left_s.items()
    }
    return Word(replace(doc, old_ttl_left_s=left) if left else doc, age_s, (doc.writer, doc.run) in live)


def _nodes(view: View) -> dict[str, dict[str, Any]]:
    nodes: dict[str, dict[str, Any]] = {}
    for name, doc in sorted(view.mirror.nodes.items()):
        age_s = view.age_s(view.keys.node(name))
        nodes[name] = {
            "site": doc.site,
            "roles": list(doc.roles),
            "version": doc.version,
            "age_s": round(age_s, 3),
            "fresh": age_s < view.freshness_s,
            "unreadable": doc.unreadable,
            "driver_faults": doc.driver_faults,
        }
    return nodes


def vantages_of(view: View) -> dict[str, str]:
    """One word a site: where it has several vantages, the best."""
    view.look()
    words: dict[str, str] = {}
    for eye in view.votes.eyes.values():
        word = "silent" if not eye.fresh else "blind" if eye.blind else "ok"
        if words.get(eye.site, "silent") == "silent" or word == "ok":
            words[eye.site] = word
    return words


def _leader(view: View) -> tuple[str | None, int | None]:
    if view.leader is None:
        return None, None
    if view.age_s(view.keys.leader_beat) > LEADER_SILENT_S:
        return None, None
    return view.leader.node, view.revisions.get(view.keys.leader)
