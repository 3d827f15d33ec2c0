"""quorum(): exhaustively, against an oracle written from DESIGN 4.3 alone."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations_with_replacement, permutations
from math import ceil

import pytest

from policies.quorum import quorum
from policies.world import Vote

# What one vantage may be, in words.
KINDS = ("UP", "DOWN", "UNKNOWN", "silent", "blind")
OPINION = {"UP": Vote.UP | Vote.ANSWERED, "DOWN": Vote.DOWN, "UNKNOWN": Vote(0)}


def byte(kind: str, own: bool = False, stale_word: Vote = Vote.UP) -> int:
    """The vote of a silent or blind vantage still carries the last thing that it said."""
    if kind == "silent":
        vote = stale_word
    elif kind == "blind":
        vote = stale_word | Vote.FRESH | Vote.BLIND
    else:
        vote = OPINION[kind] | Vote.FRESH
    return int(vote | (Vote.OWN if own else Vote(0)))


def oracle(kinds: tuple[str, ...], own: int | None, share: Fraction, min_vantages: int) -> tuple[str, int, int, str]:
    """(health, passes, voters, why), from the text: F = fresh, non-blind vantages with an opinion; a site's own
    vantage has no vote while min_vantages others have one."""
    having = [i for i, kind in enumerate(kinds) if kind in ("UP", "DOWN")]
    others = [i for i in having if i != own]
    electorate = others if len(others) >= min_vantages else having
    passes = len([i for i in electorate if kinds[i] == "UP"])
    fails = len([i for i in electorate if kinds[i] == "DOWN"])
    size = len(electorate)
    if size >= min_vantages and fails >= ceil(share * size):
        return "down", passes, size, "quorum"
    if size >= min_vantages and passes >= ceil(share * size):
        return "up", passes, size, "quorum"
    return "", passes, size, "no quorum" if size < min_vantages else "split"


@pytest.mark.parametrize("min_vantages", [2, 3])
@pytest.mark.parametrize("permille", [501, 600, 667, 1000])
@pytest.mark.parametrize("stale_word", [Vote.UP, Vote.DOWN])
def test_exhaustively_up_to_five_vantages_with_and_without_an_own_one(
    permille: int, min_vantages: int, stale_word: Vote
) -> None:
    share = Fraction(permille, 1000)
    seen = set()
    for size in range(6):
        for kinds in combinations_with_replacement(KINDS, size):
            for own in (None, *range(size)):
                votes = bytes(byte(kind, own == i, stale_word) for i, kind in enumerate(kinds))
                verdict = quorum(votes, permille, min_vantages)
                expected = oracle(kinds, own, share, min_vantages)
                assert (verdict.health, verdict.passes, verdict.voters, verdict.why) == expected, (kinds, own)
                seen.add(expected[0])
    assert seen == {"up", "down", ""}


def test_who_said_it_does_not_matter() -> None:
    for kinds in combinations_with_replacement(KINDS, 4):
        votes = [byte(kind, own=i == 0) for i, kind in enumerate(kinds)]
        assert len({quorum(bytes(order), 600, 2) for order in permutations(votes)}) == 1, kinds


def test_never_on_one_witness() -> None:
    for others in combinations_with_replacement(("UNKNOWN", "silent", "blind"), 4):
        for alone in ("UP", "DOWN"):
            verdict = quorum(bytes([byte(alone), *(byte(k) for k in others)]), 600, 2)
            assert (verdict.health, verdict.why) == ("", "no quorum")


def test_shares_are_counted_in_thousandths() -> None:
    """0.6 of five is exactly three: 0.6 * 5 in floating point would ask for a fourth."""
    three_of_five = bytes([byte("DOWN")] * 3 + [byte("UP")] * 2)
    assert quorum(three_of_five, 600, 2).health == "down"
    assert quorum(three_of_five, 601, 2).health == ""
    for permille in range(501, 1001):
        for size in range(2, 8):
            least = next(n for n in range(size + 1) if n * 1000 >= permille * size)
            for fails in range(size + 1):
                votes = bytes([byte("DOWN")] * fails + [byte("UP")] * (size - fails))
                health = "down" if fails >= least else "up" if size - fails >= least else ""
                assert quorum(votes, permille, 2).health == health


def test_the_own_vantage_votes_only_when_it_is_needed() -> None:
    own_says_up = byte("UP", own=True)
    assert quorum(bytes([own_says_up, byte("DOWN"), byte("DOWN")]), 600, 2).voters == 2
    assert quorum(bytes([own_says_up, byte("DOWN"), byte("DOWN")]), 600, 2).health == "down"
    with_one_other = quorum(bytes([own_says_up, byte("DOWN"), byte("silent")]), 600, 2)
    assert (with_one_other.health, with_one_other.why, with_one_other.voters) == ("", "split", 2)
    assert quorum(bytes([own_says_up, byte("UP"), byte("silent")]), 600, 2).health == "up"


def test_what_answered_is_voted_on_like_health() -> None:
    reply, nothing = int(Vote.FRESH | Vote.DOWN | Vote.ANSWERED), int(Vote.FRESH | Vote.DOWN)
    assert quorum(bytes([reply, reply, nothing]), 600, 2).replies is True
    assert quorum(bytes([reply, nothing, nothing]), 600, 2).replies is False
    assert quorum(bytes([reply, nothing]), 600, 2).replies is None, "split"
    assert quorum(bytes([reply]), 600, 2).replies is None, "no quorum"
    own = int(Vote.OWN | Vote.FRESH | Vote.DOWN | Vote.ANSWERED)
    assert quorum(bytes([own, nothing, nothing]), 600, 2).replies is False


def test_dissent_and_tally_are_for_people() -> None:
    verdict = quorum(bytes([byte("DOWN"), byte("DOWN"), byte("UP")]), 600, 2)
    assert verdict.dissent and verdict.tally == "1/3"
    assert not quorum(bytes([byte("DOWN")] * 3), 600, 2).dissent
    assert quorum(b"", 600, 2).tally == "0/0"
