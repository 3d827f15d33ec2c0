"""The status document and its alarms: name servers' drivers, and who has to speak of them."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from controlplane.api.picture import Picture
from controlplane.api.propagation import Arrival, Word
from controlplane.documents import AppliedDoc, Seen
from policies.topology import DnsDriver
from tests.unit.test_api_status import document, driver, photograph, served


def told(site: str, writer: str, age_s: float, *looks: Seen) -> Word:
    return Word(AppliedDoc(site, f"dns-{site}", writer, "r", 1, {}, {"www": looks}, {}), age_s, True)


def with_drivers(*drivers: DnsDriver, words: tuple[Word, ...], lives: str = "ab", age_s: float = 60.0) -> Picture:
    """A picture of a cluster with these drivers. lives: sites whose node beats; age_s: of the configuration."""
    picture = photograph(served())
    assert picture.config is not None
    nodes = {s: {"site": s, "fresh": s in lives, "unreadable": "", "roles": ["vantage", "agent"]} for s in "ab"}
    return replace(picture, config=replace(picture.config, dns=drivers), nodes=nodes, words=words, config_age_s=age_s)


def silent(picture: Picture) -> list[str]:
    return [a["subject"] for a in document(picture)["alarms"] if a["name"] == "driver_silent"]


def test_a_driver_that_no_living_node_speaks_of_is_an_alarm() -> None:
    a, b = driver("a"), driver("b")
    fresh, old = told("a", "a", 3.0), told("b", "b", 21.0)
    assert silent(with_drivers(a, b, words=(fresh, old))) == ["dns-b at b"]
    assert silent(with_drivers(a, b, words=(fresh,))) == ["dns-b at b"], "it never spoke"
    assert silent(with_drivers(a, b, words=(fresh,), age_s=5.0)) == [], "its node is only just told of it"
    assert silent(with_drivers(a, b, words=(fresh, old), lives="a")) == [], "its site is dead, which is said elsewhere"
    assert document(with_drivers(a, b, words=(fresh, old)))["summary"]["state"] == "degraded"


def test_every_living_writer_speaks_for_itself() -> None:
    """A deputy that cannot write is noticed before it is needed."""
    shared = driver("a", "b")
    home, deputy = told("a", "a", 3.0), told("a", "b", 3.0)
    assert silent(with_drivers(shared, words=(home, deputy))) == []
    assert silent(with_drivers(shared, words=(deputy,))) == ["dns-a at a"]
    assert silent(with_drivers(shared, words=(home,))) == ["dns-a at a, by b"]
    assert silent(with_drivers(shared, words=())) == ["dns-a at a", "dns-a at a, by b"]
    assert silent(with_drivers(shared, words=(deputy,), lives="b")) == []
    assert silent(with_drivers(shared, words=(home,), lives="a")) == []
    unwritable = replace(deputy, doc=replace(deputy.doc, unwritable="NOTAUTH"))
    found = document(with_drivers(shared, words=(home, unwritable)))["alarms"]
    assert [(a["name"], a["subject"]) for a in found] == [("unwritable", "dns-a at a, by b")]


def test_of_a_server_inside_its_homes_process_no_other_site_has_to_speak() -> None:
    inside = replace(driver("a"), writers=("a", "b"))
    assert silent(with_drivers(inside, words=(told("a", "a", 3.0),))) == []


def test_a_driver_that_a_node_could_not_open_is_an_alarm_at_once_and_says_why() -> None:
    shared, home = driver("a", "b"), told("a", "a", 3.0)

    def found(*words: Word) -> list[tuple[str, str, str]]:
        picture = with_drivers(shared, words=words, age_s=1.0)
        faults = {"dns-a": "is not open: TSIG_KEY is not set"}
        nodes = picture.nodes | {"b": picture.nodes["b"] | {"driver_faults": faults}}
        alarms = document(replace(picture, nodes=nodes))["alarms"]
        return [(a["name"], a["subject"], a["remedy"]) for a in alarms]

    says = "dns-a is not open: TSIG_KEY is not set; b tries again by itself"
    assert found(home) == [("driver_silent", "dns-a at a, by b", says)]
    assert found(home, told("a", "b", 3.0)) == [("driver_stale", "dns-a at a, by b", says)], "the old one goes on"


def test_the_dns_column_is_not_green_without_data() -> None:
    a = driver("a")
    more = replace(a, name="dns-more")

    def column(picture: Picture) -> Any:
        return document(picture)["sites"]["a"]["dns"]

    assert column(with_drivers(a, words=(told("a", "a", 3.0),))) == "ok"
    assert column(with_drivers(a, words=(told("a", "a", 21.0),))) == "silent"
    assert column(with_drivers(a, more, words=(told("a", "a", 3.0),))) == "silent", "one of its two"
    picture = with_drivers(a, words=(told("a", "a", 3.0),))
    for generation, says in ((None, "unreachable"), (1, "ok")):
        arrived = Arrival("converged", (Seen("127.0.4.1:53", generation, False),), 0.0, ())
        www = replace(picture.services["www"], arrival=arrived)
        assert column(replace(picture, services={"www": www})) == says
