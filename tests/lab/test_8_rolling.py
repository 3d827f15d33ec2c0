"""Every failoverd is upgraded, one after another, and a site dies in the middle of it."""

from __future__ import annotations

from chaos.worlds.lab import layout, measure
from chaos.worlds.lab.observer import Observer, now
from chaos.worlds.lab.world import Lab

SURVIVORS = ("site-b", "site-c")
PROMISE_S = 60.0


def test_a_site_dies_while_failoverd_is_upgraded(lab: Lab, observer: Observer, rows: list[measure.Row]) -> None:
    """Scenario 8: site-c and the witness are done; site-b's is stopped when site-a dies, which leaves two who see
    it, and both are needed. Then site-b's starts again."""
    started = now()
    for node in ("site-c", layout.WITNESS):
        _upgrade(lab, node)
    assert observer.failed(started) == []
    observer.fresh()
    assert lab.failoverds["site-b"].stop() == 0
    began = now()
    lab.sites["site-a"].die()
    lab.failoverds["site-b"].start()
    lab.until(lambda: observer.left_s(began, "www", "site-a", SURVIVORS) is not None, "name servers leave site-a", 60)
    lab.until(observer.calm, "every client is served again", 90)
    found = observer.rows("8 site-a dark during a rolling restart", began, ("www", "shop"), "site-a", SURVIVORS)
    rows += found
    for row in found:
        assert row.decided is not None and row.applied is not None
        assert 0 < row.outage <= PROMISE_S, row
    for client in ("hub@site-b", "hub@site-c"):
        assert observer.failed_of(began, client) == []


def _upgrade(lab: Lab, node: str) -> None:
    """As a package's upgrade would: SIGTERM, and the new one starts; the next is done when this one is ready."""
    failoverd = lab.failoverds[node]
    assert failoverd.stop() == 0
    failoverd.start()
    lab.until(lambda: failoverd.get("/readyz")["ok"], f"{node} is ready")
