"""Many vantages' observations -> one verdict (DESIGN 4.3). Memoised on the bytes of the votes. Pure."""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct

from policies.world import Vote

UP, DOWN = int(Vote.UP), int(Vote.DOWN)
FRESH, BLIND = int(Vote.FRESH), int(Vote.BLIND)
ANSWERED, OWN = int(Vote.ANSWERED), int(Vote.OWN)


class Verdict(Struct, frozen=True):
    """health: "up", "down" or "" (HELD: the last verdict stays, `why` says the reason).

    replies: did anything answer, by the same quorum; None = no quorum on that.
    dissent: a voter says UP.
    """

    health: str
    replies: bool | None
    passes: int
    voters: int
    why: str  # quorum | no quorum | split

    @property
    def dissent(self) -> bool:
        return self.passes > 0

    @property
    def tally(self) -> str:
        """For people: "3/3" passes of voters."""
        return f"{self.passes}/{self.voters}"


def counts(vote: int) -> bool:
    """Fresh, not blind, and with an opinion."""
    return bool(vote & FRESH) and not vote & BLIND and bool(vote & (UP | DOWN))


def voters(votes: bytes, min_vantages: int) -> bytes:
    """The votes that count. A site's own vantage looks from the inside: it has none while enough others do."""
    opinions = bytes(vote for vote in votes if counts(vote))
    others = bytes(vote for vote in opinions if not vote & OWN)
    return others if len(others) >= min_vantages else opinions


@lru_cache(maxsize=65536)
def quorum(votes: bytes, share_permille: int, min_vantages: int) -> Verdict:
    """votes: one byte (Vote) a vantage, of one target. share_permille: 600 = 60 % of the voters must agree."""
    voting = voters(votes, min_vantages)
    n = len(voting)
    passes = sum(1 for vote in voting if vote & UP)
    answered = sum(1 for vote in voting if vote & ANSWERED)
    if n < min_vantages:
        return Verdict("", None, passes, n, "no quorum")
    need = -(-share_permille * n // 1000)
    health = "down" if n - passes >= need else "up" if passes >= need else ""
    replies = True if answered >= need else False if n - answered >= need else None
    return Verdict(health, replies, passes, n, "quorum" if health else "split")
