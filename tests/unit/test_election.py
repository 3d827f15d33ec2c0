"""Leadership on the virtual loop: who leads, when it changes, and that nobody acts on an old token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from chaos.worlds.loop import Kernel
from controlplane.documents import LeaderBeat, LeaderDoc, decode, encode
from controlplane.election import Election, State
from controlplane.signal import Signal
from controlplane.store import Put, Txn
from controlplane.store.memory import MemoryStore
from tests.unit.election_cluster import KEYS, Cluster


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    with Kernel() as kernel:
        yield kernel


def test_an_absent_leader_key_is_claimed_at_once(kernel: Kernel) -> None:
    cluster = Cluster(kernel, "a")
    assert cluster.leader() == "a"
    assert kernel.now < 0.5
    election = cluster.elections["a"]
    assert [change[1:] for change in cluster.changes] == [("a", State.LEADING, "nobody led")]
    document, beat = _stored(cluster)
    assert (document.node, beat.n) == ("a", 1)
    kernel.run_for(10)
    token = cluster.token("a")
    assert token == election.compares()[0].mod_rev == cluster.views["a"].revisions[KEYS.leader]
    assert 20 <= _stored(cluster)[1].n <= 26  # each 400 ms
    assert _stored(cluster)[0] == document
    cluster.check()


def _stored(cluster: Cluster) -> tuple[LeaderDoc, LeaderBeat]:
    data = cluster.memory.snapshot().data
    return decode(LeaderDoc, data[KEYS.leader].value), decode(LeaderBeat, data[KEYS.leader_beat].value)


def test_of_many_racers_one_wins(kernel: Kernel) -> None:
    cluster = Cluster(kernel, *"abcde")
    cluster.leader()
    kernel.run_for(10)
    assert len(cluster.leaders()) == 1
    assert len([change for change in cluster.changes if change[2] is State.LEADING]) == 1
    cluster.check()


def test_a_killed_leader_is_followed_within_five_seconds(kernel: Kernel) -> None:
    cluster = Cluster(kernel, "a", "b", "c")
    first = cluster.leader()
    kernel.run_for(10.0)
    old = cluster.elections[first].compares()[0].mod_rev
    killed_at = kernel.now
    cluster.kill(first)
    second = cluster.leader()
    assert second != first
    assert 1.6 <= kernel.now - killed_at <= 2.5
    kernel.run_for(5.0)
    new = cluster.elections[second].compares()[0].mod_rev
    assert old is not None
    assert new is not None
    assert new > old
    cluster.start(first)  # with an empty memory: it follows
    kernel.run_for(10.0)
    assert cluster.leaders() == [second]
    cluster.check()


def test_a_paused_leader_wakes_up_deposed_and_does_not_act(kernel: Kernel) -> None:
    cluster = Cluster(kernel, "a", "b")
    first = cluster.leader()
    kernel.run_for(5.0)
    cluster.loop(first).pause()
    paused_at = kernel.now
    second = cluster.leader()
    assert second != first
    kernel.run_until(paused_at + 25.0)
    cluster.loop(first).resume()
    kernel.run_for(10.0)
    assert cluster.leaders() == [second]
    late = [act for act in cluster.acts if act[1] == first and act[0] > paused_at]
    assert [act for act in late if act[3] == 0] == []  # it did not even try
    cluster.check()


@pytest.mark.parametrize("pause_s", [0.3, 0.9, 1.5, 1.9, 2.0, 2.1, 2.5, 3.0])
def test_a_pause_of_any_length_never_makes_two(kernel: Kernel, pause_s: float) -> None:
    cluster = Cluster(kernel, "a", "b", "c")
    for _ in range(5):
        name = cluster.leader(within_s=10.0)
        kernel.run_for(3.0 + pause_s / 7)
        cluster.loop(name).pause()
        kernel.run_for(pause_s)
        cluster.loop(name).resume()
    kernel.run_for(10.0)
    assert len(cluster.leaders()) == 1
    cluster.check()


def test_a_clean_stop_hands_over_at_once(kernel: Kernel) -> None:
    cluster = Cluster(kernel, "a", "b")
    first = cluster.leader()
    kernel.run_for(5.0)
    stop = cluster.loop(first).create_task(cluster.elections[first].stop())
    stopped_at = kernel.now
    kernel.run_until_complete(stop)
    assert cluster.elections[first].state is State.STOPPED
    assert cluster.leader() != first
    assert kernel.now - stopped_at < 0.5
    kernel.run_for(5.0)
    assert len(cluster.leaders()) == 1
    cluster.check()


def test_a_follower_stops_without_a_trace(kernel: Kernel) -> None:
    cluster = Cluster(kernel, "a", "b")
    first = cluster.leader()
    follower = "b" if first == "a" else "a"
    kernel.run_until_complete(cluster.loop(follower).create_task(cluster.elections[follower].stop()))
    kernel.run_for(5.0)
    assert cluster.leaders() == [first]


def test_a_claim_that_was_applied_and_lost_is_found(kernel: Kernel) -> None:
    cluster = Cluster(kernel, "a")
    election = cluster.elections["a"]
    _lose_reply_of_the_claim(cluster, applied=True)
    kernel.run_for(1.0)
    assert [(state, why) for _, _, state, why in cluster.changes] == [
        (State.RESOLVING, "nobody led; outcome of the attempt unknown"),
        (State.LEADING, "the attempt had succeeded"),
    ]
    assert election.compares()[0].mod_rev == cluster.memory.snapshot().data[KEYS.leader].mod_rev
    cluster.check()


def test_a_claim_that_was_lost_is_made_again(kernel: Kernel) -> None:
    cluster = Cluster(kernel, "a")
    _lose_reply_of_the_claim(cluster, applied=False)
    kernel.run_for(1.5)
    assert [(state, why) for _, _, state, why in cluster.changes] == [
        (State.RESOLVING, "nobody led; outcome of the attempt unknown"),
        (State.FOLLOWING, "the attempt had not succeeded: nobody leads"),
        (State.LEADING, "nobody led"),
    ]
    cluster.check()


def _lose_reply_of_the_claim(cluster: Cluster, applied: bool) -> None:
    """The view's beats must come back, so only what writes the leader key is lost."""
    store = cluster.stores["a"]
    txn = store.txn

    async def lose(wanted: Txn) -> object:
        if any(op.key == KEYS.leader for op in wanted.then):
            store.txn = txn  # type: ignore[method-assign]
            store.lose_replies(1, applied)
        return await txn(wanted)

    store.txn = lose  # type: ignore[assignment,method-assign]


def test_a_claim_that_lands_after_it_was_given_up_is_adopted(kernel: Kernel) -> None:
    """Sent, not found by reading, applied later: the node finds itself in the view."""
    cluster = Cluster(kernel, "a")
    store, held = cluster.stores["a"], []
    txn = store.txn

    async def hold(wanted: Txn) -> object:
        if any(op.key == KEYS.leader for op in wanted.then):
            held.append(wanted)
            store.lose_replies(1, applied=False)
        return await txn(wanted)

    store.txn = hold  # type: ignore[assignment,method-assign]
    kernel.run_for(3.0)
    assert cluster.leaders() == []
    assert len(held) > 3
    result = cluster.memory.apply(held[-2])
    assert result.ok
    kernel.run_for(0.3)
    assert cluster.leaders() == ["a"]
    assert cluster.changes[-1][3] == "an earlier attempt had succeeded after all"
    assert cluster.elections["a"].compares()[0].mod_rev == result.rev
    kernel.run_for(3.0)
    assert cluster.leaders() == ["a"]
    cluster.check()


def test_a_leader_cut_off_resigns_and_another_follows(kernel: Kernel) -> None:
    cluster = Cluster(kernel, "a", "b")
    first = cluster.leader()
    kernel.run_for(5.0)
    cluster.stores[first].hang = True
    cut_at = kernel.now
    kernel.run_for(3.5)
    resigned = [t for t, name, state, _ in cluster.changes if name == first and state is State.FOLLOWING]
    assert 1.9 < resigned[0] - cut_at < 3.2
    second = cluster.leader()
    assert second != first
    assert kernel.now - cut_at < 5.0
    cluster.stores[first].hang = False  # what was under way lands late
    kernel.run_for(20.0)
    assert cluster.leaders() == [second]
    cluster.check()


def test_a_lagging_watch_ends_a_leadership(kernel: Kernel) -> None:
    cluster = Cluster(kernel, "a", "b")
    first = cluster.leader()
    kernel.run_for(5.0)
    cluster.stores[first].watch_lag_s = 2.0
    kernel.run_for(8.0)
    assert cluster.leader() != first
    assert any("view not current" in why for *_, why in cluster.changes)
    cluster.check()


class FixedView:
    """A silent leader, and a view that is as current as the test says."""

    def __init__(self, memory: MemoryStore) -> None:
        put = Txn((), (Put(KEYS.leader, encode(LeaderDoc("z", "other"))), Put(KEYS.leader_beat, b"")))
        rev = memory.apply(put).rev
        self.leader: LeaderDoc | None = None
        self.revisions: Mapping[str, int] = {KEYS.leader: rev, KEYS.leader_beat: rev}
        self.current_for_s = 0.0
        self.may_lead = True
        self.leadership = Signal()
        self.leader_moved_at = 0.0


def test_a_thief_needs_two_seconds_of_silence_and_a_settled_view(kernel: Kernel) -> None:
    """After an outage of the store all beats are old: the first second of news must not pass for silence."""
    memory = MemoryStore()
    view = FixedView(memory)
    election = Election(memory, KEYS, "a", lambda: "run", view)
    kernel.loop("a").create_task(election.run())
    view.current_for_s = 100.0
    kernel.run_until(1.9)
    seen: list[State] = [election.state]
    for current_for_s in (0.0, 0.5, 0.99, 1.0):
        view.current_for_s = current_for_s
        kernel.run_for(10.0)
        seen.append(election.state)
    assert seen == [State.FOLLOWING] * 4 + [State.LEADING]
    assert election.why.startswith("the leader was silent for 31.")


def test_a_theft_that_is_held_up_fails_once_the_leader_moves(kernel: Kernel) -> None:
    cluster = Cluster(kernel, "a", "b")
    first = cluster.leader()
    other = "b" if first == "a" else "a"
    kernel.run_for(5.0)
    store, held = cluster.stores[other], []
    txn = store.txn

    async def hold(wanted: Txn) -> object:
        if any(op.key == KEYS.leader for op in wanted.then):
            held.append(wanted)
            store.lose_replies(1, applied=False)
        return await txn(wanted)

    store.txn = hold  # type: ignore[assignment,method-assign]
    cluster.loop(first).pause()
    while not held:
        kernel.run_for(0.01)
    assert [compare.key for compare in held[0].compare] == [KEYS.leader, KEYS.leader_beat]
    cluster.loop(first).resume()
    kernel.run_for(0.5)
    assert not cluster.memory.apply(held[0]).ok


def test_nobody_leads_while_the_store_is_away_and_one_soon_after(kernel: Kernel) -> None:
    cluster = Cluster(kernel, "a", "b", "c")
    cluster.leader()
    kernel.run_for(5.0)
    for store in cluster.stores.values():
        store.down = True
    kernel.run_for(60.0)
    assert cluster.leaders() == []
    for store in cluster.stores.values():
        store.down = False
    cluster.leader(within_s=4.0)
    kernel.run_for(5.0)
    assert len(cluster.leaders()) == 1
    cluster.check()


def test_a_suspect_clock_may_not_lead(kernel: Kernel) -> None:
    cluster = Cluster(kernel, "a", "b")
    first = cluster.leader()
    other = "b" if first == "a" else "a"
    kernel.run_for(2.0)
    cluster.views[first].may_lead = False
    kernel.run_for(1.0)  # it hands over: no silence to wait for
    assert cluster.leaders() == [other]
    cluster.kill(other)
    kernel.run_for(20.0)
    assert cluster.leaders() == []
    cluster.views[first].may_lead = True
    kernel.run_for(1.0)
    assert cluster.leaders() == [first]
    cluster.check()


def test_a_rewound_store_gets_a_new_leader(kernel: Kernel) -> None:
    cluster = Cluster(kernel, "a", "b", "c")
    cluster.leader()
    kernel.run_for(5.0)
    backup = cluster.memory.snapshot()
    cluster.kill(cluster.leaders()[0])
    kernel.run_for(10.0)
    second = cluster.leader()
    token = cluster.token(second)
    cluster.memory.restore(backup)
    cluster.acts.clear()
    kernel.run_for(1.0)
    assert cluster.token(second) != token
    kernel.run_for(10.0)
    assert len(cluster.leaders()) == 1
    cluster.check()


def test_a_revision_that_comes_up_twice_does_not_pass_for_the_old_token() -> None:
    """The backup's revision plus some writes may equal an old token: the document tells them apart."""
    with Kernel() as kernel:
        cluster = Cluster(kernel, "a")
        backup = cluster.memory.snapshot()
        cluster.leader()
        kernel.run_for(2.0)
        compares = cluster.elections["a"].compares()
        cluster.loop("a").pause()
        cluster.memory.restore(backup)
        token = compares[0].mod_rev
        assert token is not None
        while cluster.memory.rev < token - 1:
            cluster.memory.apply(Txn((), (Put(KEYS.node("z"), b"1"),)))
        foreign = cluster.memory.apply(Txn((), (Put(KEYS.leader, encode(LeaderDoc("z", "other"))),)))
        assert foreign.rev == token
        assert cluster.memory.apply(Txn(compares[:1], ())).ok
        assert not cluster.memory.apply(Txn(compares, ())).ok


def test_equal_seeds_have_equal_histories() -> None:
    def history() -> list[object]:
        with Kernel() as kernel:
            cluster = Cluster(kernel, "a", "b", "c")
            for store in cluster.stores.values():
                store.unknown_rate, store.jitter, store.latency_s = 0.2, 3.0, 0.05
            first = cluster.leader()
            kernel.run_until(10.0)
            cluster.loop(first).pause()
            kernel.run_until(25.0)
            cluster.loop(first).resume()
            kernel.run_until(40.0)
            cluster.kill(cluster.leader())
            kernel.run_until(90.0)
            cluster.check()
            return [*cluster.changes, *cluster.acts]

    first = history()
    assert len(first) > 100
    assert history() == first
