"""A site dies that thousands of services are at: real etcd, a BIND at each site, three failoverd, all on this machine.

python tests/bench/bench_scale.py [SERVICES]        (10,000 by default)
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.real.scale_world import Crowd


def main() -> None:
    services = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as directory:
        world = Crowd(Path(directory), services)
        try:
            world.start()
            move = world.lose_site()
        finally:
            world.close()
    print(f"{services} services, seconds after the site died:")
    print(f"  first commit  {move.first_commit_s:7.2f}")
    print(f"  last commit   {move.last_commit_s:7.2f}")
    for site, answer_s in move.answers_s.items():
        print(f"  last answer   {answer_s:7.2f}  at {site}")
    print(f"  latest beat   {move.late_s:7.2f}  late; {move.leaders} leader{'s' * (move.leaders != 1)}")


if __name__ == "__main__":
    main()
