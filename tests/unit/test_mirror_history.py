"""The mirror against snapshots: what is gone is forgotten, and another history is recognised."""

from __future__ import annotations

import pytest

from controlplane.documents import Keys, LeaderBeat, OverridesRev, encode
from controlplane.store import KV, Snapshot
from controlplane.view.mirror import Mirror

KEYS = Keys("acme")


def kv(key: str, rev: int) -> KV:
    return KV(key, encode(OverridesRev(rev, "op") if key == KEYS.overrides_rev else LeaderBeat("n", rev)), rev)


def mirror(*items: KV, rev: int = 10) -> Mirror:
    made = Mirror(KEYS)
    made.load(Snapshot(rev, items))
    return made


def test_what_could_never_be_read_is_forgotten_when_it_is_gone() -> None:
    """Or a node that saw one document of a newer version, while it was cut off from its end, could never lead again."""
    held = mirror(KV(KEYS.leader_beat, b'{"schema": 99}', 3))
    assert list(held.unreadable) == [KEYS.leader_beat]
    held.load(Snapshot(11, ()))
    assert held.unreadable == {}


@pytest.mark.parametrize(
    ("snapshot", "contradicts"),
    [
        (Snapshot(10, (kv(KEYS.leader_beat, 4), kv(KEYS.overrides_rev, 9))), False),
        (Snapshot(30, (kv(KEYS.leader_beat, 25), kv(KEYS.overrides_rev, 9))), False),
        (Snapshot(30, (kv(KEYS.overrides_rev, 9),)), False),  # deleted since
        (Snapshot(9, (kv(KEYS.leader_beat, 4), kv(KEYS.overrides_rev, 9))), True),  # back
        (Snapshot(30, (kv(KEYS.leader_beat, 25), kv(KEYS.overrides_rev, 7))), True),  # back, and on from there
        (Snapshot(30, (kv(KEYS.leader_beat, 8), kv(KEYS.overrides_rev, 9))), True),  # changed in a past not seen
        (Snapshot(30, (kv(KEYS.overrides_rev, 9), kv(KEYS.timers_governor, 5))), True),  # new in that past
    ],
)
def test_another_history_is_recognised(snapshot: Snapshot, contradicts: bool) -> None:
    held = mirror(kv(KEYS.leader_beat, 4), kv(KEYS.overrides_rev, 9))
    assert held.contradicts(snapshot) is contradicts


def test_an_unreadable_document_proves_nothing() -> None:
    held = mirror(KV(KEYS.leader_beat, b'{"schema": 99}', 3), kv(KEYS.overrides_rev, 9))
    assert not held.contradicts(Snapshot(12, (KV(KEYS.leader_beat, b'{"schema": 99}', 3), kv(KEYS.overrides_rev, 9))))
