"""A whole cluster on real sockets in a thread of its own, with probes that need no network: for the API's and the
command line's tests, which speak to it from outside."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from controlplane.api.app import Server, make_app, serve
from controlplane.cli.dev_config import free_port
from controlplane.config import read_config
from controlplane.node import Node, PoolOpener, open_real_pool
from controlplane.store.memory import MemoryStore
from policies.topology import Config
from probes.target import Cancel, Done, Sample, Target

ADDRESSES = ("127.0.4.1", "127.0.5.1", "127.0.6.1")
START_S = 30.0
TEXT = """\
version: 1
cluster: acme
sites:
  site-a: {{country: FR, capacity: 1000}}
  site-b: {{country: NL, capacity: 800}}
  site-c: {{country: ES, capacity: 200, role: backup}}
  cloud: {{country: IE, role: witness}}
store: {{members: [site-a, site-b, cloud]}}
regions:
  eu-west: {{networks: [127.1.0.0/16], location: {{lat: 48.86, lon: 2.35}}}}
  rest: {{default: true, location: {{lat: 52.37, lon: 4.90}}}}
services:
  www:
    endpoints: {{site-a: 127.0.4.1, site-b: 127.0.5.1, site-c: 127.0.6.1}}
    demand: {{eu-west: 400, rest: 300}}
    steering: {{mode: nearest}}
    checks: [{{tcp: {{port: 8080}}}}]
    dns: {{name: www.acme.test, ttl: 1s}}
policy:
  probe: {{interval: 200ms, fast_interval: 50ms}}
  failback: {{soak: 0, ramp: [100], step: 1s}}
  hold: 0
drivers:
  dns:
    - {{driver: embedded, site: site-a, zones: [acme.test], listen: ["127.0.4.1:{port}"]}}
    - {{driver: embedded, site: site-b, zones: [acme.test], listen: ["127.0.5.1:{port}"]}}
    - {{driver: embedded, site: site-c, zones: [acme.test], listen: ["127.0.6.1:{port}"]}}
"""


def wall() -> float:
    return datetime.now(UTC).timestamp()


class WellProber:
    """Everything that is probed passes, unless its site is in `down`."""

    def __init__(self, down: set[str]) -> None:
        self.down = down

    def start(self, target: Target, done: Done) -> Cancel:
        well = target.site not in self.down
        sample = Sample(passed=well, answered=well, reason="" if well else "timeout connect", took_s=0.001)
        return asyncio.get_running_loop().call_soon(done, sample).cancel

    async def aclose(self) -> None:
        return None


class Cluster:
    """`urls`: the APIs of two of its four nodes. `down`: sites whose services fail from now on. `open_pool`: opens
    the load balancers, if the configuration has some; `state_dir`: for those."""

    def __init__(
        self, config: Config, text: str, open_pool: PoolOpener = open_real_pool, state_dir: Path | None = None
    ) -> None:
        self._open_pool, self._state_dir = open_pool, state_dir
        self.config = config
        self.text = text
        self.down: set[str] = set()
        self.urls: tuple[str, ...] = ()
        self.nodes: dict[str, Node] = {}
        self.store = MemoryStore()
        self._loop = asyncio.new_event_loop()
        self._end: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),), daemon=True)

    async def _run(self) -> None:
        self._end = asyncio.Event()
        store, tasks, servers = self.store, [], list[Server]()
        for name, site in self.config.sites.items():
            if self._state_dir:
                (self._state_dir / name).mkdir()
            roles = ("vantage", "controller") if site.role == "witness" else ("vantage", "controller", "agent")
            self.nodes[name] = node = Node(
                name,
                "acme",
                store,
                WellProber(self.down),
                roles=roles,
                wall=wall,
                rng=random.SystemRandom(),
                open_pool=self._open_pool,
                state_dir=self._state_dir / name if self._state_dir else None,
            )
            if name in ("site-a", "cloud"):
                servers.append(await serve(make_app(node), "127.0.0.1", 0))
            tasks.append(asyncio.create_task(node.run()))
        await self.nodes["cloud"].operator.apply_config(self.config, (), expect=0)
        self.urls = tuple(server.url for server in servers)
        await self._end.wait()
        for server in servers:
            await server.aclose()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_default_executor()

    def start(self) -> None:
        self._thread.start()
        self.until(lambda: bool(self.urls) and self.settled())

    def stop(self) -> None:
        assert self._end is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(START_S)
        self._loop.close()

    def settled(self) -> bool:
        """Decided, and seen at every name server by someone."""
        view = self.nodes["cloud"].view
        desired = view.mirror.desired.get("www")
        if desired is None:
            return False
        seen = [s for doc in list(view.mirror.applied.values()) for s in doc.seen.get("www", ())]
        return len({s.server for s in seen if s.agrees and s.generation == desired.generation}) == len(ADDRESSES)

    def catch_up(self) -> None:
        """Until every node has seen what is in the store now: a command returns when it is committed, not seen."""
        rev = self.store.rev
        self.until(lambda: all(node.view.mirror.rev >= rev for node in self.nodes.values()))

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something that needs no more than a moment; fails loudly instead of for ever."""
        give_up = time.monotonic() + START_S
        while not holds():
            if time.monotonic() > give_up:
                raise AssertionError("it did not come about")
            time.sleep(0.02)


@contextmanager
def running(tmp: Path) -> Iterator[tuple[Cluster, Path]]:
    """A cluster, and its configuration as a file."""
    text = TEXT.format(port=free_port(ADDRESSES))
    config = read_config(text).config
    assert config is not None
    file = tmp / "acme.yaml"
    file.write_text(text)
    cluster = Cluster(config, text)
    cluster.start()
    try:
        yield cluster, file
    finally:
        cluster.stop()
