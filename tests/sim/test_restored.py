"""A store that is restored from a backup in ways that its revision alone does not tell."""

from __future__ import annotations

import pytest

from tests.sim.setting import SITES, WITNESS, Story, config, settled, twice

QUICK = config(soak_s=20.0, step_s=10.0, hold_s=5.0)


def restored_by_a_hair(w: Story) -> None:
    """The store stops in the moment of a commit, and comes back without it (a disk that lied about what it had
    written). So little is lost that the first beats bring the revision beyond the highest one ever seen."""
    w.drain("site-a")
    backup, generation = w.store.snapshot(), w.now_desired().generation
    while w.now_desired().generation == generation:
        backup = w.store.snapshot()
        w.run(0.01)
    w.run_until(lambda: w.generations() == dict.fromkeys(SITES, generation + 1), 1.0)
    w.begin("away")
    w.run(0.5)
    w.restore(backup, 0.0)
    w.end("away")
    w.run(20.0)
    w.marks["taken over"] = w.now_desired().generation
    w.begin("stopped", "site-b", "www")
    w.marks["left"] = w.run_until(w.left("site-b"), 10.0)
    w.run(5.0)


def test_a_store_that_lost_only_the_last_commit() -> None:
    with twice(restored_by_a_hair, QUICK) as w:
        entry = w.store.entry(w.keys.service("www"))
        assert entry is not None
        for site, node in w.nodes.items():
            assert node.view.desired["www"] == w.now_desired(), site
            assert node.view.revisions[entry.key] == entry.mod_rev, f"{site} could never commit"
            assert node.view.rewound, "it is said aloud, and optional moves wait"
        assert w.marks["taken over"] == 3, "above the generation that was lost and is served"
        assert w.marks["left"] < 3.0, "and failovers go on"
        assert w.generations() == dict.fromkeys(SITES, w.now_desired().generation)


@pytest.mark.parametrize("away_s", [0.3, 5.0])
def test_a_broken_watch_alone_is_no_restore(away_s: float) -> None:
    with settled(QUICK) as w:
        w.begin("away")
        for node in w.nodes.values():
            node.line.break_watches()
        w.run(away_s)
        w.end("away")
        w.run(10.0)
        assert not any(node.view.rewound for node in w.nodes.values())
        assert all(node.view.desired["www"] == w.now_desired() for node in w.nodes.values())


def restored_twice(w: Story) -> None:
    """Every node is started anew; then an old backup is restored, and after that a newer one, from before the start."""
    old = w.store.snapshot()
    w.run(60.0)
    newer = w.store.snapshot()
    for site in (*SITES, WITNESS):
        w.begin("down", site)
        w.end("down", site)
    w.run(20.0)
    w.restore(old, 0.0)
    w.run(15.0)
    w.restore(newer, 60.0)
    w.run(15.0)
    w.begin("stopped", "site-a", "www")
    w.marks["left"] = w.run_until(w.left("site-a"), 10.0)
    w.run(5.0)


def test_a_backup_newer_than_the_one_restored_before_it() -> None:
    """The beats in it are those of the predecessors, and newer than the vantages' own: nobody may yield to the dead."""
    with twice(restored_twice, QUICK) as w:
        assert not [site for site, node in w.nodes.items() if node.task.done()], "all nodes live"
        assert w.marks["left"] < 3.0 and w.all_serve("site-b")
