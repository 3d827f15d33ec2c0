"""A failover followed to its end, in virtual time: its phases, its spans, and who counts it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chaos.worlds.sim.node import SimNode
from controlplane.telemetry.context import ids, traceparent
from controlplane.telemetry.course import Attributes
from controlplane.telemetry.metrics import Buckets
from controlplane.telemetry.telemetry import Telemetry
from policies.timing import worst_case
from tests.sim.setting import SITES, WITNESS, Story

PHASES = ("detect", "decide", "apply", "verify", "ttl")


class Metered(Story):
    """One in which nodes measure."""

    def telemetry_of(self, site: str) -> Telemetry:
        return Telemetry(site, self.config.cluster)


class Recorder:
    """Spans as they were told: (name, begin, end, attributes, error); the root as "failover"."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, float, float, Attributes, str]] = []
        self.traces: set[str] = set()

    def span(
        self, traceparent: str, name: str, begin: float, end: float, attributes: Attributes, error: str = ""
    ) -> None:
        self.traces.add(traceparent)
        self.spans.append((name, begin, end, attributes, error))

    def root(self, traceparent: str, begin: float, end: float, attributes: Attributes, error: str = "") -> None:
        self.span(traceparent, "failover", begin, end, attributes, error)

    def named(self, name: str) -> list[tuple[str, float, float, Attributes, str]]:
        return [span for span in self.spans if span[0] == name]


def listen(w: Metered) -> dict[str, Recorder]:
    found = {}
    for site, node in w.nodes.items():
        found[site] = node.telemetry._courses.spans = Recorder()
    return found


def phases(node: SimNode) -> dict[str, float]:
    """Phase -> its seconds, of the one failover that this node counted."""
    rows = node.telemetry.counters.snapshot().phases
    assert all(isinstance(value, Buckets) and value.count == 1 for value in rows.values())
    return {labels[2]: value.total for labels, value in rows.items() if isinstance(value, Buckets)}


@pytest.fixture
def world() -> Iterator[Metered]:
    with Metered() as w:
        w.warm_up()
        yield w


def fail_over(w: Metered, seconds: float = 45.0) -> dict[str, Recorder]:
    recorders = listen(w)
    w.begin("dark", "site-a")
    w.run(seconds)
    return recorders


def test_phases_are_measured_by_who_decided_and_within_their_bounds(
    world: Metered, caplog: pytest.LogCaptureFixture
) -> None:
    fail_over(world)
    leader = world.nodes[world.leading()]
    took_s = phases(leader)
    bound = worst_case(world.config, "www")
    assert tuple(took_s) == PHASES
    assert 0 <= took_s["detect"] < bound.detect_s and 0 < took_s["decide"] < bound.decide_s
    # Another agent may see an answer before the one that wrote it has said so: documents are spaced.
    assert 0 < min(took_s["apply"], took_s["verify"]) <= max(took_s["apply"], took_s["verify"]) <= took_s["ttl"]
    assert took_s["ttl"] < bound.apply_s + bound.ttl_s
    assert took_s["ttl"] > 20, "the TTL of the old answer"
    counted = {site: phases(world.nodes[site]) for site in (*SITES, WITNESS) if world.nodes[site] is not leader}
    assert not any(counted.values()), "so that a sum over nodes is right"
    assert "telemetry failed" not in caplog.text


def test_one_failover_is_one_trace(world: Metered) -> None:
    recorders = fail_over(world)
    leader = recorders[world.leading()]
    desired = world.now_desired()
    assert desired.traceparent == traceparent(desired.stamp) and ids(desired.traceparent)
    assert set().union(*(r.traces for r in recorders.values())) == {desired.traceparent}
    told = {name: len(leader.named(name)) for name in ("detect", "quorum", "decide", "commit", "verify", "propagate")}
    assert told == {"detect": 3, "quorum": 1, "decide": 1, "commit": 1, "verify": 2, "propagate": 1}
    assert {span[3]["vantage"] for span in leader.named("detect")} == {"site-b", "site-c", WITNESS}
    applied = [span[3]["driver"] for r in recorders.values() for span in r.named("apply")]
    assert sorted(map(str, applied)) == ["dns-site-b", "dns-site-c"], "one a driver that could be reached"
    ((_, begin, end, about, error),) = leader.named("failover")
    assert (about["service"], about["site"], about["rule"], about["generation"], error) == (
        "www",
        "site-a",
        "failed",
        2,
        "",
    )
    assert about["decision"] == desired.decision
    assert about["worst_case_s"] == worst_case(world.config, "www").worst_case_s
    assert all(begin <= b <= e <= end for _, b, e, _, _ in leader.spans)


def test_nothing_is_followed_for_what_is_no_failover(world: Metered) -> None:
    recorders = listen(world)
    world.drain("site-a")
    world.run(30.0)
    assert world.now_desired().generation == 2 and world.now_desired().traceparent == ""
    assert not any(r.spans for r in recorders.values())
    assert not any(phases(node) for node in world.nodes.values())


def test_a_failover_that_is_overtaken_ends_there(world: Metered) -> None:
    recorders = fail_over(world, 8.0)
    leader = world.leading()
    assert not recorders[leader].named("failover"), "the old TTL is not over"
    world.begin("stopped", "site-b", "www")
    world.run(6.0)
    ((*_, error),) = recorders[leader].named("failover")
    assert "overtaken" in error
    assert len(recorders[leader].traces) == 2, "the next one has a trace of its own"


def test_a_node_that_stops_says_that_it_followed_no_further(world: Metered) -> None:
    recorders = fail_over(world, 8.0)
    leader = world.leading()
    node = world.nodes[leader]
    world.kernel.at(world.kernel.now, node.loop.call_soon, node.task.cancel)
    world.run(1.0)
    ((*_, error),) = recorders[leader].named("failover")
    assert "stopped" in error
