"""The worst case of DESIGN section 10, term by term, by hand."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from policies.timing import detection_s, worst_case, worst_cases, zone_of
from policies.topology import (
    Check,
    Config,
    Dns,
    DnsDriver,
    Governor,
    Policy,
    ProbePolicy,
    Quorum,
    Region,
    Service,
    Site,
)

CHECK = Check("http", "http:80", "{}", ProbePolicy())
DRIVER = DnsDriver(
    "rfc2136",
    "ns1",
    "a",
    ("example.org",),
    ("a", "b"),
    apply_within_s=1.0,
    isolation="freeze",
    servers=(),
    options="{}",
)


def service(name: str = "www.example.org", **changes: object) -> Service:
    plain = Service(
        endpoints={"a": ("192.0.2.1",), "b": ("192.0.2.2",)},
        demand={"world": 100.0},
        checks=(CHECK,),
        policy=Policy(),
        target_s=60.0,
        dns=Dns(name, 20),
    )
    return replace(plain, **changes)


def config(sites: str = "abcd", **services: Service) -> Config:
    return Config(
        cluster="acme",
        target_s=60.0,
        sites={site: Site(100.0) for site in sites},
        regions={"world": Region(default=True)},
        services=services or {"www": service()},
        policy=Policy(),
        dns=(DRIVER,),
    )


def test_the_defaults_take_32_seconds() -> None:
    bound = worst_case(config(), "www")
    assert bound.detect_s == pytest.approx(1.0 * 1.1 + 3 * 1.5 + 3.0)
    assert bound.publish_s == 0.5
    assert bound.takeover_s == 5.0
    assert bound.decide_s == pytest.approx(0.101)
    assert bound.apply_s == pytest.approx(2.2)
    assert bound.ttl_s == 21.0
    assert bound.worst_case_s == pytest.approx(8.6 + 0.5 + 0.101 + 2.2 + 21.0)
    assert bound.fits and bound.longest_ttl_s == 47


def test_the_longest_ttl_fits_and_one_second_more_does_not() -> None:
    longest = worst_case(config(), "www").longest_ttl_s
    assert worst_case(config(www=service(dns=Dns("www.example.org", longest))), "www").fits
    assert not worst_case(config(www=service(dns=Dns("www.example.org", longest + 1))), "www").fits


def test_the_slowest_check_counts_and_those_of_its_sites() -> None:
    slow = replace(CHECK, probe=ProbePolicy(timeout_s=5.0))
    base = worst_case(config(), "www").detect_s
    assert worst_case(config(www=service(checks=(CHECK, slow))), "www").detect_s == pytest.approx(base + 10.5)
    sites = config().sites
    at_its_site = replace(config(), sites={**sites, "b": Site(100.0, checks=(slow,))})
    assert worst_case(at_its_site, "www").detect_s == pytest.approx(base + 10.5)
    elsewhere = replace(config(), sites={**sites, "c": Site(100.0, checks=(slow,))})
    assert worst_case(elsewhere, "www").detect_s == base


def test_a_fast_interval_longer_than_the_time_out_counts() -> None:
    probe = ProbePolicy(interval_s=4.0, fast_interval_s=3.0, timeout_s=1.0, jitter=0.5, fall=2)
    unanimous = service(checks=(replace(CHECK, probe=probe),), policy=Policy(quorum=Quorum(share_permille=1000)))
    assert worst_case(config(www=unanimous), "www").detect_s == pytest.approx(4.0 * 1.5 + 2 * 3.0)


@pytest.mark.parametrize(("fall", "failures"), [(1, 2), (2, 2), (3, 3)])
def test_one_failure_is_never_enough_of_silence(fall: int, failures: int) -> None:
    # Section 10's formula, whatever the intervals; with fall: 1 the second failure tells who is blind.
    for interval_s in (1.0, 60.0):
        probe = ProbePolicy(interval_s=interval_s, fall=fall)
        assert detection_s(probe) == pytest.approx(interval_s * 1.1 + failures * 1.5)


def test_detection_can_be_faster_than_a_takeover() -> None:
    probe = ProbePolicy(interval_s=0.5, fast_interval_s=0.1, timeout_s=0.5)
    quick = service(checks=(replace(CHECK, probe=probe),), policy=Policy(quorum=Quorum(share_permille=1000)))
    bound = worst_case(config(www=quick), "www")
    assert bound.detect_s + bound.publish_s < bound.takeover_s
    assert bound.worst_case_s == pytest.approx(5.0 + 0.101 + 2.2 + 21.0)


@pytest.mark.parametrize(
    ("sites", "permille", "waits"),
    [
        ("abc", 600, False),  # two voters are left: both have to agree
        ("abcd", 600, True),  # two of three suffice: the third may dissent
        ("abcd", 667, False),
        ("abcd", 1000, False),
        ("abcde", 600, True),  # three of four
        ("abcde", 751, False),
    ],
)
def test_the_governor_may_wait_if_a_voter_may_dissent(sites: str, permille: int, waits: bool) -> None:
    www = service(policy=Policy(quorum=Quorum(share_permille=permille)))
    assert worst_case(config(sites, www=www), "www").detect_s == pytest.approx(8.6 if waits else 5.6)


def test_the_governor_waits_only_for_most_of_all_demand() -> None:
    small = service(demand={"world": 70.0})
    single = service("api.example.org", endpoints={"b": ("192.0.2.9",)}, demand={"world": 30.0})
    bounds = worst_cases(config(www=small, api=single))
    assert bounds["www"].detect_s == pytest.approx(5.6)  # exactly 70 %; what has one site cannot move
    both = worst_cases(config(www=service(demand={"world": 71.0}), api=service(demand={"world": 29.0})))
    assert both["www"].detect_s == both["api"].detect_s == pytest.approx(8.6)
    off = replace(config(), policy=Policy(governor=Governor(share=1.0)))
    assert worst_case(off, "www").detect_s == pytest.approx(5.6)


def test_no_demand_moves_nothing() -> None:
    assert worst_case(config(www=service(demand={"world": 0.0})), "www").detect_s == pytest.approx(5.6)


def test_the_wait_is_one_freshness_window() -> None:
    slow = replace(config(), policy=Policy(freshness_s=7.0))
    assert worst_case(slow, "www").detect_s == pytest.approx(5.6 + 7.0)


@pytest.mark.parametrize(
    ("names", "writers", "within_s", "apply_s"),
    [
        (1, ("a", "b"), 1.0, 2.2),
        (200, ("a", "b"), 1.0, 2.2),
        (201, ("a", "b"), 1.0, 2.4),
        (1, ("a", "b"), 5.0, 5.0),
        (1, ("a",), 1.0, 1.0),  # no deputy: a dead control node there is outside the bound
        (1001, ("a",), 1.0, 1.2),
    ],
)
def test_apply(names: int, writers: tuple[str, ...], within_s: float, apply_s: float) -> None:
    services = {f"s{n}": service(f"s{n}.example.org") for n in range(names)}
    whole = replace(config("abcd", **services), dns=(replace(DRIVER, writers=writers, apply_within_s=within_s),))
    assert worst_case(whole, "s0").apply_s == pytest.approx(apply_s)
    assert worst_case(whole, "s0").decide_s == pytest.approx(0.1 + names / 1000)


def test_only_the_drivers_of_the_longest_zone_count() -> None:
    other = replace(DRIVER, name="ns2", zones=("eu.example.org",), apply_within_s=9.0)
    whole = replace(config(www=service(), shop=service("shop.eu.example.org")), dns=(DRIVER, other))
    assert worst_case(whole, "www").apply_s == pytest.approx(2.2)
    assert worst_case(whole, "shop").apply_s == pytest.approx(9.0)


def test_without_dns_there_is_no_ttl() -> None:
    bound = worst_case(config(www=service(dns=None)), "www")
    assert (bound.ttl_s, bound.apply_s) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("name", "zone"),
    [
        ("www.example.org", "example.org"),
        ("example.org", "example.org"),
        ("a.eu.example.org", "eu.example.org"),
        ("notexample.org", ""),
        ("org", ""),
        ("*.example.org", "example.org"),
    ],
)
def test_zone_of(name: str, zone: str) -> None:
    assert zone_of(name, ("example.org", "eu.example.org")) == zone


def test_worst_case_of_an_unknown_service() -> None:
    with pytest.raises(KeyError):
        worst_case(config(), "nope")
