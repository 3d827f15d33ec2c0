"""A site's agent: desired -> every driver of its site, and those it deputises for; then it asks (DESIGN 4.9).

One task for each driver and one for each name server that is asked, so that none waits for another. Cut off from
the store the agent does nothing: what was written last goes on being served.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import msgspec

from controlplane.aims import Aims
from controlplane.calls import bug
from controlplane.dns.ask import Ask
from controlplane.dns.ask import ask as ask_sockets
from controlplane.dns.checker import Checker
from controlplane.dns.nameservers import beside
from controlplane.dns.questions import Probe
from controlplane.dns.verify import geo_file, probes_for
from controlplane.documents import Applied, Keys, decode
from controlplane.drivers import Change, Driver, Entry, site_of, written_by
from controlplane.keeper import Keeper
from controlplane.lens import Lens
from controlplane.notes import Note
from controlplane.reports import Place, Reports
from controlplane.routes import Routes
from controlplane.signal import Signal
from controlplane.source import DesiredSource
from controlplane.store import Store, StoreError
from controlplane.sync import READ_ALL_S, READ_BACK_S, Sync
from policies.topology import Config, PoolDriver
from policies.world import Desired

log = logging.getLogger(__name__)

FROZEN_S = 0.25  # how often an agent that is cut off looks whether it still is
FRESH_S = 5.0  # how long a linearizable read may stand in for a view that has not caught up
DOC_EVERY_S = 0.25  # at most one document a driver in this time
DOC_BYTES_PER_S = 2 * 1024 * 1024  # of all documents, so that ten thousand services do not fill the store
SLICE = 500  # names looked up before others get their turn
NS_S = 60.0  # between looks at a zone's NS set
NS_AGAIN_S = 5.0  # if no server told it


def log_note(note: Note, usual: int = logging.DEBUG) -> None:
    """`usual`: the level of what every agent sees alike when all is well; among many in one log it drowns the rest."""
    quiet = usual if note.kind in ("seen", "applied") else logging.INFO
    level = logging.WARNING if note.kind == "alarm" else quiet
    extra = {"decision": note.decision}
    log.log(level, "%s %s at %s: %s", note.kind, note.service or "-", note.subject, note.text, extra=extra)


class Agent:
    """The agent of `site`; `run()` is all of it.

    `drivers`: name -> driver, for each driver of the configuration that this site writes; it may be changed
    while running. `run`: random per start of the process. `seed`: of the jitter. `on_note`: the journal. `on_write`,
    if it is set, is told of each attempt to write: site and name of the driver, and what Sync.on_write is told.
    """

    def __init__(
        self,
        site: str,
        run: str,
        source: DesiredSource,
        store: Store,
        keys: Keys,
        drivers: Mapping[str, Driver],
        *,
        ask: Ask = ask_sockets,
        seed: str = "",
        on_note: Callable[[Note], None] = log_note,
    ) -> None:
        self.site, self.run_id = site, run
        self.keepers: dict[str, Keeper] = {}
        self.checkers: dict[str, Checker] = {}
        self._source, self._store, self._keys, self._drivers = source, store, keys, drivers
        self._ask, self._seed, self._note = ask, seed, on_note
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._applied_news, self._doc_news, self._zone_news = Signal(), Signal(), Signal()
        self._routes: Routes | None = None
        self._known: tuple[Probe, ...] = ()
        self._beside: dict[str, tuple[str, ...]] = {}
        self._reports = Reports(store, keys, site, run)
        self._ours: dict[Place, dict[str, int]] = {}
        self.on_write: Callable[[str, str, Mapping[str, Change], Mapping[str, Applied], float], None] | None = None
        self._connected = False
        self._reading = asyncio.Lock()
        self._fresh: dict[str, Desired] = {}
        self._fresh_until = 0.0
        self._reconciled: tuple[int, Routes | None, dict[str, Driver]] = (-1, None, {})
        self._aims = Aims(self._desired)

    async def run(self) -> None:
        """Until cancelled."""
        news = self._source.news
        try:
            self._start("documents", self._documents, self._doc_news)
            self._start("zones", self._look_at_zones, self._zone_news)
            told = news.count
            while True:
                count = news.count
                await self._reconcile()
                await news.wait(READ_BACK_S, count)
                if count != told:  # by now others have written too: all servers are asked about what is new
                    told = count
                    self._applied_news.set()
        finally:
            for name in list(self._tasks):
                await self._stop(name)

    def reread_keys(self) -> None:
        """The secrets of views may be others now."""
        self._zone_news.set()

    # ---- tasks

    def _start(self, name: str, step: Callable[[], Coroutine[Any, Any, float]], signal: Signal) -> None:
        self._tasks[name] = asyncio.get_running_loop().create_task(self._repeat(name, step, signal))

    async def _stop(self, name: str) -> None:
        task = self._tasks.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _repeat(self, name: str, step: Callable[[], Coroutine[Any, Any, float]], signal: Signal) -> None:
        said = ""
        while True:
            count = signal.count
            try:
                wait_s = await step()
                now = ""
            except Exception as error:
                # A bug in one driver must stop neither the others nor, for good, itself.
                wait_s, now = READ_BACK_S, bug(error)
                if now != said:
                    log.exception("%s failed", name)
            if now != said:
                self._note(Note("alarm" if now else "cleared", "", name, now or said))
                said = now
            await signal.wait(wait_s, count)

    async def _reconcile(self) -> None:
        """One keeper for each driver that this site writes, one checker for each server of their zones."""
        config = self._source.config
        if config is None:
            return
        if self._routes is None or self._routes.config is not config:
            mmdb = geo_file(config)
            # A file of all countries takes seconds to look through.
            probes = await asyncio.to_thread(probes_for, config.regions, mmdb) if mmdb else probes_for(config.regions)
            new = Routes(config, self.site, self._beside, probes)
            await self._look_up(new)
            self._routes, self._known = new, probes
            self._zone_news.set()
        basis = (self._source.news.count, self._routes, dict(self._drivers))
        if self._reconciled == basis and not self._fresh:
            return
        self._reconciled = basis
        routes = self._routes
        await self._reconcile_keepers(config, routes)
        await self._look_up(routes)
        servers = dict.fromkeys(s for d in self._now_aimed_at().in_zones().values() for s in routes.of(d.name)[1])
        for server in [s for s in self.checkers if s not in servers]:
            del self.checkers[server]
            await self._stop("server " + server)
        for server in servers:
            if server not in self.checkers:
                self.checkers[server] = checker = Checker(server, self._ask, routes.is_beside(server))
                self._start("server " + server, partial(self._check, checker), self._applied_news)
        self._doc_news.set()

    async def _look_up(self, routes: Routes) -> None:
        """Ten thousand names must not hold the loop: whoever needs them finds them known."""
        new = [d.name for d in self._desired().values() if d.name and not routes.known(d.name)]
        for done, name in enumerate(new):
            routes.of(name)
            if done % SLICE == 0:
                await asyncio.sleep(0)

    async def _reconcile_keepers(self, config: Config, routes: Routes) -> None:
        mine = {name: entry for name, entry in written_by(config, self.site).items() if name in self._drivers}
        for name, keeper in list(self.keepers.items()):
            if mine.get(name) != keeper.entry:
                del self.keepers[name]
                await self._stop("driver " + name)
        for name, entry in mine.items():
            driver = self._drivers[name]
            lens = routes.pool if isinstance(entry, PoolDriver) else routes.lenses[name]
            if name not in self.keepers:
                self.keepers[name] = self._keeper(entry, driver, lens)
            keeper = self.keepers[name]
            keeper.lens = lens
            if keeper.sync.driver is not driver:  # opened anew: the same server, of which everything is still known
                await self._stop("driver " + name)
                keeper.sync.driver = driver
            if "driver " + name not in self._tasks:
                self._start("driver " + name, partial(self._keep, keeper), self._source.news)

    def _keeper(self, entry: Entry, driver: Driver, lens: Lens) -> Keeper:
        rng = random.Random(f"{self._seed}/{self.site}/{entry.name}")
        turn = 0 if isinstance(entry, PoolDriver) else entry.writers.index(self.site)
        site = site_of(entry, self.site)
        reread = partial(self._reread_for, entry.name)
        sync = Sync(driver, f"{self.site}-{self.run_id}", turn, reread, rng)
        sync.remember(self._ours.get((site, entry.name), {}))
        if self.on_write is not None:
            sync.on_write = partial(self.on_write, site, entry.name)
        return Keeper(entry, site, sync, lens)

    # ---- desired

    def _desired(self) -> dict[str, Desired]:
        """The newest known."""
        desired = dict(self._source.desired)
        if self._fresh and _now() >= self._fresh_until:
            self._fresh = {}
        for service, fresh in list(self._fresh.items()):
            seen = desired.get(service)
            if seen is not None and seen.generation >= fresh.generation:
                # The view has caught up. What it says from now on counts, also if the store is rewound.
                del self._fresh[service]
            else:
                desired[service] = fresh
        return desired

    def _now_aimed_at(self) -> Aims:
        return self._aims.at(None if self._fresh else self._source.news.count, self._routes)

    async def _reread(self) -> Mapping[str, Desired]:
        """A linearizable read of all desired. Raises StoreError."""
        snapshot = await self._store.range(self._keys.desired)
        fresh: dict[str, Desired] = {}
        for done, item in enumerate(snapshot.items):
            try:
                fresh[item.key.removeprefix(self._keys.desired)] = decode(Desired, item.value)
            except (ValueError, msgspec.DecodeError) as error:
                # The view keeps the last good copy, and says so.
                log.warning("%s cannot be read: %s", item.key, error)
            if done % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        self._fresh, self._fresh_until = dict(fresh), _now() + FRESH_S
        return fresh

    async def _reread_for(self, name: str) -> Mapping[str, Desired]:
        """The same as one driver can express it."""
        fresh = await self._reread()
        keeper = self.keepers.get(name)
        return keeper.lens.all(fresh) if keeper else fresh

    async def _ready(self) -> bool:
        """Connected, and desired was read linearizably since: a cut or a pause may have hidden newer ones."""
        source = self._source
        if not source.current or not source.incarnation or self._routes is None:
            self._connected = False
            return False
        if self._connected:
            return True
        async with self._reading:
            if not self._connected:
                try:
                    async with asyncio.timeout(READ_ALL_S):
                        await self._reread()
                        self._ours = await self._reports.look()
                except (StoreError, TimeoutError):
                    return False
                self._connected = True
                for keeper in self.keepers.values():
                    keeper.sync.remember(self._ours.get((keeper.site, keeper.name), {}))
                self._doc_news.set()
        return True

    # ---- one driver, one server

    async def _keep(self, keeper: Keeper) -> float:
        source = self._source
        try:
            if not await self._ready():
                return FROZEN_S
            wanted = self._now_aimed_at().of_driver(keeper.name, keeper.pool, keeper.lens)
            kept = await keeper.step(wanted, source.incarnation, source.adopted, source.adoption)
        except Exception as error:
            keeper.broke(error)
            self._doc_news.set()
            raise
        for note in kept.notes:
            self._note(note)
        if kept.changed:
            self._doc_news.set()
        if kept.written and not keeper.pool:
            self._applied_news.set()
        return kept.wake_in_s

    async def _check(self, checker: Checker) -> float:
        routes = self._routes
        try:
            if not await self._ready() or routes is None:
                return FROZEN_S
            wanted = self._now_aimed_at().of_server(checker.server)
            probes = routes.probes.get(checker.server, ())
            known = len(checker.seen)
            next_s, changed = await checker.step(wanted, self._source.incarnation, probes)
        except Exception as error:
            checker.broke(error)
            self._doc_news.set()
            raise
        for service in changed:
            seen = checker.seen[service]
            text = "silent" if seen.generation is None else f"generation {seen.generation}"
            text += " as desired" if seen.agrees else f": {seen.reason}"
            self._note(Note("seen", service, checker.server, text, wanted[service].decision))
        if changed or len(checker.seen) != known:
            self._doc_news.set()
        return next_s

    async def _look_at_zones(self) -> float:
        """Which servers do the zones themselves name?"""
        routes = self._routes
        if routes is None or not self._source.current:
            return FROZEN_S
        found: dict[str, tuple[str, ...]] = {}
        again_s = NS_S
        for zone in routes.zones:
            servers, told = await beside(self._ask, routes.config, zone)
            if told.reason:  # nobody told: those known before are still asked
                servers, again_s = self._beside.get(zone, ()), NS_AGAIN_S
            if servers:
                found[zone] = servers
        if found != self._beside:
            log.info("name servers beside the configured ones: %s", found or "none")
            new = Routes(routes.config, self.site, found, self._known)
            await self._look_up(new)
            if routes is self._routes:
                self._beside, self._routes = found, new
                self._applied_news.set()
        else:
            routes.reread_keys()
        return again_s

    # ---- documents

    async def _documents(self) -> float:
        """Write what changed, and now and then what did not: who reads it must see that it is alive."""
        routes = self._routes
        if not await self._ready() or routes is None:
            return FROZEN_S
        expected = [(site_of(entry, self.site), name) for name, entry in written_by(routes.config, self.site).items()]
        try:
            size = await self._reports.write(list(self.keepers.values()), self.checkers.values(), expected)
        except (StoreError, TimeoutError):
            return FROZEN_S  # whether it was written or not: it is written again
        if size:  # at most one document a driver in this time, and the first one at once
            await asyncio.sleep(max(DOC_EVERY_S, size / DOC_BYTES_PER_S))
        return max(0.0, self._reports.due_at - _now())


def _now() -> float:
    return asyncio.get_running_loop().time()
