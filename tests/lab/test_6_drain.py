"""An operator drains site-b under load, and brings it back."""

from __future__ import annotations

import json

from chaos.worlds.lab import layout, measure
from chaos.worlds.lab.observer import Observer, now
from chaos.worlds.lab.world import Lab


def test_drain_returns_when_nothing_answers_with_it_any_more(lab: Lab, observer: Observer) -> None:
    """Scenario 6: no failed request; after the command returned, no name server, no resolver that keeps TTLs and no
    HAProxy sends anybody there; undrain brings it back by its ramp."""
    began = now()
    said = json.loads(lab.ctl("drain", "site-b", "--for", "1h", "--reason", "switch firmware", "--yes", "--json"))
    drained = now()
    left = observer.left_s(began, "www", "site-b", layout.SITES)
    assert left is not None and left <= drained.t - began.t, said
    lab.until(lambda: len(observer.requests(drained)["www/eu-north"]) > 30, "some more requests")
    assert observer.told(drained, "site-b") == []
    assert observer.failed(began) == []

    back = now()
    lab.ctl("undrain", "site-b", "--yes", "--json")
    lab.settle()
    shares = [
        decision.desired.shares["eu-north"].get("site-b", 0)
        for decision in measure.decisions(lab.failoverds["site-a"].journal)
        if decision.service == "www" and decision.wall_s > back.wall_s
    ]
    assert shares == [10, 50, 100]
    assert observer.failed(began) == []
    assert {record.site for record in observer.requests(back)["www/eu-north"][-10:]} == {"site-b"}
