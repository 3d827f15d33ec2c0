"""Four services at site-a fail in four ways at the same moment, while the site and everything else there is well."""

from __future__ import annotations

from chaos.worlds.lab import layout, measure
from chaos.worlds.lab.observer import Observer, now
from chaos.worlds.lab.web import Mode
from chaos.worlds.lab.world import Lab

WAYS = {"shop": Mode.REFUSE, "search": Mode.HANG, "api": Mode.ERROR, "login": Mode.WRONG}
PROMISE_S = 60.0


def test_each_is_served_elsewhere_within_a_minute(lab: Lab, observer: Observer, rows: list[measure.Row]) -> None:
    """Scenario 2: refuses; accepts and never answers; answers 500; serves a wrong certificate."""
    site = lab.sites["site-a"]
    began = now()
    for service, mode in (WAYS | {"hub": Mode.HANG}).items():
        site.tell(service, mode)
    for service in WAYS:
        lab.until(
            lambda name=service: observer.left_s(began, name, "site-a", layout.SITES) is not None,  # type: ignore[misc]
            f"name servers leave site-a for {service}",
            60,
        )
    lab.until(observer.calm, "every client is served again", 90)
    for service, mode in WAYS.items():
        (row,) = observer.rows(f"2 service at site-a: {mode}", began, (service,), "site-a", layout.SITES)
        rows.append(row)
        assert row.decided is not None and row.applied is not None, row
        assert 0 < row.outage <= PROMISE_S, row
    assert observer.failed_of(began, "www/eu-west") == []
    for client in ("hub@site-b", "hub@site-c"):  # HAProxy's retries hide a server that hangs
        failed = observer.failed_of(began, client)
        rows.append(measure.Row("2 through HAProxy with retries: hang", client, None, None, 0.0, len(failed)))
        assert failed == []
