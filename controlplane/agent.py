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
from typing import Any, Protocol

import msgspec

from controlplane.dns.ask import Ask
from controlplane.dns.ask import ask as ask_sockets
from controlplane.dns.checker import Checker
from controlplane.dns.verify import Probe, drivers_for, probes_for, servers_of
from controlplane.documents import Applied, AppliedDoc, Keys, Seen, decode, encode
from controlplane.drivers import Driver
from controlplane.signal import Signal
from controlplane.store import Put, Store, StoreError, Txn
from controlplane.sync import CALL_S, READ_BACK_S, Note, Sync
from policies.topology import Config, DnsDriver
from policies.world import Desired

log = logging.getLogger(__name__)

PROBE_WRITE_S = 30.0
FROZEN_S = 0.25  # how often an agent that is cut off looks whether it still is
FRESH_S = 5.0  # how long a linearizable read may stand in for a view that has not caught up
DOC_EVERY_S = 0.25  # at most one document a driver in this time
DOC_REFRESH_S = 10.0
SLICE = 500  # names looked up before others get their turn


class DesiredSource(Protocol):
    """Where an agent learns what to do; a View is one."""

    @property
    def desired(self) -> Mapping[str, Desired]: ...

    @property
    def config(self) -> Config | None: ...

    @property
    def incarnation(self) -> str: ...

    @property
    def current(self) -> bool:
        """False: cut off from the store."""
        ...

    @property
    def news(self) -> Signal:
        """Set when any of the above (but `current`) changes."""
        ...


def log_note(note: Note) -> None:
    # What every agent sees alike when all is well would drown the rest.
    quiet = logging.DEBUG if note.kind in ("seen", "applied") else logging.INFO
    level = logging.WARNING if note.kind == "alarm" else quiet
    log.log(level, "%s %s at %s: %s", note.kind, note.service or "-", note.subject, note.text)


class _Keeper:
    """What an agent knows of one driver."""

    def __init__(self, driver: DnsDriver, sync: Sync) -> None:
        self.driver, self.sync = driver, sync
        self.applied: dict[str, Applied] = {}
        self.unwritable = ""
        self.full_at = -READ_BACK_S  # when everything was read back last
        self.proved_at = -2 * PROBE_WRITE_S
        self.n = 0
        self.written: tuple[Any, ...] = ()
        self.written_at = 0.0

    def proof_age_s(self) -> float:
        """Since it was last asked whether a write would be accepted."""
        return _now() - self.proved_at

    def missing(self, desired: Desired) -> bool:
        """Not known to be applied."""
        done = self.applied.get(desired.service)
        return done is None or (done.result, done.generation, done.decision) != (
            "ok",
            desired.generation,
            desired.stamp,
        )


class Agent:
    """The agent of `site`; `run()` is all of it.

    `drivers`: name -> driver, for each driver of the configuration that this site writes; it may be changed
    while running. `run`: random per start of the process. `seed`: of the jitter. `on_note`: the journal.
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
        self.keepers: dict[str, _Keeper] = {}
        self.checkers: dict[str, Checker] = {}
        self._source, self._store, self._keys, self._drivers = source, store, keys, drivers
        self._ask, self._seed, self._note = ask, seed, on_note
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._applied_news, self._doc_news = Signal(), Signal()
        self._config: Config | None = None
        self._probes: tuple[Probe, ...] = ()
        self._owners: dict[str, str] = {}  # DNS name -> service, as the configuration has it
        self._servers: dict[str, tuple[str, ...]] = {}  # of each driver
        self._routes: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._connected = False
        self._reading = asyncio.Lock()
        self._fresh: dict[str, Desired] = {}
        self._fresh_until = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        news = self._source.news
        try:
            self._start("documents", self._documents, self._doc_news)
            while True:
                count = news.count
                await self._reconcile()
                await news.wait(READ_BACK_S, count)
        finally:
            for name in list(self._tasks):
                await self._stop(name)

    # ---- tasks

    def _start(self, name: str, step: Callable[[], Coroutine[Any, Any, float]], signal: Signal) -> None:
        self._tasks[name] = asyncio.get_running_loop().create_task(self._repeat(name, step, signal))

    async def _stop(self, name: str) -> None:
        task = self._tasks.pop(name)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def _repeat(self, name: str, step: Callable[[], Coroutine[Any, Any, float]], signal: Signal) -> None:
        while True:
            count = signal.count
            try:
                wait_s = await step()
            except Exception as error:
                # A bug in one driver must stop neither the others nor, for good, itself.
                log.exception("%s failed", name)
                self._note(Note("alarm", "", name, f"bug: {error!r}"))
                wait_s = READ_BACK_S
            await signal.wait(wait_s, count)

    async def _reconcile(self) -> None:
        """One keeper for each driver that this site writes, one checker for each server of their zones."""
        config = self._source.config
        if config is None:
            return
        if config is not self._config:
            self._config, self._routes = config, {}
            self._servers = {d.name: servers_of(d) for d in config.dns}
            self._owners = {spec.dns.name: service for service, spec in config.services.items() if spec.dns}
            self._probes = probes_for(config.regions)
        mine = {d.name: d for d in config.dns if self.site in d.writers and d.name in self._drivers}
        for name, keeper in list(self.keepers.items()):
            if mine.get(name) != keeper.driver or self._drivers[name] is not keeper.sync.driver:
                del self.keepers[name]
                await self._stop("driver " + name)
        for name, driver in mine.items():
            if name not in self.keepers:
                rng = random.Random(f"{self._seed}/{self.site}/{name}")
                turn = driver.writers.index(self.site)
                sync = Sync(self._drivers[name], f"{self.site}-{self.run_id}", turn, self._reread, rng)
                self.keepers[name] = keeper = _Keeper(driver, sync)
                self._start("driver " + name, partial(self._keep, keeper), self._source.news)
        desired = self._desired()
        for done, new in enumerate([d.name for d in desired.values() if d.name not in self._routes]):
            self._route(new)
            if done % SLICE == 0:
                await asyncio.sleep(0)  # ten thousand names must not hold the loop
        servers = dict.fromkeys(s for d in desired.values() for s in self._route(d.name)[1])
        for server in [s for s in self.checkers if s not in servers]:
            del self.checkers[server]
            await self._stop("server " + server)
        for server in servers:
            if server not in self.checkers:
                self.checkers[server] = checker = Checker(server, self._ask)
                self._start("server " + server, partial(self._check, checker), self._applied_news)

    # ---- desired

    def _desired(self) -> dict[str, Desired]:
        """The newest known, of services with a DNS name that is theirs."""
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
        return {service: d for service, d in desired.items() if d.name and not self._inherited(d, desired)}

    def _inherited(self, old: Desired, desired: Mapping[str, Desired]) -> bool:
        """Has the configuration given this name to another service, which answers for it by now? Two that write
        the same name would take each other for a store that was rewound."""
        heir = self._owners.get(old.name, old.service)
        return heir != old.service and heir in desired and desired[heir].name == old.name

    def _route(self, name: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(this site's drivers that write a name, servers that answer for it if there is such a driver)."""
        if name not in self._routes and self._config is not None:
            writing = drivers_for(self._config, name)
            mine = tuple(d.name for d in writing if self.site in d.writers)
            servers = dict.fromkeys(server for d in writing for server in self._servers[d.name]) if mine else ()
            self._routes[name] = (mine, tuple(servers))
        return self._routes.get(name, ((), ()))

    async def _reread(self) -> Mapping[str, Desired]:
        """A linearizable read of all desired. Raises StoreError."""
        snapshot = await self._store.range(self._keys.desired)
        fresh: dict[str, Desired] = {}
        for item in snapshot.items:
            try:
                fresh[item.key.removeprefix(self._keys.desired)] = decode(Desired, item.value)
            except (ValueError, msgspec.DecodeError) as error:
                # The view keeps the last good copy, and says so.
                log.warning("%s cannot be read: %s", item.key, error)
        self._fresh, self._fresh_until = dict(fresh), _now() + FRESH_S
        return fresh

    async def _ready(self) -> bool:
        """Connected, and desired was read linearizably since: a cut or a pause may have hidden newer ones."""
        source = self._source
        if not source.current or not source.incarnation or self._config is None:
            self._connected = False
            return False
        async with self._reading:
            if not self._connected:
                try:
                    async with asyncio.timeout(CALL_S):
                        await self._reread()
                except (StoreError, TimeoutError):
                    return False
                self._connected = True
                for keeper in self.keepers.values():
                    keeper.written = ()  # the store may have been restored: what it was told counts no more
                self._doc_news.set()
        return True

    # ---- one driver, one server

    async def _keep(self, keeper: _Keeper) -> float:
        """One pass over a driver: what is not known to be applied, and once a second everything."""
        if not await self._ready():
            return FROZEN_S
        name, started = keeper.driver.name, _now()
        wanted = {s: d for s, d in self._desired().items() if name in self._route(d.name)[0]}
        full = started >= keeper.full_at + READ_BACK_S
        todo = {s: d for s, d in wanted.items() if keeper.missing(d)}
        if full:
            keeper.full_at = started
            todo |= wanted
        before = (keeper.applied, keeper.unwritable, dict(keeper.sync.old_until))
        done = await keeper.sync.bring(todo, self._source.incarnation)
        kept = {s: a for s, a in keeper.applied.items() if s in wanted}
        keeper.applied = kept | done.applied
        for note in done.notes:
            self._note(note)
        # A proof may take its time: writes that are being tried go first, for a while.
        trying = any(a.result == "transient" for a in done.applied.values())
        if not trying or keeper.proof_age_s() >= 2 * PROBE_WRITE_S:
            await self._prove(keeper)
        if before != (keeper.applied, keeper.unwritable, keeper.sync.old_until):
            self._doc_news.set()
        if any(note.kind in ("applied", "repaired") for note in done.notes):
            self._applied_news.set()
        return min(done.wake_in_s, max(0.0, keeper.full_at + READ_BACK_S - _now()))

    async def _prove(self, keeper: _Keeper) -> None:
        """Every 30 s: would a write be accepted?"""
        if keeper.proof_age_s() < PROBE_WRITE_S:
            return
        keeper.proved_at = _now()
        before, keeper.unwritable = keeper.unwritable, ""
        try:
            async with asyncio.timeout(CALL_S):
                await keeper.sync.driver.probe_write()
        except (OSError, TimeoutError) as error:
            keeper.unwritable = str(error) or type(error).__name__
        if keeper.unwritable != before:
            kind = "alarm" if keeper.unwritable else "cleared"
            self._note(Note(kind, "", keeper.driver.name, f"unwritable: {keeper.unwritable or before}"))

    async def _check(self, checker: Checker) -> float:
        if not await self._ready():
            return FROZEN_S
        wanted = {s: d for s, d in self._desired().items() if checker.server in self._route(d.name)[1]}
        next_s, changed = await checker.step(wanted, self._source.incarnation, self._probes)
        for service in changed:
            seen = checker.seen[service]
            text = "silent" if seen.generation is None else f"generation {seen.generation}"
            text += " as desired" if seen.agrees else f": {seen.reason}"
            self._note(Note("seen", service, checker.server, text))
        if changed:
            self._doc_news.set()
        return next_s

    # ---- documents

    async def _documents(self) -> float:
        """Write what changed, and everything now and then: who reads it must see that it is alive."""
        if not self._source.current:
            return FROZEN_S
        claimed: set[str] = set()
        for keeper in list(self.keepers.values()):
            document, content = self._document(keeper, claimed)
            if content == keeper.written and _now() - keeper.written_at < DOC_REFRESH_S:
                continue
            put = Put(self._keys.applied_by(keeper.driver.site, keeper.driver.name, self.site), encode(document))
            try:
                async with asyncio.timeout(CALL_S):
                    await self._store.txn(Txn((), (put,)))
            except (StoreError, TimeoutError):
                return FROZEN_S  # whether it was written or not: it is written again
            keeper.n, keeper.written, keeper.written_at = document.n, content, _now()
        # At most one document a driver in this time, and the first one at once.
        await asyncio.sleep(DOC_EVERY_S)
        return READ_BACK_S - DOC_EVERY_S

    def _document(self, keeper: _Keeper, claimed: set[str]) -> tuple[AppliedDoc, tuple[Any, ...]]:
        """The document, and what of it is news. What was seen of a service stands in one document an agent."""
        now = _now()
        seen: dict[str, tuple[Seen, ...]] = {}
        for service in keeper.applied:
            if service not in claimed:
                rows = [c.seen[service] for c in self.checkers.values() if service in c.seen]
                if rows:
                    seen[service] = tuple(rows)
        claimed.update(keeper.applied)
        until = {s: at for s, at in keeper.sync.old_until.items() if at > now}
        document = AppliedDoc(
            site=keeper.driver.site,
            driver=keeper.driver.name,
            writer=self.site,
            run=self.run_id,
            n=keeper.n + 1,
            services=keeper.applied,
            seen=seen,
            old_ttl_left_s={service: at - now for service, at in until.items()},
            unwritable=keeper.unwritable,
        )
        return document, (dict(keeper.applied), seen, until, keeper.unwritable)


def _now() -> float:
    return asyncio.get_running_loop().time()
