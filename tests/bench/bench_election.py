"""From the death of the leader to the new leader's first commit, over a real three-member etcd on loopback.

python tests/bench/bench_election.py [RUNS] [--two]        (20 runs of each fault take about 15 minutes)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.real.election_world import FAULTS, Rivals

GOAL_S = 5.0


def main() -> None:
    numbers = [word for word in sys.argv[1:] if word.isdigit()]
    runs = int(numbers[0]) if numbers else 20
    controllers = ("site-a", "site-b") if "--two" in sys.argv else ("site-a", "site-b", "site-c")
    with tempfile.TemporaryDirectory() as directory:
        world = Rivals(Path(directory), controllers)
        try:
            world.start()
            print(f"{len(controllers)} controllers, {runs} runs each; the goal is {GOAL_S:g} s", flush=True)
            print(f"{'leader':<28} {'p50':>6} {'worst':>6}", flush=True)
            for fault in FAULTS:
                took = sorted(world.take_over(fault) for _ in range(runs))
                print(f"{fault:<28} {took[len(took) // 2]:5.2f}s {took[-1]:5.2f}s", flush=True)
            print(f"{world.book.check()} commits, each by whoever held the leader key")
        finally:
            world.close()


if __name__ == "__main__":
    main()
