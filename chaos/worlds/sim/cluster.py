"""A whole cluster in virtual time, to be driven step by step: the real nodes over one memory store, and around them a
network, services, name servers and load balancers that can be broken.

    with Cluster(config, "1") as cluster:
        cluster.warm_up()
        heal = cluster.network.cut("site-a", "*")
        cluster.run(30.0)
"""

from __future__ import annotations

import logging
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType

from chaos.history import AnyRecord, Led
from chaos.worlds.loop import Kernel, NodeLoop
from chaos.worlds.sim.dns import NameServers
from chaos.worlds.sim.members import Members
from chaos.worlds.sim.messages import Messages
from chaos.worlds.sim.network import Network, Undo
from chaos.worlds.sim.node import Disk, SimNode, Untold
from chaos.worlds.sim.recorder import Recorder
from chaos.worlds.sim.services import Services
from chaos.worlds.sim.store import SimStore
from chaos.worlds.world import Refused, Say
from controlplane.documents import Keys, LeaderDoc, decode
from controlplane.operator import Operator
from controlplane.store import Txn, TxnResult
from controlplane.store.memory import Backup
from controlplane.telemetry.telemetry import Telemetry
from policies.topology import Config
from policies.world import Desired

EPOCH = 1_700_000_000.0
STOP_S = 3.0  # patience with a clean stop
STEP_S = 0.05  # how often run_until looks
WARM_S = 600.0  # by when all must be well
CALM_S = 5.0  # for how long it must have been
SKEW_S, DRIFT = 2000.0, 1e-4  # of monotonic clocks: since when they count, and how wrong they go
WALL_S = 0.3  # how far wall clocks that are kept right are off


class Cluster:
    """Use as a context manager. `history`: the records so far. `seed`: equal ones give equal histories.

    transfer_s: over 0: every name server that transfers its zone has a secondary that follows so much later."""

    def __init__(self, config: Config, seed: str = "1", transfer_s: float = 0.0) -> None:
        self.config, self.seed = config, seed
        self.kernel = Kernel()
        self.keys = Keys(config.cluster)
        self.recorder = Recorder(self.kernel, self.keys)
        self.messages = Messages()
        self.store = SimStore(self._transacted)
        self.network = Network(config.sites, seed, self._turned)
        self.services = Services(config, self.network)
        self.lies: dict[str, list[str]] = {}  # vantage -> what its probes say instead
        self.disks: dict[tuple[str, str], Disk] = {}  # site and driver of a pool -> what it keeps
        self.nodes: dict[str, SimNode] = {}
        self.steps: defaultdict[str, float] = defaultdict(float)  # node -> how far its wall clock was moved, seconds
        self.members = Members(
            config.store_members or tuple(config.sites),
            self.network,
            self.kernel,
            random.Random(f"{seed}/members"),
            self._members_turned,
        )
        self.servers = NameServers(config, transfer_s, self.network, self.kernel, self.recorder, self.running)
        self.operator = Operator(self.store, self.keys, random.Random(f"{seed}/operator"))
        self._lives: Counter[str] = Counter()
        self._down: Counter[str] = Counter()
        self._open = ExitStack()

    def __enter__(self) -> Cluster:
        self._open.callback(self.servers.close)
        self._open.enter_context(self.kernel)
        try:
            self._open.enter_context(_bugs_raise())
            self.kernel.run(self.operator.apply_config(self.config, []), "operator")
            for site in self.config.sites:
                self.nodes[site] = SimNode(self, site, 0)
        except BaseException as error:
            self._open.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.recorder.end()
        self._open.__exit__(kind, error, trace)

    # --- time ---

    def run(self, seconds: float) -> None:
        self.kernel.run_for(seconds)

    def run_until(self, reached: Callable[[], bool], within_s: float) -> float:
        """Until it holds; returns the seconds that took. Fails if it does not within so long."""
        began = self.kernel.now
        while not reached():
            if self.kernel.now - began >= within_s:
                raise AssertionError(f"not within {within_s} s: {'; '.join(self.troubles()) or 'all is well'}")
            self.kernel.run_for(STEP_S)
        return self.kernel.now - began

    def warm_up(self, say: Say | None = None) -> None:
        """Run until all is well, and has been for a while; then it is time 0. Raises Refused if that never comes."""
        holds = [spec.policy.hold_s for spec in self.config.services.values()]
        calm_s = CALM_S + max(holds, default=0.0)
        began = well = self.kernel.now
        while self.kernel.now - well < calm_s:
            self.kernel.run_for(1.0)
            if self.troubles():
                well = self.kernel.now
            if self.kernel.now - began > WARM_S:
                raise Refused(
                    [f"the cluster is not well {WARM_S:g} s after its start: {why}" for why in self.troubles()]
                )
        self.recorder.begin(say or _unheard)

    @property
    def history(self) -> list[AnyRecord]:
        return self.recorder.records

    # --- processes and machines ---

    def running(self, site: str) -> bool:
        """Does the process there do anything now?"""
        node = self.nodes.get(site)
        return node is not None and node.loop.alive and not node.loop.paused

    def kill(self, site: str) -> Undo:
        """The process ends without a clean-up, and stays away until all that keeps it down is undone."""
        self._down[site] += 1
        self._die(site)
        return lambda: self._up(site)

    def restart(self, site: str) -> Undo:
        """The process stops cleanly, and stays away until that is undone."""
        self._down[site] += 1
        node = self.nodes[site]
        if self.running(site):
            node.loop.create_task(node.end()).add_done_callback(lambda _: self._gone(node))
            self.kernel.at(self.kernel.now + STOP_S, self._gone, node)
        else:
            self._die(site)
        return lambda: self._up(site)

    def pause(self, site: str) -> Undo:
        """The process stands still, if it does not die meanwhile."""
        node = self.nodes[site]
        node.pauses += 1
        node.loop.pause()
        self._turned()

        def undo() -> None:
            node.pauses -= 1
            if not node.pauses:
                node.loop.resume()
                self._turned()

        return undo

    def power_off(self, site: str) -> Undo:
        off = self.network.power_off(site)
        dead = self.kill(site)

        def undo() -> None:
            off()
            dead()
            self.servers.powered(site)

        return undo

    def lie(self, vantage: str, says: str) -> Undo:
        """Its probes find this, whatever is there; the lie that began last counts."""
        lies = self.lies.setdefault(vantage, [])
        lies.append(says)
        self.services.turn()

        def undo() -> None:
            lies.remove(says)
            self.services.turn()

        return undo

    def _gone(self, node: SimNode) -> None:
        """It has stopped, or had its time to."""
        if self.nodes[node.site] is node:
            self._die(node.site)

    def _die(self, site: str) -> None:
        node = self.nodes[site]
        if node.loop.alive:
            node.kill()
            self.recorder.led(site, False, "its process has ended")
            self.servers.died(site)
            self._turned()

    def _up(self, site: str) -> None:
        self._down[site] -= 1
        if not self._down[site]:
            self._die(site)
            self._lives[site] += 1
            self.nodes[site] = SimNode(self, site, self._lives[site])
            self._turned()

    # --- what a node stands on ---

    def loop_of(self, site: str) -> NodeLoop:
        rng = random.Random(f"{self.seed}/{site}/clock")
        return self.kernel.loop(site, rng.uniform(0.0, SKEW_S), 1.0 + rng.uniform(-DRIFT, DRIFT))

    def wall_of(self, site: str) -> Callable[[], float]:
        off_s = random.Random(f"{self.seed}/{site}/wall").uniform(-WALL_S, WALL_S)
        return lambda: EPOCH + off_s + self.kernel.now + self.steps[site]

    def telemetry_of(self, site: str) -> Telemetry:
        return Untold(site, self.config.cluster)

    def source_of(self, site: str) -> str:
        """From which address its questions come."""
        return f"100.64.0.{1 + list(self.config.sites).index(site)}"

    # --- looking ---

    def leading(self) -> str:
        """The node that holds the leader key, or ""."""
        entry = self.store.entry(self.keys.leader)
        return decode(LeaderDoc, entry.value).node if entry else ""

    def leader_or_last(self) -> str:
        """Who leads; while nobody does, who did last."""
        leader = self.leading()
        if leader:
            return leader
        led = [record.node for record in self.history if isinstance(record, Led) and record.leading]
        return led[-1] if led else next(iter(self.nodes))

    def desired(self, service: str) -> Desired | None:
        entry = self.store.entry(self.keys.service(service))
        return decode(Desired, entry.value) if entry else None

    def troubles(self) -> list[str]:
        """Why not all is well: nobody leads, a site is not ready, a server does not answer as it should."""
        found = [] if self.leading() else ["nobody leads"]
        blind = [site for site, node in self.nodes.items() if not node.loop.ask(node.sees)]
        found += [f"{site} has no current view" for site in blind]
        for service in self.servers.config.services:
            desired = self.desired(service)
            if desired is None:
                found.append(f"{service} has no decision")
                continue
            for site, state in desired.sites.items():
                if state.phase != "ready":
                    found.append(f"{service} at {site}: {state.rule}, {state.phase}")
            for home, server in self.servers.serving(service):
                actual = server.read(desired.name)
                fence = actual.fence if actual else None
                if not self.servers.reached(home, server):
                    found.append(f"the name server {server.name} cannot be reached")
                elif fence is None or fence.generation != desired.generation:
                    found.append(f"{service} at the name server {server.name}: not generation {desired.generation}")
        return found

    # --- what is told ---

    def _transacted(self, txn: Txn, result: TxnResult) -> None:
        if result.ok:
            config = self.recorder.committed(txn, self.store.entry(self.keys.leader))
            if config is not None:
                self._learn(config)

    def _learn(self, config: Config) -> None:
        self.services.learn(config)
        self.servers.learn(config)

    def _turned(self) -> None:
        """Something outside the nodes has changed."""
        self.services.turn()
        self.members.look()
        self.servers.look()

    def _members_turned(self) -> None:
        for node in self.nodes.values():
            if node.loop.alive:
                node.line.turn()

    def restore(self, backup: Backup, to: float) -> None:
        """The store goes back to a backup, which was made at `to`."""
        self.store.restore(backup)
        self.recorder.rewound(to)
        entry = self.store.entry(self.keys.config)
        config = self.recorder.configured(entry.value) if entry else None
        if config is not None:
            self._learn(config)


def _unheard(record: AnyRecord) -> None:
    """Nobody listens."""


class _Bugs(logging.Handler):
    """The product's own code catches its bugs, says them in the log and goes on: here they must not pass unseen."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            error.add_note(f"logged by {record.name}: {record.getMessage()}")
            self.found.append(error)


@contextmanager
def _bugs_raise() -> Iterator[None]:
    """What nodes log is for nobody here, but for exceptions: these are raised in the end."""
    loggers = [logging.getLogger(name) for name in ("controlplane", "probes", "policies")]
    before = [(logger, logger.level, logger.propagate) for logger in loggers]
    bugs = _Bugs()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
        logger.propagate = False
        logger.addHandler(bugs)
    try:
        yield
    finally:
        for logger, level, propagate in before:
            logger.removeHandler(bugs)
            logger.propagate = propagate
            logger.setLevel(level)
    if bugs.found:
        raise BaseExceptionGroup("bugs that nodes have only logged", bugs.found)
