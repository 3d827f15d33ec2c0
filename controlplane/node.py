"""The composition root of one site's process: which parts run, on which adapters.

`failoverctl dev` runs several of these in one process, sharing nothing but the store; `failoverd` will run one.
"""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from importlib.metadata import version

from controlplane.agent import Agent, log_note
from controlplane.dns import DRIVERS
from controlplane.dns.ask import Ask
from controlplane.dns.ask import ask as ask_sockets
from controlplane.documents import DecisionDoc, NodeDoc
from controlplane.drivers import Driver
from controlplane.election import Election, State
from controlplane.journal import Journal
from controlplane.leader import Leader
from controlplane.operator import Operator
from controlplane.reporter import StoreReporter
from controlplane.signal import together
from controlplane.store import Store
from controlplane.sync import Note
from controlplane.view import View
from policies.frame import probe_targets
from policies.topology import Config, DnsDriver
from policies.world import Desired
from probes.target import Prober
from probes.vantage import Vantage

log = logging.getLogger(__name__)

ROLES = ("vantage", "controller", "agent")
Strays = tuple[tuple[str, str, str], ...]  # service, site, address

Opener = Callable[[str, DnsDriver, Config], Awaitable[Driver | None]]

LOOK_S = 30.0  # how often a node looks whether what it runs fits the configuration, if nothing tells it
OPEN_AGAIN_S = 2.0  # between attempts to start a driver


async def open_real(site: str, driver: DnsDriver, config: Config) -> Driver | None:
    """The driver as `site` writes it; None where it cannot: an embedded server is inside its home site's process."""
    kind = DRIVERS[driver.driver]
    opener = kind.open if driver.site == site else kind.open_deputy
    return await opener(driver, config) if opener else None


class Node:
    """One site's node. `run()` is all of it: cancelled, it ends as a crash would; `stop()` hands leadership over.

    `wall` reads the wall clock (seconds since 1970), for people and the clock_suspect alarm; `rng` makes random
    ids: a random.SystemRandom, or a seeded one in tests. `open_driver` opens what this site writes. It is what the
    API calls a NodeApi.
    """

    def __init__(
        self,
        site: str,
        cluster: str,
        store: Store,
        prober: Prober,
        *,
        roles: Collection[str] = ROLES,
        wall: Callable[[], float],
        rng: random.Random,
        ask: Ask = ask_sockets,
        open_driver: Opener = open_real,
        on_note: Callable[[Note], None] = log_note,
        on_elected: Callable[[State, str], None] | None = None,
    ) -> None:
        self.site = site
        self.roles = tuple(role for role in ROLES if role in roles)
        self.wall = wall
        run = f"{rng.getrandbits(64):016x}"
        me = NodeDoc(
            node=site, site=site, roles=self.roles, version=version("failover-control-plane"), run=run, n=0, wall_s=0.0
        )
        self.view = View(store, cluster, me, wall)
        keys = self.view.keys
        self.journal = Journal(wall)
        self.journal.follow(self.view)
        self.operator = Operator(store, keys, rng)
        self.election = Election(
            store, keys, site, lambda: f"{rng.getrandbits(64):016x}", self.view, on_elected or self._elected
        )
        self.leader = Leader(store, self.view, self.election, rng, wall, self._committed)
        self.reporter = StoreReporter(store, keys, site, "main", run, wall)
        self.vantage = Vantage(site, (), prober, self.reporter)
        self.drivers: dict[str, Driver] = {}
        self._configured: dict[str, Config] = {}
        self.agent = Agent(
            site, run, self.view, store, keys, self.drivers, ask=ask, seed=f"{site}/{run}", on_note=on_note
        )
        self._open_driver = open_driver
        self._prober = prober

    async def run(self) -> None:
        """Until cancelled, or until a part fails; then everything that it opened is closed."""
        parts = [self.view.run(), self._follow_configuration()]
        if "vantage" in self.roles:
            parts += [self.vantage.run(), self.reporter.run()]
        if "controller" in self.roles:
            parts += [self.election.run(), self.leader.run()]
        if "agent" in self.roles:
            parts += [self.agent.run()]
        try:
            await together(*parts)
        finally:
            for name in list(self.drivers):
                await self.drivers.pop(name).aclose()
            await self._prober.aclose()
            self.journal.close()

    async def stop(self) -> None:
        """Hand leadership over before run() is cancelled: another node claims the key at once."""
        await self.election.stop()

    async def _follow_configuration(self) -> None:
        """Give the vantage its targets and the agent its drivers, whenever configuration or desired change."""
        news = self.view.news
        watched: tuple[Config, Strays] | None = None
        while True:
            count, config = news.count, self.view.config
            wait_s = LOOK_S
            if config is not None:
                strays = _strays(config, self.view.desired)
                if watched is None or watched[0] is not config or watched[1] != strays:
                    watched = (config, strays)
                    self.vantage.freshness_s = config.policy.freshness_s
                    self.vantage.set_targets(probe_targets(config, self.view.desired))
                if "agent" in self.roles and not await self._open_drivers(config):
                    wait_s = OPEN_AGAIN_S
            await news.wait(wait_s, count)

    async def _open_drivers(self, config: Config) -> bool:
        """False if one could not be opened or changed: it stays as it was, and is tried again."""
        wanted = {d.name: d for d in config.dns if self.site in d.writers}
        for name in [name for name in self.drivers if name not in wanted]:
            await self.drivers.pop(name).aclose()
            self._configured.pop(name, None)
        fine = True
        for name, driver in wanted.items():
            if self._configured.get(name) is config:
                continue
            try:
                await self._bring(name, driver, config)
            except Exception as err:  # whatever its library raises: one driver must not end the node
                log.error("driver %s stays as it is, %s: %s", name, type(err).__name__, err)
                fine = False
                continue
            self._configured[name] = config
        return fine

    async def _bring(self, name: str, driver: DnsDriver, config: Config) -> None:
        """Another configuration for a driver: in place if it can, so that what it serves is never interrupted."""
        running = self.drivers.get(name)
        if running is not None:
            if await DRIVERS[driver.driver].reconfigure(running, driver, config):
                return
            if any(before == driver for before in self._configured[name].dns):
                return
        opened = await self._open_driver(self.site, driver, config)  # first the new one, then away with the old
        if opened is not None:
            self.drivers[name] = opened
        elif running is not None:
            del self.drivers[name]
        if running is not None:
            await running.aclose()

    def _elected(self, state: State, why: str) -> None:
        log.info("%s: %s (%s)", self.site, state.value, why)

    def _committed(self, decision: DecisionDoc, took_s: float) -> None:
        self.journal.committed(decision, took_s)
        for event in decision.events:
            level = logging.WARNING if event.kind == "alarm" else logging.INFO
            where = f" at {event.site}" if event.site else ""
            log.log(level, "%s %s%s %s: %s", decision.id, decision.service, where, event.rule, event.reason)


def _strays(config: Config, desired: Mapping[str, Desired]) -> Strays:
    """Addresses that are still served and that the configuration no longer has: vantages probe those too."""
    return tuple(
        (name, site, address)
        for name, now in sorted(desired.items())
        if (spec := config.services.get(name)) is not None
        for site, state in now.sites.items()
        for address in state.addresses
        if address not in spec.endpoints.get(site, ())
    )


def main() -> None:
    """failoverd. It joins a cluster through the etcd store, which this version does not have yet."""
    print(
        "failoverd: this version has only the memory store, which one process cannot share with another.\n"
        "Run a whole cluster in one process instead:  failoverctl dev",
        file=sys.stderr,
    )
    sys.exit(1)
