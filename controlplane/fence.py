"""Commits that a deposed leader cannot make (DESIGN 4.8): with election.py the only writer of leader and desired.

A commit is one transaction under the comparison `mod(leader) = token`, together with whatever the decision was
based on. One whose outcome is unknown is never repeated: it is looked for, and the leader goes on from what it
then sees. Should it still land later, it meets the same comparisons as any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from controlplane.documents import encode, unfold
from controlplane.store import KV, Compare, Delete, OutcomeUnknown, Put, Store, StoreError, Txn

LOOKS = 5  # re-reads of a commit whose outcome is unknown
LOOK_AGAIN_S = 0.2


class Committed(Struct, frozen=True):
    rev: int


class Deposed(Struct, frozen=True):
    """Somebody else holds the leader key."""


class Conflict(Struct, frozen=True):
    """Nothing was written: something that was read has changed since, or the store could not be reached."""

    why: str


class Lost(Struct, frozen=True):
    """Outcome unknown, and not to be found: go on from what the view shows."""


Outcome = Committed | Deposed | Conflict | Lost


async def commit(
    store: Store, leading: Sequence[Compare], compare: Sequence[Compare], then: Sequence[Put | Delete]
) -> Outcome:
    """Write `then` if `leading` (Election.compares(), taken when the decision was begun) and `compare` hold.

    An unknown outcome is found by the first Put: a story, which has a nonce. Without a story (a timer written), the
    same value is as good as one's own: what was wanted stands there.
    """
    try:
        result = await store.txn(Txn((*leading, *compare), tuple(then)))
        if result.ok:
            return Committed(result.rev)
        leader = await store.get(leading[0].key)
    except OutcomeUnknown:
        return await _look_for(store, then)
    except StoreError as error:
        return Conflict(f"store: {error}")
    return Conflict("something that was read has changed") if _holds(leader, leading) else Deposed()


def _holds(leader: KV | None, leading: Sequence[Compare]) -> bool:
    if leader is None:
        return False
    return all(c.mod_rev in (None, leader.mod_rev) and c.value in (None, leader.value) for c in leading)


async def _look_for(store: Store, then: Sequence[Put | Delete]) -> Outcome:
    proof = next((op for op in then if isinstance(op, Put)), None)
    for _ in range(LOOKS if proof else 0):
        assert proof is not None
        try:
            found = await store.get(proof.key)
        except StoreError:
            await asyncio.sleep(LOOK_AGAIN_S)
            continue
        if found is not None and found.value == proof.value:
            return Committed(found.mod_rev)
        return Lost()
    return Lost()


def encode_with(document: Struct, unknown: Mapping[str, Any] | None) -> bytes:
    """Canonical JSON, with the fields of the predecessor that this version does not know carried along."""
    if not unknown:
        return encode(document)
    fields = {**unknown, **msgspec.json.decode(unfold(encode(document)))}
    return msgspec.json.encode(fields, order="deterministic")
