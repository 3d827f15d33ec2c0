"""The network breaks, and every site lives: nobody is moved without need, and nobody who is served is not any more."""

from __future__ import annotations

import time

from chaos.worlds.lab import layout, measure
from chaos.worlds.lab.observer import Moment, Observer, now
from chaos.worlds.lab.world import Lab

OTHERS = ("site-b", "site-c", layout.WITNESS)
RESOLVED = "/"  # who asks the resolver; those inside a site that is cut off (its HAProxy is one) do not count
LONG_ENOUGH_S = 12.0  # for a detection and a failover, if there were one


def test_a_site_that_only_clients_reach_is_left(lab: Lab, observer: Observer, rows: list[measure.Row]) -> None:
    """Scenario 3: the others agree that they cannot see it. Its own name server keeps the last good answer, which
    for clients still is one: no request fails. Its leader gives up; nothing is decided there meanwhile."""
    lab.lead_from("site-a")
    lab.until(observer.calm, "every client is served")
    began = now()
    for other in OTHERS:
        lab.network.cut("site-a", other)
    lab.until(lambda: observer.left_s(began, "www", "site-a", ("site-b", "site-c")) is not None, "it is left", 60)
    lab.until(lambda: lab.status("site-b")["leader"] in OTHERS, "another leads")
    time.sleep(LONG_ENOUGH_S)
    rows += observer.rows("3 site-a reached by clients only", began, ("www",), "site-a", ("site-b", "site-c"))
    assert not lab.failoverds["site-a"].get("/readyz")["ok"]
    assert observer.left_s(began, "www", "site-a", ("site-a",)) is None
    healed = now()
    lab.network.heal()
    lab.settle()
    assert observer.failed(began, RESOLVED) == []
    assert _decided_by("site-a", lab, began, healed) == []


def test_two_sites_that_miss_only_each_other_move_nothing(lab: Lab, observer: Observer) -> None:
    """Scenario 3: A and B are cut from each other while both see C, and are seen by it and the witness."""
    began = now()
    lab.network.cut("site-a", "site-b")
    time.sleep(LONG_ENOUGH_S)
    moved = [d for d in measure.decisions(lab.failoverds["site-c"].journal) if d.wall_s > began.wall_s]
    assert moved == []
    assert observer.failed(began, RESOLVED) == []
    lab.network.heal()
    lab.settle()
    assert observer.failed(began, RESOLVED) == []


def _decided_by(node: str, lab: Lab, since: Moment, until: Moment) -> list[measure.Decision]:
    every = measure.decisions(lab.failoverds["site-c"].journal)
    # A second for what was under way when the cut came.
    return [d for d in every if d.node == node and since.wall_s + 1 < d.wall_s < until.wall_s]
