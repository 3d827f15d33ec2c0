"""What `drill fuzz` has found: each the shortest story that showed it, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.fuzz import Case, lasting, play
from chaos.judge import judge
from chaos.reading import read_scenario
from chaos.scenario import Condition, Expect, Fault, Scenario
from chaos.worlds.sim import SimWorld
from chaos.writing import worded
from controlplane.config import read_config

HERE = Path(__file__).parent / "found"
# As `drill fuzz` wrote them, with the seed. All three: `bounded` counted from the wrong probe, or from the wrong clock.
FOUND = {
    "at-least-one-check": 243152897,
    "at-least-one-check-and-no-store-leader": 1772250237,
    "new-leader-counts-from-the-fault": 1998489949,
}


def failures(text: str, *faults: Fault, calm_s: float = 60.0, transfer_s: float = 0.0) -> dict[str, tuple[str, ...]]:
    """Checker -> what is wrong, of these faults in a cluster."""
    result = read_config(text)
    assert result.config is not None, result.errors
    told = Scenario(
        name="found",
        about="Found by fuzz.",
        config=result.config,
        config_text=text,
        duration_s=0.0,
        faults=faults,
        expect=(Expect(kind="after_heal", from_s=calm_s, conditions=(Condition("converged"),)),),
        most_moves=1000,
        transfer_s=transfer_s,
    )
    return play(Case(1, worded(lasting(told)))).failures


OVERLOADED = """
version: 1
cluster: small
sites:
  site-a: {capacity: 100}
  site-b: {capacity: 300}
  site-c: {capacity: 300}
  cloud: {role: witness}
store: {members: [site-a, site-b, cloud]}
policy: {hold: 0s, quorum: {share: 0.67}}
services:
  www:
    endpoints: {site-a: 198.51.0.10, site-b: 198.51.1.10, site-c: 198.51.2.10}
    demand: 2000
    checks: [{http: {port: 80}}]
    dns: {name: www.example.org, ttl: 5s}
drivers:
  dns:
    - {driver: rfc2136, site: site-a, address: 198.18.0.53, zones: [example.org], tsig: {name: k, key: {env: K}}}
"""


def test_one_dissenting_vantage_took_half_of_an_overloaded_site_s_traffic() -> None:
    """A site without quorum keeps what it has. Where nothing had room, placing anew gave it only what fits, and spread
    all of the rest over the others, which were full as well (case 71269606)."""
    assert failures(OVERLOADED, Fault(verb="cut", at_s=10.0, for_s=20.0, one="cloud", other="site-b")) == {}


def test_a_hand_made_fence_in_memory_dies_with_its_server() -> None:
    """An embedded name server that was edited by hand and then killed holds nothing any more: its agent writes what is
    wanted, over nobody's fence (cases 1413549375 and 932979468: the checker still saw one)."""
    text = OVERLOADED[: OVERLOADED.index("    - {driver")] + (
        '    - {driver: embedded, site: site-a, zones: [example.org], listen: ["198.18.0.53:53"]}\n'
    )
    edit = Fault(verb="edit_zone", at_s=5.0, service="www", site="site-a", other="site-a", how="manual")
    assert failures(text, edit, Fault(verb="kill", at_s=15.0, for_s=5.0, node="site-a")) == {}


def test_a_new_service_whose_machines_never_came_up_has_no_answer_yet(tmp_path: Path) -> None:
    """It never had a verdict that lets anybody serve it: no server is to blame (case 312260845)."""
    new = """\
  new:
    endpoints: {site-a: 198.51.0.77}
    checks: [{tcp: {port: 80}}]
    dns: {name: new.example.org}
drivers:
"""
    more = OVERLOADED.replace("drivers:\n", new)
    (tmp_path / "more.yaml").write_text(more)
    apply = Fault(verb="operator", at_s=5.0, argv=("apply", str(tmp_path / "more.yaml"), "--reason", "new"))
    assert failures(OVERLOADED, apply) == {}


@pytest.mark.parametrize(("folder", "seed"), FOUND.items())
def test_the_shortest_form_of_what_was_found_passes(folder: str, seed: int) -> None:
    read = read_scenario(HERE / folder / "scenario.yaml")
    assert read.scenario is not None, read.problems
    report = judge(read.scenario, SimWorld().play(read.scenario, seed, lambda record: None))
    assert report.passed, [invariant for invariant in report.invariants if not invariant.passed]


EMBEDDED = """
version: 1
cluster: small
sites: {site-a: {capacity: 1000}, site-b: {capacity: 1000}, site-c: {role: witness}}
store: {members: [site-a, site-b, site-c]}
services:
  www:
    endpoints: {site-a: 198.51.0.10, site-b: 198.51.1.10}
    demand: 100
    checks: [{http: {port: 80}}]
    dns: {name: www.example.org, ttl: 5s}
drivers:
  dns:
    - {driver: embedded, site: site-a, listen: ["198.18.0.53:53"], zones: [example.org]}
    - {driver: embedded, site: site-b, listen: ["198.18.1.53:53"], zones: [example.org]}
"""


def test_a_server_that_was_started_anew_and_is_empty_has_nobody_who_follows_it() -> None:
    """The simulator gave the server inside a node's process a secondary, which took its emptiness for news; the real
    one transfers its zone to nobody (case 1940856748)."""
    faults = (
        Fault(verb="power_off", at_s=10.0, for_s=2.0, site="site-a"),
        Fault(verb="delay", at_s=11.0, for_s=20.0, message="watch", by_s=1.0),  # its view is never current
    )
    assert failures(EMBEDDED, *faults, transfer_s=5.0) == {}
