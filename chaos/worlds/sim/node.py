"""One process of the control plane in the simulated world: the real Node, from start to kill, on simulated adapters."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.worlds.loop import NodeLoop
from chaos.worlds.sim.parked import ParkingVantage
from chaos.worlds.sim.recorder import Recorder
from chaos.worlds.sim.services import Services
from chaos.worlds.sim.store import Line
from chaos.worlds.sim.writers import asker, open_driver
from controlplane.dns.fencing import refusal
from controlplane.documents import Applied, DecisionDoc
from controlplane.drivers import Actual, Capabilities, Change, Driver, Place, Result
from controlplane.election import State
from controlplane.journal import Journal
from controlplane.node import ROLES, Node
from controlplane.notes import Note
from controlplane.pools import DRIVERS as POOLS
from controlplane.pools.shelf import Entry
from controlplane.telemetry.telemetry import Telemetry
from controlplane.view import View
from policies.topology import Config, DnsDriver, PoolDriver
from probes.target import Cancel, Done, Prober, Sample, Target

if TYPE_CHECKING:
    from chaos.worlds.sim.cluster import Cluster

POOL_S = 0.002  # of a call of a load balancer beside the node
STUCK, SILENT, UP, DOWN = "stuck", "nothing", "up", "down"  # what a vantage's probes are made to say


class SimProber:
    """One site's prober. `lies`: what it says instead of what is there, the last one counts."""

    def __init__(self, site: str, loop: NodeLoop, services: Services, recorder: Recorder, rng: random.Random) -> None:
        self.lies: list[str] = []
        self._site, self._loop, self._services, self._recorder, self._rng = site, loop, services, recorder, rng

    def start(self, target: Target, done: Done) -> Cancel:
        if self.lies:
            said = _said(self.lies[-1], target)
            if said is None:
                return _nothing
            sample = said
            took_s = sample.took_s
        else:
            sample, took_s = self._services.probe(self._site, target, self._rng)
        return self._loop.call_later(took_s, self._ended, target, sample, done).cancel

    def _ended(self, target: Target, sample: Sample, done: Done) -> None:
        self._recorder.probed(self._site, target, sample)
        done(sample)

    def steady(self, target: Target) -> bool:
        return not self.lies and self._services.steady(self._site, target)

    def skipped(self, target: Target, began_s: float) -> None:
        """Probes that would have found nothing else were not made; the last one would have begun so long ago."""
        self._recorder.skipped(self._site, target, began_s)

    async def aclose(self) -> None:
        return None


def _said(lie: str, target: Target) -> Sample | None:
    """None: the probe hangs."""
    if lie == UP:
        return Sample(True, True, "status 200", POOL_S)
    if lie == DOWN:
        return Sample(False, True, "status 503", POOL_S)
    return Sample(False, False, "timeout connect", target.timeout_s) if lie == SILENT else None


def _nothing() -> None:
    """There is nothing to cancel."""


Disk = dict[str, Entry]  # backend -> what it was told last


class SimPool:
    """The Driver port over a load balancer at `site`, which `disk` outlives every process."""

    def __init__(self, entry: PoolDriver, site: str, disk: Disk, recorder: Recorder) -> None:
        kind = POOLS[entry.driver]
        self.name = entry.name
        self.capabilities: Capabilities = kind.capabilities(kind.options_of(entry))
        self._site, self._disk, self._recorder = site, disk, recorder

    async def read(self, names: Sequence[str]) -> Mapping[str, Actual]:
        await asyncio.sleep(POOL_S)
        return {
            name: Actual(self._disk[name].fence, 0, self._disk[name].answers) for name in names if name in self._disk
        }

    async def apply(self, changes: Sequence[Change]) -> Mapping[str, tuple[Result, str]]:
        await asyncio.sleep(POOL_S)
        return {change.desired.name: self._apply(change) for change in changes}

    def _apply(self, change: Change) -> tuple[Result, str]:
        held = self._disk.get(change.desired.name)
        current = held.fence if held else None
        if current != change.expect:
            return Result.FENCED, f"found {current.text() if current else 'no fence'}"
        if refused := refusal(change):
            return Result.FENCED, refused
        self._disk[change.desired.name] = Entry(change.fence, change.desired.answers)
        weights: dict[str, int] = {}
        for row in change.desired.answers:
            weights[row.site] = weights.get(row.site, 0) + row.weight
        self._recorder.pooled(self._site, change.desired.service, weights)
        return Result.DONE, ""

    async def probe_write(self) -> None:
        return None

    async def aclose(self) -> None:
        return None


class Untold(Telemetry):
    """Metrics and traces cost time, and nobody reads them here."""

    def prober(self, prober: Prober) -> Prober:
        return prober

    def follow(self, view: View, journal: Journal, wall: Callable[[], float]) -> None:
        self._view, self._journal = view, journal

    def committed(self, decision: DecisionDoc, took_s: float, commit_s: float) -> None:
        return None

    def wrote(
        self, site: str, driver: str, changes: Mapping[str, Change], applied: Mapping[str, Applied], took_s: float
    ) -> None:
        return None

    async def run(self) -> None:
        await asyncio.get_running_loop().create_future()  # until cancelled


class SimNode(Node):
    """The process of a site or witness. `life`: how many there were before it."""

    def __init__(self, cluster: Cluster, site: str, life: int) -> None:
        seed = f"{cluster.seed}/{site}/{life}"
        self.loop: NodeLoop = cluster.loop_of(site)
        self.line = Line(
            cluster.store,
            cluster.members,
            cluster.messages,
            cluster.keys,
            site,
            self.loop,
            random.Random(f"{seed}/line"),
        )
        self.sim_prober = SimProber(
            site, self.loop, cluster.services, cluster.recorder, random.Random(f"{seed}/probes")
        )
        self.sim_prober.lies = cluster.lies.setdefault(site, [])
        self.notes: list[Note] = []
        self.pauses = 0
        witness = cluster.config.sites[site].role == "witness"
        rng = random.Random(f"{seed}/network")

        async def open_dns(_: str, entry: DnsDriver, config: Config) -> Driver | None:
            world = (cluster.servers, cluster.network, cluster.messages, cluster.kernel, cluster.steps)
            return open_driver(entry, site, *world, rng)

        async def open_pool(entry: PoolDriver, config: Config, place: Place) -> Driver:
            return SimPool(entry, site, cluster.disks.setdefault((site, entry.name), {}), cluster.recorder)

        super().__init__(
            site,
            cluster.config.cluster,
            self.line,
            self.sim_prober,
            roles=tuple(role for role in ROLES if not (witness and role == "agent")),
            wall=cluster.wall_of(site),
            rng=random.Random(f"{seed}/ids"),
            ask=asker(site, cluster.source_of(site), cluster.servers, cluster.network, rng),
            open_driver=open_dns,
            open_pool=open_pool,
            on_note=self.notes.append,
            on_elected=lambda state, why: cluster.recorder.led(site, state is State.LEADING, why),
            telemetry=cluster.telemetry_of(site),
        )
        self.vantage: ParkingVantage = ParkingVantage(
            site, self.sim_prober, self.reporter, self.loop, self.sim_prober.steady, self.sim_prober.skipped
        )
        self._services = cluster.services
        self._services.on_turn[self.vantage.unpark] = None
        # Pools run only where there is a disk; what they keep there is in `cluster.disks`.
        self._place = Place(site, Path("/nonexistent"))
        self.task = self.loop.create_task(self.run())

    def sees(self) -> bool:
        """Is its view current? To be asked on its loop."""
        return self.view.current

    def kill(self) -> None:
        del self._services.on_turn[self.vantage.unpark]
        self.loop.kill()
        self.line.end()

    async def end(self) -> None:
        """A clean stop: leadership is handed over first."""
        await self.stop()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
