"""A vantage's reports into the store (DESIGN 4.2, 5, 11): latest wins, shards and beat in one transaction.

The heartbeat is earned. Only put() and beat(), both called by the probing loop, earn a transaction; each earns
one, and within a second or not at all. So a hung prober falls silent, however well this task is.

Every transaction compares the mod revision of the beat that it replaces. So one that was given up and lands late
cannot put an old shard beside a newer beat, and a process that woke up cannot talk over its successor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from controlplane.documents import Keys, SchemaTooNew, decode, encode
from controlplane.patience import Patience
from controlplane.store import Compare, Put, Store, StoreError, Txn, Unavailable
from probes.target import Beat, Observation, Shard

SPACING_S = 0.1  # between the starts of two transactions
EARNED_S = 1.0  # how long a call of the probing loop justifies a beat
TRY_S = 1.0  # patience with one transaction, until it counts as not confirmed
SHARDS = 100  # in one transaction: etcd allows 128 operations
SHARDS_BYTES = 512 * 1024  # and 1.5 MiB
RIVAL_S = 2.5  # how long a foreign beat may stand still before it is taken for that of a dead process


class Superseded(Exception):
    """Another process writes this vantage's keys since, and it is the newer one: this one must end."""


class StoreReporter:
    """Implements probes.target.Reporter for the prober `prober` at `site`.

    `run` is random for each process start; `wall` reads the wall clock (seconds since 1970), for the
    clock_suspect alarm only.
    """

    def __init__(self, store: Store, keys: Keys, site: str, prober: str, run: str, wall: Callable[[], float]) -> None:
        self.trouble = ""  # why the last transaction was not confirmed, for people
        self._store = store
        self._keys = keys
        self._site = site
        self._prober = prober
        self._run = run
        self._wall = wall
        self._key = keys.beat(site, prober)
        self._wanted: dict[str, Shard] = {}
        self._confirmed: dict[str, int] = {}  # shard -> the number that stands in the store
        self._blind: bool | None = None  # not known before the first beat()
        self._earned_at: float | None = None
        self._n = 0
        self._rev: int | None = None  # mod revision of the beat key (0: absent); None: to be read
        self._own_rev = 0  # of the last own beat that was confirmed
        self._rival: tuple[int, float] | None = None  # mod revision of a newer foreign beat, and when it was found
        self._sent_at = -SPACING_S
        self._wake = asyncio.Event()

    def put(self, shard: str, observations: Sequence[Observation]) -> None:
        """Replace a shard's observations; the latest wins. The same again is no news."""
        old = self._wanted.get(shard)
        now = tuple(observations)
        if old is None or old.observations != now:
            self._wanted[shard] = Shard(self._site, self._run, old.n + 1 if old else 1, now)
            self._earn()

    def beat(self, blind: bool) -> None:
        """Called by the probing loop alone, once a second: the heartbeat is earned."""
        self._blind = blind
        self._earn()

    async def run(self) -> None:
        """Write until cancelled. Raises Superseded; every other trouble with the store passes."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if (early_s := self._sent_at + SPACING_S - loop.time()) > 0:
                await asyncio.sleep(early_s)
            if self._blind is None or self._earned_at is None or loop.time() - self._earned_at > EARNED_S:
                continue
            self._sent_at = loop.time()
            try:
                with Patience(TRY_S):
                    await self._publish(self._blind)
            except (StoreError, TimeoutError) as error:
                self._reconnect(str(error) or "no reply from the store")

    # --- inside ---

    def _earn(self) -> None:
        self._earned_at = asyncio.get_running_loop().time()
        self._wake.set()

    def _reconnect(self, why: str) -> None:
        """Nothing is sure any more: read the beat again, write everything again."""
        self.trouble = why
        self._rev = None
        self._confirmed.clear()
        if self._earned_at is not None:  # nothing was written yet for it
            self._wake.set()

    async def _publish(self, blind: bool) -> None:
        """One transaction with what is not confirmed, and the beat."""
        if self._rev is None:
            self._rev = await self._look()
        changed = [name for name, shard in self._wanted.items() if self._confirmed.get(name) != shard.n]
        puts, numbers = self._batch(sorted(changed))
        self._n += 1
        beat = Beat(self._site, self._run, self._n, dict(sorted(numbers.items())), blind, self._wall())
        earned_at = self._earned_at
        if len(puts) == len(changed):
            self._earned_at = None
        txn = Txn((Compare(self._key, mod_rev=self._rev),), (*puts, Put(self._key, encode(beat))))
        try:
            result = await self._store.txn(txn)
        except Unavailable:
            self._earned_at = self._earned_at or earned_at  # not sent
            raise
        if not result.ok:
            self._earned_at = self._earned_at or earned_at
            self._reconnect("the beat in the store is not the one that was written last")
            return
        self.trouble = ""
        self._rev = self._own_rev = result.rev
        self._rival = None
        self._confirmed = numbers
        if len(puts) < len(changed):
            self._wake.set()

    def _batch(self, changed: Sequence[str]) -> tuple[list[Put], dict[str, int]]:
        """As many of these shards as one transaction takes, and the numbers that its beat lists."""
        puts: list[Put] = []
        numbers, size = dict(self._confirmed), 0
        for name in changed[:SHARDS]:
            value = encode(self._wanted[name])
            size += len(value)
            if puts and size > SHARDS_BYTES:
                break
            puts.append(Put(self._keys.shard(self._site, self._prober, name), value))
            numbers[name] = self._wanted[name].n
        return puts, numbers

    async def _look(self) -> int:
        """The mod revision of the beat that stands in the store."""
        kv = await self._store.get(self._key)
        if kv is None:
            return 0
        try:
            own = decode(Beat, kv.value).run == self._run
        except (msgspec.DecodeError, SchemaTooNew):
            own = False
        # A foreign beat below our own: our predecessor's, in a store that was restored from a backup.
        if not own and 0 < self._own_rev < kv.mod_rev:
            self._watch_rival(kv.mod_rev)
        return kv.mod_rev

    def _watch_rival(self, rev: int) -> None:
        """A newer foreign beat is a living process's only if it moves: it may also have come out of a backup (one
        that is newer than the one restored before it). Raises Superseded; Unavailable while that is open."""
        now = asyncio.get_running_loop().time()
        if self._rival is None or rev < self._rival[0]:
            self._rival = (rev, now)
        elif rev > self._rival[0]:
            raise Superseded(f"another process reports as {self._site}/{self._prober}")
        if now - self._rival[1] < RIVAL_S:
            raise Unavailable("there is another process's beat")
