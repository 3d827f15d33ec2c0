"""What happened, as every world records it: the one thing that checkers, expectations and reports look at. Pure.

Times are seconds of the scenario (0 = its start, before it the cluster came up: negative). Records are in the order of
time. A record says what changed: it holds until the next one of the same subject.
"""

from __future__ import annotations

import hashlib

import msgspec
from msgspec import Struct

from controlplane.documents import DecisionDoc
from policies.topology import Config


class Record(Struct, frozen=True, tag_field="kind", kw_only=True):
    at: float


class Faulted(Record, frozen=True, tag="fault"):
    """A fault of the scenario (`index` in its list) began, or ended; `left`: what could not be healed."""

    index: int
    began: bool
    text: str
    left: str = ""


class Led(Record, frozen=True, tag="led"):
    """A node became the leader in its own eyes, or stopped to be; why."""

    node: str
    leading: bool
    why: str


class Committed(Record, frozen=True, tag="commit"):
    """A decision came into the store. holder, holder_token: who held the leader key at that very commit, and its mod
    revision ("" and 0: nobody)."""

    decision: DecisionDoc
    holder: str
    holder_token: int


class Configured(Record, frozen=True, tag="config"):
    """A configuration came in force: what is to be judged by it from now on."""

    config: Config


class Rewound(Record, frozen=True, tag="rewound"):
    """The store was restored to what it was at `to`."""

    to: float


class Probed(Record, frozen=True, tag="probe"):
    """The outcome of a vantage's raw probes of a target is another one than before. first_at: when that outcome was
    seen first; before_at: when the last probe with the outcome before ended (None: there was none). Only worlds that
    can look into the vantages record these."""

    vantage: str
    target: str
    site: str
    service: str  # "" = the site's own target
    passed: bool
    answered: bool
    reason: str
    before_at: float | None = None


class Wrote(Record, frozen=True, tag="write"):
    """A writer's update reached a name server, which did or refused it."""

    server: str  # a site's name
    writer: str
    service: str
    generation: int
    incarnation: str
    op: str
    result: str  # ok | fenced | transient | terminal
    held_generation: int = 0  # of our incarnation, in the fence that stood there before; 0 = none
    held_op: str = ""


class Edited(Record, frozen=True, tag="edit"):
    """Somebody changed a name server by hand."""

    server: str
    service: str
    manual: bool


class Answered(Record, frozen=True, tag="answer"):
    """From now on this is what a client of a region gets by asking a name server for a service, over all address
    families; `sites` sorted. reachable False: clients cannot reach it, or it does not answer (SERVFAIL too)."""

    server: str  # a site's name; "<site>/2" = its secondary
    service: str
    region: str
    sites: tuple[str, ...]
    generation: int | None  # of the fence that it shows, if it shows one
    reachable: bool = True


class Served(Record, frozen=True, tag="served"):
    """From now on the requests of a client go to `site` ("" = it knows none) and end with `error` ("" = well).

    resolver: keeps | stretch | stale: whether its resolver keeps TTLs; only `keeps` counts for outages."""

    client: str
    service: str
    region: str
    site: str
    error: str
    resolver: str = "keeps"


class Asked(Record, frozen=True, tag="asked"):
    """One for each client at the end: how many requests it made in all, and how many failed."""

    client: str
    service: str
    region: str
    requests: int
    failed: int


class Pooled(Record, frozen=True, tag="pool"):
    """A load balancer gives its servers these weights from now on (0 = drained); it serves `service`."""

    site: str
    service: str
    weights: dict[str, int]  # site of the server -> weight


class Operated(Record, frozen=True, tag="operator"):
    """An operator's command ended, with this exit code."""

    index: int  # of the fault
    argv: tuple[str, ...]
    code: int
    said: str


AnyRecord = (
    Faulted
    | Led
    | Committed
    | Configured
    | Rewound
    | Probed
    | Wrote
    | Edited
    | Answered
    | Served
    | Asked
    | Pooled
    | Operated
)


class History(Struct, frozen=True, kw_only=True):
    """`config`: of the scenario, in force at 0. began: wall clock, ISO 8601, for people (not in the hash). stopped: why
    it ended before its time; "" = it did not."""

    scenario: str
    world: str
    seed: int
    config: Config
    duration_s: float
    records: tuple[AnyRecord, ...]
    began: str = ""
    took_s: float = 0.0  # real time
    stopped: str = ""

    @property
    def sha256(self) -> str:
        """Equal histories have equal hashes, on any machine."""
        digest = hashlib.sha256()
        encode = msgspec.json.Encoder(order="deterministic").encode
        for record in self.records:
            digest.update(encode(record) + b"\n")
        return digest.hexdigest()
