"""The store comes back as it was some time ago."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from chaos.worlds.lab import layout
from chaos.worlds.lab.observer import Observer, now
from chaos.worlds.lab.world import Lab


@pytest.mark.timeout(400)
def test_a_restored_store_does_not_undo_what_is_served(lab: Lab, observer: Observer) -> None:
    """Scenario 5: a backup, then a drain, then the backup is restored, which does not know of the drain. What is
    served stays as it is until somebody says `unfreeze`; no request fails."""
    backup = lab.etcd.backup(lab.directory / "backup.db")
    began = now()
    lab.ctl("drain", "site-b", "--for", "1h", "--reason", "before the restore", "--yes", "--json")
    drained = _generations(lab)["www"]
    restored = now()
    lab.etcd.restore(backup)
    lab.until(lambda: _generations(lab)["www"] > drained, "what is served is taken over", 60)
    lab.until(lambda: lab.status()["services"]["www"]["state"] == "converged", "that is so everywhere", 60)
    doc = lab.status()
    assert doc["overrides"] == []
    assert doc["services"]["www"]["refused"] == "rewound"
    assert observer.told(restored, "site-b") == []
    lab.ctl("unfreeze", "--yes", "--reason", "looked at what was lost")
    lab.settle()
    assert observer.failed(began) == []
    assert {record.site for record in observer.requests(restored)["www/eu-north"][-10:]} == {"site-b"}


def _generations(lab: Lab) -> Mapping[str, int]:
    doc = lab.status()
    return {name: doc["services"][name]["generation"] for name in layout.SERVICES}
