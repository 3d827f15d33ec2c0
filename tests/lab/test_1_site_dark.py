"""Site-a dies with both leaders in it, and comes back: every process killed and its link cut at the same moment."""

from __future__ import annotations

import pytest

from chaos.worlds.lab import layout, measure
from chaos.worlds.lab.observer import Moment, Observer, now
from chaos.worlds.lab.world import Lab

LOST = "site-a"
SURVIVORS = ("site-b", "site-c")
MOVED = ("www", "shop", "search", "api", "login")
PROMISE_S = 60.0


@pytest.fixture(scope="module")
def death(whole_lab: Lab, observer: Observer) -> Moment:
    """Our leader and etcd's are moved to site-a, which then dies; over when every client is served again."""
    whole_lab.lead_from(LOST)
    observer.fresh()
    began = now()
    whole_lab.sites[LOST].die()
    whole_lab.until(lambda: observer.left_s(began, "www", LOST, SURVIVORS) is not None, "name servers leave site-a", 60)
    whole_lab.until(observer.calm, "every client is served again", 90)
    return began


def test_clients_are_served_elsewhere_within_a_minute(
    whole_lab: Lab, observer: Observer, rows: list[measure.Row], death: Moment
) -> None:
    """Scenario 1, with a TTL of 20 s; expected about 30 s."""
    found = observer.rows("1 site-a dark, with both leaders", death, MOVED, LOST, SURVIVORS)
    rows += found
    assert whole_lab.status()["leader"] in (*SURVIVORS, layout.WITNESS)
    for row in found:
        assert row.decided is not None and row.applied is not None, row
        assert 0 < row.outage <= PROMISE_S, row


def test_clients_elsewhere_notice_nothing(observer: Observer, death: Moment) -> None:
    """Who was served by site-b asks name servers of which one is dead: slower at most, never wrong."""
    north = observer.requests(death)["www/eu-north"]
    outage = measure.outage(north)
    assert len(north) > 100
    assert outage is None or all(error.startswith("resolver") for error in outage.errors)


def test_haproxy_at_another_site_hides_the_death(observer: Observer, rows: list[measure.Row], death: Moment) -> None:
    """Its retries send a request that may be repeated to a server that is there."""
    for site in SURVIVORS:
        requests = observer.requests(death)[f"hub@{site}"]
        failed = measure.failed(requests)
        rows.append(measure.Row("1 through HAProxy with retries", f"hub@{site}", None, None, 0.0, len(failed)))
        assert len(requests) > 100
        assert not failed


def test_it_comes_back_and_nobody_notices(whole_lab: Lab, observer: Observer, death: Moment) -> None:
    """Scenario 7: soak, ramp, no failed request; and then it carries what it carried before."""
    began = now()
    whole_lab.sites[LOST].revive()
    whole_lab.until(lambda: LOST in whole_lab.status()["services"]["www"]["shares"]["eu-west"], "the ramp begins", 60)
    whole_lab.settle()
    whole_lab.until(observer.calm, "every client is served")
    phases = [
        decision.desired.shares["eu-west"].get(LOST, 0)
        for decision in measure.decisions(whole_lab.failoverds["site-b"].journal)
        if decision.service == "www" and decision.wall_s > began.wall_s
    ]
    assert observer.failed(began) == []
    assert phases == [10, 50, 100]
    assert {record.site for record in observer.requests(began)["shop/eu-west"][-10:]} == {LOST}
