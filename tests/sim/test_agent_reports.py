"""What agents have told a store that was restored since must be told again at once."""

from __future__ import annotations

from controlplane.documents import AppliedDoc, decode
from tests.sim.setting import Story, twice


def told_and_forgotten(w: Story) -> None:
    """The store is restored to a moment just before an agent's last document, which stays as it was."""
    w.begin("dark", "site-a")
    w.run(20.0)
    key = w.keys.applied_by("site-b", "site-b", "dns-site-b")
    backup, before = w.store.snapshot(), w.entry(key)
    while w.entry(key) == before:
        backup = w.store.snapshot()
        w.run(0.05)
    assert before is not None
    w.restore(backup, 0.0)

    def told() -> bool:
        entry = w.store.entry(key)
        return entry is not None and entry.mod_rev > backup.rev

    w.marks["told"] = w.run_until(told, 12.0)
    after = w.entry(key)
    assert after is not None and decode(AppliedDoc, after).n > decode(AppliedDoc, before).n


def test_a_restored_store_is_told_again() -> None:
    with twice(told_and_forgotten) as w:
        assert w.marks["told"] < 2.0
