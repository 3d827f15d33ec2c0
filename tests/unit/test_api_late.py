"""The alarm for what answers, and is not where it should be by now."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from controlplane.api.propagation import Arrival, PoolSeen
from controlplane.documents import Seen
from tests.unit.test_api_status import document, photograph, served

OLD = Seen("192.0.2.53:53", 0, False, "still generation 0")
NEW = Seen("198.51.100.53:53", 1, True)
GONE = Seen("203.0.113.53:53", None, False, "no answer in time")
POOL = PoolSeen("haproxy", "a", 0, False, "still gen 0")


def alarms(arrival: Arrival, age_s: float) -> list[dict[str, Any]]:
    picture = photograph(served(), arrival)
    services = {name: replace(s, age_s=age_s) for name, s in picture.services.items()}
    return [a for a in document(replace(picture, services=services))["alarms"] if a["name"] == "late"]


def test_a_server_and_a_pool_that_answer_with_an_old_generation() -> None:
    arrival = Arrival("propagating", (OLD, NEW, GONE), 0.0, ("still gen 0",), (POOL,))
    assert alarms(arrival, 4.9) == []
    found = alarms(arrival, 5.1)
    assert [a["subject"] for a in found] == ["192.0.2.53:53", "haproxy at a"]
    assert "older generation of www" in found[0]["remedy"]


@pytest.mark.parametrize(
    "arrival",
    [
        Arrival("propagating", (NEW, GONE), 17.0, ("old TTL 17s left",)),
        Arrival("diverged", (OLD,), 0.0, ("terminal",)),
        Arrival("converged", (NEW,), 0.0, ()),
    ],
)
def test_what_waits_for_a_ttl_or_is_said_otherwise_is_not_late(arrival: Arrival) -> None:
    assert alarms(arrival, 600.0) == []
