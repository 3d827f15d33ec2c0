"""What a fence found beside a name means for a writer (DESIGN 4.8). Pure; shared by every driver and by sync."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

from controlplane.drivers import Change, Fence

# No generation can be so far above what is desired: at one a second, a store restored from a backup of eleven days ago.
# Whoever took it over would go on from there, at every server, and soon out of digits (drivers.py).
LEAP = 1_000_000


class Relation(StrEnum):
    """How a fence that was found stands to the one that a writer would put there."""

    ABSENT = "absent"  # nothing there: write
    OLDER = "older"  # write
    SAME = "same"  # same generation, same decision: only drift may be repaired
    AHEAD = "ahead"  # a higher generation, or the same one by another decision: a store that was rewound
    IMPLAUSIBLE = "implausible"  # further ahead than any store was: nothing of ours
    FOREIGN = "foreign"  # another incarnation: a rebuilt store, another cluster on the same zone
    MANUAL = "manual"  # put there by hand: left alone


def relation(found: Fence | None, mine: Fence, adopted: Collection[str] = ()) -> Relation:
    """`adopted`: incarnations whose records an admin gave to ours: theirs count as older, whatever they say."""
    if found is None:
        return Relation.ABSENT
    if found.manual:
        return Relation.MANUAL
    if found.incarnation != mine.incarnation:
        return Relation.OLDER if found.incarnation in adopted else Relation.FOREIGN
    if found.generation > mine.generation + LEAP:
        return Relation.IMPLAUSIBLE
    if found.generation != mine.generation:
        return Relation.OLDER if found.generation < mine.generation else Relation.AHEAD
    return Relation.SAME if found.decision == mine.decision else Relation.AHEAD


WRITABLE = (Relation.ABSENT, Relation.OLDER, Relation.SAME)


def refusal(change: Change) -> str:
    """Why this change may never be written, whatever the server holds; "" if it may.

    A writer that has read the newest fence could still put an older generation under it: a compare-and-set
    alone does not stop that, so every driver asks here first.
    """
    found = relation(change.expect, change.fence)
    if found in WRITABLE or (found is Relation.FOREIGN and change.adopted):
        return ""
    assert change.expect is not None
    return f"{found}: {change.expect.text()}"
