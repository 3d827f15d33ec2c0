"""The staging file: what it means, and exactly what is said of one that is wrong; what of a scenario it cannot play."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaos.scenario import Expect, Fault, Scenario
from chaos.worlds.staging import StagingWorld, beside, read_staging
from chaos.worlds.staging.faults import deeds
from chaos.worlds.staging.file import Measured, Place
from chaos.worlds.staging.toxiproxy import Toxic
from chaos.worlds.world import Refused
from tests.unit.drill_world import config

GOOD = """\
version: 1
cluster: acme-staging
api: http://10.0.1.11:8600/
sites:
  site-a:
    toxiproxy: http://10.0.1.5:8474
    services: {www: www-a, login: [login-http, login-https]}
    store: etcd-a
  site-b: {toxiproxy: "http://[2001:db8::5]:8474", services: {www: www-b}, dns: ns-b}
clients:
  - {service: www, region: eu-west, resolver: 10.0.9.53, url: "http://www.acme.test:8080/health?deep=1", patience: 3s}
  - {service: www, resolver: "10.0.9.53:5353", url: "https://www.acme.test/", ca: ca.pem}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_text("")
    found = tmp_path / "acme.staging.yaml"
    found.write_text(GOOD)
    return found


def said(file: Path, text: str) -> list[str]:
    """The problems of a file with this text, without the file's name."""
    file.write_text(text)
    read = read_staging(file)
    assert read.staging is None
    return [str(problem).removeprefix(f"{file}:") for problem in read.problems]


def test_a_file_that_is_right(file: Path) -> None:
    read = read_staging(file)
    assert read.problems == () and read.staging is not None
    staging = read.staging
    assert (staging.cluster, staging.api, staging.file) == ("acme-staging", ("http://10.0.1.11:8600",), str(file))
    a, b = staging.sites["site-a"], staging.sites["site-b"]
    services = {"www": ("www-a",), "login": ("login-http", "login-https")}
    assert a == Place("http://10.0.1.5:8474", services, store=("etcd-a",))
    assert a.proxies == ("www-a", "login-http", "login-https", "etcd-a")
    assert b.url == "http://[2001:db8::5]:8474" and b.proxies == ("www-b", "ns-b")
    url = "http://www.acme.test:8080/health?deep=1"
    first = Measured(service="www", region="eu-west", resolver="10.0.9.53:53", url=url, patience_s=3.0)
    assert staging.clients[0] == first
    assert staging.clients[1].ca == str(file.parent / "ca.pem") and staging.clients[1].resolver == "10.0.9.53:5353"


def test_where_it_stands_by_default() -> None:
    assert beside(Path("drills/blackout.yaml")) == Path("drills/blackout.staging.yaml")


def test_everything_that_is_wrong_is_told_at_once(file: Path) -> None:
    text = (
        GOOD.replace("version: 1", "version: 2")
        .replace("http://10.0.1.11:8600/", "10.0.1.11:8600")
        .replace("http://10.0.1.5:8474", "https://10.0.1.5:8474")
        .replace("store: etcd-a", "stores: etcd-a")
        .replace("www: www-b", "www: 'www b'")
        .replace("service: www, region", "service: wwww, region")
        .replace("ca.pem", "cb.pem")
        .replace("patience: 3s", "patience: 3")
    )
    assert said(file, text) == [
        "1:10: error: version: expected 1, got 2",
        '3:6: error: api: expected an API\'s address such as http://10.0.0.11:8600, got "10.0.1.11:8600"',
        "6:16: error: sites.site-a.toxiproxy: expected a toxiproxy's address such as http://10.0.1.5:8474, got "
        '"https://10.0.1.5:8474"',
        '8:5: error: sites.site-a: unknown key "stores": did you mean "store"?',
        '9:68: error: sites.site-b.services.www: expected a proxy\'s name, of letters, digits and _ . : -, got "www b"',
        '11:15: error: clients[0].service: no site of this file fronts "wwww"',
        "11:117: error: clients[0].patience: expected a duration such as 20s, got 3; write 3s",
        f"12:83: error: clients[1].ca: there is no file {file.parent}/cb.pem",
    ]


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        (
            "services: {www: www-b}, dns: ns-b",
            "services: {}",
            "no proxy is named, so nothing of this site can be broken",
        ),
        ("[2001:db8::5]:8474", "10.0.1.5:8474/x", "expected a toxiproxy's address"),
        ('"http://[2001:db8::5]:8474"', "http://ana:secret@10.0.1.6:8474", "a URL has a user in it"),
        ("api: http://10.0.1.11:8600/", "api: []", "expected a list of addresses, got an empty one"),
        ("store: etcd-a", "store: www-a", 'proxy "www-a" fronts www of site-a and the store of site-a'),
        ("10.0.9.53,", "resolver.acme.test,", "expected an IP address, or address:port"),
        ("http://www.acme.test:8080/health?deep=1", "ftp://www.acme.test/", "expected what to get"),
    ],
)
def test_what_makes_no_sense(file: Path, before: str, after: str, problem: str) -> None:
    assert before in GOOD
    problems = said(file, GOOD.replace(before, after))
    assert len(problems) == 1 and problem in problems[0], problems


def test_files_that_cannot_be_read(file: Path, tmp_path: Path) -> None:
    assert "--staging FILE names another" in str(read_staging(tmp_path / "none.yaml").problems[0])
    assert said(file, "[1]\n")[0].startswith("1:1: error: ")
    assert said(file, "") != []
    file.write_text("cluster: [")
    with pytest.raises(Refused, match=r"acme\.staging\.yaml:1:"):
        StagingWorld(file)


def scenario(*faults: Fault, outage: str = "www") -> Scenario:
    placed = tuple(
        Fault(**{name: getattr(f, name) for name in f.__struct_fields__} | {"line": 7 + n, "column": 5})
        for n, f in enumerate(faults)
    )
    expect = (Expect(kind="outage", outages={outage: 60.0}, line=20, column=3),)
    return Scenario(
        name="x", about="", config=config(), config_text="", duration_s=60, faults=placed, expect=expect, file="x.yaml"
    )


def test_what_proxies_cannot_do_is_refused_with_its_place(file: Path) -> None:
    world = StagingWorld(file)
    problems = world.check(
        scenario(
            Fault(verb="pause", at_s=1, node="leader"),
            Fault(verb="cut", at_s=1, one="site-a", other="site-b"),
            Fault(verb="cut", at_s=1, one="site-c", other="*"),
            Fault(verb="cut", at_s=1, one="clients", other="site-a"),
            Fault(verb="loss", at_s=1, message="reply", node="site-a", rate=0.2),
            Fault(verb="stop", at_s=1, service="www", site="site-a", how="error"),
            Fault(verb="reset", at_s=1, service="login", site="site-b"),
            outage="login",
        )
    )
    assert problems == [
        "x.yaml:7:5: pause: the staging world cannot do it (it can bandwidth, cut, loss, operator, reset, slow, stop); "
        "play it with --world sim or lab",
        'x.yaml:8:5: cut: a TCP proxy cannot tell who connects; write [site-a, "*"]',
        f"x.yaml:9:5: cut: {file} names no proxy of site-c",
        'x.yaml:10:5: cut: a TCP proxy cannot tell who connects; write [site-a, "*"]',
        "x.yaml:11:5: loss of reply: a TCP proxy does not know messages; name two ends, such as [site-a, *]",
        "x.yaml:12:5: stop: a TCP proxy cannot answer with an error; write how: refuse, or how: hang",
        f"x.yaml:13:5: reset: {file} names no proxy that fronts login at site-b",
        f"x.yaml:20:3: outage of login: {file} has no client that asks for it",
    ]


def test_a_fault_is_made_at_every_proxy_that_it_concerns(file: Path) -> None:
    staging = StagingWorld(file).staging
    cut = deeds(Fault(verb="cut", at_s=1, one="*", other="site-b"), 4, staging)
    assert [(deed.proxy, deed.off) for deed in cut] == [("www-b", False), ("ns-b", False)]
    assert [toxic.name for toxic in cut[0].toxics] == ["drill-4-upstream", "drill-4-downstream"]
    stop = deeds(Fault(verb="stop", at_s=1, service="login", site="site-a"), 0, staging)
    assert [(deed.proxy, deed.toxics, deed.off) for deed in stop] == [
        ("login-http", (Toxic("drill-0-off", "noop"),), True),
        ("login-https", (Toxic("drill-0-off", "noop"),), True),
    ]
    slow = deeds(Fault(verb="slow", at_s=1, service="www", site="site-a", by_s=0.25), 1, staging)
    assert slow[0].toxics == (Toxic("drill-1", "latency", attributes={"latency": 250, "jitter": 0}),)
    assert deeds(Fault(verb="operator", at_s=1, argv=("status",)), 2, staging) == ()


def test_a_scenario_that_can_be_played(file: Path) -> None:
    cut = Fault(verb="cut", at_s=1, one="site-a", other="*")
    world = StagingWorld(file)
    assert world.check(scenario(cut)) == []
    text = 'cut [site-a, "*"]'
    plan = world.plan(scenario(Fault(verb="cut", at_s=60, for_s=20, one="site-a", other="*", text=text)))
    assert f"at 60 s for 20 s: {text}" in plan and "through toxiproxy http://10.0.1.5:8474: www-a, login-http" in plan
