"""A typed copy of the cluster's documents, kept by applying a watch's events in order. No clock, no I/O."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from controlplane.documents import (
    AdoptedDoc,
    AppliedDoc,
    DecisionDoc,
    GovernorDoc,
    Keys,
    LeaderBeat,
    LeaderDoc,
    NodeDoc,
    OverridesRev,
    OverrideTimers,
    SchemaTooNew,
    decode,
    unfold,
)
from controlplane.store import KV, Delete, Snapshot
from policies.topology import Config, Override
from policies.world import Desired
from probes.target import Beat, Shard

Unknown = dict[str, Any]  # fields of a document that this version does not know, carried along when it rewrites it

_REWRITTEN = (AdoptedDoc, Desired, GovernorDoc, OverrideTimers, OverridesRev)
_raw = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Slot(Struct, frozen=True):
    """Where the document of a key belongs: under `name` in `table`, or without a table the attribute `name`.

    type_ None: nothing that is kept here. vantage: see Mirror.vantage."""

    type_: type[Any] | None
    table: dict[str, Any] | None
    name: str
    vantage: tuple[str, str] | None = None


class Mirror:
    """`revisions` holds the mod revision of each copy held here: what a commit compares.

    A document that cannot be read (a newer schema, or no such document at all) leaves its last good copy and
    that copy's revision in place, and is named in `unreadable`: a commit that compares it fails, as it should.
    """

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.rev = 0
        self.revisions: dict[str, int] = {}
        self.unreadable: dict[str, str] = {}
        self.unknown: dict[str, Unknown] = {}
        self.incarnation = ""
        self.config: Config | None = None
        self.leader: LeaderDoc | None = None
        self.leader_beat: LeaderBeat | None = None
        self.overrides_rev: OverridesRev | None = None
        self.timers: OverrideTimers | None = None
        self.governor: GovernorDoc | None = None
        self.overrides: dict[str, Override] = {}
        self.desired: dict[str, Desired] = {}
        self.nodes: dict[str, NodeDoc] = {}
        self.beats: dict[str, Beat] = {}  # "<site>/<prober>"
        self.shards: dict[str, dict[str, Shard]] = {}  # "<site>/<prober>" -> shard
        self.adopted: AdoptedDoc | None = None
        self.applied: dict[str, AppliedDoc] = {}  # "<writer>/<site>/<driver>/<shard>"
        self.decisions: dict[str, DecisionDoc] = {}
        self.last_decision = 0  # the highest number of a decision ever seen
        self._slots: dict[str, Slot] = {}
        self._singles: dict[str, tuple[str, type]] = {
            keys.config: ("config", Config),
            keys.leader: ("leader", LeaderDoc),
            keys.leader_beat: ("leader_beat", LeaderBeat),
            keys.overrides_rev: ("overrides_rev", OverridesRev),
            keys.timers_overrides: ("timers", OverrideTimers),
            keys.timers_governor: ("governor", GovernorDoc),
            keys.adopted: ("adopted", AdoptedDoc),
        }
        self._tables: tuple[tuple[str, dict[str, Any], type], ...] = (
            (keys.desired, self.desired, Desired),
            (keys.nodes, self.nodes, NodeDoc),
            (keys.overrides, self.overrides, Override),
            (keys.applied, self.applied, AppliedDoc),
            (keys.decisions, self.decisions, DecisionDoc),
        )

    def load(self, snapshot: Snapshot, anew: bool = False) -> list[KV | Delete]:
        """Become the snapshot; returns the events that lead there from what was held before.

        anew: revisions prove nothing, because this store has another history than the one seen before.
        """
        there = {item.key for item in snapshot.items}
        held = {*self.revisions, *self.unreadable}
        gone = [Delete(key, snapshot.rev) for key in sorted(held) if key not in there]
        news: list[KV | Delete] = [i for i in snapshot.items if anew or self.revisions.get(i.key) != i.mod_rev]
        events = gone + news
        for event in events:
            self.apply(event)
        self.rev = snapshot.rev
        return events

    def contradicts(self, snapshot: Snapshot) -> bool:
        """Is the snapshot from another history than this copy: behind it, or with changes in the past that never
        came here? A store that was restored may have grown beyond `rev` again before anybody looked."""
        if snapshot.rev < self.rev:
            return True
        return any(
            item.mod_rev <= self.rev
            and item.key not in self.unreadable
            and item.mod_rev != self.revisions.get(item.key, 0)
            for item in snapshot.items
        )

    @property
    def complaint(self) -> str:
        """About a document that cannot be read, the first of them, or ""."""
        return "{}: {}".format(*min(self.unreadable.items())) if self.unreadable else ""

    def apply(self, event: KV | Delete) -> Slot:
        """Returns where its document belongs."""
        key = event.key
        slot = self.slot(key)
        self.rev = max(self.rev, event.mod_rev)
        if isinstance(event, Delete):
            if key == self.keys.incarnation:
                self.incarnation = ""
            self._put(slot, None)
            self._slots.pop(key, None)
            self.revisions.pop(key, None)
            self.unreadable.pop(key, None)
            self.unknown.pop(key, None)
            return slot
        self._slots[key] = slot
        try:
            self._read(key, slot, event.value)
        except (SchemaTooNew, msgspec.DecodeError, UnicodeDecodeError) as error:
            self.unreadable[key] = str(error)
            return slot
        if self.unreadable:
            self.unreadable.pop(key, None)
        self.revisions[key] = event.mod_rev
        return slot

    def _read(self, key: str, slot: Slot, value: bytes) -> None:
        if key == self.keys.incarnation:
            self.incarnation = value.decode("ascii")
            return
        if slot.type_ is None:
            return
        document: Any = decode(slot.type_, value)
        if slot.type_ in _REWRITTEN:
            more = unknown_fields(slot.type_, value)
            self.unknown.pop(key, None)
            if more:
                self.unknown[key] = more
        self._put(slot, document)

    def slot(self, key: str) -> Slot:
        """Looked up for every event: what is there is kept as long as the key is."""
        return self._slots.get(key) or self._find(key)

    def _find(self, key: str) -> Slot:
        if key in self._singles:
            name, type_ = self._singles[key]
            return Slot(type_, None, name)
        for prefix, table, type_ in self._tables:
            if key.startswith(prefix):
                return Slot(type_, table, key.removeprefix(prefix))
        if key.startswith(self.keys.vantages):
            parts = key.removeprefix(self.keys.vantages).split("/", 3)
            vantage = "/".join(parts[:2])
            if len(parts) == 3 and parts[2] == "beat":
                return Slot(Beat, self.beats, vantage, (vantage, ""))
            if len(parts) == 4 and parts[2] == "shard" and parts[3]:
                return Slot(Shard, self.shards.setdefault(vantage, {}), parts[3], (vantage, parts[3]))
        return Slot(None, None, "")

    def _put(self, slot: Slot, document: Any) -> None:
        """Store the document, or with None forget it."""
        if slot.table is not None:
            _set(slot.table, slot.name, document)
            if slot.table is self.decisions:
                self.last_decision = max(self.last_decision, decision_number(slot.name))
        elif slot.name:
            setattr(self, slot.name, document)

    def vantage(self, key: str) -> tuple[str, str] | None:
        """("<site>/<prober>", shard or "" for the beat) of a vantage's key; None for any other."""
        return self.slot(key).vantage


def unknown_fields(type_: type[Any], value: bytes) -> Unknown:
    """The fields of a readable document that its type here does not have."""
    known = type_.__struct_fields__
    fields = _raw.decode(unfold(value))  # nested values are not built: this runs for every document that comes in
    return {name: msgspec.json.decode(field) for name, field in fields.items() if name not in known}


def decision_number(id_: str) -> int:
    """42 of "d-42"; 0 for what is no such id."""
    number = id_.removeprefix("d-")
    return int(number) if number.isdecimal() else 0


def _set(table: dict[str, Any], name: str, document: Any) -> None:
    if document is None:
        table.pop(name, None)
    else:
        table[name] = document
