"""The fast settings: as quick as one observer that acts on one failure, although a quorum must see three each."""

from __future__ import annotations

from chaos.worlds.lab import layout, measure, profile
from chaos.worlds.lab.observer import Observer, now
from chaos.worlds.lab.web import Mode
from chaos.worlds.lab.world import Lab

PROFILE = profile.FAST
SURVIVORS = ("site-b", "site-c")
MOVED = ("www", "shop", "search", "api", "login")
ANSWERS_CHANGE_S = 2.2  # what PowerDNS alone needs, acting on the first failure that it sees


def _site_a_dies(lab: Lab, observer: Observer, scenario: str) -> list[measure.Row]:
    observer.fresh()
    began = now()
    lab.sites["site-a"].die()
    lab.until(lambda: observer.left_s(began, "www", "site-a", SURVIVORS) is not None, "name servers leave site-a")
    lab.until(observer.calm, "every client is served again", 60)
    for client in ("hub@site-b", "hub@site-c"):  # HAProxy's retries hide it
        assert observer.failed_of(began, client) == []
    return observer.rows(scenario, began, MOVED, "site-a", SURVIVORS)


def test_answers_change_within_seconds_of_a_dark_site(
    lab: Lab, observer: Observer, rows: list[measure.Row], goals: bool
) -> None:
    """site-a dies; who leads is elsewhere."""
    lab.lead_from("site-c")
    found = _site_a_dies(lab, observer, "1 fast settings: site-a dark")
    rows += found
    www = found[0]
    assert www.applied is not None
    assert www.applied <= (ANSWERS_CHANGE_S if goals else 60), www


def test_a_leader_that_dies_with_the_site_is_replaced_first(
    lab: Lab, observer: Observer, rows: list[measure.Row]
) -> None:
    """Scenario 1 with the fast settings, our leader and etcd's in site-a: the takeover does not get faster by them."""
    lab.lead_from("site-a")
    found = _site_a_dies(lab, observer, "1 fast settings: with both leaders")
    rows += found
    assert all(row.applied is not None and 0 < row.outage <= 60 for row in found), found


def test_sick_services_are_left_as_fast(lab: Lab, observer: Observer, rows: list[measure.Row]) -> None:
    """Scenario 2 with the fast settings."""
    ways = {"shop": Mode.REFUSE, "search": Mode.HANG, "api": Mode.ERROR, "login": Mode.WRONG}
    began = now()
    for service, mode in ways.items():
        lab.sites["site-a"].tell(service, mode)
    lab.until(
        lambda: all(observer.left_s(began, name, "site-a", layout.SITES) is not None for name in ways),
        "name servers leave site-a",
    )
    lab.until(observer.calm, "every client is served again", 60)
    for service, mode in ways.items():
        found = observer.rows(f"2 fast settings: {mode}", began, (service,), "site-a", layout.SITES)
        rows += found
        assert found[0].applied is not None
        assert 0 < found[0].outage <= 60, found[0]
