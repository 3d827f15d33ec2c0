"""failoverctl against a cluster with load balancers, and with records of another cluster in its zone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pytest
from msgspec.structs import replace

from controlplane.cli.dev_config import free_port
from controlplane.config import read_config
from controlplane.dns.embedded import OwnServer
from controlplane.drivers import Actual, Driver, Fence, Place
from policies.topology import Config, PoolDriver
from tests.unit.api_cluster import ADDRESSES, TEXT, Cluster
from tests.unit.fake_driver import FakeDriver
from tests.unit.test_cli_cluster import cli, doc_of

POOLS = "drivers:\n  pools: [{{driver: haproxy, sites: all, socket: /nowhere/admin.sock}}]\n"


class FakePool(FakeDriver):
    """A load balancer at which sessions end, a few with each look."""

    name = "haproxy"

    def __init__(self) -> None:
        super().__init__()
        self.left = 90

    async def read(self, names: Sequence[str]) -> Mapping[str, Actual]:
        found = await super().read(names)
        told = {}
        for name, actual in found.items():
            drained = {a.site for a in actual.answers if not a.weight}
            self.left = max(0, self.left - 30) if "site-b" in drained else 90
            told[name] = replace(actual, sessions=dict.fromkeys(drained, self.left))
        return told


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, dict[str, FakePool]]]:
    tmp = tmp_path_factory.mktemp("pools")
    text = TEXT.replace("drivers:\n", POOLS).replace(
        "    dns: {{name", "    pools: {{backend: bk_www}}\n    dns: {{name"
    )
    config = read_config(text.format(port=free_port(ADDRESSES))).config
    assert config is not None
    pools: dict[str, FakePool] = {}

    async def open_pool(entry: PoolDriver, config: Config, place: Place) -> Driver:
        return pools.setdefault(place.site, FakePool())

    cluster = Cluster(config, text, open_pool, tmp)
    cluster.start()
    try:
        yield cluster, pools
    finally:
        cluster.stop()


def weights(pool: FakePool) -> dict[str, int]:
    return {a.site: a.weight for a in pool.names["bk_www"].answers}


def test_a_drain_speaks_of_pools_and_sessions(world: tuple[Cluster, dict[str, FakePool]]) -> None:
    cluster, pools = world
    cluster.until(lambda: len(pools) == 3 and all("bk_www" in pool.names for pool in pools.values()))
    assert weights(pools["site-a"]) == {"site-a": 0, "site-b": 100, "site-c": 0}, "the default region's shares"
    cluster.until(lambda: "converged" in cli(cluster, "status").stdout.split("SERVICE")[1])
    rows = [line.split() for line in cli(cluster, "status").stdout.splitlines()]
    assert ["site-a", "active", "●", "up", "400/900", "ok", "ok", "ok"] in rows
    result = cli(cluster, "drain", "site-b", "--reason", "r", "--yes")
    assert result.exit_code == 0, result.output
    for word in ("✔ dns 3/3   ✔ pools 3/3", " · 3/3 pools", "sessions at site-b ", "3/3 name servers, 3/3 pools, "):
        assert word in result.stdout, result.stdout
    assert {tuple(weights(pool).items()) for pool in pools.values()} == {
        (("site-a", 100), ("site-b", 0), ("site-c", 0))
    }
    end = doc_of(cli(cluster, "drain", "site-b", "--reason", "again", "--yes", "--json"))
    assert end["pools"] == {"agree": 3, "of": 3, "unreachable": 0} and set(end["sessions"]) == {"site-b"}
    assert cli(cluster, "undrain", "site-b", "--yes").exit_code == 0


def test_verify_says_which_pools_cannot_be_reached_from_here(world: tuple[Cluster, dict[str, FakePool]]) -> None:
    cluster, _ = world
    doc = doc_of(cli(cluster, "verify", "--json"))
    (line,) = doc["services"]["www"]["pools"]
    assert line["reachable"] is False and line["agrees"] is None
    assert line["reason"].startswith("not reachable from here")
    assert doc["regions"] == {"eu-west": True, "rest": None}
    assert "region rest not asked: no address known to be there" in cli(cluster, "verify").stdout


def test_adopt(world: tuple[Cluster, dict[str, FakePool]]) -> None:
    cluster, pools = world
    ours = cluster.nodes["site-a"].view.incarnation
    result = cli(cluster, "adopt", "--all", "--yes")
    assert result.exit_code == 0 and "no foreign record is known; nothing to do" in result.stdout
    driver = cluster.nodes["site-a"].drivers["embedded-site-a"]
    assert isinstance(driver, OwnServer)
    actual = driver.server.table.read("www.acme.test")
    assert actual is not None
    theirs = replace(actual, fence=Fence("3f9c0a1be2d47788", 7000, "d-1.x"))
    cluster._loop.call_soon_threadsafe(driver.server.table.edit, "www.acme.test", theirs)
    held = pools["site-c"].names["bk_www"]
    pools["site-c"].names["bk_www"] = replace(held, fence=Fence("3f9c0a1be2d47788", 7001, "d-2.x"))

    def alarms() -> list[str]:
        found = doc_of(cli(cluster, "status", "--json"))["alarms"]
        return [a["remedy"] for a in found if a["name"] == "foreign"]

    cluster.until(lambda: len(alarms()) == 1)
    assert alarms()[0].endswith("failoverctl adopt 3f9c0a1be2d47788")
    assert cli(cluster, "adopt").exit_code == 2
    assert cli(cluster, "adopt", ours, "--yes").exit_code == 2
    result = cli(cluster, "adopt", "3f9c0a1be2d47789", "--yes")
    assert result.exit_code == 2 and "there are 3f9c0a1be2d47788" in result.stderr
    assert cli(cluster, "adopt", "--all", stdin="y\n").exit_code == 2, "nobody to ask"
    cluster.until(lambda: "haproxy at site-c" in cli(cluster, "adopt", "--all", "--dry-run").stdout)
    result = cli(cluster, "adopt", "--all", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "www.acme.test" in result.stdout and "embedded-site-a at site-a" in result.stdout
    assert len(alarms()) == 1
    result = cli(cluster, "adopt", "3f9c0a1be2d47788", "--reason", "rebuilt", "--yes")
    assert result.exit_code == 0, result.output
    assert "ADOPTED 3f9c0a1be2d47788" in result.stdout
    cluster.until(lambda: not alarms())
    after = driver.server.table.read("www.acme.test")
    assert after is not None and after.fence is not None and after.fence.incarnation == ours
    pool = pools["site-c"].names["bk_www"].fence
    assert pool is not None and pool.incarnation == ours
    audits = [a for node in cluster.nodes.values() for a in node.journal.audits if a.action.startswith("adopt")]
    assert ("adopt 3f9c0a1be2d47788", "ok", "rebuilt") in [(a.action, a.result, a.detail) for a in audits]
