"""A drill by hand: site-a goes dark at 60 s and comes back at 20 m. And a world that plays it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from chaos.history import (
    Answered,
    AnyRecord,
    Asked,
    Committed,
    Configured,
    Faulted,
    History,
    Led,
    Probed,
    Served,
)
from chaos.report import Failover, Invariant, Met, Outage, Report
from chaos.scenario import VERBS, Scenario
from chaos.worlds.world import Say
from controlplane.documents import DecisionDoc
from policies.topology import Config, Dns, Policy, Region, Service, Site
from policies.world import Carried, Desired, Event, Slice

SERVERS = ("site-a", "site-b", "site-c")
REGIONS = ("eu-west", "rest")
BOUNDS = {"detect_s": 8.6, "publish_s": 0.5, "takeover_s": 5.0, "decide_s": 0.1, "apply_s": 2.2, "ttl_s": 21.0}
WHY = "eu-west 100 -> 0, rest 100 -> 0; down 3/3 (timeout connect: cloud, site-b, site-c)"

CONFIG = """\
version: 1
cluster: acme
sites:
  site-a: {country: FR, capacity: 1000}
  site-b: {country: NL, capacity: 800}
  site-c: {country: ES, capacity: 800}
  cloud: {country: IE, role: witness}
services:
  www:
    endpoints: {site-a: 192.0.2.1, site-b: 192.0.2.2, site-c: 192.0.2.3}
    demand: 500
    checks: [{tcp: {port: 8080}}]
    dns: {name: www.acme.test, ttl: 20s}
drivers:
  dns:
    - {driver: embedded, site: site-a, zones: [acme.test], listen: ["192.0.2.53:53"]}
    - {driver: embedded, site: site-b, zones: [acme.test], listen: ["192.0.2.54:53"]}
    - {driver: embedded, site: site-c, zones: [acme.test], listen: ["192.0.2.55:53"]}
"""
SCENARIO = """\
name: {name}
about: The power of a whole site goes.
config: acme.yaml
duration: {duration}
faults:
  - {{at: 60s, cut: [site-a, "*"], for: {length}}}
expect:
  - {{by: 120s, never: {{serves: {{www: site-a}}}}}}
  - {{outage: {{www: 60s}}}}
  - {{always: [fenced, never_empty, quorum_backed, bounded]}}
"""


def config() -> Config:
    sites = {site: Site(capacity=1000.0) for site in SERVERS} | {"cloud": Site(capacity=0.0, role="witness")}
    regions = {"eu-west": Region(networks=("10.0.0.0/8",)), "rest": Region(default=True)}
    www = Service(
        endpoints=dict.fromkeys(SERVERS, ("192.0.2.1",)),
        demand=dict.fromkeys(REGIONS, 300.0),
        checks=(),
        policy=Policy(),
        target_s=60.0,
        dns=Dns("www.example.org", 20),
    )
    return Config("acme", 60.0, sites, regions, {"www": www}, Policy())


def written(folder: Path, name: str, duration: str = "40m", length: str = "20m") -> Path:
    (folder / "acme.yaml").write_text(CONFIG)
    file = folder / f"{name}.yaml"
    file.write_text(SCENARIO.format(name=name, duration=duration, length=length))
    return file


def decision(number: int, site: str, events: Sequence[Event] = (), node: str = "site-b") -> DecisionDoc:
    shares = {region: {site: 100} for region in REGIONS}
    desired = Desired("www", number, shares, (), {}, decision=f"d-{number}")
    return DecisionDoc(
        id=f"d-{number}",
        nonce="ab",
        service="www",
        at="2026-03-02T03:14:03Z",
        node=node,
        token=7,
        config_rev=1,
        input=Slice("www", b"", (), {}, {}, "", 0.0, None),
        carried=Carried({}),
        desired=desired,
        events=tuple(events),
        refused=(),
        new_generation=True,
    )


def answers(at: float, server: str, site: str, generation: int | None) -> list[AnyRecord]:
    """What one server tells both regions; "" = it cannot be reached."""
    sites = (site,) if site else ()
    return [
        Answered(
            at=at,
            server=server,
            service="www",
            region=region,
            sites=sites,
            generation=generation if site else None,
            reachable=bool(site),
        )
        for region in REGIONS
    ]


def served(at: float, region: str, site: str, error: str = "", resolver: str = "keeps") -> Served:
    return Served(
        at=at,
        client=f"www-{region}-{resolver}",
        service="www",
        region=region,
        site=site,
        error=error,
        resolver=resolver,
    )


def records() -> list[AnyRecord]:
    failed = decision(2, "site-b", [Event("move", "site-a", "failed", WHY, forced=True)])
    back = decision(3, "site-a", [Event("move", "site-a", "ready", "eu-west 0 -> 100, rest 0 -> 100; up 3/3")])
    probes = [
        Probed(
            at=at,
            vantage=vantage,
            target=f"www@site-a/{vantage}",
            site="site-a",
            service="www",
            passed=False,
            answered=False,
            reason="timeout connect",
            before_at=at - 2,
        )
        for at, vantage in ((62.0, "site-b"), (62.3, "site-c"), (62.6, "cloud"))
    ]
    found: list[AnyRecord] = [
        Configured(at=-60.0, config=config()),
        Led(at=-50.0, node="site-a", leading=True, why="the key was free"),
        Committed(at=-40.0, decision=decision(1, "site-a", node="site-a"), holder="site-a", holder_token=7),
        *(record for server in SERVERS for record in answers(-39.9, server, "site-a", 1)),
        *(served(-30.0, region, "site-a") for region in REGIONS),
        Faulted(at=60.0, index=0, began=True, text='cut [site-a, "*"]'),
        *answers(60.0, "site-a", "", None),
        served(60.4, "eu-west", "site-a", "time-out"),
        served(60.9, "rest", "site-a", "time-out"),
        *probes,
        Led(at=64.8, node="site-b", leading=True, why="site-a was silent"),
        Committed(at=66.0, decision=failed, holder="site-b", holder_token=9),
        *answers(66.1, "site-b", "site-b", 2),
        *answers(66.2, "site-c", "site-b", 2),
        served(80.4, "rest", "site-b"),
        served(85.5, "eu-west", "site-b"),
        Faulted(at=1260.0, index=0, began=False, text='cut [site-a, "*"]'),
        *answers(1260.4, "site-a", "site-b", 2),
        Committed(at=1600.0, decision=back, holder="site-b", holder_token=9),
        *(record for server in SERVERS for record in answers(1600.1, server, "site-a", 3)),
        *(served(1615.0, region, "site-a") for region in REGIONS),
    ]
    for region in REGIONS:
        found.append(
            Asked(at=2400.0, client=f"www-{region}-keeps", service="www", region=region, requests=2400, failed=20)
        )
    return found


def history(more: Sequence[AnyRecord] = ()) -> History:
    all_ = sorted([*records(), *more], key=lambda record: record.at)
    return History(
        scenario="site-dark",
        world="sim",
        seed=7,
        config=config(),
        duration_s=2400.0,
        records=tuple(all_),
        began="2026-03-02T03:14:03Z",
        took_s=2.1,
    )


def failover(**changed: Any) -> Failover:
    fields = {
        "service": "www",
        "left": "site-a",
        "at_s": 66.0,
        "fault_at_s": 60.0,
        "detect_s": 5.9,
        "decide_s": 0.1,
        "apply_s": 0.2,
        "ttl_s": 19.3,
        "outage_s": 25.1,
        "worst_case_s": 32.4,
        "bounds": BOUNDS,
    }
    return Failover(**(fields | changed))  # type: ignore[arg-type]


def report(**changed: Any) -> Report:
    fields = {
        "scenario": "site-dark",
        "about": "a whole site loses its power",
        "world": "sim",
        "seed": 7,
        "passed": True,
        "history_sha256": "9f3c" * 16,
        "duration_s": 2400.0,
        "expectations": (
            Met("by 120s answer www=[site-b]", True, 66.2, "at 66.2s"),
            Met("outage www <= 60s", True, None, "25.1s (bound 32.4)"),
        ),
        "invariants": (Invariant("fenced", True, 41203, ()), Invariant("never_empty", True, 812, ())),
        "failovers": (failover(),),
        "outages": (
            Outage(
                service="www",
                region="eu-west",
                resolver="keeps",
                requests=2400,
                failed=25,
                longest_s=25.1,
                began_s=60.4,
            ),
            Outage(
                service="www", region="rest", resolver="stale", requests=2400, failed=0, longest_s=0.0, began_s=None
            ),
        ),
        "faults": 1,
        "left": (),
        "began": "2026-03-02T03:14:03Z",
        "took_s": 2.1,
    }
    return Report(**(fields | changed))  # type: ignore[arg-type]


class FakeWorld:
    """Plays the history by hand."""

    name = "sim"
    verbs = frozenset(VERBS)

    def __init__(
        self, problems: Sequence[str] = (), ends: BaseException | None = None, more: Sequence[AnyRecord] = ()
    ) -> None:
        self.problems, self.ends, self.more = list(problems), ends, more
        self.played: list[tuple[str, int]] = []

    def check(self, scenario: Scenario) -> list[str]:
        return self.problems

    def play(self, scenario: Scenario, seed: int, say: Say) -> History:
        self.played.append((scenario.name, seed))
        for record in [*records(), *self.more]:
            say(record)
        if self.ends is not None:
            raise self.ends
        return history()
