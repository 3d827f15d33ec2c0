"""A store that is restored from a backup in ways that its revision alone does not tell."""

from __future__ import annotations

import pytest

from tests.sim.setting import SITES, WITNESS, config
from tests.sim.test_cluster import left, twice
from tests.sim.world import World, settled

QUICK = config(soak_s=20.0, step_s=10.0, hold_s=5.0)


def restored_by_a_hair() -> World:
    """The store stops in the moment of a commit, and comes back without it (a disk that lied about what it had
    written). So little is lost that the first beats bring the revision beyond the highest one ever seen."""
    w = settled(QUICK)
    w.drain("site-a")
    backup, generation = w.store.snapshot(), w.desired().generation
    while w.desired().generation == generation:
        backup = w.store.snapshot()
        w.run(0.01)
    w.store_down(True)
    w.run(0.5)
    w.store.restore(backup)
    w.store_down(False)
    w.run(20.0)
    w.marks["taken over"] = w.desired().generation
    w.stopped.add(("site-b", "www"))
    w.marks["left"] = w.run_until(left(w, "site-b"), 10.0)
    w.run(5.0)
    return w


def test_a_store_that_lost_only_the_last_commit() -> None:
    with twice(restored_by_a_hair) as w:
        entry = w.store._data[w.keys.service("www")]
        for site, node in w.nodes.items():
            assert node.view.desired["www"] == w.desired(), site
            assert node.view.revisions[entry.key] == entry.mod_rev, f"{site} could never commit"
            assert node.view.rewound, "it is said aloud, and optional moves wait"
        assert w.marks["taken over"] == 3, "above the generation that was lost and is served"
        assert w.marks["left"] < 3.0, "and failovers go on"
        assert w.generations() == dict.fromkeys(SITES, w.desired().generation)


@pytest.mark.parametrize("away_s", [0.3, 5.0])
def test_a_broken_watch_alone_is_no_restore(away_s: float) -> None:
    with settled(QUICK) as w:
        w.store_down(True)
        w.run(away_s)
        w.store_down(False)
        w.run(10.0)
        assert not any(node.view.rewound for node in w.nodes.values())
        assert all(node.view.desired["www"] == w.desired() for node in w.nodes.values())


def restored_twice() -> World:
    """Every node is started anew; then an old backup is restored, and after that a newer one, from before the start."""
    w = settled(QUICK)
    old = w.store.snapshot()
    w.run(60.0)
    newer = w.store.snapshot()
    for site in (*SITES, WITNESS):
        w.kill(site)
        w.start(site)
    w.run(20.0)
    w.store.restore(old)
    w.run(15.0)
    w.store.restore(newer)
    w.run(15.0)
    w.stopped.add(("site-a", "www"))
    w.marks["left"] = w.run_until(left(w, "site-a"), 10.0)
    w.run(5.0)
    return w


def test_a_backup_newer_than_the_one_restored_before_it() -> None:
    """The beats in it are those of the predecessors, and newer than the vantages' own: nobody may yield to the dead."""
    with twice(restored_twice) as w:
        assert not [site for site, node in w.nodes.items() if node.task.done()], "all nodes live"
        assert w.marks["left"] < 3.0 and w.all_serve("site-b")
