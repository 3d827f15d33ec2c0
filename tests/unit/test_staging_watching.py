"""What a drill in staging records of a cluster that it only knows by its API and its name servers."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from chaos.history import Answered, AnyRecord, Committed, Configured, Led
from chaos.worlds.staging.watching import ControlPlane, NameServers, server_names
from controlplane.signal import together
from tests.support import run
from tests.unit.api_cluster import Cluster, running


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(tmp_path_factory.mktemp("staging")) as (found, _):
        yield found


def watched(cluster: Cluster, enough: Callable[[list[AnyRecord]], bool]) -> list[AnyRecord]:
    """What is recorded while site-a fails, until it is enough."""
    records: list[AnyRecord] = []

    async def until_enough() -> None:
        cluster.down.add("site-a")
        while not enough(records):
            await asyncio.sleep(0.05)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        zero = loop.time() + 1000.0  # the scenario has not begun: all times are negative
        control = ControlPlane(cluster.urls, lambda: loop.time() - zero, records.append)
        config, incarnation = await control.begin()
        names = NameServers(config, incarnation, lambda: loop.time() - zero, records.append)
        await names.look()
        assert {type(record) for record in records} == {Configured, Led, Committed, Answered}
        async with asyncio.timeout(30):
            await together(names.run(), control.run(), until_enough())
        await control.end()

    run(main())
    return records


def left_site_a(records: list[AnyRecord]) -> bool:
    """Has every name server said so, for both regions?"""
    last = {(r.server, r.region): r.sites for r in records if isinstance(r, Answered)}
    return len(last) == 6 and all(sites == ("site-b",) for sites in last.values())


def test_a_failover_as_the_api_and_the_name_servers_tell_it(cluster: Cluster) -> None:
    records = watched(cluster, left_site_a)
    answers = [record for record in records if isinstance(record, Answered)]
    assert {(r.server, r.region, r.sites) for r in answers[:6]} == {
        (site, region, (best,))
        for site in ("site-a", "site-b", "site-c")
        for region, best in (("eu-west", "site-a"), ("rest", "site-b"))
    }
    assert all(record.reachable and record.generation for record in answers)
    commits = [record for record in records if isinstance(record, Committed)]
    assert len({record.decision.id for record in commits}) == len(commits) > 1, "each of them once"
    assert all((r.holder, r.holder_token) == (r.decision.node, r.decision.token) for r in commits)
    assert commits[-1].decision.desired.shares["eu-west"] == {"site-b": 100}
    assert [r.leading for r in records if isinstance(r, Led)] == [True]
    assert [r.config.revision for r in records if isinstance(r, Configured)] == [1]


def test_a_decision_that_nobody_saw_as_it_was_made_has_no_known_holder(cluster: Cluster) -> None:
    """Of those in force at the beginning the API cannot tell either: they are taken at their word."""
    url = f"{cluster.urls[0]}/v1/events?after=d-0"
    with urllib.request.urlopen(url, timeout=10) as stream:
        lines = (line.removeprefix(b"data: ") for line in stream if line.startswith(b"data: "))
        first = next(event for event in map(json.loads, lines) if event["type"] == "decision")
    live = first["holder"] in cluster.nodes and first["holder_token"] > 0
    assert live or (first["holder"], first["holder_token"]) == (None, None)

    records: list[AnyRecord] = []
    control = ControlPlane(cluster.urls, lambda: 5.0, records.append)
    control._waiting["d-1"] = 3.0
    control._waiting["d-999"] = 4.0  # not kept any more
    run(control.end())
    assert [(r.at, r.decision.id, r.holder, r.holder_token) for r in records if isinstance(r, Committed)] == [
        (3.0, "d-1", "", 0)
    ]


def test_the_record_of_a_decision_is_whole(cluster: Cluster) -> None:
    with urllib.request.urlopen(cluster.urls[0] + "/v1/decisions/d-1/record", timeout=10) as reply:
        document = json.load(reply)
    assert document["record"]["id"] == "d-1" and document["record"]["input"]["service"] == "www"
    assert document["source"]["current"]
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(cluster.urls[0] + "/v1/decisions/d-999/record", timeout=10)
    with error.value as refused:
        assert refused.code == 404 and json.load(refused)["error"] == "no decision d-999 is kept"


def test_the_second_server_of_a_site_has_a_name_of_its_own(cluster: Cluster) -> None:
    names = server_names(cluster.config)
    assert list(names.values()) == ["site-a", "site-b", "site-c"]
    twice = {address: name for address, name in names.items() if name == "site-a"}
    assert len(twice) == 1
