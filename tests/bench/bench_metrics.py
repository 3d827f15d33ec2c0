"""What one scrape of /metrics costs with N services (default 1,000): python tests/bench/bench_metrics.py 1000

Four nodes in one process, everything decided; the event loop's longest silence is measured while it is scraped.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time

from controlplane.config import read_config
from controlplane.node import Node
from controlplane.store.memory import MemoryStore
from controlplane.telemetry.prometheus import render
from tests.unit.api_cluster import WellProber, wall

HEAD = """\
version: 1
cluster: acme
sites:
  site-a: {country: FR, capacity: 10000000}
  site-b: {country: NL, capacity: 8000000}
  site-c: {country: ES, capacity: 2000000, role: backup}
  cloud: {country: IE, role: witness}
store: {members: [site-a, site-b, cloud]}
regions:
  eu-west: {networks: [127.1.0.0/16], location: {lat: 48.86, lon: 2.35}}
  rest: {default: true, location: {lat: 52.37, lon: 4.90}}
drivers:
  dns:
    - {driver: embedded, site: site-a, zones: [acme.test], listen: ["127.0.4.1:5399"]}
services:
"""
SERVICE = """\
  s{n}:
    endpoints: {{site-a: 127.0.4.1, site-b: 127.0.5.1, site-c: 127.0.6.1}}
    demand: {{eu-west: 400, rest: 300}}
    steering: {{mode: nearest}}
    checks: [{{tcp: {{port: 8080}}}}]
    dns: {{name: s{n}.acme.test, ttl: 20s}}
"""


async def ticker(silences: list[float]) -> None:
    while True:
        begun = time.perf_counter()
        await asyncio.sleep(0.001)
        silences.append(time.perf_counter() - begun - 0.001)


async def main(count: int) -> None:
    config = read_config(HEAD + "".join(SERVICE.format(n=n) for n in range(count))).config
    assert config is not None
    store, down = MemoryStore(), set[str]()
    nodes = {
        name: Node(name, "acme", store, WellProber(down), roles=roles, wall=wall, rng=random.SystemRandom())
        for name, roles in {
            "site-a": ("vantage", "controller"),
            "site-b": ("vantage",),
            "site-c": ("vantage",),
            "cloud": (),
        }.items()
    }
    tasks = [asyncio.create_task(node.run()) for node in nodes.values()]
    await nodes["cloud"].operator.apply_config(config, (), expect=0)
    node = nodes["cloud"]
    while len(node.view.desired) < count:
        await asyncio.sleep(0.2)
    for task in tasks[:3]:
        task.cancel()  # what probes and decides is not to be measured
    await asyncio.gather(*tasks[:3], return_exceptions=True)
    gc.freeze()  # three of the four nodes' objects would be in other processes, and not be looked through
    silences: list[float] = []
    tick = asyncio.create_task(ticker(silences))

    def silent_ms() -> float:
        longest_s = max(silences, default=0.0)
        silences.clear()
        return longest_s * 1000

    for _ in range(3):
        await asyncio.sleep(0.1)
        quiet_ms, begun = silent_ms(), time.perf_counter()
        moment = await node.telemetry.look()
        look_s, look_ms = time.perf_counter() - begun, silent_ms()
        body, _ = await asyncio.to_thread(lambda m=moment: render(m.reading(), node.telemetry.resource, ""))
        took_s = time.perf_counter() - begun
        await asyncio.sleep(0.01)
        print(
            f"{count} services: {len(body.splitlines())} lines, {len(body) / 1e6:.1f} MB, {took_s:.2f} s, of it on the "
            f"event loop {look_s:.2f} s; the loop was silent for {look_ms:.0f} ms at most while the view was read, "
            f"{silent_ms():.0f} ms while it was rendered, {quiet_ms:.0f} ms before"
        )
    tick.cancel()
    tasks[3].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
