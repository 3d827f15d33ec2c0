"""What agents have told a store that was restored since must be told again at once."""

from __future__ import annotations

from controlplane.documents import AppliedDoc, decode
from tests.sim.test_cluster import twice
from tests.sim.world import World, settled


def told_and_forgotten() -> World:
    """The store is restored to a moment just before an agent's last document, which stays as it was."""
    w = settled()
    w.darken("site-a")
    w.run(20.0)
    backup = w.store.snapshot()
    key = w.keys.applied_by("site-b", "site-b", "embedded-site-b")
    before = w.store._data[key].value
    while w.store._data[key].value == before:
        backup = w.store.snapshot()
        w.run(0.05)
    w.store.restore(backup)
    w.marks["told"] = w.run_until(lambda: w.store._data[key].mod_rev > backup.rev, 12.0)
    assert decode(AppliedDoc, w.store._data[key].value).n > decode(AppliedDoc, before).n
    return w


def test_a_restored_store_is_told_again() -> None:
    with twice(told_and_forgotten) as w:
        assert w.marks["told"] < 2.0
