"""A failover of a cluster on real sockets, as a collector and a scraper see it; and a collector that is not there."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from controlplane.api.app import Server, make_app, serve
from controlplane.cli.dev_config import free_port
from controlplane.config import read_config
from controlplane.node import Node
from controlplane.store.memory import MemoryStore
from controlplane.telemetry.context import ids
from controlplane.telemetry.environment import ENDPOINT, telemetry_from
from controlplane.telemetry.metrics import METRICS, PREFIX
from tests.real.otlp_receiver import Receiver, attributes
from tests.support import run
from tests.unit.api_cluster import ADDRESSES, TEXT, WellProber, wall

SITES = ("site-a", "site-b", "site-c", "cloud")
PATIENCE_S = 40.0
NEAR_NS = 1_000_000  # how well nodes agree on the time that their spans are dated with
CHILDREN = {"quorum": 1, "decide": 1, "commit": 1, "apply": 3, "verify": 3, "propagate": 1}


class Cluster:
    """Four nodes in this event loop; what is probed passes unless its site is in `down`."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.nodes: dict[str, Node] = {}
        self.servers: list[Server] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        config = read_config(TEXT.format(port=free_port(ADDRESSES))).config
        assert config is not None
        store = MemoryStore()
        for site in SITES:
            self.nodes[site] = node = Node(
                site,
                "acme",
                store,
                WellProber(self.down),
                roles=("vantage", "controller") if site == "cloud" else ("vantage", "controller", "agent"),
                wall=wall,
                rng=random.SystemRandom(),
                telemetry=telemetry_from(os.environ, site, "acme", wall),
            )
            self.servers.append(await serve(make_app(node), "127.0.0.1", 0))
            self.tasks.append(asyncio.create_task(node.run()))
        await self.nodes["cloud"].operator.apply_config(config, (), expect=0)
        await until(lambda: self.generation() == 1 and self.agree(1))

    def generation(self) -> int:
        desired = self.nodes["cloud"].view.desired.get("www")
        return desired.generation if desired else 0

    def agree(self, generation: int) -> bool:
        """Every name server answers with it."""
        docs = self.nodes["cloud"].view.mirror.applied.values()
        seen = [s for doc in docs for s in doc.seen.get("www", ()) if s.agrees and s.generation == generation]
        return len({s.server for s in seen}) == len(ADDRESSES)

    async def aclose(self) -> None:
        for server in self.servers:
            await server.aclose()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running() -> AsyncIterator[Cluster]:
    cluster = Cluster()
    try:
        await cluster.start()
        yield cluster
    finally:
        await cluster.aclose()


@asynccontextmanager
async def collecting(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    """A collector, to which every node that is made now sends."""
    receiver = Receiver()
    await receiver.start()
    monkeypatch.setenv(ENDPOINT, receiver.url)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "300")
    for name in ("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY"):
        monkeypatch.setenv(name, "100")
    try:
        yield receiver
    finally:
        await receiver.aclose()


async def scrape(server: Server, accept: str) -> tuple[str, str]:
    """(text, content type)."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{server.url}/metrics", headers={"Accept": accept}) as r,
    ):
        assert r.status == 200
        return await r.text(), r.headers["Content-Type"]


def test_a_collector_sees_a_failover_as_one_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("controlplane.node")

    async def main() -> None:
        async with collecting(monkeypatch) as receiver, running() as cluster:
            leader = next(node for node in cluster.nodes.values() if node.election.token is not None)
            handler = leader.telemetry.log_handler(lambda line: line.replace("site-b", "***"))
            assert handler is not None
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            try:
                cluster.down.add("site-a")
                await until(lambda: any(span.name == "failover" for _, span in receiver.spans))
                await until(lambda: counted(receiver).items() >= CHILDREN.items())
                await until(lambda: any(attributes(line).get("decision") for _, line in receiver.lines))
                sent = "failover_failovers_total"
                await until(lambda: any(points(receiver, site, sent) for site in receiver.metrics))
            finally:
                logger.removeHandler(handler)
                logger.setLevel(logging.NOTSET)
            check_trace(receiver, cluster)
            check_lines(receiver, cluster)

    run(main())


def counted(receiver: Receiver) -> Counter[str]:
    return Counter(span.name for _, span in receiver.spans)


def check_trace(receiver: Receiver, cluster: Cluster) -> None:
    desired = cluster.nodes["cloud"].view.desired["www"]
    known = ids(desired.traceparent)
    assert known is not None
    trace, root_id = known
    assert {span.trace_id for _, span in receiver.spans} == {trace.to_bytes(16, "big")}
    ((about, root),) = [(r, span) for r, span in receiver.spans if span.name == "failover"]
    assert root.span_id == root_id.to_bytes(8, "big") and not root.parent_span_id
    told = attributes(root)
    assert (told["service"], told["site"], told["rule"], told["generation"]) == ("www", "site-a", "failed", 2)
    assert told["decision"] == desired.decision and told["worst_case_s"] > 0
    assert (about["service.name"], about["cluster"]) == ("failoverd", "acme")
    children = [(r["service.instance.id"], span) for r, span in receiver.spans if span.name != "failover"]
    assert {span.parent_span_id for _, span in children} == {root.span_id}
    told_by = counted(receiver)
    assert told_by.pop("detect") in (2, 3), "one a voter that said so by then"
    assert told_by == CHILDREN | {"failover": 1}
    leader = about["service.instance.id"]
    assert {site for site, span in children if span.name != "apply"} == {leader}
    applied = {(site, attributes(span)["writer"]) for site, span in children if span.name == "apply"}
    assert all(site == writer for site, writer in applied), "each by the agent that wrote"
    for _, span in children:
        assert span.start_time_unix_nano <= span.end_time_unix_nano and not span.status.code
        assert root.start_time_unix_nano - NEAR_NS <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano + NEAR_NS
    assert abs(root.start_time_unix_nano / 1e9 - wall()) < 600, "dated by the wall clock"


def check_lines(receiver: Receiver, cluster: Cluster) -> None:
    desired = cluster.nodes["cloud"].view.desired["www"]
    known = ids(desired.traceparent)
    assert known is not None
    lines = [line for _, line in receiver.lines if attributes(line).get("decision") == desired.decision]
    assert lines and {line.trace_id for line in lines} == {known[0].to_bytes(16, "big")}
    said = " ".join(line.body.string_value for line in lines)
    assert "site-a failed" in said and "***" in said and "site-b" not in said, "redacted like the log"


def points(receiver: Receiver, site: str, name: str) -> list[dict[str, str]]:
    """The labels of the points of a counter that are not 0."""
    metric = receiver.metrics[site].get(name)
    return [dict(attributes(p)) for p in metric.sum.data_points if p.as_double] if metric else []


def test_a_scraper_reads_every_metric_and_sees_the_failover(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)

    async def main() -> None:
        before = set(threading.enumerate())
        async with running() as cluster:
            text, kind = await scrape(cluster.servers[0], "")
            assert kind == "text/plain; version=0.0.4; charset=utf-8"
            families = {family.name: family for family in parse_text(text)}
            named = {PREFIX + name.removesuffix("_total") for name in METRICS}
            assert named | {"target_info"} == families.keys()
            for name, metric in METRICS.items():
                for sample in families[PREFIX + name.removesuffix("_total")].samples:
                    assert sample.labels.keys() - {"le"} == set(metric.labels), name
            assert samples(text, "verdict", service="www", site="site-a", verdict="up") == [1]
            assert sum(samples(text, "verdict", service="www", site="site-a")) == 1
            assert sum(samples(text, "leader")) == 1 and samples(text, "store_up") == [1]
            assert samples(text, "voting_vantages") == [4] and samples(text, "min_vantages") == [2]
            assert samples(text, "share_ratio", region="eu-west") == [1, 0, 0]
            assert sum(samples(text, "probes_total", outcome="passed")) > 0
            assert samples(text, "failovers_total") == [0, 0, 0]
            cluster.down.add("site-a")
            await until(lambda: cluster.generation() == 2 and cluster.agree(2))
            texts = [(await scrape(server, "application/openmetrics-text"))[0] for server in cluster.servers]
            assert [sum(samples(t, "failovers_total", opened=True)) for t in texts].count(1) == 1, (
                "where it was decided"
            )
            for text in texts:
                assert samples(text, "verdict", opened=True, site="site-a", verdict="down") == [1]
                assert samples(text, "desired_generation", opened=True) == [2]
                assert set(samples(text, "applied_generation", opened=True)) == {2}
            new = {thread.name for thread in set(threading.enumerate()) - before}
            assert not [name for name in new if not name.startswith("asyncio")], "nothing is sent, so nobody sends"

    run(main())


def samples(text: str, name: str, opened: bool = False, **labels: str) -> list[float]:
    """The values of a metric's series with these labels."""
    families = (parse_open if opened else parse_text)(text)
    found = [s for family in families for s in family.samples if s.name == PREFIX + name]
    return [s.value for s in found if labels.items() <= s.labels.items()]


def test_a_collector_that_is_not_there_disturbs_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{free_port(('127.0.0.1',))}")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    for name in ("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY"):
        monkeypatch.setenv(name, "50")

    async def main() -> None:
        async with running() as cluster:
            cluster.down.add("site-a")
            await until(lambda: cluster.generation() == 2 and cluster.agree(2))
            await until(lambda: any(r.name.startswith("opentelemetry") for r in caplog.records))
            await asyncio.sleep(1.5)  # some more attempts

    with suppress(asyncio.CancelledError):
        run(main())
    told = [record.name for record in caplog.records if record.name.startswith("opentelemetry")]
    assert told and len(told) == len(set(told)), "each part of the library complains once"
    assert "telemetry failed" not in caplog.text and "were not sent" not in caplog.text
