"""What drivers without geo or weights, and pools, are told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from policies.express import SERVER, expressed, pooled, region_of
from policies.topology import Config, Dns, Policy, Pools, Region, Service, Site
from policies.world import Answer, Desired
from tests.unit.policy_world import properties

SITES = ("a", "b", "c")
REGIONS = ("north", "south")


def desired(*answers: Answer, shares: dict[str, dict[str, int]] | None = None) -> Desired:
    return Desired("www", 7, shares or {}, answers, {}, name="www.example.org", ttl_s=20, decision="d-7")


def row(region: str, site: str, weight: int, address: str = "", rtype: str = "A") -> Answer:
    return Answer(region, rtype, address or f"192.0.2.{ord(site)}", site, weight)


def told(found: Desired) -> list[tuple[str, str, str, int]]:
    return [(a.region, a.rtype, a.address, a.weight) for a in found.answers]


TWO = desired(row("north", "a", 100), row("south", "a", 25), row("south", "b", 75))


def test_who_can_say_all_is_told_all() -> None:
    assert expressed(TWO, True, True, {}) is TWO


@pytest.mark.parametrize(
    ("demand", "weights"),
    [
        ({"north": 300.0, "south": 100.0}, {"a": 81, "b": 19}),  # 3/4 of 100 % and 1/4 of 25 %: 81.25
        ({"north": 0.0, "south": 0.0}, {"a": 63, "b": 37}),  # 62.5 and 37.5: the tie goes by name
        ({}, {"a": 63, "b": 37}),
        ({"north": 0.0, "south": 9.0}, {"a": 25, "b": 75}),
        ({"north": 5.0, "south": 0.0}, {"a": 100}),
    ],
)
def test_without_regions_shares_are_weighted_by_demand(demand: dict[str, float], weights: dict[str, int]) -> None:
    found = expressed(TWO, False, True, demand)
    assert {a.site: a.weight for a in found.answers} == weights
    assert {a.region for a in found.answers} == {""}
    assert (found.generation, found.stamp, found.name, found.ttl_s) == (7, "d-7", "www.example.org", 20)


def test_each_family_as_it_was_rendered() -> None:
    six = row("north", "c", 100, "2001:db8::c", "AAAA")
    found = expressed(replace(TWO, answers=(*TWO.answers, six)), False, True, {"north": 1.0})
    assert told(found) == [("", "A", "192.0.2.97", 100), ("", "AAAA", "2001:db8::c", 100)]


def test_a_sites_part_is_split_over_its_addresses() -> None:
    d = desired(row("north", "a", 30, "192.0.2.1"), row("north", "a", 30, "192.0.2.2"), row("north", "b", 40))
    found = expressed(d, False, True, {"north": 1.0})
    assert told(found) == [
        ("", "A", "192.0.2.1", 60),
        ("", "A", "192.0.2.2", 60),
        ("", "A", "192.0.2.98", 80),
    ]


def test_without_weights_the_small_ones_are_left_out_and_the_rest_is_alike() -> None:
    d = desired(row("north", "a", 60), row("north", "b", 31), row("north", "c", 9), row("south", "c", 10))
    assert told(expressed(d, True, False, {})) == [
        ("north", "A", "192.0.2.97", 1),
        ("north", "A", "192.0.2.98", 1),
        ("south", "A", "192.0.2.99", 1),
    ]


def test_without_weights_the_largest_always_stays() -> None:
    many = desired(*(row("north", chr(97 + n), 5 if n else 6) for n in range(20)))
    assert told(expressed(many, True, False, {})) == [("north", "A", "192.0.2.97", 1)]


def test_with_neither_ten_percent_are_counted_over_all_regions() -> None:
    d = desired(row("north", "a", 100), row("south", "b", 100))
    assert [a.site for a in expressed(d, False, False, {"north": 91.0, "south": 9.0}).answers] == ["a"]
    assert [a.site for a in expressed(d, False, False, {"north": 90.0, "south": 10.0}).answers] == ["a", "b"]


def test_nothing_stays_nothing() -> None:
    assert expressed(desired(), False, False, {}).answers == ()


# ---- pools


def config(servers: dict[str, tuple[str, ...]], pools: bool = True) -> Config:
    service = Service(
        {s: (f"192.0.2.{ord(s)}",) for s in servers},
        {},
        (),
        Policy(),
        60.0,
        dns=Dns("www.example.org"),
        pools=Pools("bk_www", servers) if pools else None,
    )
    sites = {"a": Site(1.0, country="FR"), "b": Site(1.0, country="NL"), "c": Site(1.0)}
    regions = {"north": Region(countries=("NL", "DE")), "south": Region(countries=("ES",), default=True)}
    return Config("acme", 60.0, sites, regions, {"www": service}, Policy())


SHARES = {"north": {"b": 100}, "south": {"a": 60, "b": 40}}
ONE_EACH = {"a": ("a",), "b": ("b",), "c": ("c",)}


def test_a_sites_region_is_that_of_its_country_or_the_default_one() -> None:
    assert [region_of(config(ONE_EACH), site) for site in ("a", "b", "c", "gone")] == [
        "south",
        "north",
        "south",
        "south",
    ]


def weights(servers: dict[str, tuple[str, ...]], site: str, shares: dict[str, dict[str, int]]) -> dict[str, int]:
    found = pooled(config(servers), site, desired(shares=shares))
    assert found is not None
    assert (found.name, found.ttl_s, found.generation, found.stamp) == ("bk_www", 0, 7, "d-7")
    assert {(a.region, a.rtype) for a in found.answers} == {("", SERVER)}
    return {a.address: a.weight for a in found.answers}


def test_a_pool_takes_the_shares_of_its_sites_region_and_names_every_server() -> None:
    assert weights(ONE_EACH, "a", SHARES) == {"a": 60, "b": 40, "c": 0}
    assert weights(ONE_EACH, "b", SHARES) == {"a": 0, "b": 100, "c": 0}
    assert weights(ONE_EACH, "c", {"elsewhere": {"c": 100}}) == {"a": 0, "b": 0, "c": 100}


def test_a_share_is_split_over_the_servers_of_its_site() -> None:
    servers = {"a": ("a1", "a2"), "b": ("b1",)}
    assert weights(servers, "a", SHARES) == {"a1": 30, "a2": 30, "b1": 40}
    servers = {"a": ("a1",), "b": ("b1", "b2", "b3")}
    assert weights(servers, "a", SHARES) == {"a1": 100, "b1": 22, "b2": 22, "b3": 22}


def test_who_has_a_share_gets_sessions() -> None:
    servers = {"a": ("a1",), "b": tuple(f"b{n}" for n in range(50))}
    assert set(weights(servers, "a", {"south": {"a": 99, "b": 1}}).values()) == {1, 100}


def test_where_there_is_no_pool_or_nobody_to_send_to_nothing_is_said() -> None:
    assert pooled(config(ONE_EACH, pools=False), "a", desired(shares=SHARES)) is None
    assert pooled(config({"b": ("b",)}), "a", desired(shares=SHARES)) is None
    assert pooled(config(ONE_EACH), "a", replace(desired(shares=SHARES), service="gone")) is None
    assert pooled(config(ONE_EACH), "a", desired(shares={"south": {"moved-away": 100}})) is None
    assert pooled(config(ONE_EACH), "a", desired()) is None


# ---- properties


@st.composite
def answers(draw: st.DrawFn) -> tuple[Answer, ...]:
    rows = []
    for region in draw(st.sets(st.sampled_from(REGIONS), min_size=1)):
        for rtype in draw(st.sets(st.sampled_from(("A", "AAAA")), min_size=1)):
            for site in draw(st.sets(st.sampled_from(SITES), min_size=1)):
                for n in range(draw(st.integers(1, 2))):
                    rows.append(Answer(region, rtype, f"{rtype}-{site}-{n}", site, draw(st.integers(0, 100))))
    return tuple(sorted(rows, key=lambda a: (a.region, a.rtype, a.site, a.address)))


DEMAND = st.dictionaries(st.sampled_from(REGIONS), st.floats(0, 1e6))


@properties(300)
@given(answers(), DEMAND, st.booleans(), st.booleans())
def test_no_family_is_ever_emptied(rows: tuple[Answer, ...], demand: dict[str, float], geo: bool, weigh: bool) -> None:
    found = expressed(desired(*rows), geo, weigh, demand).answers
    assert {a.rtype for a in found} == {a.rtype for a in rows}
    known = {(a.rtype, a.address, a.site) for a in rows}
    assert {(a.rtype, a.address, a.site) for a in found} <= known
    assert len({(a.region, a.rtype, a.address) for a in found}) == len(found)
    if geo:
        assert {(a.region, a.rtype) for a in found} == {(a.region, a.rtype) for a in rows}
    else:
        assert {a.region for a in found} == {""}
    if not weigh:
        assert {a.weight for a in found} == {1}
    elif not geo:
        for rtype in {a.rtype for a in found}:
            assert sum(a.weight for a in found if a.rtype == rtype) % 100 == 0
            assert all(a.weight > 0 for a in found)
    assert expressed(desired(*rows), geo, weigh, demand).answers == found


@properties(300)
@given(
    st.dictionaries(st.sampled_from(SITES), st.integers(1, 5), min_size=1),
    st.dictionaries(st.sampled_from(SITES), st.integers(1, 100), min_size=1),
)
def test_no_pool_is_ever_emptied_and_the_proportions_hold(counts: dict[str, int], given_: dict[str, int]) -> None:
    total = sum(given_.values())
    shares = {site: 100 * n // total for site, n in given_.items()}
    shares[min(shares)] += 100 - sum(shares.values())
    servers = {site: tuple(f"{site}{n}" for n in range(count)) for site, count in counts.items()}
    site = min(servers)
    found = pooled(config(servers), site, desired(shares={"south": shares, "north": shares}))
    if not any(shares.get(s) for s in servers):
        assert found is None
        return
    assert found is not None
    assert [a.address for a in found.answers] == [name for s in sorted(servers) for name in servers[s]]
    assert all(0 <= a.weight <= 100 for a in found.answers)
    assert {a.site for a in found.answers if a.weight} == {s for s in servers if shares.get(s)}
    exact = {s: shares.get(s, 0) / len(servers[s]) for s in servers}
    top_weight, top = max(a.weight for a in found.answers), max(exact.values())
    for a in found.answers:
        assert abs(a.weight - exact[a.site] * top_weight / top) <= 1.0
