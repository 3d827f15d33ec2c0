"""A three-site cluster in virtual time: failures of sites, leaders, agents and the store. Each history is played
twice and must come out byte for byte the same; tests/sim/world.py checks fencing and never-empty at each write."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from controlplane.documents import OverridesRev, OverrideTimers, decode
from controlplane.operator import Refused
from tests.sim.setting import SITES, WITNESS, config
from tests.sim.world import World, settled

ROOT = Path(__file__).parents[2]
QUICK = config(soak_s=20.0, step_s=10.0, hold_s=5.0)


def twice(story: Callable[[], World]) -> World:
    """Play a story two times; returns the second world, still open to be looked at."""
    with story() as first:
        expected = first.hash, [(record.at, record.text) for record in first.history]
    second = story()
    assert (second.hash, [(record.at, record.text) for record in second.history]) == expected
    return second


def left(w: World, site: str) -> Callable[[], bool]:
    """Every reachable name server answers, and not with that site."""
    return lambda: all(answer and site not in answer for answer in w.serving().values())


def phase(w: World, site: str) -> str:
    return w.desired().sites[site].phase


# --- a site ---------------------------------------------------------------------------------------------------


def failover() -> World:
    """A site goes dark with all the traffic, and comes back."""
    w = settled()
    w.darken("site-a")
    w.run(30.0)
    w.lighten("site-a")
    w.run(30.0)
    return w


def test_failover() -> None:
    with twice(failover) as w:
        move = next(r for r in w.history if r.kind == "store" and "g=2 " in r.text)
        assert move.at - 15.0 < 1.1 + 3 * 1.5 + 0.5 + 0.1, "detect, publish, decide"
        applied = [r.at for r in w.said("dns", "g=2 ") if r.at < 45.0]
        assert len(applied) == 2 and max(applied) - move.at < 0.25, "those that can be reached follow at once"
        assert w.all_serve("site-b") and w.desired().generation == 2, "site-a soaks: nothing comes back yet"
        assert w.generations() == dict.fromkeys(SITES, 2), "and its name server has caught up"
        assert phase(w, "site-a") == "soak"


def test_every_controller_journals_the_incident() -> None:
    with failover() as w:
        (incident,) = w.nodes[w.leading()].journal.incidents
        assert incident.sites == ("site-a",) and incident.generation == 2
        assert incident.detect_s is not None and 0 <= incident.detect_s < 1.0
        assert incident.decide_s is not None and incident.decide_s < 0.2
        assert incident.apply_s is not None and incident.apply_s < 1.0
        assert "timeout connect" in incident.reasons[0]
        for site in ("site-b", "site-c", WITNESS):
            assert [i.decision for i in w.nodes[site].journal.incidents] == [incident.decision], site


def both_die() -> World:
    """The site that has the traffic and the leader's node, if that is another one, in the same moment."""
    w = settled()
    w.kill(w.leading())
    w.darken("site-a")
    w.marks["left"] = w.run_until(left(w, "site-a"), 15.0)
    w.run(5.0)
    return w


def test_a_site_and_the_leader_at_once() -> None:
    with twice(both_die) as w:
        assert w.marks["left"] < 8.6 + 0.5 + 0.1 + 2.2
        assert w.all_serve("site-b")


# --- the leader -----------------------------------------------------------------------------------------------


def leader_lost() -> World:
    w = settled()
    first = w.leading()
    w.kill(first)
    w.marks["takeover"] = w.run_until(lambda: w.leading() != first, 5.0)
    w.run(10.0)
    w.marks["generation"] = w.desired().generation
    w.darken("site-a")
    w.marks["left"] = w.run_until(left(w, "site-a"), 15.0)
    w.start(first)
    w.lighten("site-a")
    w.run(10.0)
    return w


def test_a_leader_lost() -> None:
    with twice(leader_lost) as w:
        assert w.marks["takeover"] < 5.0
        assert w.marks["generation"] == 1, "a new leader alone moves nothing"
        assert w.marks["left"] < 1.1 + 3 * 1.5 + 0.5 + 0.5
        leaders = [record.subject for record in w.said("state", "leading")]
        assert leaders[0] not in leaders[1:], "the old one, started anew, follows"
        assert len(leaders) == 2 + (leaders[1] == "site-a"), "and no change without need"


def leader_stops() -> World:
    w = settled()
    first = w.leading()
    w.nodes[first].loop.create_task(w.nodes[first].stop())
    w.marks["takeover"] = w.run_until(lambda: w.leading() not in ("", first), 5.0)
    return w


def test_a_leader_that_stops_cleanly_hands_over() -> None:
    with twice(leader_stops) as w:
        assert w.marks["takeover"] < 0.5


def paused_leader() -> World:
    """The leader freezes with a commit on its way to the store, and wakes up 25 s later: so does the commit."""
    w = settled()
    leader = w.nodes[w.leading()]
    sent = leader.line.commits
    leader.line.latency_s = 0.4
    w.darken("site-a")
    w.run_until(lambda: leader.line.commits > sent, 12.0)
    leader.loop.pause()
    w.marks["left"] = w.run_until(left(w, "site-a"), 12.0)
    w.run(5.0)
    w.drain("site-b")
    w.run(20.0)
    w.marks["woken"] = w.kernel.now
    leader.loop.resume()
    w.run(20.0)
    return w


def test_a_paused_leader_is_fenced_off() -> None:
    with twice(paused_leader) as w:
        leaders = [r.subject for r in w.said("state", "leading")]
        assert len(leaders) == 2 and leaders[0] != leaders[1]
        late = [r for r in w.said("refused") if r.at >= w.marks["woken"]]
        assert len(late) == 1, "old news, not written"
        assert w.desired().generation == 3 and w.all_serve("site-c")
        followed = [r for r in w.said("state", "following") if r.at >= w.marks["woken"]]
        assert [r.subject for r in followed] == [leaders[0]]


def cut_off_leader() -> World:
    """The leader is at the site that goes dark: it must not decide on what it saw before."""
    w = settled()
    for site in (WITNESS, *SITES):
        if w.leading() != "site-a" and site != "site-a":
            w.kill(site)
    w.run_until(lambda: w.leading() == "site-a", 10.0)
    for site in (WITNESS, "site-b", "site-c"):
        w.start(site)
    w.run(10.0)
    w.darken("site-a")
    w.marks["left"] = w.run_until(left(w, "site-a"), 15.0)
    w.run(30.0)
    w.lighten("site-a")
    w.run(20.0)
    return w


def test_a_leader_cut_off_with_its_site() -> None:
    with twice(cut_off_leader) as w:
        assert w.leading() != "site-a" and w.all_serve("site-b")
        resigned = [r for r in w.said("state", "view not current") if r.subject == "site-a"]
        assert resigned, "it stops by itself"


# --- agents ---------------------------------------------------------------------------------------------------


def paused_agent() -> World:
    """An update by site-a's agent is held back for 20 s and the agent freezes; meanwhile its deputy writes."""
    w = settled()
    w.late_writes[("site-a", "site-a")] = 20.0
    w.stopped.add(("site-a", "www"))
    w.run_until(lambda: ("site-a", "site-a") not in w.late_writes, 5.0)
    w.nodes["site-a"].loop.pause()
    w.run(3.0)
    w.marks["deputy"] = w.generations()["site-a"]
    w.drain("site-b")
    w.run(30.0)
    w.marks["drained"] = w.generations()["site-a"]
    w.nodes["site-a"].loop.resume()
    w.run(10.0)
    return w


def test_a_paused_agent_with_old_news_is_fenced_off() -> None:
    with twice(paused_agent) as w:
        assert w.marks == {"deputy": 2, "drained": 3}, "the deputy wrote in its place"
        old = [r for r in w.said("dns", "g=2 ") if r.subject == "site-a by site-a"]
        assert [r.text.split()[3] for r in old] == ["fenced"], "its own update came too late"
        assert w.generations() == dict.fromkeys(SITES, 3) and w.all_serve("site-c")


# --- the store ------------------------------------------------------------------------------------------------


def store_away() -> World:
    """The store is away for a minute, in which the site that has the traffic dies."""
    w = settled()
    w.store_down(True)
    w.run(20.0)
    w.stopped.add(("site-a", "www"))
    w.run(40.0)
    w.marks["static"] = float(w.all_serve("site-a") and not [r for r in w.history if r.at > 15 and r.kind != "state"])
    w.store_down(False)
    w.marks["left"] = w.run_until(left(w, "site-a"), 10.0)
    w.run(20.0)
    return w


def test_the_store_away_for_a_minute() -> None:
    with twice(store_away) as w:
        assert w.marks["static"], "names go on being served as they were"
        assert w.marks["left"] < 5.0, "current view, then a leader; the verdict is there already"
        assert w.all_serve("site-b") and w.desired().generation == 2


def rewound() -> World:
    """A drain and a failover, then the store is restored to what it was before; later the last site fails too."""
    w = settled(QUICK)
    backup = w.store.snapshot()
    w.drain("site-a")
    w.run(5.0)
    w.stopped.add(("site-b", "www"))
    w.run(10.0)
    w.marks["before"] = w.desired().generation
    assert w.all_serve("site-c")
    w.store.restore(backup)
    w.run(60.0)
    w.marks["after"] = w.desired().generation
    w.marks["stayed"] = float(w.all_serve("site-c"))
    w.stopped |= {("site-c", "www"), ("site-a", "www")}
    w.stopped.discard(("site-b", "www"))
    w.marks["left"] = w.run_until(left(w, "site-c"), 10.0)
    w.stopped.clear()
    w.run(60.0)
    w.marks["waiting"] = w.desired().generation
    w.marks["unfrozen"] = len(w.kernel.run(w.operator.unfreeze(), "operator"))
    w.run(60.0)
    return w


def test_a_rewound_store() -> None:
    with twice(rewound) as w:
        assert w.marks["before"] == 3
        assert w.marks["after"] == 4, "taken over as it is served, above the highest fence"
        assert w.marks["stayed"], "the drain is lost, and nothing comes back by itself"
        assert w.marks["left"] < 8.0, "forced moves go on"
        waiting = w.marks["waiting"]
        assert w.marks["unfrozen"] == 1
        assert w.desired().generation > waiting and w.all_serve("site-a"), "optional ones waited for unfreeze"
        seen = dict.fromkeys(SITES, 0)
        for record in w.said("dns", " ok"):
            home, generation = record.subject.split()[0], int(record.text.split("g=")[1].split()[0])
            assert generation >= seen[home]
            seen[home] = generation
        with pytest.raises(Refused):
            w.kernel.run(w.operator.unfreeze(), "operator")


# --- time -----------------------------------------------------------------------------------------------------


def soak_and_ramp() -> World:
    """The leader dies in the middle of the soak, and the next one in the middle of the ramp."""
    w = settled(QUICK)
    w.stopped.add(("site-a", "www"))
    w.run_until(left(w, "site-a"), 10.0)
    w.stopped.clear()
    w.run_until(lambda: phase(w, "site-a") == "soak", 5.0)
    w.run(10.0)
    first = w.leading()
    w.kill(first)
    w.marks["soaked"] = 10.0 + w.run_until(lambda: phase(w, "site-a") == "ramp", 30.0)
    w.start(first)
    w.run(15.0)
    w.marks["share"] = w.desired().shares["world"]["site-a"]
    w.kill(w.leading())
    w.marks["ramped"] = 15.0 + w.run_until(lambda: w.all_serve("site-a"), 30.0)
    w.run(5.0)
    return w


def test_a_soak_and_a_ramp_across_leader_changes() -> None:
    with twice(soak_and_ramp) as w:
        assert 19.9 <= w.marks["soaked"] < 26.0, "what was left went on, less no more than the change took"
        assert w.marks["share"] == 50
        assert 19.9 <= w.marks["ramped"] < 28.0
        shares = [r.text.split("{'world': ")[1] for r in w.said("store", "g=")]
        for step in ("{'site-a': 10, 'site-b': 90}", "{'site-a': 50, 'site-b': 50}", "{'site-a': 100}"):
            assert any(share.startswith(step) for share in shares)
        assert len(w.said("state", "leading")) == 3 and phase(w, "site-a") == "ready"


def test_quiet_minutes_write_nothing() -> None:
    with settled() as w:
        w.run(600.0)
        assert not [r for r in w.history if r.at > 15.0]


def ending_drain() -> World:
    """A drain of 90 s, across a leader change."""
    w = settled(QUICK)
    w.drain("site-a", for_s=90.0)
    w.run(30.0)
    w.kill(w.leading())
    w.marks["ended"] = 30.0 + w.run_until(lambda: w.entry(w.keys.override("ov-1")) is None, 80.0)
    w.run(40.0)
    return w


def test_an_override_ends_by_itself_whoever_leads() -> None:
    with twice(ending_drain) as w:
        assert 89.9 <= w.marks["ended"] < 93.0
        timers, rev = w.entry(w.keys.timers_overrides), w.entry(w.keys.overrides_rev)
        assert timers is not None and decode(OverrideTimers, timers).left_s == {}
        assert rev is not None and decode(OverridesRev, rev).next_id == 2
        assert w.all_serve("site-a"), "after the ramp"


def clock_step() -> World:
    """The leader's wall clock jumps: it may not lead any more, and says so."""
    w = settled()
    first = w.leading()
    w.clock_steps[first] = -30.0
    w.marks["handover"] = w.run_until(lambda: w.leading() not in ("", first), 5.0)
    w.run(10.0)
    return w


def test_a_leader_whose_clock_is_suspect_resigns() -> None:
    with twice(clock_step) as w:
        assert w.said("state", "resigned: may not lead")
        assert [r.subject for r in w.said("state", "leading")] == [WITNESS, w.leading()]


# --- the same under another hash seed -------------------------------------------------------------------------


@pytest.mark.parametrize("story", ["failover", "paused_leader"])
def test_histories_do_not_depend_on_the_order_of_sets(story: str) -> None:
    code = f"from tests.sim.test_cluster import {story} as s\nwith s() as w: print(w.hash)"
    hashes = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        hashes.add(done.stdout.strip())
    assert len(hashes) == 1
