"""Drills in a user's staging, through toxiproxy servers that already stand in front of its services (DESIGN section 8).

    world = StagingWorld(Path("acme.staging.yaml"), yes_on="acme-staging", abort_at=0.05)   # raises Refused
    world.check(scenario)                        # what TCP proxies cannot do, with file:line:column; asks nobody
    history = world.play(scenario, 0, say)       # raises Refused before anything is broken; history.stopped: why it
                                                 # ended before its time
    halted = halt(Path("acme.staging.yaml"))     # or halt() for all that this machine's journals know

`confirm(plan) -> what was typed` is called when no `yes_on` is given, after everything else of the preflight has
passed: the drill goes on if the cluster's name was typed. `plan`: lines for people. `beside(scenario_file)` is where
the staging file of a scenario is by default.
"""

from __future__ import annotations

from chaos.worlds.staging.file import Read, Staging, beside, read_staging
from chaos.worlds.staging.halt import Halted, halt
from chaos.worlds.staging.world import StagingWorld

__all__ = ["Halted", "Read", "Staging", "StagingWorld", "beside", "halt", "read_staging"]
