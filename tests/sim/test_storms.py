"""Everything at once: random faults for minutes, then peace. tests/sim/world.py checks fencing and never-empty at
each write; a seed that fails becomes a story of its own in test_cluster.py."""

from __future__ import annotations

import random

import pytest

from tests.sim.setting import SITES, WITNESS, config
from tests.sim.world import World, settled

QUICK = config(soak_s=20.0, step_s=10.0, hold_s=5.0)


def storm(seed: int) -> World:
    """Two minutes of random faults, then peace."""
    w = settled(QUICK, seed=str(seed))
    rng = random.Random(f"storm {seed}")
    for _ in range(24):
        one_fault(w, rng)
        w.run(rng.choice((0.3, 2.0, 5.0, 12.0)))
    w.stopped.clear()
    for site in (*SITES, WITNESS):
        if not w.nodes[site].loop.alive:
            w.start(site)
        w.nodes[site].loop.resume()
        w.nodes[site].line.unknown_rate = w.nodes[site].line.watch_lag_s = 0.0
        w.lighten(site)
    w.store_down(False)
    w.run(170.0)
    return w


def one_fault(w: World, rng: random.Random) -> None:
    site = rng.choice((*SITES, WITNESS))
    node = w.nodes[site]
    match rng.choice(("dark", "light", "kill", "pause", "resume", "stop", "go", "unknown", "lag", "late", "away")):
        case "dark" if not w.dark:
            w.darken(site)
        case "light" | "away" if w.dark:
            w.lighten(min(w.dark))
        case "away":
            w.store_down(True)
            w.run(rng.choice((1.0, 8.0)))
            w.store_down(False)
        case "kill":
            w.kill(site)
            w.run(rng.choice((0.1, 6.0)))
            w.start(site)
            if site in w.dark:
                w.darken(site)
        case "pause":
            node.loop.pause()
        case "resume":
            for each in w.nodes.values():
                each.loop.resume()
        case "stop":
            w.stopped.add((site, "www"))
        case "go":
            w.stopped.clear()
        case "unknown":
            node.line.unknown_rate = rng.choice((0.0, 0.3))
        case "lag":
            node.line.watch_lag_s = rng.choice((0.0, 0.2, 1.5))
        case "late" if site in SITES:
            w.late_writes[(site, site)] = 15.0


@pytest.mark.parametrize("seed", range(1, 5))
def test_after_any_storm_it_converges(seed: int) -> None:
    with storm(seed) as w:
        assert w.all_serve("site-a"), (w.serving(), w.desired())
        assert w.generations() == dict.fromkeys(SITES, w.desired().generation)
