"""Where an agent learns what to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from controlplane.signal import Signal
from policies.topology import Config
from policies.world import Desired


class DesiredSource(Protocol):
    """A View is one."""

    @property
    def desired(self) -> Mapping[str, Desired]: ...

    @property
    def config(self) -> Config | None: ...

    @property
    def incarnation(self) -> str: ...

    @property
    def adopted(self) -> Collection[str]:
        """Foreign incarnations whose records were given to this cluster."""
        ...

    @property
    def adoption(self) -> int:
        """The revision of that; 0 = never."""
        ...

    @property
    def current(self) -> bool:
        """False: cut off from the store."""
        ...

    @property
    def news(self) -> Signal:
        """Set when any of the above (but `current`) changes."""
        ...
