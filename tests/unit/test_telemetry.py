"""The table of metrics against OPERATOR's, what is counted, how it is rendered, and what a trace is made of."""

from __future__ import annotations

import asyncio
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

import pytest
from msgspec.structs import replace
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from controlplane.documents import Applied, DecisionDoc
from controlplane.telemetry.context import ids, traced, traceparent
from controlplane.telemetry.counters import Counters, MeteredProber, Timings
from controlplane.telemetry.environment import telemetry_from, wanted
from controlplane.telemetry.metrics import METRICS, PREFIX, Buckets, Reading
from controlplane.telemetry.prometheus import render
from policies.world import Carried, Desired, Event, Slice
from probes.target import Cancel, Done, Sample, Target
from tests.support import run
from tests.unit.policy_world import World, one_service

# What operators were promised, each with its labels; what nothing is known of yet is not among them.
PROMISED = {
    "leader": "node",
    "store_up": "node",
    "leader_token": "node",
    "leader_changes_total": "node",
    "voting_vantages": "",
    "min_vantages": "",
    "vantage_beat_age_seconds": "vantage",
    "vantage_blind": "vantage",
    "probes_total": "vantage kind outcome",
    "probe_duration_seconds": "vantage kind outcome",
    "verdict": "service site verdict",
    "standing": "service site rule",
    "share_ratio": "service region site",
    "site_load": "site",
    "site_usable": "site",
    "shortfall": "service",
    "desired_generation": "service",
    "applied_generation": "service site driver",
    "apply_total": "site driver outcome",
    "apply_duration_seconds": "site driver outcome",
    "state": "service state",
    "decisions_total": "service rule",
    "refused_total": "service guard",
    "failovers_total": "service site",
    "phase_duration_seconds": "service site phase",
    "worst_case_seconds": "service",
    "target_seconds": "service",
    "override_remaining_seconds": "kind site",
    "alarm": "name subject",
}


def test_the_table_is_what_was_promised() -> None:
    assert {name: " ".join(metric.labels) for name, metric in METRICS.items()} == PROMISED


def test_names_say_their_unit_and_kind() -> None:
    for name, metric in METRICS.items():
        assert (metric.kind == "counter") == name.endswith("_total"), name
        assert (metric.kind == "histogram") == bool(metric.bounds), name
        assert re.fullmatch(r"[a-z_]+", name) and metric.help.isascii() and not set(metric.help) & set('\\"\n'), name


# --- rendering

SAMPLE: Reading = {
    "leader": {("n1",): 1.0, ("n2",): 0.0},
    "min_vantages": {(): 2.0},
    "alarm": {("odd", 'a "quoted" \\ one\nin two lines'): 1.0},
    "override_remaining_seconds": {("drain", "site-a"): math.inf, ("freeze", ""): 12.5},
    "decisions_total": {("www", "failed"): 3.0},
    "phase_duration_seconds": {("www", "site-a", "detect"): Buckets((0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 1), 190.5)},
}
RESOURCE = {"service.name": "failoverd", "service.instance.id": "site-a", "cluster": "acme"}
LES = ("0.1", "0.5", "1.0", "2.0", "5.0", "10.0", "20.0", "30.0", "60.0", "120.0", "+Inf")
OPEN_METRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def parsed(families: Iterable[Any]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


@pytest.mark.parametrize("accept", ["", "*/*", OPEN_METRICS, "application/openmetrics-text; version=0.0.1"])
def test_what_is_rendered_reads_back(accept: str) -> None:
    body, content_type = render(SAMPLE, RESOURCE, accept)
    is_open = "openmetrics" in accept
    assert content_type.startswith("application/openmetrics-text" if is_open else "text/plain; version=0.0.4")
    assert body.endswith(b"# EOF\n") == is_open
    found = parsed((parse_open if is_open else parse_text)(body.decode()))
    expected = {
        (PREFIX + name, frozenset(zip(METRICS[name].labels, labels, strict=True))): value
        for name, rows in SAMPLE.items()
        for labels, value in rows.items()
        if isinstance(value, float)
    }
    assert expected.items() <= found.items()
    told = {("service_name", "failoverd"), ("service_instance_id", "site-a"), ("cluster", "acme")}
    assert found["target_info", frozenset(told)] == 1


def test_a_histogram_is_cumulative() -> None:
    found = parsed(parse_text(render(SAMPLE, {}, "")[0].decode()))
    own = {("service", "www"), ("site", "site-a"), ("phase", "detect")}
    buckets = [found["failover_phase_duration_seconds_bucket", frozenset({*own, ("le", le)})] for le in LES]
    assert buckets == [0, 1, 1, 3, 3, 3, 3, 3, 3, 3, 4]
    assert found["failover_phase_duration_seconds_count", frozenset(own)] == 4
    assert found["failover_phase_duration_seconds_sum", frozenset(own)] == 190.5


def test_sent_metrics_have_the_same_names() -> None:
    """By OpenTelemetry's own translation to Prometheus."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk.resources import Resource

    from controlplane.telemetry.otlp_metrics import metrics_data

    registry = CollectorRegistry()
    reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=registry)
    reader._collector._callback = None  # nothing is collected: what it would have collected is given to it
    reader._receive_metrics(metrics_data(SAMPLE, Resource.create(RESOURCE), 1, 2))
    translated = parsed(registry.collect())
    rendered = parsed(parse_text(render(SAMPLE, RESOURCE, "")[0].decode()))
    assert translated.items() == {k: v for k, v in rendered.items() if k[0] != "target_info"}.items()


# --- probes

TARGET = Target("www@site-b/tcp:80/192.0.2.1", "site-b", "www", "192.0.2.1", "tcp", "{}")


class Scripted:
    """A prober with one answer for each probe."""

    def __init__(self, *samples: Sample) -> None:
        self._samples = list(samples)
        self.closed = False

    def start(self, target: Target, done: Done) -> Cancel:
        return asyncio.get_running_loop().call_soon(done, self._samples.pop(0)).cancel

    async def aclose(self) -> None:
        self.closed = True


def test_probes_are_counted_by_what_came_of_them() -> None:
    counters = Counters("site-a")
    inner = Scripted(
        Sample(True, True, "", 0.004),
        Sample(False, True, "refused", 0.001),
        Sample(False, False, "timeout connect", 1.5),
        Sample(False, False, "broken: ValueError", 0.2, broken=True),
        Sample(True, True, "", 99.0),
    )

    async def main() -> list[Sample]:
        heard: list[Sample] = []
        prober = MeteredProber(inner, "site-a", counters.probes)
        for _ in range(4):
            prober.start(TARGET, heard.append)
            await asyncio.sleep(0)
        prober.start(TARGET, heard.append)()  # cancelled
        await asyncio.sleep(0)
        await prober.aclose()
        return heard

    assert len(run(main())) == 4 and inner.closed
    rows = counters.snapshot().reading({}, [])
    told = {labels: n for labels, n in rows["probes_total"].items() if labels[1] == "tcp"}
    assert told == {("site-a", "tcp", outcome): 1.0 for outcome in ("passed", "failed", "silent", "broken")}
    assert rows["probes_total"]["site-a", "http", "passed"] == 0, "there from the start"
    silent = rows["probe_duration_seconds"]["site-a", "tcp", "silent"]
    assert isinstance(silent, Buckets) and silent.total == 1.5 and silent.counts[10] == 1


def test_a_duration_falls_into_the_bucket_that_it_is_at_most() -> None:
    timings = Timings((1.0, 2.0))
    for took_s in (0.5, 1.0, 1.5, 2.0, 2.1):
        timings.observe(("x",), took_s)
    assert timings.rows() == {("x",): Buckets((2, 2, 1), 7.1)}


# --- decisions

BEFORE = Desired("www", 4, {"world": {"a": 100}}, (), {})
AFTER = Desired("www", 5, {"world": {"b": 100}}, (), {}, decision="d-2", nonce="f00")
LEFT = Event("move", "a", "failed", "world 100 -> 0; down", forced=True)
SERVICES = {"www": ("a", "b"), "api": ("a",)}


def decision(*events: Event, desired: Desired = AFTER, new: bool = True) -> DecisionDoc:
    slice_ = Slice("www", b"", (), {}, {}, "", 0.0, BEFORE)
    return DecisionDoc("d-2", "f00", "www", "at", "n1", 7, 1, slice_, Carried({}), desired, events, (), new)


def test_counters_start_at_zero() -> None:
    rows = Counters("n1").snapshot().reading(SERVICES, [("a", "dns-a")])
    assert rows["leader_changes_total"] == {("n1",): 0}
    assert rows["failovers_total"] == {("www", "a"): 0, ("www", "b"): 0, ("api", "a"): 0}
    assert rows["decisions_total"]["api", "failed"] == 0 and rows["refused_total"]["api", "governor"] == 0
    assert rows["apply_total"] == {("a", "dns-a", o): 0 for o in ("ok", "transient", "fenced", "terminal")}


def test_a_failover_is_counted() -> None:
    counters = Counters("n1")
    counters.decided(decision(Event("state", "b", "ready", "up"), LEFT))
    rows = counters.snapshot().reading(SERVICES, [])
    assert rows["decisions_total"]["www", "failed"] == 1 and rows["failovers_total"]["www", "a"] == 1
    assert sum(n for n in rows["decisions_total"].values() if isinstance(n, float)) == 1


def test_a_refusal_is_counted_when_it_begins() -> None:
    counters = Counters("n1")
    waits = decision(desired=replace(BEFORE, refused="governor"), new=False)
    counters.decided(waits)
    counters.decided(replace(waits, input=replace(waits.input, desired=waits.desired)))
    rows = counters.snapshot().reading(SERVICES, [])
    assert rows["refused_total"]["www", "governor"] == 1 and rows["failovers_total"]["www", "a"] == 0


def test_a_service_that_is_gone_is_not_told() -> None:
    counters = Counters("n1")
    counters.decided(decision(LEFT))
    counters.phases.observe(("www", "a", "detect"), 1.0)
    rows = counters.snapshot().reading({"api": ("a",)}, [])
    assert {labels[0] for name in rows for labels in rows[name] if "service" in METRICS[name].labels} == {"api"}


def test_writes_are_counted_by_name() -> None:
    counters = Counters("n1")
    counters.wrote("a", "dns-a", {"www": Applied(5, "ok"), "api": Applied(1, "fenced")}, 0.02)
    rows = counters.snapshot().reading(SERVICES, [("a", "dns-a")])
    assert [rows["apply_total"]["a", "dns-a", o] for o in ("ok", "fenced", "terminal")] == [1, 1, 0]


# --- traces


def test_a_failover_has_the_trace_of_its_stamp_and_other_moves_none() -> None:
    trace = traced(decision(LEFT)).desired.traceparent
    assert trace == traceparent("d-2-f00") and re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", trace)
    found = ids(trace)
    assert found is not None and f"{found[0]:032x}" == trace[3:35] and f"{found[1]:016x}" == trace[36:52]
    moved = Event("move", "a", "out", "ov-1 drain", forced=True)
    after_one = decision(moved, desired=replace(AFTER, traceparent=trace))
    assert traced(after_one).desired.traceparent == ""


@pytest.mark.parametrize("text", ["", "00-0-0-01", f"00-{'0' * 32}-{'1' * 16}-01", f"01-{'1' * 32}-{'1' * 16}-01"])
def test_what_is_no_traceparent(text: str) -> None:
    assert ids(text) is None


def test_a_decision_keeps_the_trace_and_makes_no_generation_for_it() -> None:
    world = World(one_service())
    world.run(1)
    known = world.desired["www"]
    world.desired["www"] = replace(known, traceparent=traceparent("d-1-x"))
    step = world.decide()
    assert step.desired is None and not step.new_generation, "another trace is no reason to write"
    assert step.current is not None and step.current.traceparent == traceparent("d-1-x")
    world.sites["b"] = "down"
    step = world.decide()
    assert step.desired is not None and step.desired.traceparent == traceparent("d-1-x"), "a verdict was written"


# --- where it is sent


@pytest.mark.parametrize(
    ("environ", "signals"),
    [
        ({}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, ("TRACES", "METRICS", "LOGS")),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, ("TRACES",)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_LOGS_EXPORTER": "none"}, ("TRACES", "METRICS")),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, ()),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SERVICE_NAME": "x"}, ()),
    ],
)
def test_only_what_has_an_endpoint_is_sent(environ: dict[str, str], signals: tuple[str, ...]) -> None:
    assert wanted(environ) == signals


def test_settings_that_cannot_be_used_stop_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:1", "OTEL_METRIC_EXPORT_INTERVAL": "often"}
    telemetry = telemetry_from(environ, "site-a", "acme", lambda: 0.0)
    assert telemetry.exports is None and "OTEL_METRIC_EXPORT_INTERVAL is a number" in caplog.text


@pytest.mark.parametrize(
    "setting",
    [
        {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "x"},
        {"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": "-1"},
        {"OTEL_BLRP_MAX_QUEUE_SIZE": "-1"},
        {"OTEL_BSP_MAX_QUEUE_SIZE": "-1"},
        {"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"},
    ],
    ids=str,
)
def test_settings_that_the_sdk_cannot_use_stop_nothing(setting: dict[str, str]) -> None:
    """In a process of its own: the SDK reads some of them when it is loaded."""
    code = (
        "import asyncio, logging, os\n"
        "from controlplane.telemetry.environment import telemetry_from\n"
        "logging.basicConfig(level=logging.ERROR, format='%(message)s')\n"
        "t = telemetry_from(os.environ, 'site-a', 'acme', lambda: 0.0)\n"
        "print('sent' if t.exports else 'not sent')\n"
        "asyncio.run(t.aclose())\n"
    )
    env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", **setting}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, env=env)
    assert done.returncode == 0, done.stderr
    said = "telemetry is not sent, its settings cannot be used: "
    assert (done.stdout.strip() == "not sent") == (said in done.stderr), done.stderr


def test_without_an_endpoint_the_sdk_is_not_even_loaded() -> None:
    code = (
        "import sys, threading, controlplane.failoverd\n"
        "from controlplane.telemetry.environment import telemetry_from\n"
        "t = telemetry_from({}, 'site-a', 'acme', lambda: 0.0)\n"
        "print(t.exports, [m for m in sys.modules if m.startswith('opentelemetry')], threading.active_count())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)
    assert done.stdout.strip() == "None [] 1"
