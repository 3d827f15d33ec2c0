"""Did it arrive? What the writers and the name servers say about one service, put together. Pure.

Only the words of writers count whose node still beats and that are renewed: a dead agent's last word is history.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from controlplane.documents import Applied, AppliedDoc, Seen
from controlplane.reports import REFRESH_S
from policies.world import Desired

CONVERGED = "converged"
PROPAGATING = "propagating"
DIVERGED = "diverged"

WORD_S = 2 * REFRESH_S  # a writer that says nothing for so long is silent

# Results that no further try will mend: somebody has to look.
STUCK = ("terminal", "ahead", "manual", "foreign")


class Word(Struct, frozen=True):
    """One writer's applied document. `age_s`: since it was written last, as seen here; `beats`: its node does."""

    doc: AppliedDoc
    age_s: float
    beats: bool

    @property
    def alive(self) -> bool:
        return self.beats and self.age_s < WORD_S


class Pool(Struct, frozen=True):
    """One site's load balancer that takes a service's shares. working: an agent runs at that site."""

    driver: str
    site: str
    working: bool

    @property
    def title(self) -> str:
        return f"{self.driver} at {self.site}"


class PoolSeen(Struct, frozen=True):
    """What a pool has, as its site's agent read it back. generation None: unreachable, as far as anybody knows.
    sessions: site -> those that are left there, of sites that get no new ones."""

    driver: str
    site: str
    generation: int | None
    agrees: bool
    reason: str = ""
    sessions: dict[str, int] = {}


class Arrival(Struct, frozen=True):
    """Where a service's desired state has arrived.

    `servers`: each name server's newest answer; `old_ttl_left_s`: until no resolver may hold an older answer any
    more; `why`: what is still missing or wrong, for people; `pools`: each load balancer.
    """

    state: str  # converged | propagating | diverged
    servers: tuple[Seen, ...]
    old_ttl_left_s: float
    why: tuple[str, ...]
    pools: tuple[PoolSeen, ...] = ()

    @property
    def agreeing(self) -> int:
        return sum(1 for seen in self.servers if seen.agrees)

    @property
    def reachable(self) -> int:
        return sum(1 for seen in self.servers if seen.generation is not None)

    @property
    def pools_agreeing(self) -> int:
        return sum(1 for seen in self.pools if seen.agrees)


def arrival(
    desired: Desired,
    drivers: Collection[str],
    authoritative: Collection[str],
    words: Sequence[Word],
    pools: Sequence[Pool] = (),
) -> Arrival:
    """`drivers`: names of the DNS drivers that write this name; `authoritative`: the servers that answer for it;
    `pools`: the load balancers that take its shares. Without any of them there is nothing to ask. What cannot be
    reached holds nothing up."""
    heard = [w for w in words if w.alive and w.doc.driver in drivers] if desired.name else []
    servers = _servers(desired, heard)
    left_s = max((_left_s(w, desired.service) for w in heard), default=0.0)
    told = [(pool, _of_pool(desired, pool, words)) for pool in pools]
    seen = tuple(_pool_seen(desired, pool, done) for pool, done in told)
    wrong = [*_stuck(desired, heard), *_edited(desired, servers)]
    wrong += [f"{p.title}: {d.result} {d.reason}".strip() for p, d in told if d is not None and d.result in STUCK]
    if wrong:
        return Arrival(DIVERGED, servers, left_s, tuple(wrong), seen)
    missing = _missing(desired, servers, authoritative) if desired.name else []
    missing += [f"{s.driver} at {s.site} {s.reason}" for s in seen if s.generation is not None and not s.agrees]
    if left_s > 0 and not missing:
        missing = [f"old TTL {left_s:.0f}s left"]
    return Arrival(PROPAGATING if missing else CONVERGED, servers, left_s, tuple(missing), seen)


def _of_pool(desired: Desired, pool: Pool, words: Sequence[Word]) -> Applied | None:
    """What the pool's own agent says of the service; None: nothing, or it is silent."""
    for word in words:
        doc = word.doc
        if word.alive and (doc.driver, doc.site, doc.writer) == (pool.driver, pool.site, pool.site):
            return doc.services.get(desired.service)
    return None


def _pool_seen(desired: Desired, pool: Pool, done: Applied | None) -> PoolSeen:
    generation: int | None = done.generation if done else 0
    reason = ""
    if done is None and pool.working:
        reason = "was not written yet"
    elif done is None or done.gone:
        # Where no agent runs nobody knows, as with the name server of a dead site.
        generation, reason = None, done.reason if done else "no agent runs there"
    elif done.result != "ok":
        reason = f"{done.result} {done.reason}".strip()
    elif (done.generation, done.decision) != (desired.generation, desired.stamp):
        reason = f"still gen {done.generation}"
    return PoolSeen(pool.driver, pool.site, generation, not reason, reason, done.sessions if done else {})


def _servers(desired: Desired, heard: Sequence[Word]) -> tuple[Seen, ...]:
    """Two writers may have asked the same server: the higher generation is the newer answer. An answer of an older
    generation agreed with what was desired then, and not with what is desired now."""
    best: dict[str, Seen] = {}
    for word in heard:
        for seen in word.doc.seen.get(desired.service, ()):
            known = best.get(seen.server)
            if known is None or _rank(seen) > _rank(known):
                best[seen.server] = seen
    return tuple(_as_of(best[server], desired.generation) for server in sorted(best))


def _as_of(seen: Seen, generation: int) -> Seen:
    if seen.generation is None or seen.generation >= generation or not seen.agrees:
        return seen
    return replace(seen, agrees=False, reason=f"still gen {seen.generation}")


def _rank(seen: Seen) -> tuple[int, bool]:
    return (-1 if seen.generation is None else seen.generation, seen.agrees)


def _left_s(word: Word, service: str) -> float:
    return max(0.0, word.doc.old_ttl_left_s.get(service, 0.0) - word.age_s)


def _stuck(desired: Desired, heard: Sequence[Word]) -> list[str]:
    found = []
    for driver, applied in _best_by_driver(desired.service, heard).items():
        if applied.result in STUCK:
            found.append(f"{driver}: {applied.result} {applied.reason}".strip())
    return found


def _best_by_driver(service: str, heard: Sequence[Word]) -> Mapping[str, Applied]:
    """A deputy's success outweighs the home agent's failure, and the other way round."""
    best: dict[str, Applied] = {}
    for word in sorted(heard, key=lambda w: (w.doc.driver, w.doc.writer)):
        applied = word.doc.services.get(service)
        if applied is None:
            continue
        known = best.get(word.doc.driver)
        if known is None or (applied.generation, applied.result == "ok") > (known.generation, known.result == "ok"):
            best[word.doc.driver] = applied
    return best


def _edited(desired: Desired, servers: Sequence[Seen]) -> list[str]:
    """At our generation or beyond, and yet not what we wrote. (Below it, it is merely late.)"""
    return [
        f"{seen.server}: {seen.reason or 'answers differ'}"
        for seen in servers
        if seen.generation is not None and seen.generation >= desired.generation and not seen.agrees
    ]


def _missing(desired: Desired, servers: Sequence[Seen], authoritative: Collection[str]) -> list[str]:
    late = [
        f"{seen.server} still gen {seen.generation}"
        for seen in servers
        if seen.generation is not None and seen.generation < desired.generation
    ]
    asked = {seen.server for seen in servers}
    late += [f"{server} was not asked yet" for server in authoritative if server not in asked]
    if not late and not any(seen.generation is not None for seen in servers):
        late.append("no name server answers")
    return late
