"""`whatif` and `explain` over a live view: where things stand now, and where they would settle. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from controlplane.documents import DecisionDoc
from policies.decide import spend
from policies.explain import explain
from policies.frame import Frame, frames, usable, watched
from policies.placing import Shares, load
from policies.stage import stage
from policies.timing import worst_cases
from policies.topology import Config
from policies.whatif import DRAINED, LOST, Left, Present, SiteLoad, WhatIf, agreement, dead, fold, scaled, settle
from policies.world import Carried, Desired, Slice

Doc = dict[str, Any]
Settle = Callable[[Collection[str]], WhatIf]


def settle_file(config: Config, lost: Collection[str], drained: Collection[str], factor: float) -> Doc:
    """The document of `whatif -f FILE`: every site is up but for those named."""
    return _document(config, lost, lambda gone: settle(config, gone, drained, factor), {})


def settle_now(
    config: Config,
    slices: Mapping[str, Slice],
    lost: Collection[str],
    drained: Collection[str],
    factor: float,
    mute: Collection[str] = (),
) -> Doc:
    """The same from where things stand now: sites that are down or drained stay so, and have no room or no say.
    mute: sites whose vantage does not vote now."""
    there = frames(scaled(config, factor))
    now = {name: slices[name].desired for name in slices}
    room = usable(config)
    fallen = dead([_present(frame, slices[name], (), ()) for name, frame in there.items() if name in slices])

    def run(gone: Collection[str]) -> WhatIf:
        present = [_present(frame, slices[name], gone, drained) for name, frame in there.items() if name in slices]
        settled, loads = fold(present, room, gone)
        sites = {
            name: SiteLoad(
                round(loads.get(name, 0.0), 3), 0.0 if name in gone or name in fallen else room[name], site.capacity
            )
            for name, site in config.sites.items()
            if site.role != "witness"
        }
        return WhatIf(settled, sites, *agreement(config, {*gone, *(fallen & set(mute))}, mute))

    was = {name: d.shares for name, d in now.items() if d is not None}
    return _document(config, lost, run, was, fallen)


def _present(frame: Frame, slice_: Slice, lost: Collection[str], drained: Collection[str]) -> Present:
    st = stage(frame, slice_)
    standings = {
        site: LOST if site in lost else DRAINED if site in drained and standing.rule != "failed" else standing
        for site, standing in st.standings.items()
    }
    return Present(frame, standings, st.cur)


def _document(
    config: Config, lost: Collection[str], run: Settle, now: Mapping[str, Shares], fallen: Collection[str] = ()
) -> Doc:
    """`was`: shares now, None from a file. `then`: the further loss that hurts most.
    fallen: sites that are dead already."""
    result = run(lost)
    bounds = worst_cases(config)
    services = {
        name: {
            "shares": s.shares,
            "standing": s.standing,
            "shortfall": s.shortfall,
            "tier": s.tier,
            "was": now.get(name),
            "timing": bounds[name],
        }
        for name, s in result.services.items()
    }
    return {
        "cluster": config.cluster,
        "config_rev": config.revision or None,
        "services": services,
        "sites": result.sites,
        "voters": _agreement(result.voters),
        "store": _agreement(result.store),
        "then": _then(config, {*lost, *fallen}, run, lost),
    }


def _agreement(left: Left | None) -> Doc | None:
    return None if left is None else {"left": left.left, "needed": left.needed, "of": left.of}


def _then(config: Config, gone: Collection[str], run: Settle, lost: Collection[str]) -> Doc | None:
    worst: Doc | None = None
    more = sorted(s for s, site in config.sites.items() if site.role != "witness" and s not in gone)
    if len(more) < 2:
        return None
    for site in more:
        shortfall = round(sum(s.shortfall for s in run([*lost, site]).services.values()), 3)
        if worst is None or shortfall > worst["shortfall"]:
            worst = {"lost": site, "shortfall": shortfall}
    return worst


def next_loss(config: Config, slices: Mapping[str, Slice], service: str) -> Doc | None:
    """What becomes of `service` if the site that carries most of it fails: {lost, loads: {SITE: demand}, shortfall,
    tier}. None if nothing carries it. slices: of this service and of those placed before it."""
    present = [_present(frame, slices[name], (), ()) for name, frame in frames(config).items() if name in slices]
    frame, now = next((p.frame, p.cur) for p in present if p.frame.service == service)
    loads = load(frame, now)
    if not any(now.values()) or not loads:
        return None
    lost = max(sorted(loads), key=loads.__getitem__)
    settled = fold(present, usable(config), [lost])[0][service]
    after = {site: round(amount, 3) for site, amount in sorted(load(frame, settled.shares).items()) if amount}
    return {"lost": lost, "loads": after, "shortfall": settled.shortfall, "tier": settled.tier}


def carried_to(there: Mapping[str, Frame], desired: Mapping[str, Desired], service: str, start: Carried) -> Carried:
    """What the fold carries when it comes to `service`: the room that those before it leave."""
    for name, frame in there.items():
        if name == service:
            break
        if name in desired:
            start = spend(frame, desired[name], start)
    return start


def retold(decision: DecisionDoc, frame: Frame | None) -> Doc:
    """The document of `explain` for a recorded decision. frame: of the configuration of that time; without it
    only what was recorded is shown."""
    width = len(decision.input.vantages)
    if frame is not None and len(watched(frame, decision.input.desired)) * width == len(decision.input.votes):
        return explanation(frame, decision.input, decision.carried, decision.desired)
    desired = decision.desired
    sites: Doc = {
        site: {
            "rule": state.rule,
            "reason": "",
            "verdict": "held" if state.held else state.verdict,
            "tally": "",
            "load": None,
            "phase": state.phase,
            "evidence": [],
        }
        for site, state in sorted(desired.sites.items())
    }
    return {
        "service": decision.service,
        "sites": sites,
        "tier": desired.tier,
        "shortfall": desired.shortfall,
        "guards": [],
        "usable": {},
        "vantages": list(decision.input.vantages),
        "note": f"configuration revision {decision.config_rev} is not kept any more: only what was recorded is shown",
    }


def explanation(frame: Frame, slice_: Slice, carried: Carried, decided: Desired | None = None) -> Doc:
    """The document of `explain` (DESIGN section 10), as far as it is known to JUDGE. decided: see explain()."""
    result: Doc = msgspec.to_builtins(explain(frame, slice_, carried, decided))
    result["usable"] = {site: frame.usable[site] for site in frame.sites}
    result["vantages"] = list(slice_.vantages)
    return result
