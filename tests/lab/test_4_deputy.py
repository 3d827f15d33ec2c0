"""A site's control node dies, then a service there: somebody else has to put its name server right."""

from __future__ import annotations

from chaos.worlds.lab import layout, measure
from chaos.worlds.lab.observer import Observer, now
from chaos.worlds.lab.web import Mode
from chaos.worlds.lab.world import Lab

PROMISE_S = 60.0


def test_the_deputy_writes_for_a_dead_control_node(lab: Lab, observer: Observer, rows: list[measure.Row]) -> None:
    """Scenario 4: failoverd of site-a, which leads, is killed, and then its shop: site-a's own PowerDNS, whose home
    agent is dead, answers with another site, because site-b deputises."""
    lab.lead_from("site-a")
    observer.fresh()
    site = lab.sites["site-a"]
    site.failoverd.kill()
    began = now()
    site.tell("shop", Mode.REFUSE)
    lab.until(lambda: observer.left_s(began, "shop", "site-a", layout.SITES) is not None, "all name servers leave", 60)
    lab.until(observer.calm, "every client is served again", 90)
    (row,) = observer.rows("4 failoverd of site-a, then its shop", began, ("shop",), "site-a", layout.SITES)
    rows.append(row)
    assert not site.failoverd.process.alive
    assert row.decided is not None and row.applied is not None
    assert 0 < row.outage <= PROMISE_S, row
