"""`whatif` and `explain` over a live view: where things stand now, and where they would settle. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import msgspec

from policies.decide import spend
from policies.explain import explain
from policies.frame import Frame, frames, usable
from policies.placing import Shares
from policies.stage import stage
from policies.timing import worst_cases
from policies.topology import Config
from policies.whatif import DRAINED, LOST, Left, Present, SiteLoad, WhatIf, fold, scaled, settle
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
) -> Doc:
    """The same from where things stand now: sites that are down or drained stay so."""
    there = frames(scaled(config, factor))
    now = {name: slices[name].desired for name in slices}
    room = usable(config)

    def run(gone: Collection[str]) -> WhatIf:
        present = [_present(frame, slices[name], gone, drained) for name, frame in there.items() if name in slices]
        settled, loads = fold(present, room, gone)
        sites = {
            name: SiteLoad(round(loads.get(name, 0.0), 3), 0.0 if name in gone else room[name], site.capacity)
            for name, site in config.sites.items()
            if site.role != "witness"
        }
        assumed = settle(config, gone, drained)
        return WhatIf(settled, sites, assumed.voters, assumed.store)

    return _document(config, lost, run, {name: d.shares for name, d in now.items() if d is not None})


def _present(frame: Frame, slice_: Slice, lost: Collection[str], drained: Collection[str]) -> Present:
    st = stage(frame, slice_)
    standings = {
        site: LOST if site in lost else DRAINED if site in drained and standing.rule != "failed" else standing
        for site, standing in st.standings.items()
    }
    return Present(frame, standings, st.cur)


def _document(config: Config, lost: Collection[str], run: Settle, now: Mapping[str, Shares]) -> Doc:
    """`was`: shares now, None from a file. `then`: the further loss that hurts most."""
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
        "then": _then(config, lost, run),
    }


def _agreement(left: Left | None) -> Doc | None:
    return None if left is None else {"left": left.left, "needed": left.needed, "of": left.of}


def _then(config: Config, lost: Collection[str], run: Settle) -> Doc | None:
    worst: Doc | None = None
    more = sorted(s for s, site in config.sites.items() if site.role != "witness" and s not in lost)
    if len(more) < 2:
        return None
    for site in more:
        shortfall = round(sum(s.shortfall for s in run([*lost, site]).services.values()), 3)
        if worst is None or shortfall > worst["shortfall"]:
            worst = {"lost": site, "shortfall": shortfall}
    return worst


def carried_to(there: Mapping[str, Frame], desired: Mapping[str, Desired], service: str, start: Carried) -> Carried:
    """What the fold carries when it comes to `service`: the room that those before it leave."""
    for name, frame in there.items():
        if name == service:
            break
        if name in desired:
            start = spend(frame, desired[name], start)
    return start


def explanation(frame: Frame, slice_: Slice, carried: Carried) -> Doc:
    """The document of `explain` (DESIGN section 10), as far as it is known to JUDGE."""
    result: Doc = msgspec.to_builtins(explain(frame, slice_, carried))
    result["usable"] = {site: frame.usable[site] for site in frame.sites}
    result["vantages"] = list(slice_.vantages)
    return result
