"""Commits: fenced, compared, and never blindly repeated."""

from __future__ import annotations

import random

from msgspec import Struct

from chaos.worlds.faulty_store import FaultyStore
from chaos.worlds.loop import Kernel
from controlplane.documents import GovernorDoc, decode
from controlplane.fence import Committed, Conflict, Deposed, Lost, Outcome, commit, encode_with
from controlplane.store import Compare, Put, Txn
from controlplane.store.memory import MemoryStore

LEADER = "/failover/test/leader"
KEY = "/failover/test/desired/www"


class Case(Struct):
    kernel: Kernel
    store: MemoryStore
    line: FaultyStore
    leading: tuple[Compare, ...]

    def commit(self, value: bytes, read_rev: int = 0) -> Outcome:
        work = commit(self.line, self.leading, [Compare(KEY, mod_rev=read_rev)], [Put(KEY, value)])
        return self.kernel.run(work)

    def value(self) -> bytes | None:
        entry = self.store._data.get(KEY)
        return entry.value if entry else None


def case(kernel: Kernel) -> Case:
    store = MemoryStore()
    token = store.apply(Txn((), (Put(LEADER, b"me"),))).rev
    line = FaultyStore(store, random.Random(1))
    return Case(kernel, store, line, (Compare(LEADER, mod_rev=token), Compare(LEADER, value=b"me")))


def test_committed_with_its_revision() -> None:
    with Kernel() as kernel:
        c = case(kernel)
        assert c.commit(b"one") == Committed(c.store.rev)
        assert c.commit(b"two", c.store.rev) == Committed(c.store.rev)
        assert c.value() == b"two"


def test_a_changed_key_is_a_conflict() -> None:
    with Kernel() as kernel:
        c = case(kernel)
        c.commit(b"one")
        assert isinstance(c.commit(b"two", read_rev=0), Conflict)
        assert c.value() == b"one"


def test_another_leader_means_deposed() -> None:
    with Kernel() as kernel:
        c = case(kernel)
        c.store.apply(Txn((), (Put(LEADER, b"other"),)))
        assert c.commit(b"one") == Deposed()
        assert c.value() is None


def test_a_token_that_came_up_again_in_a_restored_store_is_deposed() -> None:
    """Same revision, another leader: the value is compared as well."""
    with Kernel() as kernel:
        empty = MemoryStore()
        backup = empty.snapshot()
        token = empty.apply(Txn((), (Put(LEADER, b"me"),))).rev
        empty.restore(backup)
        assert empty.apply(Txn((), (Put(LEADER, b"other"),))).rev == token
        line = FaultyStore(empty, random.Random(1))
        c = Case(kernel, empty, line, (Compare(LEADER, mod_rev=token), Compare(LEADER, value=b"me")))
        assert c.commit(b"one") == Deposed()


def test_unreachable_means_nothing_was_written() -> None:
    with Kernel() as kernel:
        c = case(kernel)
        c.line.down = True
        assert isinstance(c.commit(b"one"), Conflict)
        assert c.value() is None


def test_a_lost_reply_is_resolved_by_reading() -> None:
    with Kernel() as kernel:
        c = case(kernel)
        c.line.lose_replies(1, applied=True)
        assert c.commit(b"one") == Committed(c.store.rev)
        c.line.lose_replies(1, applied=False)
        assert c.commit(b"two", c.store.rev) == Lost()
        assert c.value() == b"one"


def test_a_commit_that_lands_late_meets_its_comparisons() -> None:
    """Given up while it hangs; the leader changes; then the store answers again."""
    with Kernel() as kernel:
        c = case(kernel)
        c.line.hang = True
        c.line.call_s = 2.0
        outcome = c.commit(b"one")
        assert outcome == Lost()
        c.store.apply(Txn((), (Put(LEADER, b"other"),)))
        kernel.loop("main").call_soon(setattr, c.line, "hang", False)
        kernel.run_for(5.0)
        assert c.value() is None


def test_unknown_fields_are_carried_along() -> None:
    written = encode_with(GovernorDoc(1.0, 2.0), {"novel": 3, "moved": 99})
    assert b'"novel":3' in written
    assert decode(GovernorDoc, written) == GovernorDoc(1.0, 2.0)
    assert encode_with(GovernorDoc(), None) == encode_with(GovernorDoc(), {})
