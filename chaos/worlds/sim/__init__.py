"""The simulator: scenarios on virtual time."""

from __future__ import annotations

from chaos.worlds.sim.world import SimWorld

__all__ = ["SimWorld"]
