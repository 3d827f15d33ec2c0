"""Everything that is known before anything is placed: verdicts, timers, standings. Pure.

Also what explain and preflight look at.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

from policies.frame import Frame
from policies.placing import Shares, carriers
from policies.standing import Facts, Standing, stand
from policies.timers import Moment, advance
from policies.verdicts import NEW, Judged, judge
from policies.world import Effective, SiteState, Slice

REMOVED = Effective("config", "out", False, (), "removed from the configuration")


class Stage(Struct, frozen=True):
    """One service, judged. `cur`: the shares that clients have now; `carrying`: the sites that have one;
    `applied`: override ids in force."""

    judged: dict[str, Judged]
    moments: dict[str, Moment]
    states: dict[str, SiteState]  # timers advanced, rule filled in
    standings: dict[str, Standing]
    cur: Shares
    carrying: frozenset[str]
    first: bool
    applied: tuple[str, ...]  # override ids


def stage(frame: Frame, slice_: Slice) -> Stage:
    """Votes, timers and the precedence table: everything up to the standing of each site."""
    prev, first = slice_.desired, slice_.desired is None
    judged = judge(frame, slice_)
    cur = _present(frame, slice_)
    carrying = carriers(cur)
    states: dict[str, SiteState] = {}
    moments: dict[str, Moment] = {}
    standings: dict[str, Standing] = {}
    lags = _lags(frame, slice_, judged)
    for site in sorted(judged):
        j, before = judged[site], (prev.sites.get(site, NEW) if prev else NEW)
        carries = site in carrying
        override = slice_.overrides.get(site) if site in frame.spec.endpoints else REMOVED
        moment = _moment(frame, slice_, j, before, override, carries, first)
        now = replace(
            before,
            verdict=j.verdict,
            held=j.held,
            addresses=j.addresses,
            last=j.last,
            replies=j.replying,
            lag_s=lags[site],
        )
        now = advance(now, slice_.age_s, moment)
        facts = Facts(
            state=now,
            override=override,
            replies=j.replies,
            carries=carries,
            stale=_stale(frame, site, lags[site]),
            lag_s=lags[site],
            policy=frame.spec.policy,
            tally=j.tally,
        )
        standings[site] = stand(facts)
        states[site] = replace(now, rule=standings[site].rule, parked=moment.parked)
        moments[site] = moment
    ids = {o.id for o in slice_.overrides.values()} | ({slice_.freeze} if slice_.freeze else set())
    return Stage(judged, moments, states, standings, cur, carrying, first, tuple(sorted(ids)))


def _present(frame: Frame, slice_: Slice) -> Shares:
    """The shares that clients have now, for the regions that the configuration has now."""
    states = slice_.desired.sites if slice_.desired else {}
    known = {*frame.sites, *(site for site in states if states[site].addresses)}
    given = dict(slice_.desired.shares) if slice_.desired else {}
    if slice_.ahead:
        given |= {r: sites for r, sites in slice_.ahead.shares.items() if known & sites.keys()}
    shares = {r: {s: share for s, share in sites.items() if s in known} for r, sites in sorted(given.items())}
    for sites in shares.values():
        if sites:  # what a rewound store no longer knows a site for is counted to the largest
            sites[max(sorted(sites), key=sites.__getitem__)] += 100 - sum(sites.values())
    # Clients of a region that is new were served as the default region was, or as any was.
    fallback = shares.get(frame.default_region) or next((sites for sites in shares.values() if sites), {})
    return {region: dict(shares.get(region) or fallback) for region in frame.regions}


def _moment(
    frame: Frame,
    slice_: Slice,
    j: Judged,
    before: SiteState,
    override: Effective | None,
    carries: bool,
    first: bool,
) -> Moment:
    out = override is not None and override.verb == "out"
    failback = frame.spec.policy.failback
    released = override is not None and override.verb == "in" and not override.hard
    return Moment(
        verdict=j.verdict,
        run=j.up and before.verdict == "up" and not before.held,
        up=j.up,
        first=first,
        carries=carries,
        parked=out or bool(slice_.freeze) or slice_.rewound,
        released=failback.mode == "auto" or released,
        out_ended=before.rule == "out" and not out,
        failback=failback,
    )


def _lags(frame: Frame, slice_: Slice, judged: Mapping[str, Judged]) -> dict[str, float | None]:
    """Site -> lag. It stands still while the source is not plainly up: what was lost then cannot grow."""
    data, prev = frame.spec.data, slice_.desired
    if data is None:
        return dict.fromkeys(judged)
    source = judged.get(data.source)
    stands = source is not None and not source.up and prev is not None
    lags: dict[str, float | None] = {}
    for site in sorted(judged):
        if site == data.source:
            lags[site] = 0.0
        elif stands and prev is not None and site in prev.sites:
            lags[site] = prev.sites[site].lag_s
        else:
            lags[site] = slice_.lag_s.get(site)
    return lags


def _stale(frame: Frame, site: str, lag_s: float | None) -> bool:
    data = frame.spec.data
    return data is not None and site != data.source and (lag_s is None or lag_s > data.rpo_s)
