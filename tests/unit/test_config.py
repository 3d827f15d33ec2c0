"""What a good file becomes: defaults, positions, the document that `check` prints."""

from __future__ import annotations

import json
import pathlib

import jsonschema
import pytest

from controlplane.config import check_document, human_lines, read_config, render, schema
from controlplane.config.countries import COUNTRIES
from controlplane.config.document import parse, plain
from controlplane.config.problems import Log
from controlplane.config.scalars import seconds
from controlplane.dns import DRIVERS as DNS
from controlplane.dns.embedded import EmbeddedDriver
from controlplane.pools import DRIVERS as POOLS
from policies.topology import Config, Location, Policy, Steering
from probes.kinds import KINDS
from tests.unit.test_dns_regions import write_mmdb

EXAMPLES = sorted((pathlib.Path(__file__).parents[2] / "examples").glob("*.yaml"))
SMALL = """\
version: 1
cluster: acme
sites:
  site-a: {country: FR, capacity: 1000}
  site-b: {country: NO, capacity: 800}
  site-c: {capacity: 200, role: backup, checks: [{tcp: {host: GW.example.net., port: 179}}]}
  cloud: {country: IE, role: witness}
store: {members: [site-a, site-b, cloud]}
services:
  www:
    endpoints: {site-b: 198.51.100.10, site-a: [192.0.2.10, "2001:DB8::10"]}
    demand: 600
    checks:
      - http: {port: 8080, path: /healthz, timeout: 2s}
      - tcp: {port: 22, sites: [site-a]}
        name: ssh
      - tls:
    dns: {name: WWW.Example.org.}
drivers:
  dns:
    - {driver: embedded, site: site-a, zones: [example.org], listen: ["127.0.1.1:53"]}
  pools:
    - {sites: all, socket: "127.0.0.1:9999"}
"""


def good(text: str | pathlib.Path) -> Config:
    result = read_config(text, "f")
    assert result.config is not None, [str(problem) for problem in result.problems]
    return result.config


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_examples_have_no_problems(file: pathlib.Path) -> None:
    result = read_config(file)
    assert result.problems == ()
    assert result.ok
    node = parse(file.read_bytes(), Log("-"))
    assert node is not None
    jsonschema.validate(plain(node), schema(), cls=jsonschema.Draft202012Validator)


def test_there_are_examples() -> None:
    assert {file.name for file in EXAMPLES} >= {"three-sites.yaml", "five-sites.yaml"}


@pytest.mark.parametrize("source", [*EXAMPLES, SMALL], ids=lambda source: getattr(source, "name", "small"))
def test_rendered_with_defaults_it_is_the_same_configuration(source: pathlib.Path | str) -> None:
    config = good(source)
    again = render(config)
    assert good(again) == config
    assert "max_utilisation: 0.9" in again
    assert render(good(again)) == again


def test_defaults_are_filled_in() -> None:
    config = good(SMALL)
    assert config.target_s == 60.0
    assert config.policy == Policy()
    assert list(config.regions) == ["world"] and config.regions["world"].default
    www = config.services["www"]
    assert www.demand == {"world": 600.0}
    assert www.target_s == 60.0
    assert www.endpoints == {"site-b": ("198.51.100.10",), "site-a": ("192.0.2.10", "2001:db8::10")}
    assert www.steering == Steering(mode="priority", order=("site-b", "site-a"))
    assert www.dns is not None and (www.dns.name, www.dns.ttl_s) == ("www.example.org", 20)
    (driver,) = config.dns
    assert (driver.name, driver.writers, driver.apply_within_s) == ("embedded-site-a", ("site-a",), 1.0)
    assert json.loads(driver.options)["ns"] == ["ns.example.org"]
    (pool,) = config.pools
    assert (pool.driver, pool.name, pool.sites) == ("haproxy", "haproxy", ("site-a", "site-b", "site-c"))


def test_no_is_norway() -> None:
    config = good(SMALL)
    assert config.sites["site-b"].country == "NO"
    assert config.sites["site-b"].location == Location(*COUNTRIES["NO"][1:])
    assert config.sites["site-c"].location is None


def test_checks_are_complete() -> None:
    config = good(SMALL)
    http, ssh, tls = config.services["www"].checks
    assert (http.kind, http.name, http.probe.timeout_s, http.probe.interval_s) == ("http", "http:8080", 2.0, 1.0)
    assert json.loads(http.options)["host"] == "www.example.org"
    assert (ssh.kind, ssh.name, ssh.sites) == ("tcp", "ssh", ("site-a",))
    assert (tls.kind, tls.name) == ("tls", "tls:443")
    assert json.loads(tls.options)["server_name"] == "www.example.org"
    (own,) = config.sites["site-c"].checks
    assert (own.name, own.host) == ("tcp:179", "gw.example.net")


def test_equal_options_are_equal_strings() -> None:
    one = good(
        SMALL.replace("{port: 8080, path: /healthz, timeout: 2s}", "{path: /healthz, status: 200-299, port: 8080}")
    )
    other = good(
        SMALL.replace("{port: 8080, path: /healthz, timeout: 2s}", "{port: 8080, method: GET, path: /healthz}")
    )
    assert one.services["www"].checks[0].options == other.services["www"].checks[0].options


def test_a_policy_of_a_service_is_merged_deeply() -> None:
    general = "policy: {probe: {interval: 2s}, failback: {soak: 1m, step: 10s}}\n"
    own = "    policy: {failback: {mode: manual}, probe: {fall: 2}, quorum: {share: 0.75}}\n"
    config = good(SMALL.replace("drivers:\n", general + "drivers:\n").replace("    dns: {name", own + "    dns: {name"))
    policy = config.services["www"].policy
    assert (policy.probe.interval_s, policy.probe.fall) == (2.0, 2)
    assert (policy.failback.mode, policy.failback.soak_s, policy.failback.step_s) == ("manual", 60.0, 10.0)
    assert policy.quorum.share_permille == 750
    assert config.policy.quorum.share_permille == 600
    assert config.services["www"].checks[0].probe.fall == 2


def test_demand_by_region_names_every_region(tmp_path: pathlib.Path) -> None:
    mmdb = write_mmdb(tmp_path / "geo.mmdb", {"127.0.1.0/24": {"country": {"iso_code": "FR"}}})
    asia = "asia: {countries: [JP], location: {lat: 35, lon: 139}}"
    regions = f"regions: {{eu: {{continents: [EU]}}, {asia}, rest: {{default: true}}}}\n"
    text = SMALL.replace("services:\n", regions + "services:\n").replace("listen:", f"mmdb: {mmdb}, listen:")
    assert good(text).services["www"].demand == {"eu": 200.0, "asia": 200.0, "rest": 200.0}
    partly = good(text.replace("demand: 600", "demand: {asia: 5}"))
    assert partly.services["www"].demand == {"eu": 0.0, "asia": 5.0, "rest": 0.0}
    assert partly.regions["asia"].location == Location(35.0, 139.0)
    centre = partly.regions["eu"].location
    assert centre is not None and 45 < centre.lat < 60 and 5 < centre.lon < 30


def test_merge_keys_and_anchors() -> None:
    text = SMALL.replace("version: 1\n", "version: 1\nx-site: &small {capacity: 200, country: ES}\n")
    text = text.replace("site-b: {country: NO, capacity: 800}", "site-b: {<<: *small, country: NO}")
    site = good(text).sites["site-b"]
    assert (site.capacity, site.country) == (200.0, "NO")


def test_an_anchor_may_be_used_again() -> None:
    text = SMALL.replace("version: 1\n", "version: 1\nx-1: &a 1\nx-2: &a 800\n").replace(
        "capacity: 800", "capacity: *a"
    )
    assert good(text).sites["site-b"].capacity == 800.0


def test_the_document_of_check() -> None:
    document = check_document(read_config(SMALL.replace("capacity: 1000", "capacity: 1k"), "f.yaml"))
    assert document["ok"] is False
    assert document["problems"] == [
        {
            "file": "f.yaml",
            "path": "sites.site-a.capacity",
            "line": 4,
            "column": 35,
            "severity": "error",
            "message": 'expected a number, got "1k"; write 1000',
        }
    ]
    assert set(document["services"]["www"]) == {"worst_case_s", "target_s", "phases"}
    phases = document["services"]["www"]["phases"]
    assert set(phases) == {"detect_s", "publish_s", "takeover_s", "decide_s", "apply_s", "ttl_s"}
    json.dumps(document)


def test_for_people_a_good_file_shows_its_bound() -> None:
    lines = human_lines(read_config(EXAMPLES[-1]))
    assert lines == [
        "www  worst case 32.4s of 60s = max(detect 8.6 + publish 0.5, takeover 5.0)"
        " + decide 0.1 + apply 2.2 + ttl 21.0",
        "no problems",
    ]


def test_every_kind_and_driver_has_a_reader() -> None:
    text = json.dumps(schema())
    for word in (*KINDS, *DNS, *POOLS):
        assert f'"{word}"' in text


def test_drivers_are_those_that_this_version_runs() -> None:
    assert [name for name, kind in DNS.items() if kind.runs] == ["embedded", "rfc2136"]
    assert [name for name, kind in DNS.items() if kind.in_process] == ["embedded"]
    (driver,) = good(SMALL).dns
    embedded = DNS["embedded"]
    assert embedded.capabilities(embedded.options_of(driver)) == EmbeddedDriver.capabilities
    assert embedded.servers(embedded.options_of(driver)) == ("127.0.1.1:53",)
    assert embedded.in_process and embedded.open_deputy is None
    assert all(kind.runs for kind in POOLS.values())


def test_texts_of_options_are_written_in_one_way() -> None:
    own = '{driver: embedded, site: site-a, zones: [example.org], listen: ["127.0.1.1:53"]}'
    assert own in SMALL
    other = '{driver: rfc2136, site: site-b, zones: [example.org], address: "2001:DB8:0::53"}'
    named = own.replace("listen", "ns: [NS.Example.org.], listen").replace("127.0.1.1:53", "[0:0::1]:53")
    config = good(SMALL.replace(own, f"{named}\n    - {other}"))
    first, second = (DNS[driver.driver].options_of(driver) for driver in config.dns)
    assert (first.listen, first.ns) == (("[::1]:53",), ("ns.example.org",))
    assert second.address == "2001:db8::53"
    assert list(DNS["rfc2136"].servers(second)) == ["[2001:db8::53]:53"]


def test_n_plus_is_not_written_for_a_service() -> None:
    config = good(SMALL + "policy: {guards: {n_plus: 2, min_sites: 1}}\n")
    assert config.policy.guards.n_plus == config.services["www"].policy.guards.n_plus == 2
    assert render(config).count("n_plus") == 1
    assert good(render(config)) == config


@pytest.mark.parametrize(
    ("value_s", "text"),
    [(0, "0s"), (0.05, "50ms"), (0.0505, "50.5ms"), (1.5, "1500ms"), (60, "60s"), (90, "1m30s"), (86400, "1d"),
     (5400, "1h30m"), (61.5, "1m1s500ms")],
)  # fmt: skip
def test_durations_are_written_as_they_are_read(value_s: float, text: str) -> None:
    assert seconds(value_s) == text


def test_countries_are_places_on_earth() -> None:
    assert len(COUNTRIES) >= 249
    for code, (continent, lat, lon) in COUNTRIES.items():
        assert len(code) == 2 and continent in ("AF", "AN", "AS", "EU", "NA", "OC", "SA")
        assert -90 <= lat <= 90 and -180 <= lon <= 180
