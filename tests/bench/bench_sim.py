"""How many seconds the simulator plays in a second of CPU: `python tests/bench/bench_sim.py [SECONDS]`.

Three sites whose vantages have 40 probes a second to make (goal: 1,000 x real time), with a witness, with one site
dark, and five sites; each for SECONDS (600) of simulated time after all is well, in slices, of which the median and the
best are shown. A healthy target of which every probe would find the same is skipped (chaos/worlds/sim/parked.py).
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from chaos.worlds.sim.cluster import Cluster
from policies.topology import Check, Config, Dns, DnsDriver, Policy, ProbePolicy, Region, Service, Site

GOAL = 1000.0
SLICES = 20
SERVICES = ("www", "shop", "search", "api")
REFERENCE = Check("tcp", "tcp:443", '{"host":"203.0.113.250","port":443}', ProbePolicy())


def make_config(sites: int, witness: bool = False) -> Config:
    """Four services at every site, each probed once a second from everywhere, and one reference outside."""
    names = [f"site-{letter}" for letter in "abcdefg"[:sites]]
    services = {
        service: Service(
            endpoints={site: (f"192.0.{s}.{10 + n}",) for s, site in enumerate(names)},
            demand={"world": 100.0},
            checks=(Check("http", "http:8080", "{}", ProbePolicy()),),
            policy=Policy(),
            target_s=60.0,
            dns=Dns(f"{service}.example.org", 20),
        )
        for n, service in enumerate(SERVICES)
    }
    servers = tuple(
        DnsDriver(
            driver="rfc2136",
            name=f"dns-{site}",
            site=site,
            zones=("example.org",),
            writers=(site, names[(s + 1) % sites]),
            apply_within_s=1.0,
            isolation="freeze",
            servers=(),
            options=f'{{"address":"192.0.{s}.53","dialect":"powerdns"}}',
        )
        for s, site in enumerate(names)
    )
    places = {site: Site(capacity=1000.0) for site in names}
    if witness:
        places["witness"] = Site(capacity=0.0, role="witness")
    regions = {"world": Region(default=True)}
    return Config("bench", 60.0, places, regions, services, Policy(), dns=servers, references=(REFERENCE,))


def dark(cluster: Cluster) -> None:
    cluster.network.cut("site-a", "*")
    cluster.run(60.0)


def measure(label: str, config: Config, seconds: float, begin: Callable[[Cluster], None] | None = None) -> float:
    """Prints a line; returns the best slice's ratio to real time."""
    with Cluster(config) as cluster:
        cluster.warm_up()
        if begin is not None:
            begin(cluster)
        took, before = [], cluster.kernel.handles
        for _ in range(SLICES):
            start = time.process_time()
            cluster.run(seconds / SLICES)
            took.append(time.process_time() - start)
        handles = cluster.kernel.handles - before
    best, median = min(took), statistics.median(took)
    print(
        f"{label:<32} {seconds / SLICES / median:6.0f} x real time, best {seconds / SLICES / best:6.0f} x;"
        f" {handles / seconds:4.0f} callbacks a second, {best / handles * SLICES * 1e6:.1f} us each",
        flush=True,
    )
    return seconds / SLICES / best


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    print(" ".join(["python", *sys.argv]))
    reached = measure("3 sites, 40 probes a second", make_config(3), seconds)
    measure("3 sites, one of them dark", make_config(3), seconds, dark)
    measure("3 sites and a witness", make_config(3, witness=True), seconds)
    measure("5 sites, 105 probes a second", make_config(5), seconds)
    return 0 if reached >= GOAL else 1


if __name__ == "__main__":
    sys.exit(main())
