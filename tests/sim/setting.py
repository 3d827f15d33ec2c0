"""The setting of the simulated stories: three sites with one service and a name server each, and a witness."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

from chaos.checkers import CHECKERS
from chaos.history import Committed, History, Led, Record, Wrote
from chaos.scenario import Scenario
from chaos.worlds.sim.cluster import Cluster
from controlplane.documents import encode
from controlplane.store import Txn, TxnResult
from policies.topology import (
    Check,
    Config,
    Dns,
    DnsDriver,
    Failback,
    Override,
    Policy,
    ProbePolicy,
    Region,
    Service,
    Site,
)
from policies.world import Desired

R = TypeVar("R", bound=Record)

SITES = ("site-a", "site-b", "site-c")
WITNESS = "witness"
ADDRESS = {"site-a": "192.0.2.10", "site-b": "198.51.100.10", "site-c": "203.0.113.10"}
SERVER = {"site-a": "192.0.2.53", "site-b": "198.51.100.53", "site-c": "203.0.113.53"}
NAME = "www.example.org"


def config(soak_s: float = 300.0, step_s: float = 60.0, hold_s: float = 60.0) -> Config:
    """One service at three sites, all of it at site-a; each site's name server may be written by the next site too."""
    policy = Policy(failback=Failback(soak_s=soak_s, step_s=step_s), hold_s=hold_s)
    www = Service(
        endpoints={site: (ADDRESS[site],) for site in SITES},
        demand={"world": 500.0},
        checks=(Check("http", "http:8080", "{}", ProbePolicy()),),
        policy=policy,
        target_s=60.0,
        dns=Dns(NAME, 20),
    )
    servers = tuple(
        DnsDriver(
            driver="rfc2136",
            name=f"dns-{site}",
            site=site,
            zones=("example.org",),
            writers=(site, SITES[(n + 1) % len(SITES)]),
            apply_within_s=1.0,
            isolation="freeze",
            servers=(),
            options=f'{{"address":"{SERVER[site]}","dialect":"powerdns"}}',
        )
        for n, site in enumerate(SITES)
    )
    sites = {site: Site(capacity=1000.0) for site in SITES}
    sites[WITNESS] = Site(capacity=0.0, role="witness")
    return Config("sim", 60.0, sites, {"world": Region(default=True)}, {"www": www}, policy, dns=servers)


class Story(Cluster):
    """A cluster of that setting. At its end: whoever wrote a decision held the leader key, and no answer was empty."""

    def __init__(self, cfg: Config | None = None, seed: str = "1") -> None:
        self._digest = hashlib.sha256()
        super().__init__(cfg or config(), seed)
        self.members.leader = WITNESS  # that the store elects another leader is another story
        self.marks: dict[str, float] = {}  # what a story measured on its way
        self.judged = ["fenced", "never_empty"]
        self.refused: list[float] = []  # when a commit was
        self._undo: dict[tuple[str, ...], Callable[[], None]] = {}

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if error is None:
            self._check()

    def _check(self) -> None:
        history = History(
            scenario="story",
            world="sim",
            seed=0,
            config=self.config,
            duration_s=self.recorder.now,
            records=tuple(self.history),
        )
        scenario = Scenario(
            name="story",
            about="",
            config=self.config,
            config_text="",
            duration_s=self.recorder.now,
            faults=(),
            expect=(),
        )
        for name in self.judged:
            judged = CHECKERS[name](scenario, history)
            assert judged.passed, judged

    # --- what happens ---

    def begin(self, *deed: str) -> None:
        """ "dark" site, "down" site (the process), "still" site (it stands still), "stopped" site service, "away" (the
        store): until `end`."""
        assert deed not in self._undo, deed
        match deed:
            case "dark", site:
                undo = self.network.cut(site, "*")
            case "down", site:
                undo = self.kill(site)
            case "still", site:
                undo = self.pause(site)
            case "stopped", site, service:
                undo = self.services.stop(service, site, "refuse")
            case _:
                undo = self.members.refuse()
        self._undo[deed] = undo

    def end(self, *deed: str) -> None:
        self._undo.pop(deed)()

    def end_all(self) -> None:
        while self._undo:
            self._undo.popitem()[1]()

    def is_(self, *deed: str) -> bool:
        return deed in self._undo

    def drain(self, site: str, for_s: float | None = None) -> Override:
        draft = Override("", "out", False, "drain", (site,), (), "ana", "test", "", 0, for_s)
        entry = self.store.entry(self.keys.overrides_rev)
        return self.kernel.run(self.operator.add_override(draft, entry.mod_rev if entry else 0), "operator")

    def apply(self, cfg: Config) -> None:
        self.kernel.run(self.operator.apply_config(cfg, []), "operator")

    def _transacted(self, txn: Txn, result: TxnResult) -> None:
        self._digest.update(encode(txn) + repr((self.kernel.now, result.ok)).encode())
        if not result.ok and any(op.key.startswith(self.keys.desired) for op in txn.then):
            self.refused.append(self.recorder.now)
        super()._transacted(txn, result)

    # --- looking ---

    @property
    def hash(self) -> str:
        """Over every byte that was written to the store, and when."""
        return self._digest.hexdigest()

    def now_desired(self, service: str = "www") -> Desired:
        desired = self.desired(service)
        assert desired is not None
        return desired

    def entry(self, key: str) -> bytes | None:
        found = self.store.entry(key)
        return found.value if found else None

    def serving(self) -> dict[str, dict[str, int]]:
        """Name server's site -> site -> weight, of those that clients can reach."""
        found: dict[str, dict[str, int]] = {}
        for driver in self.config.dns:
            home = self.servers.home(driver)
            if home is not None and self.servers.reached(home, home.primary):
                actual = home.primary.read(NAME)
                found[home.site] = {a.site: a.weight for a in actual.answers} if actual else {}
        return found

    def all_serve(self, *sites: str) -> bool:
        """Every reachable name server answers with exactly these sites."""
        return all(set(answer) == set(sites) for answer in self.serving().values())

    def left(self, site: str) -> Callable[[], bool]:
        """Every reachable name server answers, and not with that site."""
        return lambda: all(answer and site not in answer for answer in self.serving().values())

    def generations(self) -> dict[str, int]:
        """Name server's site -> generation of its fence."""
        found = {}
        for driver in self.config.dns:
            home = self.servers.home(driver)
            actual = home.primary.read(NAME) if home else None
            found[driver.site] = actual.fence.generation if actual and actual.fence else 0
        return found

    def records(self, kind: type[R], since: float = 0.0) -> list[R]:
        return [record for record in self.history if isinstance(record, kind) and record.at >= since]

    def moves(self) -> list[Committed]:
        return [record for record in self.records(Committed) if record.decision.new_generation]

    def leaders(self, since: float = -1e9) -> list[str]:
        return [record.node for record in self.records(Led, since) if record.leading]

    def led(self) -> list[Led]:
        return self.records(Led, since=-1e9)

    def written(self, generation: int) -> list[Wrote]:
        return [record for record in self.records(Wrote) if record.generation == generation]


@contextmanager
def settled(cfg: Config | None = None, seed: str = "1") -> Iterator[Story]:
    """A story at time 0: everything up, all traffic at site-a."""
    with Story(cfg, seed) as story:
        story.warm_up()
        assert story.all_serve("site-a"), story.serving()
        yield story


@contextmanager
def twice(tell: Callable[[Story], None], cfg: Config | None = None) -> Iterator[Story]:
    """Play a story two times, which must come out byte for byte the same; the second one is there to be looked at."""
    with settled(cfg) as first:
        tell(first)
        expected = first.hash, list(first.history)
    with settled(cfg) as second:
        tell(second)
        assert (second.hash, second.history) == expected
        yield second
