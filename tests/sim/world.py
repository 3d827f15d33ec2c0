"""A whole cluster in virtual time: the real vantages, views, elections, leaders and agents over one memory store.

Only what lies outside is simulated: whether a service answers, what reaches what, and one name server a site. Every
change of the store and of a name server goes into the history, and is checked there and then: whoever wrote
`desired` held the leader key, generations never go back, and no answer is ever empty.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

import dns.message
from msgspec import Struct

from chaos.worlds.faulty_store import FaultyStore
from chaos.worlds.loop import Kernel, NodeLoop
from controlplane.dns.ask import Ask
from controlplane.dns.embedded import EmbeddedDriver, EmbeddedServer, server_for
from controlplane.documents import Keys, LeaderDoc, decode, encode
from controlplane.drivers import Actual, Change, Driver, Result
from controlplane.election import State
from controlplane.node import ROLES, Node
from controlplane.operator import Operator
from controlplane.store import Put, Txn, TxnResult
from controlplane.store.memory import MemoryStore
from controlplane.sync import Note
from policies.topology import Config, DnsDriver, Override
from policies.world import Desired
from probes.target import Cancel, Done, Sample, Target
from tests.sim.setting import ADDRESS, EPOCH, HOP_S, NAME, SERVER, SITES, SKEW, WITNESS, config


class Record(Struct, frozen=True):
    """One thing that happened, at kernel time `at`."""

    at: float
    kind: str  # store | refused | dns | state
    subject: str
    text: str


class WatchedStore(MemoryStore):
    """The shared store; it tells the world of each transaction."""

    def __init__(self, told: Callable[[Txn, TxnResult], None]) -> None:
        super().__init__()
        self._told = told

    def apply(self, txn: Txn) -> TxnResult:
        result = super().apply(txn)
        self._told(txn, result)
        return result


class Line(FaultyStore):
    """One node's connection to the store; it counts the commits that were sent."""

    commits = 0

    async def txn(self, txn: Txn) -> TxnResult:
        self.commits += any("/desired/" in op.key for op in txn.then)
        return await super().txn(txn)


class SimProber:
    """One site's prober in the simulated world."""

    def __init__(self, world: World, site: str) -> None:
        self._world = world
        self._site = site

    def start(self, target: Target, done: Done) -> Cancel:
        loop = asyncio.get_running_loop()
        took_s = HOP_S
        if not self._world.reaches(self._site, target.site):
            took_s, sample = target.timeout_s, Sample(False, False, "timeout connect", target.timeout_s)
        elif (target.site, target.service) in self._world.stopped:
            sample = Sample(False, True, "refused", HOP_S)
        else:
            sample = Sample(True, True, "200", HOP_S)
        return loop.call_later(took_s, done, sample).cancel

    async def aclose(self) -> None:
        return None


class SimDriver(EmbeddedDriver):
    """A writer at `site` and the name server of `home`, with the network between them."""

    def __init__(self, world: World, site: str, home: str) -> None:
        super().__init__(f"embedded-{home}", lambda: world.servers[home])
        self._world, self._site, self._home = world, site, home

    async def read(self, names: Sequence[str]) -> Mapping[str, Actual]:
        await self._travel()
        return await super().read(names)

    async def apply(self, changes: Sequence[Change]) -> Mapping[str, tuple[Result, str]]:
        await self._travel()
        late_s = self._world.late_writes.pop((self._site, self._home), 0.0)
        if late_s:
            # The message is on its way, whatever becomes of its sender.
            self._world.deliver_late(late_s, self, changes)
            raise TimeoutError("no reply to the update")
        return self.write(changes)

    def write(self, changes: Sequence[Change]) -> Mapping[str, tuple[Result, str]]:
        table = self._world.servers[self._home].table
        results = {change.desired.name: table.apply(change) for change in changes}
        for change in changes:
            self._world.wrote(self._site, self._home, change, results[change.desired.name])
        return results

    async def _travel(self) -> None:
        await asyncio.sleep(HOP_S)
        if not self._world.reaches(self._site, self._home):
            await asyncio.sleep(1.0)
            raise TimeoutError(f"{self._home} does not answer")


class SimNode(Node):
    """One site's process as it runs in production, from start to kill, on the simulated world's adapters. The
    witness has no agent."""

    def __init__(self, world: World, site: str, life: int) -> None:
        self.loop: NodeLoop = world.kernel.loop(site, *SKEW[site])
        self.line = Line(world.store, random.Random(f"{world.seed}/{site}/{life}/line"))
        self.line.latency_s, self.line.jitter, self.line.call_s = 2 * HOP_S, 0.5, 5.0
        self.notes: list[Note] = []

        async def open_driver(_: str, driver: DnsDriver, config: Config) -> Driver:
            return SimDriver(world, site, driver.site)

        super().__init__(
            site,
            "sim",
            self.line,
            SimProber(world, site),
            roles=ROLES if site in SITES else ("vantage", "controller"),
            wall=lambda: EPOCH + world.kernel.now + world.clock_steps.get(site, 0.0),
            rng=random.Random(f"{world.seed}/{site}/{life}/ids"),
            ask=world.asker(site),
            open_driver=open_driver,
            on_note=self.notes.append,
            on_elected=lambda state, why: world.turned(site, state, why),
        )
        self.task = self.loop.create_task(self.run())


class World:
    """Use as a context manager: `with World() as w: w.run(20)`."""

    def __init__(self, cfg: Config | None = None, seed: str = "1") -> None:
        self.seed = seed
        self.config = cfg or config()
        self.kernel = Kernel()
        self.keys = Keys("sim")
        self.store = WatchedStore(self._transacted)
        self.history: list[Record] = []
        self.dark: set[str] = set()
        self.stopped: set[tuple[str, str]] = set()  # (site, service)
        self.clock_steps: dict[str, float] = {}
        self.late_writes: dict[tuple[str, str], float] = {}  # (writer, server's site) -> the next write is late, s
        self.servers: dict[str, EmbeddedServer] = {d.site: server_for(d, self.config) for d in self.config.dns}
        self.marks: dict[str, float] = {}  # what a story measured on its way
        self._digest = hashlib.sha256()
        self._lives = dict.fromkeys((*SITES, WITNESS), 0)
        operator = Operator(self.store, self.keys, random.Random(f"{seed}/operator"))
        self.operator = operator
        self.kernel.run(operator.apply_config(self.config, []), "operator")
        self.nodes = {site: SimNode(self, site, 0) for site in (*SITES, WITNESS)}

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kernel.__exit__(kind, error, trace)

    # --- time and faults --------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        self.kernel.run_for(seconds)

    def run_until(self, reached: Callable[[], bool], within_s: float) -> float:
        """Until it holds; returns the seconds that took. Fails if it does not within so long."""
        began = self.kernel.now
        while not reached():
            assert self.kernel.now - began < within_s, f"not within {within_s} s: {self.serving()}"
            self.kernel.run_for(0.05)
        return self.kernel.now - began

    def reaches(self, one: str, other: str) -> bool:
        return one == other or not ({one, other} & self.dark)

    def darken(self, site: str) -> None:
        """Cut the site off from everything but itself."""
        self.dark.add(site)
        self.nodes[site].line.hang = True

    def lighten(self, site: str) -> None:
        self.dark.discard(site)
        self.nodes[site].line.hang = False

    def kill(self, site: str) -> None:
        """The control plane's process there ends without a clean-up; services and name server go on."""
        self.nodes[site].loop.kill()

    def start(self, site: str) -> None:
        self._lives[site] += 1
        self.nodes[site] = SimNode(self, site, self._lives[site])

    def store_down(self, down: bool) -> None:
        for node in self.nodes.values():
            node.line.down = down

    def drain(self, site: str, for_s: float | None = None) -> Override:
        draft = Override("", "out", False, "drain", (site,), (), "ana", "test", "", 0, for_s)
        entry = self.store._data.get(self.keys.overrides_rev)
        add = self.operator.add_override(draft, entry.mod_rev if entry else 0)
        return self.kernel.run(add, "operator")

    def deliver_late(self, late_s: float, driver: SimDriver, changes: Sequence[Change]) -> None:
        self.kernel.at(self.kernel.now + late_s, driver.write, changes)

    def asker(self, site: str) -> Ask:
        homes = {f"{address}:53": home for home, address in SERVER.items()}

        async def ask(server: str, query: dns.message.Message) -> dns.message.Message:
            await asyncio.sleep(HOP_S)
            home = homes[server]
            reply = self.servers[home].answer(query.to_wire(), ADDRESS[site]) if self.reaches(site, home) else None
            if reply is None:
                await asyncio.sleep(1.0)
                raise TimeoutError(f"{server} does not answer")
            return dns.message.from_wire(reply)

        return ask

    # --- history ----------------------------------------------------------------------------------------------

    @property
    def hash(self) -> str:
        """Over every byte that was written to the store or a name server, and when."""
        return self._digest.hexdigest()

    def say(self, kind: str, subject: str, text: str) -> None:
        record = Record(self.kernel.now, kind, subject, text)
        self.history.append(record)
        self._digest.update(encode(record))

    def turned(self, site: str, state: State, why: str) -> None:
        self.say("state", site, f"{state.value}: {why}")

    def _transacted(self, txn: Txn, result: TxnResult) -> None:
        writes = [op for op in txn.then if isinstance(op, Put) and op.key.startswith(self.keys.desired)]
        self._digest.update(encode(txn) + repr((self.kernel.now, result.ok)).encode())
        for put in writes:
            desired = decode(Desired, put.value)
            text = f"g={desired.generation} {desired.decision} t={desired.token} {desired.shares}"
            self.say("store" if result.ok else "refused", desired.service, text)
            if result.ok:
                holder = self.store._data[self.keys.leader]
                assert holder.mod_rev == desired.token, f"not fenced: {text}, the leader's token is {holder.mod_rev}"
                assert all(sum(region.values()) == 100 for region in desired.shares.values()), text
                assert desired.answers, f"empty: {text}"

    def wrote(self, writer: str, home: str, change: Change, result: tuple[Result, str]) -> None:
        text = f"{change.fence.text()} {result[0].value} {result[1]}"
        self.say("dns", f"{home} by {writer}", text)
        actual = self.servers[home].table.read(change.desired.name)
        assert actual is not None and actual.answers, f"{home} has no answer: {text}"
        if result[0] is Result.DONE:
            before = change.expect.generation if change.expect else 0
            assert change.fence.generation >= before, f"went back at {home}: {text} over {change.expect}"

    # --- looking ----------------------------------------------------------------------------------------------

    def leading(self) -> str:
        """The node that holds the leader key, or ""."""
        entry = self.store._data.get(self.keys.leader)
        return decode(LeaderDoc, entry.value).node if entry else ""

    def entry(self, key: str) -> bytes | None:
        """What stands in the store."""
        found = self.store._data.get(key)
        return found.value if found else None

    def desired(self) -> Desired:
        return decode(Desired, self.store._data[self.keys.service("www")].value)

    def serving(self) -> dict[str, dict[str, int]]:
        """Name server's site -> site -> weight, of those that clients can reach."""
        found: dict[str, dict[str, int]] = {}
        for home in SITES:
            if home not in self.dark:
                actual = self.servers[home].table.read(NAME)
                found[home] = {a.site: a.weight for a in actual.answers} if actual else {}
        return found

    def all_serve(self, *sites: str) -> bool:
        """Every reachable name server answers with exactly these sites."""
        return all(set(answer) == set(sites) for answer in self.serving().values())

    def generations(self) -> dict[str, int]:
        """Name server's site -> generation of its fence."""
        found = {home: self.servers[home].table.read(NAME) for home in SITES}
        return {home: a.fence.generation if a and a.fence else 0 for home, a in found.items()}

    def said(self, kind: str, word: str = "") -> list[Record]:
        return [record for record in self.history if record.kind == kind and word in record.text]


def settled(cfg: Config | None = None, seed: str = "1") -> World:
    """A world 15 s after its start: everything up, all traffic at site-a."""
    world = World(cfg, seed)
    world.run(15.0)
    assert world.all_serve("site-a"), world.serving()
    return world
