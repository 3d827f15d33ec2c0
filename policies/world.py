"""What `decide` sees and says: slices in, steps out. Durations and flags, never a clock reading."""

from __future__ import annotations

from enum import IntFlag

from msgspec import Struct

SCHEMA = 1


class Vote(IntFlag):
    """One byte for each vantage and target. Neither UP nor DOWN = UNKNOWN."""

    UP = 1
    DOWN = 2
    FRESH = 4
    BLIND = 8
    ANSWERED = 16
    OWN = 32  # the vantage is at the target's own site


class Effective(Struct, frozen=True):
    """The one override that won for a site (see standing.effective)."""

    id: str
    verb: str  # out | in
    hard: bool
    accepts: tuple[str, ...] = ()
    why: str = ""  # 'drain by ana: "switch firmware"'


class Answer(Struct, frozen=True):
    """One rendered record: what clients of `region` get, with which weight (relative within region, rtype)."""

    region: str
    rtype: str  # A | AAAA
    address: str
    site: str
    weight: int


class SiteState(Struct, frozen=True, omit_defaults=True):
    """What is remembered of one site for one service."""

    verdict: str = "unknown"  # up | down | unknown
    held: bool = False  # up, but now without quorum
    rule: str = "unknown"
    phase: str = "new"  # new | failed | soak | ramp | ready
    left_s: float = 0.0  # of the soak or of the ramp's step
    step: int = 0  # index into failback.ramp
    failovers: int = 0  # since the last quiet day
    quiet_left_s: float = 0.0
    flaps: bool = False  # failed in soak or ramp
    flaps_left_s: float = 0.0  # UP time that it takes to lose that mark
    addresses: tuple[str, ...] = ()  # served now
    last: dict[str, str] = {}  # target id -> up | down: the last verdict of each target
    parked: bool = False  # a ramp had to wait: the time until then does not count
    replies: tuple[str, ...] = ()  # targets that are not up and yet answer something
    lag_s: float | None = None


class Desired(Struct, frozen=True, omit_defaults=True):
    """What a service's clients are to be told, and what the next decision must remember.

    A driver's output is a function of `name`, `ttl_s` and `answers` alone.
    """

    service: str
    generation: int
    shares: dict[str, dict[str, int]]  # region -> site -> percent; only sites over 0
    answers: tuple[Answer, ...]
    sites: dict[str, SiteState]
    name: str = ""  # DNS name, "" = no DNS
    ttl_s: int = 0
    hold_left_s: float = 0.0
    wait_left_s: float = 0.0  # the governor's, while it waits
    overrides: tuple[str, ...] = ()  # ids applied (freeze included), sorted
    shortfall: float = 0.0
    tier: str = ""  # the class of last resort in use, if any
    refused: str = ""  # why the full plan waits: hold | freeze | governor | rewound | nowhere to go
    decision: str = ""  # filled in by the commit: what made this generation
    nonce: str = ""  # of that decision: a store that was rewound may use the same id again
    config_rev: int = 0
    token: int = 0  # filled in by the commit
    traceparent: str = ""
    schema: int = SCHEMA

    @property
    def stamp(self) -> str:
        """What a fence says of the decision that made this generation: "d-7-3fd2a1"."""
        return f"{self.decision}-{self.nonce}" if self.nonce else self.decision


class Ahead(Struct, frozen=True):
    """A fence that is ahead of desired (the store was rewound): the highest one seen, and what it serves."""

    generation: int
    shares: dict[str, dict[str, int]]


class Slice(Struct, frozen=True, omit_defaults=True):
    """All that one service's decision depends on, beside the configuration and what the fold carries.

    `votes` is row-major: for each target (in the order of `frame.targets(desired)`), one byte (Vote) for each
    vantage (in the order of `vantages`).
    """

    service: str
    votes: bytes
    vantages: tuple[str, ...]
    reasons: dict[str, str]  # "vantage/target" -> reason, of those that are not plain UP
    overrides: dict[str, Effective]  # site -> the one that won
    freeze: str  # id of the freeze that covers the service, or ""
    age_s: float  # since `desired` was written, as seen by this controller; or since it first looked
    desired: Desired | None
    lag_s: dict[str, float | None] = {}  # data checks only
    rewound: bool = False  # optional moves wait for unfreeze
    ahead: Ahead | None = None


class Carried(Struct, frozen=True):
    """What the fold over services carries: room left at each site, and automatic moves within the window."""

    room: dict[str, float]
    moved: float = 0.0  # demand units
    window_left_s: float = 0.0


class Event(Struct, frozen=True):
    """Something that a decision did or refused, and why. kind: move | hold | state | alarm."""

    kind: str
    site: str  # "" = the service as a whole
    rule: str
    reason: str
    forced: bool = False


class Step(Struct, frozen=True):
    """Outcome of decide_service. desired is None when nothing has to be written."""

    desired: Desired | None
    new_generation: bool
    events: tuple[Event, ...]
    refused: tuple[Event, ...]
    carried: Carried
    wake_in_s: float | None  # None: nothing falls due by itself
    current: Desired | None = None  # desired as of now (timers advanced), written or not
