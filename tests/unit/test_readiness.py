"""What a node says that it lacks: in words that tell what to do."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from controlplane.readiness import Readiness
from controlplane.store import Unavailable
from controlplane.store.etcd import MemberHealth, StoreHealth
from policies.topology import Site
from tests.support import run

MIB = 2**20


class Etcd:
    """Says what it is told to say."""

    def __init__(self, *members: MemberHealth, error: str = "") -> None:
        self.members, self.error = members, error
        self.asked = 0

    async def health(self) -> StoreHealth:
        self.asked += 1
        return StoreHealth(self.members, "c1")

    async def get(self, key: str) -> None:
        if self.error:
            raise Unavailable(self.error)


def node(**view: Any) -> Any:
    usual: dict[str, Any] = {
        "synced": True,
        "current": True,
        "config": SimpleNamespace(sites={"site-a": Site(1), "site-b": Site(1)}),
        "mirror": SimpleNamespace(unreadable={}),
        "clock_suspect": False,
        "keys": SimpleNamespace(incarnation="i"),
        "leader": SimpleNamespace(node="site-b"),
    }
    return SimpleNamespace(
        site="site-a", view=SimpleNamespace(**(usual | view)), election=SimpleNamespace(token=None), driver_faults={}
    )


def lacks(etcd: Etcd, told: Any, seconds: float = 0.05) -> tuple[str, ...]:
    """After it has asked etcd once."""
    heard: list[str] = []

    async def main() -> tuple[str, ...]:
        readiness = Readiness(told, etcd, len(etcd.members), lambda: "http://127.0.0.1:8600", heard.append)  # type: ignore[arg-type]
        task = asyncio.create_task(readiness.run())
        await asyncio.sleep(seconds)
        found = readiness.lacks()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return found

    return run(main())


def member(n: int, **of: Any) -> MemberHealth:
    return MemberHealth(**{"endpoint": f"http://127.0.0.1:{n}", "reachable": True, "name": f"e{n}", **of})


def test_ready() -> None:
    assert lacks(Etcd(member(1, db_bytes=10 * MIB)), node()) == ()


@pytest.mark.parametrize(
    ("etcd", "said"),
    [
        (Etcd(*(member(n, reachable=False) for n in (1, 2, 3))), "waiting for etcd: none of 3 endpoints answers"),
        (Etcd(member(1, reachable=False)), "waiting for etcd: none of 1 endpoint answers"),
        (
            Etcd(member(1), member(2, reachable=False), member(3, reachable=False), error="no leader"),
            "waiting for etcd: 1 of 3 endpoints answers, but: no leader",
        ),
        (Etcd(member(1), error="may not read"), "waiting for etcd: 1 of 1 endpoint answers, but: may not read"),
        (Etcd(member(1)), "waiting for etcd: it answers, and its changes do not come in time"),
    ],
)
def test_why_it_waits_for_etcd(etcd: Etcd, said: str) -> None:
    assert lacks(etcd, node(current=False)) == (said,)
    assert lacks(etcd, node(synced=False)) == (said,)


def test_what_it_waits_for_beside_etcd() -> None:
    well = Etcd(member(1))
    assert lacks(well, node(config=None)) == (
        "waiting for a configuration: failoverctl apply FILE --api http://127.0.0.1:8600",
    )
    stranger = node(config=SimpleNamespace(sites={"site-x": Site(1)}))
    assert lacks(well, stranger) == ("site site-a is not in the applied configuration, which has site-x: idle",)
    unreadable = node(mirror=SimpleNamespace(unreadable={"/k": "schema 2"}), clock_suspect=True)
    found = lacks(well, unreadable)
    assert found[0].startswith("cannot read /k: schema 2; upgrade this node") and "NTP" in found[1]


def test_drivers_that_could_not_be_opened() -> None:
    told = node()
    told.driver_faults = {"dns-b": "stays as it was: /k: no such file", "dns-a": "is not open: TSIG_KEY is not set"}
    assert lacks(Etcd(member(1)), told) == (
        "driver dns-a is not open: TSIG_KEY is not set",
        "driver dns-b stays as it was: /k: no such file",
    )


def test_a_store_that_fills_up_is_said_before_it_is_full() -> None:
    half = Etcd(member(1, db_bytes=9 * MIB, quota_bytes=16 * MIB), member(2, db_bytes=1 * MIB))
    assert lacks(half, node()) == ("etcd e1 has filled 9 of 16 MiB: run it with auto-compaction",)
    unknown = Etcd(member(1, db_bytes=1025 * MIB))
    assert "has filled 1025 of 2048 MiB" in lacks(unknown, node())[0], "etcd's default, where it does not say"
    full = Etcd(member(1, alarms=("NOSPACE",)))
    assert lacks(full, node()) == ("etcd e1 raises NOSPACE: compact, defrag, alarm disarm",)
    assert lacks(full, node(current=False))[1:] == lacks(full, node()), "also why its changes do not come"


def test_what_was_known_of_etcd_before_it_went_away_is_asked_anew() -> None:
    etcd, told = Etcd(member(1)), node()

    async def main() -> tuple[str, ...]:
        readiness = Readiness(told, etcd, 1, lambda: "", lambda status: None)  # type: ignore[arg-type]
        task = asyncio.create_task(readiness.run())
        async with asyncio.timeout(10):
            while not etcd.asked:
                await asyncio.sleep(0.01)
            etcd.members = (member(1, reachable=False),)
            told.view.current = False
            while "asking" in readiness.lacks()[0] or "in time" in readiness.lacks()[0]:
                await asyncio.sleep(0.01)
        found = readiness.lacks()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return found

    assert run(main()) == ("waiting for etcd: none of 1 endpoint answers",)


@pytest.mark.parametrize(
    ("token", "leader", "status"),
    [
        (7, "site-a", "leading with token 7"),
        (None, "site-b", "following site-b"),
        (None, "site-a", "nobody leads"),  # it was this node, before etcd was restarted
        (None, "", "nobody leads"),
    ],
)
def test_who_leads(token: int | None, leader: str, status: str) -> None:
    told = node(leader=SimpleNamespace(node=leader) if leader else None)
    told.election.token = token
    readiness = Readiness(told, Etcd(), 1, lambda: "", lambda status: None)  # type: ignore[arg-type]
    assert readiness._role() == status
