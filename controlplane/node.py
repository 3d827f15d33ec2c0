"""The composition root of one site's process: which parts run, on which adapters.

`failoverctl dev` runs several of these in one process, sharing nothing but the store; `failoverd` runs one.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

from msgspec.structs import replace

from controlplane.agent import Agent, log_note
from controlplane.dns import DRIVERS
from controlplane.dns.ask import Ask
from controlplane.dns.ask import ask as ask_sockets
from controlplane.documents import DecisionDoc, NodeDoc
from controlplane.drivers import Driver, Entry, Place, written_by
from controlplane.election import Election, State
from controlplane.journal import Journal
from controlplane.leader import Leader
from controlplane.notes import Note
from controlplane.operator import Operator
from controlplane.pools import DRIVERS as POOLS
from controlplane.reporter import StoreReporter
from controlplane.signal import together
from controlplane.store import Store
from controlplane.telemetry.telemetry import Telemetry
from controlplane.view import View
from policies.frame import probe_targets
from policies.topology import Config, DnsDriver, PoolDriver
from policies.world import Desired
from probes.target import Prober
from probes.vantage import Vantage

log = logging.getLogger(__name__)

ROLES = ("vantage", "controller", "agent")
Strays = tuple[tuple[str, str, str], ...]  # service, site, address

Opener = Callable[[str, DnsDriver, Config], Awaitable[Driver | None]]
PoolOpener = Callable[[PoolDriver, Config, Place], Awaitable[Driver]]

LOOK_S = 30.0  # how often a node looks whether what it runs fits the configuration, if nothing tells it
OPEN_AGAIN_S = 2.0  # between attempts to start a driver
OPEN_S = 15.0  # patience with one of them: a file of all countries takes seconds to look through
CLOSE_S = 2.0
SAY_AGAIN_S = 600.0  # the same trouble with a driver is said again after so long
FAULT_CHARS = 300  # of one in the node's beat


async def open_real(site: str, driver: DnsDriver, config: Config) -> Driver | None:
    """The driver as `site` writes it; None where it cannot: an embedded server is inside its home site's process."""
    kind = DRIVERS[driver.driver]
    opener = kind.open if driver.site == site else kind.open_deputy
    return await opener(driver, config) if opener else None


async def open_real_pool(pool: PoolDriver, config: Config, place: Place) -> Driver:
    """The driver of the pool at a place. Raises what it raises, and OSError if this version cannot run it."""
    opener = POOLS[pool.driver].open_pool
    if opener is None:
        raise OSError(f"this version cannot run {pool.driver}")
    return await opener(pool, config, place)


class Node:
    """One site's node. `run()` is all of it: cancelled, it ends as a crash would; `stop()` hands leadership over.

    `wall` reads the wall clock (seconds since 1970), for people and the clock_suspect alarm; `rng` makes random
    ids: a random.SystemRandom, or a seeded one in tests. `open_driver` and `open_pool` open what this site writes.
    `state_dir`: on local disk, for the journal and what pools were told last; without it there are no pools. It is
    what the API calls a NodeApi.
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
        open_pool: PoolOpener = open_real_pool,
        on_note: Callable[[Note], None] = log_note,
        on_elected: Callable[[State, str], None] | None = None,
        telemetry: Telemetry | None = None,
        state_dir: Path | None = None,
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
        self.journal = Journal(wall, state_dir / "journal.jsonl" if state_dir else None)
        self.journal.follow(self.view)
        self.operator = Operator(store, keys, rng)
        self.telemetry = telemetry or Telemetry(site, cluster)
        self.telemetry.follow(self.view, self.journal, wall)
        self._on_elected = on_elected or self._log_elected
        self.election = Election(store, keys, site, lambda: f"{rng.getrandbits(64):016x}", self.view, self._elected)
        self.leader = Leader(store, self.view, self.election, rng, wall, self._committed)
        self.reporter = StoreReporter(store, keys, site, "main", run, wall)
        self.vantage = Vantage(site, (), self.telemetry.prober(prober), self.reporter)
        self.drivers: dict[str, Driver] = {}
        self._configured: dict[str, tuple[Config, Entry]] = {}
        self._reopen: set[str] = set()  # drivers whose secrets may have changed
        self._opening: dict[str, asyncio.Task[bool]] = {}
        self._said: dict[str, tuple[str, float]] = {}  # trouble with a driver, and when it was logged
        self.agent = Agent(
            site, run, self.view, store, keys, self.drivers, ask=ask, seed=f"{site}/{run}", on_note=on_note
        )
        self.agent.on_write = self.telemetry.wrote
        self._open_driver, self._open_pool = open_driver, open_pool
        self._place = Place(site, state_dir) if state_dir else None
        self._said_no_place = False
        self._prober = prober

    async def run(self) -> None:
        """Until cancelled, or until a part fails; then everything that it opened is closed."""
        parts = [self.view.run(), self._follow_configuration(), self.telemetry.run()]
        if "vantage" in self.roles:
            parts += [self.vantage.run(), self.reporter.run()]
        if "controller" in self.roles:
            parts += [self.election.run(), self.leader.run()]
        if "agent" in self.roles:
            parts += [self.agent.run()]
        try:
            await together(*parts)
        finally:
            for task in self._opening.values():
                task.cancel()
            await asyncio.gather(*self._opening.values(), return_exceptions=True)
            for name in list(self.drivers):
                await self._close(name, self.drivers.pop(name))
            await self._prober.aclose()
            self.journal.close()
            await self.telemetry.aclose()

    async def stop(self) -> None:
        """Hand leadership over before run() is cancelled: another node claims the key at once."""
        await self.election.stop()

    @property
    def driver_faults(self) -> dict[str, str]:
        """Driver -> why it is not open here, or not as it is configured now."""
        return self.view.pulse.me.driver_faults

    async def reload(self) -> dict[str, str]:
        """Read the secrets of every driver again: it is opened anew, and the old one serves until the new one does.
        Returns driver_faults after that."""
        self._reopen.update(self.drivers)
        self.agent.reread_keys()
        self.view.news.set()
        await asyncio.gather(*self._opening.values(), return_exceptions=True)  # they may have read the old ones
        config = self.view.config
        if config is not None and "agent" in self.roles:
            due = [(name, entry) for name, entry in self._wanted(config).items() if self._due(name, config)]
            begun = [self._begin(name, entry, config) for name, entry in due]
            await asyncio.gather(*begun, return_exceptions=True)
        return self.driver_faults

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
                    known = self.site in config.sites  # else nobody would count its votes
                    self.vantage.set_targets(probe_targets(config, self.view.desired) if known else ())
                if "agent" in self.roles and not await self._drivers_open(config):
                    wait_s = OPEN_AGAIN_S
            await news.wait(wait_s, count)

    async def _drivers_open(self, config: Config) -> bool:
        """Begin what is to be done for it. True: nothing is left to do. Each driver is opened or changed by a task of
        its own, so that one that hangs holds up no other; where it fails, the driver stays as it was."""
        wanted = self._wanted(config)
        waiting = await self._retire(wanted)
        self._configured = {n: known for n, known in self._configured.items() if n in wanted or n in self.drivers}
        for name in [name for name in self.driver_faults if name not in wanted]:
            self._is_fine(name)
        due = {name: entry for name, entry in wanted.items() if self._due(name, config)}
        for name, entry in due.items():
            if name not in waiting:
                self._begin(name, entry, config)
        return not due

    async def _retire(self, wanted: Mapping[str, Entry]) -> set[str]:
        """Drivers that are wanted no more go on under another name, or end. Returns names that wait for that."""
        heirs, waiting = self._heirs(wanted), set[str]()
        for name in [name for name in self.drivers if name not in wanted]:
            heir = heirs.get(name)
            if heir is None:
                await self._close(name, self.drivers.pop(name))
            elif name in self._opening:  # it is being changed: not by two at once
                waiting.add(heir)
            else:
                self.drivers[heir], self._configured[heir] = self.drivers.pop(name), self._configured.pop(name)
        return waiting

    def _heirs(self, wanted: Mapping[str, Entry]) -> dict[str, str]:
        """Name servers of this process that have another name now, old -> new: opened anew, they would answer
        nothing for a while. One that listens where it did goes before one that does not."""
        left = {name: known[1] for name, known in self._configured.items() if name in self.drivers.keys() - wanted}
        new = {name: entry for name, entry in wanted.items() if name not in self.drivers and name not in self._opening}
        pairs = [(old, heir) for old in left for heir in new if _could_become(left[old], new[heir])]
        pairs.sort(key=lambda pair: not _listens(left[pair[0]]) & _listens(new[pair[1]]))
        heirs: dict[str, str] = {}
        for old, heir in pairs:
            if old not in heirs and heir not in heirs.values():
                heirs[old] = heir
        return heirs

    def _due(self, name: str, config: Config) -> bool:
        known = self._configured.get(name)
        return known is None or known[0] is not config or name in self._reopen or name in self._opening

    def _begin(self, name: str, entry: Entry, config: Config) -> asyncio.Task[bool]:
        """Or what is under way already."""
        if name not in self._opening:
            self._opening[name] = task = asyncio.create_task(self._try_to_bring(name, entry, config))
            task.add_done_callback(partial(self._tried, name))
        return self._opening[name]

    async def _try_to_bring(self, name: str, entry: Entry, config: Config) -> bool:
        anew = name in self._reopen
        self._reopen.discard(name)
        try:
            async with asyncio.timeout(OPEN_S):
                await self._bring(name, entry, config, anew)
        except Exception as err:  # whatever its library raises: one driver must not end the node
            self._is_at_fault(name, err)
            if anew:
                self._reopen.add(name)
            return False
        self._configured[name] = (config, entry)
        self._is_fine(name)
        return True

    def _is_at_fault(self, name: str, err: Exception) -> None:
        """Everybody is told by this node's beat; the log when the reason is another one, and now and then."""
        why = str(err) or (f"not done within {OPEN_S:g} s" if isinstance(err, TimeoutError) else type(err).__name__)
        fault = f"{'stays as it was' if name in self.drivers else 'is not open'}: {why}"
        self._tell(self.driver_faults | {name: fault[:FAULT_CHARS]})
        said, now = self._said.get(name), asyncio.get_running_loop().time()
        if said is None or said[0] != fault or now >= said[1] + SAY_AGAIN_S:
            self._said[name] = (fault, now)
            log.error("driver %s %s", name, fault)

    def _is_fine(self, name: str) -> None:
        if self._said.pop(name, None):
            self._tell({other: fault for other, fault in self.driver_faults.items() if other != name})

    def _tell(self, faults: dict[str, str]) -> None:
        pulse = self.view.pulse
        pulse.me = replace(pulse.me, driver_faults=faults)

    def _tried(self, name: str, task: asyncio.Task[bool]) -> None:
        del self._opening[name]
        if not task.cancelled() and task.result():
            self.view.news.set()  # for the agent; and the configuration may be another one by now

    async def _close(self, name: str, driver: Driver) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await driver.aclose()
        except Exception as err:  # it is not used any more, whatever it says
            log.error("driver %s was not closed, %s: %s", name, type(err).__name__, err)

    def _wanted(self, config: Config) -> dict[str, Entry]:
        """What this site writes, by name."""
        wanted = written_by(config, self.site)
        if self._place is not None:
            return wanted
        pools = [name for name, entry in wanted.items() if isinstance(entry, PoolDriver)]
        if pools and not self._said_no_place:
            self._said_no_place = True
            log.error("%s cannot run without a directory for what was applied last", ", ".join(pools))
        return {name: entry for name, entry in wanted.items() if name not in pools}

    async def _bring(self, name: str, entry: Entry, config: Config, secrets: bool) -> None:
        """Another configuration for a driver: in place if it can, so that what it serves is never interrupted.

        secrets: they may have changed."""
        running = self.drivers.get(name)
        kind = POOLS[entry.driver] if isinstance(entry, PoolDriver) else DRIVERS[entry.driver]
        before = self._configured.get(name)
        same = before is not None and _place_of(before[1]) == _place_of(entry)
        # What runs inside this process has its secrets from nowhere else: it is never opened anew for them.
        anew = secrets and not kind.in_process
        if running is not None and same and not anew and await kind.reconfigure(running, entry, config):
            return
        opened = await self._open(entry, config)  # first the new one, then away with the old
        if opened is not None:
            self.drivers[name] = opened
        elif running is not None:
            del self.drivers[name]
        if running is not None:
            await self._close(name, running)

    async def _open(self, entry: Entry, config: Config) -> Driver | None:
        if isinstance(entry, DnsDriver):
            return await self._open_driver(self.site, entry, config)
        assert self._place is not None, "without it there are no pools"
        return await self._open_pool(entry, config, self._place)

    def _elected(self, state: State, why: str) -> None:
        if state is State.LEADING:
            self.telemetry.elected()
        self._on_elected(state, why)

    def _log_elected(self, state: State, why: str) -> None:
        log.info("%s: %s (%s)", self.site, state.value, why)

    def _committed(self, decision: DecisionDoc, took_s: float, commit_s: float) -> None:
        self.journal.committed(decision, took_s)
        self.telemetry.committed(decision, took_s, commit_s)
        for event in decision.events:
            level = logging.WARNING if event.kind == "alarm" else logging.INFO
            where = f" at {event.site}" if event.site else ""
            said = (decision.id, decision.service, where, event.rule, event.reason)
            log.log(level, "%s %s%s %s: %s", *said, extra={"decision": decision.id})


def _place_of(entry: Entry) -> tuple[str, str]:
    """What cannot change without opening it anew: its driver, and where a name server is at home."""
    return entry.driver, entry.site if isinstance(entry, DnsDriver) else ""


def _could_become(old: Entry, new: Entry) -> bool:
    """Under another name, and without being opened anew?"""
    inside = isinstance(old, DnsDriver) and DRIVERS[old.driver].in_process
    return inside and isinstance(new, DnsDriver) and _place_of(old) == _place_of(new)


def _listens(entry: Entry) -> set[str]:
    kind = DRIVERS[entry.driver]
    return set(kind.servers(kind.options_of(entry)))


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
