"""Before a node starts: does another process of the same name run? Then that one stays, and this one must end.

Two would supersede each other for ever, each started anew by its service manager. Only who starts can tell that it is
the newer one; later on it is whoever woke up late that yields (reporter.py).
"""

from __future__ import annotations

import asyncio

from controlplane.store import Store, StoreError

LOOK_S = 0.1
ALIVE_S = 1.6  # within which a living node beats three times (view/pulse.py, BEAT_S)
BEATS = 2  # one alone may be the last word of a process that was killed, and came late


async def another_beats(store: Store, beat: str) -> bool:
    """Does the key of a node's beat change by itself? False if the store does not say within 1.6 s: a node has to
    start without it."""
    seen: set[int] = set()
    try:
        async with asyncio.timeout(ALIVE_S):
            while (found := await store.get(beat)) is not None:
                seen.add(found.mod_rev)
                if len(seen) > BEATS:
                    return True
                await asyncio.sleep(LOOK_S)
    except (StoreError, TimeoutError):
        return False
    return False
