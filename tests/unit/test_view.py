"""The view: what counts as current, which votes count, and what changes make it say so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from chaos.worlds.loop import Kernel
from controlplane.documents import GovernorDoc, NodeDoc, OverridesRev, OverrideTimers, encode
from controlplane.store import Delete, Put, Txn
from policies.frame import watched
from policies.world import Vote
from probes.target import Beat, Health, Observation, Shard
from tests.unit.view_world import Fixture, desired, override

UP = int(Vote.UP | Vote.FRESH | Vote.ANSWERED)
DOWN = int(Vote.DOWN | Vote.FRESH)


@pytest.fixture
def f() -> Iterator[Fixture]:
    with Kernel() as kernel:
        yield Fixture(kernel)


# --- current --------------------------------------------------------------------------------------------------


def test_current_once_an_own_beat_came_back(f: Fixture) -> None:
    assert f.ask("current") is False
    f.start()
    assert f.ask("current") is True
    f.kernel.run_for(3.0)
    assert 3.0 < float(str(f.ask("current_for_s"))) <= 3.5


def test_not_current_without_writes_or_without_watch(f: Fixture) -> None:
    f.start()
    f.line.down = True
    f.kernel.run_for(1.5)
    assert f.ask("current") is False
    f.line.down = False
    f.kernel.run_for(1.0)
    assert f.ask("current") is True
    assert float(str(f.ask("current_for_s"))) < 1.0, "it starts to count anew"


def test_a_watch_that_lags_is_not_current(f: Fixture) -> None:
    f.start()
    f.line.watch_lag_s = 1.2
    f.kernel.run_for(5.0)
    assert f.ask("current") is False


def test_a_hanging_store_is_not_current_and_the_view_recovers(f: Fixture) -> None:
    f.start()
    f.line.hang = True
    f.kernel.run_for(10.0)
    assert f.ask("current") is False
    f.line.hang = False
    f.kernel.run_for(3.0)
    assert f.ask("current") is True


def test_after_a_stall_it_holds_for_one_window(f: Fixture) -> None:
    f.start()
    f.node.pause()
    f.kernel.run_for(10.0)
    f.node.resume()
    assert f.ask("current") is False, "before the pulse had a turn"
    f.kernel.run_for(2.5)
    assert f.ask("current") is False, "the window is 3 s"
    f.kernel.run_for(1.0)
    assert f.ask("current") is True


def test_clock_suspect(f: Fixture) -> None:
    f.start()
    for node in ("n2", "n3"):
        f.put(f.keys.node(node), encode(NodeDoc(node, "b", (), "1", "x", 1, f.wall + f.kernel.now + 7)))
    f.kernel.run_for(0.1)
    assert f.ask("clock_suspect") is True and f.ask("may_lead") is False
    f.put(f.keys.node("n3"), encode(NodeDoc("n3", "b", (), "1", "x", 2, f.wall + f.kernel.now + 1)))
    f.kernel.run_for(0.1)
    assert f.ask("clock_suspect") is False and f.ask("may_lead") is True


# --- votes ----------------------------------------------------------------------------------------------------


def test_votes_and_reasons(f: Fixture) -> None:
    f.start()
    f.report("a")
    f.report("b", Health.DOWN)
    f.report("c", Health.UNKNOWN)
    s = f.slice()
    assert s.vantages == ("a", "b", "c", "w")
    own = int(Vote.OWN)
    assert f.votes("a") == [UP | own, UP, UP]
    assert f.votes("b") == [DOWN, DOWN | own, DOWN]
    assert f.votes("c") == [int(Vote.FRESH), int(Vote.FRESH), int(Vote.FRESH) | own]
    assert f.votes("w") == [0, 0, 0]
    assert s.reasons["b/www@a/http:80/10.0.0.97"] == "down"
    assert s.reasons["w/www@a/http:80/10.0.0.97"] == "silent"
    assert not any(key.startswith("a/") for key in s.reasons)


def test_a_shard_counts_only_at_the_number_in_the_beat_and_of_its_run(f: Fixture) -> None:
    f.start()
    f.report("b")
    assert f.votes("b")[0] == UP
    f.beat("b", n=50, shard=49)
    assert f.votes("b")[0] == int(Vote.FRESH)
    f.report("b")
    f.beat("b", n=51, shard=f.n, run="another")
    assert f.votes("b")[0] == int(Vote.FRESH)
    assert f.slice().reasons["b/www@a/http:80/10.0.0.97"] == "not probed yet"


def test_a_vantage_that_stops_beating_is_silent(f: Fixture) -> None:
    f.start()
    f.report("b")
    assert f.votes("b")[0] == UP
    f.kernel.run_for(2.0)
    assert f.votes("b")[0] == UP
    f.ask("current")
    f.kernel.run_for(1.5)
    assert f.votes("b")[0] == 0
    f.report("b")
    assert f.votes("b")[0] == UP


def test_blind_is_said_not_judged(f: Fixture) -> None:
    f.start()
    f.report("b", Health.DOWN, blind=True)
    assert f.votes("b")[0] == int(Vote.FRESH | Vote.BLIND)


def test_a_beat_found_in_a_snapshot_proves_nothing(f: Fixture) -> None:
    f.view.votes.configure(f.config, {})
    f.report("b")
    f.start()
    assert f.votes("b")[0] == 0
    f.report("b")
    assert f.votes("b")[0] == UP


def test_old_news_after_a_pause_is_silence(f: Fixture) -> None:
    """A vantage beats while this node sleeps, and dies: its beats come late and all at once."""
    f.start()
    f.report("b")
    f.node.pause()
    for _ in range(10):
        f.kernel.run_for(1.0)
        f.report("b", Health.DOWN)
    f.kernel.run_for(10.0)
    f.node.resume()
    f.kernel.run_for(0.0)
    assert f.votes("b")[0] == 0
    f.kernel.run_for(1.0)
    assert f.votes("b")[0] == 0
    f.report("b", Health.DOWN)
    assert f.votes("b")[0] == DOWN


def test_old_news_after_a_cut_is_silence(f: Fixture) -> None:
    f.start()
    f.report("b")
    f.line.down = True
    f.kernel.run_for(5.0)
    f.report("b", Health.DOWN)
    f.kernel.run_for(20.0)
    f.line.down = False
    f.kernel.run_for(0.21)  # the watch is back, and what it brings is 20 s old
    assert f.view.mirror.beats["b/p"].n == f.n
    assert f.votes("b")[0] == 0


def test_one_vote_a_site(f: Fixture) -> None:
    """Of two vantages at a site, the first that sees speaks."""
    f.start()
    f.report("b", Health.DOWN)
    f.kernel.run_for(2.4)  # the beat is dated by the own beat before it
    rows = watched(f.view.frames["www"], None)
    shard = Shard("b", "q", 1, tuple(Observation(row.id, Health.UP, "", True) for row in rows))
    puts = (
        Put(f.keys.shard("b", "second", "all"), encode(shard)),
        Put(f.keys.beat("b", "second"), encode(Beat("b", "q", 1, {"all": 1}, False, f.wall))),
    )
    f.store.apply(Txn((), puts))
    assert f.votes("b")[0] == DOWN
    f.kernel.run_for(1.0)
    assert f.votes("b")[0] == UP


# --- what changes ---------------------------------------------------------------------------------------------


def dirty(f: Fixture) -> set[str]:
    found: list[set[str]] = []
    f.kernel.run_for(0.0)
    f.node.call_soon(lambda: found.append(f.view.take_dirty()))
    f.kernel.run_for(0.0)
    return found[0]


def test_dirty_only_by_what_a_decision_depends_on(f: Fixture) -> None:
    f.start()
    assert dirty(f) == {"www"}
    f.kernel.run_for(1.0)
    assert dirty(f) == set(), "own beats are no news"
    f.report("b", n=1)
    assert dirty(f) == {"www"}
    f.beat("b", n=7, shard=1)
    assert dirty(f) == set(), "a beat alone is none either"
    f.report("b", Health.DOWN)
    assert dirty(f) == {"www"}
    f.kernel.run_for(5.0)
    assert dirty(f) == {"www"}, "it fell silent"


def test_changed_wakes_up_and_times_out(f: Fixture) -> None:
    f.start()
    dirty(f)

    async def wait() -> float:
        started = f.node.time()
        await f.view.changed(60.0)
        return f.node.time() - started

    waiting = f.node.create_task(wait())
    f.kernel.run_for(2.0)
    assert not waiting.done()
    f.report("b")
    assert f.kernel.run_until_complete(waiting) == 2.0
    dirty(f)
    waiting = f.node.create_task(wait())
    f.kernel.run_for(61.0)
    assert waiting.done() and waiting.result() <= 60.0


def test_age_counts_from_the_revision_seen(f: Fixture) -> None:
    f.start()
    f.kernel.run_for(4.5)
    assert f.slice().age_s == 5.0, "without desired: since it first looked"
    rev = f.put(f.keys.service("www"), encode(desired(1)))
    assert f.slice().age_s == 0.0
    f.kernel.run_for(2.0)
    s = f.slice()
    assert (s.age_s, s.desired) == (2.0, desired(1))
    assert f.view.revisions[f.keys.service("www")] == rev
    f.line.break_watches()
    f.kernel.run_for(1.0)
    assert f.slice().age_s == 3.0, "a new watch is no new document"


def test_addresses_still_served_get_a_row(f: Fixture) -> None:
    f.start()
    assert len(f.slice().votes) == 3 * 4
    f.put(f.keys.service("www"), encode(desired(1, "10.9.9.9")))
    assert len(f.slice().votes) == 4 * 4


def test_overrides_end_on_the_own_clock(f: Fixture) -> None:
    f.start()
    f.put(f.keys.overrides_rev, encode(OverridesRev(2, "x")))
    f.put(f.keys.override("ov-1"), encode(override("ov-1", for_s=30.0)))
    assert f.slice().overrides["a"].id == "ov-1"
    f.kernel.run_for(20.0)
    dirty(f)
    f.put(f.keys.timers_overrides, encode(OverrideTimers({"ov-1": 12.0})))
    f.kernel.run_for(11.0)
    assert f.slice().overrides["a"].id == "ov-1", "what the leader wrote goes first"
    assert dirty(f) == set()
    f.kernel.run_for(2.0)
    assert f.slice().overrides == {}
    assert dirty(f) == {"www"}


def test_a_freeze_covers_the_service(f: Fixture) -> None:
    f.start()
    f.put(f.keys.override("ov-1"), encode(replace(override("ov-1", "freeze"), sites=())))
    assert f.slice().freeze == "ov-1"
    f.store.apply(Txn((), (Delete(f.keys.override("ov-1")),)))
    assert f.slice().freeze == ""


def test_governor_window_runs_on(f: Fixture) -> None:
    f.start()
    f.put(f.keys.timers_governor, encode(GovernorDoc(500.0, 60.0)))
    f.kernel.run_for(20.0)
    found = []
    f.node.call_soon(lambda: found.append(f.view.carried()))
    f.kernel.run_for(40.5)
    f.node.call_soon(lambda: found.append(f.view.carried()))
    f.kernel.run_for(0.0)
    assert (found[0].moved, found[0].window_left_s) == (500.0, 40.0)
    assert found[0].room == {"a": 900.0, "b": 900.0, "c": 900.0}
    assert (found[1].moved, found[1].window_left_s) == (0.0, 0.0)
