"""How long a decision takes: `python tests/bench/bench_decide.py`.

One service with 5 sites, 5 vantages, 2 checks a site (bound 200 us), and a full fold over 10,000 such services
(bound 3 s). Machines differ: the ratio to a fixed loop of plain Python is what to compare between them.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from policies.decide import decide_service
from policies.frame import Frame, frames, usable, watched
from policies.topology import Check, Config, Dns, Policy, ProbePolicy, Region, Service, Site
from policies.world import Carried, Desired, Slice, Vote

SITES = ("a", "b", "c", "d", "e")
REGIONS = ("eu", "us")
BOUND_ONE_S = 200e-6
BOUND_FOLD_S = 3.0
SERVICES = 10_000


def make_config(services: int) -> Config:
    """That many services at five sites, with two checks each; altogether 60 % of what there is room for."""
    checks = tuple(Check("http", name, "{}", ProbePolicy()) for name in ("http:80", "http:81"))
    made = {}
    for number in range(services):
        endpoints = {site: (f"10.{number >> 8}.{number & 255}.{i + 1}",) for i, site in enumerate(SITES)}
        name = f"w{number:05}"
        demand = dict.fromkeys(REGIONS, 1350.0 / services)
        made[name] = Service(endpoints, demand, checks, Policy(), 60.0, dns=Dns(f"{name}.example.org"))
    regions = {region: Region(default=region == REGIONS[0]) for region in REGIONS}
    return Config("bench", 60.0, dict.fromkeys(SITES, Site(capacity=1000.0)), regions, made, Policy())


def make_slice(frame: Frame, desired: Desired | None, down: str = "", age_s: float = 1.0) -> Slice:
    """What five vantages say, `down` being the site that all others see down."""
    votes = bytearray()
    for row in watched(frame, desired):
        for vantage in SITES:
            vote = Vote.FRESH | (Vote.DOWN if row.site == down else Vote.UP | Vote.ANSWERED)
            votes.append(int(vote | (Vote.OWN if vantage == row.site else Vote(0))))
    return Slice(frame.service, bytes(votes), SITES, {}, {}, "", age_s, desired)


def plain_loop() -> int:
    """The yardstick: 1,000 additions and dictionary writes."""
    seen: dict[int, int] = {}
    total = 0
    for number in range(1000):
        total += number
        seen[number & 63] = total
    return total


def median_s(work: Callable[[], object], times: int) -> float:
    """Median duration of one call."""
    took = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        took.append(time.perf_counter() - begin)
    return statistics.median(took)


def settled(frame: Frame, carried: Carried) -> Desired:
    desired = decide_service(frame, make_slice(frame, None), carried).desired
    assert desired is not None
    return desired


def one_service() -> dict[str, float]:
    """Seconds for one decision in which nothing changes, and for one that moves a dead site's traffic."""
    config = make_config(1)
    frame = next(iter(frames(config).values()))
    carried = Carried(usable(config))
    desired = settled(frame, carried)
    calm, failing = make_slice(frame, desired), make_slice(frame, desired, down="a")
    assert decide_service(frame, calm, carried).desired is None
    assert decide_service(frame, failing, carried).new_generation
    return {
        "nothing changes": median_s(lambda: decide_service(frame, calm, carried), 3000),
        "a site fails": median_s(lambda: decide_service(frame, failing, carried), 3000),
    }


def full_fold(services: int) -> dict[str, float]:
    """Seconds of CPU for a fold over all services, with nothing to do, and while site a fails for all of them."""
    config = make_config(services)
    framed = frames(config)
    carried = Carried(usable(config))
    desired: dict[str, Desired] = {}
    for name, frame in framed.items():
        step = decide_service(frame, make_slice(frame, None), carried)
        assert step.desired is not None
        desired[name], carried = step.desired, step.carried
    took = {}
    for label, down in (("nothing changes", ""), ("site a fails", "a")):
        slices = {name: make_slice(frame, desired[name], down) for name, frame in framed.items()}
        carried = Carried(usable(config))
        begin = time.process_time()
        for name, frame in framed.items():
            carried = decide_service(frame, slices[name], carried).carried
        took[label] = time.process_time() - begin
    return took


def main() -> int:
    yardstick = median_s(plain_loop, 3000)
    print(f"yardstick (1,000 turns of a plain loop): {yardstick * 1e6:.1f} us")
    missed = False
    for label, seconds in one_service().items():
        missed |= seconds > BOUND_ONE_S
        ratio = seconds / yardstick
        print(f"decide, one service, {label}: {seconds * 1e6:.1f} us (bound 200), {ratio:.2f} yardsticks")
    for label, seconds in full_fold(SERVICES).items():
        missed |= seconds > BOUND_FOLD_S
        print(f"fold over {SERVICES:,} services, {label}: {seconds:.2f} s of CPU (bound 3)")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
