"""Properties of placing, over random frames, rooms, standings and present shares."""

from __future__ import annotations

from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from policies.frame import Frame, frames
from policies.placing import Plan, Shares, load, overload, place, render
from policies.standing import FULL, KEEP, NONE, RAMP, RELIEF, Standing
from policies.topology import Config, Site, Steering
from tests.unit.policy_world import make_config, make_service, properties

SITES = ("a", "b", "c", "d", "e", "f")
REGIONS = ("r0", "r1", "r2")

STANDINGS = (
    Standing("ready", "up", FULL),
    Standing("soak", "up", RELIEF),
    Standing("ramp", "up", RAMP, "", 10),
    Standing("ramp", "up", RAMP, "flapping", 50, flaps=True),
    Standing("held", "no quorum", KEEP, "held"),
    Standing("data", "stale", KEEP),
    Standing("out", "drained", NONE, "drained"),
    Standing("soak", "flaps", NONE, "flapping"),
    Standing("failed", "down, replies", NONE, "replies"),
    Standing("failed", "down", NONE),
    Standing("out", "drained, held", NONE, "drained held"),
)


class Case(Struct, frozen=True):
    """One thing to place."""

    config: Config
    frame: Frame
    room: dict[str, float]
    standings: dict[str, Standing]
    cur: Shares

    def place(self, sticky: bool) -> Plan:
        return place(self.frame, self.room, self.standings, self.cur, sticky)

    def takers(self, *takes: str) -> list[str]:
        return [s for s, standing in self.standings.items() if standing.take in takes]


def whole_shares(draw: st.DrawFn, sites: tuple[str, ...]) -> dict[str, int]:
    """Percentages over some of the sites that add up to 100."""
    chosen = draw(st.lists(st.sampled_from(sites), min_size=1, max_size=3, unique=True))
    cuts = sorted(draw(st.integers(1, 99)) for _ in chosen[1:])
    parts = [high - low for low, high in zip([0, *cuts], [*cuts, 100], strict=True)]
    return {site: part for site, part in sorted(zip(chosen, parts, strict=True)) if part}


@st.composite
def cases(draw: st.DrawFn, standings: tuple[Standing, ...] = STANDINGS, present: bool | None = None) -> Case:
    sites = SITES[: draw(st.integers(1, 6))]
    regions = REGIONS[: draw(st.integers(1, 3))]
    capacity = {s: draw(st.sampled_from([10, 100, 333, 1000])) for s in sites}
    roles = {s: draw(st.sampled_from(["active", "active", "backup"])) for s in sites[1:]}
    mode = draw(st.sampled_from(["priority", "weighted"]))
    weights = {s: draw(st.integers(0, 3)) for s in sites} if mode == "weighted" else {}
    actives = [s for s in sites if roles.get(s, "active") == "active"]
    order = tuple(draw(st.permutations(actives))) if mode == "priority" else ()
    demand = {r: float(draw(st.sampled_from([0, 7, 100, 450, 2000]))) for r in regions}
    service = make_service(sites, demand, steering=Steering(mode=mode, order=order, weights=weights))
    config = make_config(
        {s: Site(capacity=capacity[s], role=roles.get(s, "active")) for s in sites}, {"www": service}, regions
    )
    taken = draw(st.sampled_from([0.0, 0.0, 0.5, 1.5]))
    room = {s: capacity[s] * 0.9 - (taken * capacity[s] if draw(st.booleans()) else 0.0) for s in sites}
    carries = present if present is not None else draw(st.integers(0, 4)) > 0
    return Case(
        config,
        frames(config)["www"],
        room,
        {s: draw(st.sampled_from(standings)) for s in sites},
        {r: whole_shares(draw, sites) if carries else {} for r in regions},
    )


def one_percent(case: Case) -> float:
    """What rounding may add to one site: less than a percent of each region's demand."""
    return sum(case.frame.spec.demand.values()) / 100 + 1e-6


@properties(300)
@given(cases(), st.booleans())
def test_shares_are_whole_and_add_up_to_100(case: Case, sticky: bool) -> None:
    plan = case.place(sticky)
    assert set(plan.shares) == set(case.frame.regions)
    for shares in plan.shares.values():
        assert sum(shares.values()) in (0, 100)
        assert all(isinstance(share, int) and share > 0 for share in shares.values())


@properties(300)
@given(cases(), st.booleans())
def test_empty_only_where_nothing_may_serve_and_nothing_served(case: Case, sticky: bool) -> None:
    plan = case.place(sticky)
    someone = any(s.take in (FULL, RELIEF, RAMP) or s.ladder for s in case.standings.values())
    assert all(plan.shares.values()) == (someone or all(case.cur.values()))
    assert bool(plan.tier) <= (not case.takers(FULL, RELIEF, RAMP))


@properties(500)
@given(cases(), st.booleans())
def test_nobody_is_overloaded_while_anything_that_may_take_more_has_room(case: Case, sticky: bool) -> None:
    plan = case.place(sticky)
    loads = load(case.frame, plan.shares)
    slack = one_percent(case)
    flaps = {s for s, standing in case.standings.items() if standing.flaps}
    roomy = [s for s in case.takers(FULL, RELIEF, RAMP) if s not in flaps and case.room[s] - loads.get(s, 0) > slack]
    if roomy:
        over = {s: load_ for s, load_ in loads.items() if load_ > max(0.0, case.room[s]) + slack}
        assert not over, (roomy, over, plan)


@properties(300)
@given(cases(), st.booleans())
def test_who_may_not_serve_gets_nothing_but_as_a_last_resort(case: Case, sticky: bool) -> None:
    plan = case.place(sticky)
    for region, shares in plan.shares.items():
        for site, share in shares.items():
            standing = case.standings[site]
            has = case.cur[region].get(site, 0)
            if standing.take == NONE:
                assert plan.tier in (standing.ladder or "last served", "last served")
            elif standing.take == KEEP and not plan.tier:
                assert share <= has, "keeps what it has, gets no more"


@properties(500)
@given(cases(present=True))
def test_the_forced_plan_never_lowers_a_serving_sites_share(case: Case) -> None:
    """Unless the site itself is over its room, or it may not keep its share."""
    plan = case.place(sticky=True)
    loads = load(case.frame, case.cur)
    for site, standing in case.standings.items():
        if standing.take != NONE and loads.get(site, 0.0) <= case.room[site] + 1e-6:
            for region in case.frame.regions:
                assert plan.shares[region].get(site, 0) >= case.cur[region].get(site, 0), (site, region)


@properties(500)
@given(cases(present=True))
def test_a_hold_time_never_causes_an_overload(case: Case) -> None:
    """The forced plan alone, with the full plan held back, overloads nobody whom the full plan would spare."""
    forced, full = case.place(sticky=True), case.place(sticky=False)
    assume(not full.tier)
    rounding = one_percent(case) * len(case.room)
    over = overload(case.frame, case.room, forced.shares)
    assert over <= overload(case.frame, case.room, full.shares) + rounding


@properties(300)
@given(cases(), st.booleans())
def test_the_order_in_the_file_does_not_matter(case: Case, sticky: bool) -> None:
    def turned(mapping: dict[str, Any]) -> dict[str, Any]:
        return dict(reversed(mapping.items()))

    spec = case.config.services["www"]
    spec = replace(spec, endpoints=turned(spec.endpoints), demand=turned(spec.demand))
    config = replace(
        case.config, sites=turned(case.config.sites), regions=turned(case.config.regions), services={"www": spec}
    )
    room, standings = turned(case.room), turned(case.standings)
    cur = {region: turned(shares) for region, shares in turned(case.cur).items()}
    assert place(frames(config)["www"], room, standings, cur, sticky) == case.place(sticky)


@properties(300)
@given(cases(), st.lists(st.sampled_from(["v4", "v6", "both"]), min_size=6, max_size=6), st.booleans())
def test_never_empty_for_ipv4_and_ipv6_each(case: Case, kinds: list[str], still: bool) -> None:
    plan = case.place(sticky=True)
    assume(all(plan.shares.values()))
    addresses = {
        site: (("10.0.0.1", "10.0.0.2") if kind != "v6" else ()) + (("2001:db8::1",) if kind != "v4" else ())
        for site, kind in zip(SITES, kinds, strict=True)
        if site in case.standings
    }
    frame = replace(case.frame, spec=replace(case.frame.spec, endpoints=addresses))
    answers = render(frame, plan.shares, case.standings, addresses, None, still)
    for rtype, mark in (("A", "."), ("AAAA", ":")):
        having = {site for site, mine in addresses.items() if any(mark in address for address in mine)}
        for region, shares in plan.shares.items():
            mine = [a for a in answers if (a.region, a.rtype) == (region, rtype)]
            assert bool(mine) == bool(having)
            if set(shares) & having:
                total = sum(a.weight for a in mine)
                whole = sum(shares[s] for s in shares if s in having)
                for site in set(shares) & having:
                    weight = sum(a.weight for a in mine if a.site == site)
                    assert weight * whole == shares[site] * total, "the shares, renormalised"
            assert all(a.weight > 0 and mark in a.address for a in mine)
