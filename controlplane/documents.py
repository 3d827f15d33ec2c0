"""What stands in the store: keys and documents (DESIGN section 5). JSON, each with its `schema`."""

from __future__ import annotations

import zlib
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from policies.world import Answer, Carried, Desired, Event, Slice

SCHEMA = 1
SQUEEZE_BYTES = 128 * 1024  # a value over this is stored compressed: etcd takes 1.5 MiB in a request
MAX_BYTES = 64 * 1024 * 1024  # what a value may unfold to
_ZLIB = b"\x78"  # how a zlib stream begins (RFC 1950); a JSON document never does
T = TypeVar("T")


class Keys:
    """The keys of one cluster."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.prefix = f"/failover/{cluster}/"
        p = self.prefix
        self.incarnation = p + "incarnation"
        self.config = p + "config/current"
        self.config_history = p + "config/history/"
        self.leader = p + "leader"
        self.leader_beat = p + "leader/beat"
        self.nodes = p + "nodes/"
        self.vantages = p + "vantages/"
        self.overrides_rev = p + "overrides/rev"
        self.overrides = p + "overrides/"
        self.timers_overrides = p + "timers/overrides"
        self.timers_governor = p + "timers/governor"
        self.desired = p + "desired/"
        self.applied = p + "applied/"
        self.decisions = p + "decisions/"
        self.adopted = p + "adopted"

    def past_config(self, revision: int) -> str:
        return f"{self.config_history}{revision}"

    def node(self, node: str) -> str:
        return self.nodes + node

    def beat(self, site: str, prober: str) -> str:
        return f"{self.vantages}{site}/{prober}/beat"

    def shard(self, site: str, prober: str, shard: str) -> str:
        return f"{self.vantages}{site}/{prober}/shard/{shard}"

    def override(self, id_: str) -> str:
        return self.overrides + id_

    def service(self, service: str) -> str:
        return self.desired + service

    def applied_by(self, writer: str, site: str, driver: str, shard: int = 0) -> str:
        """The writer comes first, so that one etcd role covers all that an agent may write."""
        return f"{self.applied}{writer}/{site}/{driver}/{shard}"

    def decision(self, id_: str) -> str:
        return self.decisions + id_


class LeaderDoc(Struct, frozen=True):
    """Written only on acquisition; its mod revision is the token."""

    node: str
    run: str  # random per attempt, by which an unknown outcome is recognised
    schema: int = SCHEMA


class LeaderBeat(Struct, frozen=True):
    node: str
    n: int
    schema: int = SCHEMA


class NodeDoc(Struct, frozen=True):
    """A node's own beat: proves that the store takes writes and that the watch does not lag."""

    node: str
    site: str
    roles: tuple[str, ...]
    version: str
    run: str
    n: int
    wall_s: float  # for the clock_suspect alarm only
    reads_schema: int = SCHEMA  # the highest schema that this node can read
    unreadable: str = ""  # a document that it could not read
    driver_faults: dict[str, str] = {}  # driver -> why it is not open there, or not as it is configured now
    schema: int = SCHEMA


class OverridesRev(Struct, frozen=True):
    """Rewritten by every override; compared by every commit. `next_id` numbers the overrides."""

    next_id: int
    op: str
    schema: int = SCHEMA


class OverrideTimers(Struct, frozen=True):
    left_s: dict[str, float]  # override id -> what is left; those without expiry are not in it
    schema: int = SCHEMA


class GovernorDoc(Struct, frozen=True):
    moved: float = 0.0
    window_left_s: float = 0.0
    rewound: str = ""  # why optional moves wait for `failoverctl unfreeze`, or ""
    highest_rev: int = 0  # the highest store revision that a leader has seen
    schema: int = SCHEMA


class AdoptedDoc(Struct, frozen=True):
    """Foreign incarnations whose records an admin gave to this cluster (`failoverctl adopt`, DESIGN 4.8). Each new
    revision of it gives a record away once, and takes the place of the one before."""

    incarnations: tuple[str, ...]
    op: str = ""  # nonce of the write, by which an unknown outcome is recognised
    schema: int = SCHEMA


class Applied(Struct, frozen=True, omit_defaults=True):
    """What one writer did for one service at one driver."""

    generation: int
    result: str  # ok | fenced | transient | terminal | ahead | manual | foreign
    reason: str = ""
    decision: str = ""
    ahead_generation: int = 0  # with result "ahead": the fence found, and what it serves
    ahead_answers: tuple[Answer, ...] = ()
    sessions: dict[str, int] = {}  # pools: site -> sessions left there, of sites that get no new ones
    gone: bool = False  # nothing listens there: a pool that serves nobody
    adoption: int = 0  # revision of the adoption under which it is ours: each gives a record away only once


class Seen(Struct, frozen=True):
    """What one authoritative server answered when it was asked."""

    server: str
    generation: int | None  # None: did not answer
    agrees: bool
    reason: str = ""


class AppliedDoc(Struct, frozen=True):
    """Written by one writer (an agent) for one driver; `seen` is what verification found, by service.

    Services are spread over shards, each a document of its own: a value may not grow without bound."""

    site: str
    driver: str
    writer: str
    run: str
    n: int
    services: dict[str, Applied]
    seen: dict[str, tuple[Seen, ...]]
    old_ttl_left_s: dict[str, float]  # service -> until the last TTL of an older answer is over
    unwritable: str = ""  # why the last write proof failed
    shard: int = 0
    schema: int = SCHEMA


class DecisionDoc(Struct, frozen=True):
    """A recorded run of `decide` that changed something: replays byte for byte."""

    id: str
    nonce: str
    service: str
    at: str  # ISO 8601 UTC, for people
    node: str
    token: int
    config_rev: int
    input: Slice
    carried: Carried
    desired: Desired
    events: tuple[Event, ...]
    refused: tuple[Event, ...]
    new_generation: bool
    schema: int = SCHEMA


class SchemaTooNew(ValueError):
    """A document was written by a newer version than this one can read."""


class _Schema(Struct):
    schema: int = 0


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}
_schema = msgspec.json.Decoder(_Schema)
_encoder = msgspec.json.Encoder(order="deterministic")


def encode(document: Struct) -> bytes:
    """Canonical JSON: equal documents are equal bytes. A large one (a configuration of thousands of services) is a
    zlib stream of it. Each says its schema, also where it leaves defaults out: what is left out another version takes
    for its own default."""
    value = _encoder.encode(document)
    if document.__struct_config__.omit_defaults and getattr(document, "schema", None) == SCHEMA:
        value = value[:-1] + b',"schema":%d}' % SCHEMA
    return zlib.compress(value) if len(value) > SQUEEZE_BYTES else value


def unfold(value: bytes) -> bytes:
    """The JSON of a value as it stands in the store. Raises msgspec.DecodeError."""
    if not value.startswith(_ZLIB):
        return value
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(value, MAX_BYTES)
    except zlib.error as error:
        raise msgspec.DecodeError(f"a damaged zlib stream: {error}") from None
    if not stream.eof:
        raise msgspec.DecodeError(f"more than {MAX_BYTES} bytes, or cut short")
    return plain


def decode(type_: type[T], value: bytes) -> T:
    """Raises SchemaTooNew, or msgspec.DecodeError/ValidationError for what is not such a document."""
    value = unfold(value)
    decoder = _decoders.get(type_)
    if decoder is None:
        decoder = _decoders[type_] = msgspec.json.Decoder(type_)
    try:
        result: T = decoder.decode(value)
    except msgspec.DecodeError:
        _check_schema(_schema.decode(value).schema)  # why it does not fit
        raise
    _check_schema(getattr(result, "schema", 0))
    return result


def _check_schema(written: int) -> None:
    if written > SCHEMA:
        raise SchemaTooNew(f"schema {written}, this version reads up to {SCHEMA}")
