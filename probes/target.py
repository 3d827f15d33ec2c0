"""What a probe is given and what it says: the words between SEE and the other rooms. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

SCHEMA = 1  # of every document that these types become in the store


class Health(StrEnum):
    """A vantage's damped opinion of a target."""

    UP = "UP"
    DOWN = "DOWN"
    UNKNOWN = "UNKNOWN"


class Target(Struct, frozen=True):
    """One check of one address of a service (or of the site itself, `service` = "") at one site.

    `id` is "www@site-b/http:8080/198.51.100.10": stable over restarts, and it includes the address, so that a
    changed address is another target. `options` is the canonical JSON of the kind's own Options struct.
    """

    id: str
    site: str
    service: str
    address: str
    kind: str
    options: str
    interval_s: float = 1.0
    fast_interval_s: float = 0.2
    timeout_s: float = 1.5
    jitter: float = 0.1
    fall: int = 3
    rise: int = 5
    clear: int = 10


class Sample(Struct, frozen=True):
    """The raw result of one probe. `answered`: did anything at all come back (a refusal counts)."""

    passed: bool
    answered: bool
    reason: str
    took_s: float
    broken: bool = False  # a bug in the probe, not the target's doing -> UNKNOWN
    warning: str = ""
    position: float | None = None  # data checks only: where replication stands, any unit that grows
    lag_s: float | None = None  # data checks only


class Observation(Struct, frozen=True, omit_defaults=True):
    """A vantage's damped opinion of one target; `answered` is damped like health."""

    target: str
    health: Health
    reason: str
    answered: bool
    warning: str = ""
    position: float | None = None
    lag_s: float | None = None

    @property
    def replies(self) -> bool:
        """Is there still something that a client could talk to? A refusal is an answer, but not of the service."""
        return self.answered and self.reason != "refused"


class Beat(Struct, frozen=True):
    """A vantage's earned heartbeat, written in one transaction with the shards that changed.

    `run` is random for each process start, so that `n` and the shards' numbers may restart.
    """

    vantage: str
    run: str
    n: int
    shards: dict[str, int]  # shard name -> the sequence number to use it at
    blind: bool
    wall_s: float  # for the clock_suspect alarm only
    schema: int = SCHEMA


class Shard(Struct, frozen=True):
    """The observations of one shard (by default: of one site's targets), valid at exactly `n` of `run`."""

    vantage: str
    run: str
    n: int
    observations: tuple[Observation, ...]
    schema: int = SCHEMA


Done = Callable[[Sample], None]
Cancel = Callable[[], None]


class Prober(Protocol):
    """Port: how probes are made."""

    def start(self, target: Target, done: Done) -> Cancel:
        """Begin one probe and return its cancel. `done` is called exactly once (never after cancel), and
        never inside start(). The prober owns the target's time-out."""
        ...

    async def aclose(self) -> None: ...


class Reporter(Protocol):
    """Port: where a vantage sends what it saw."""

    def put(self, shard: str, observations: Sequence[Observation]) -> None:
        """Replace a shard's observations; the latest wins."""
        ...

    def beat(self, blind: bool) -> None:
        """Called by the probing loop alone: the heartbeat is earned."""
        ...

    async def run(self) -> None:
        """Write until cancelled: a changed shard and the beat in one transaction, at most one each 100 ms."""
        ...
