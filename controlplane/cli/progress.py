"""Waiting for the verified end of a change. Running out of patience is not failure, and never called so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct
from rich.text import Text

from controlplane.cli.client import ApiError, Client, Unreachable, is_current
from controlplane.cli.context import Code, Run, Stop
from controlplane.cli.output import clock, now, safe, seconds

LOOK_S = 0.25
SESSIONS_EVERY_S = 5.0  # between two lines about sessions alone

Doc = dict[str, Any]
# Where nobody waited for it.
UNKNOWN_END: Doc = {"took_s": None, "services": None, "servers": None, "pools": None, "sessions": None}


class Change(Struct, frozen=True):
    """What was committed. `added` and `removed`: override ids; `sites`, `services`: those that it speaks of, () = all.

    done: "DRAINED"; in_force: "as ov-19"; undo: the command that takes it back, "" if there is none.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    sites: tuple[str, ...]
    services: tuple[str, ...]
    done: str
    in_force: str
    undo: str
    empties: bool = False  # when done, the sites carry nothing


def wait(run: Run, change: Change, patience_s: float, say: Callable[[], None]) -> Doc:
    """Until every service concerned is decided and verified. Raises Stop (3, or 4 with nobody to ask).

    say: what is to be told first; from then on Ctrl-C is known to come after the commit.
    """
    try:
        return run.wait(_wait(run, change, patience_s, say))
    except KeyboardInterrupt:
        raise Stop(Code.NOT_CONVERGED, f"Interrupted; it goes on. {standing(change)}", **_ids(change)) from None


def standing(change: Change) -> str:
    """What stays in force, how to watch it, how to undo it."""
    undo = f" Undo: {change.undo}." if change.undo else ""
    return f"In force {change.in_force}. Watch: failoverctl status --watch.{undo}"


async def _wait(run: Run, change: Change, patience_s: float, say: Callable[[], None]) -> Doc:
    loop = asyncio.get_running_loop()
    say()
    begun = loop.time()
    said: set[str] = set()
    sessions = Sessions(change)
    missing: list[str] = ["nobody has answered since"]
    answered = False
    async with Client.of(run) as client:
        while True:
            try:
                doc = await client.get("/v1/status")
                answered = True
                mine = _concerned(doc, change)
                missing = _missing(doc, change, mine)
                _say(run, mine, said)
                sessions.look(run, mine, loop.time())
            except (Unreachable, ApiError) as error:
                answered, missing = False, [str(error)]
            if answered and not missing:
                sessions.tell(run)
                return _finish(run, change, mine, loop.time() - begun)
            if loop.time() - begun >= patience_s:
                break
            await asyncio.sleep(LOOK_S)
    why = "; ".join(missing[:5])
    code = Code.NOT_CONVERGED if answered else Code.UNKNOWN
    word = "NOT CONVERGED YET" if answered else "NOBODY TO ASK"
    raise Stop(code, f"{word} after {seconds(patience_s)}: {why}. {standing(change)}", **_ids(change))


def _concerned(doc: Doc, change: Change) -> dict[str, Doc]:
    """Services that the change speaks of."""
    services: dict[str, Doc] = doc["services"]
    return {
        name: service
        for name, service in services.items()
        if (not change.services or name in change.services)
        and (not change.sites or set(change.sites) & set(service["standing"]))
    }


def _missing(doc: Doc, change: Change, mine: dict[str, Doc]) -> list[str]:
    """What is not as it should be yet; [] = done."""
    if not is_current(doc):
        return [f"{doc['source']['node']}: this node's view is not current"]
    listed = {o["id"] for o in doc["overrides"]}
    if not set(change.added) <= listed or set(change.removed) & listed:
        return [f"{doc['source']['node']} has not seen it yet"]
    late: list[str] = []
    for name, service in mine.items():
        if sorted(service["in_force"]) != sorted(service["overrides"]):
            late.append(f"{name} is not decided yet" + ("" if doc["leader"] else " (no leader)"))
        elif service["state"] != "converged":
            late.append(f"{name} {service['state']}: {', '.join(service['notes'][:2])}".rstrip(": "))
    return late


def _say(run: Run, mine: dict[str, Doc], said: set[str]) -> None:
    """A line for each thing that is new."""
    for name, service in mine.items():
        servers = service["servers"]
        agreeing = sum(1 for s in servers if s["agrees"])
        gone = [s["server"] for s in servers if s["generation"] is None]
        line = f"{name} gen {service['generation']}: {agreeing}/{len(servers)} name servers agree"
        pools = service["pools"]
        away = [f"{p['driver']} at {p['site']}" for p in pools if p["generation"] is None]
        if pools:
            count = f"{sum(1 for p in pools if p['agrees'])}/{len(pools)} pools"
            line = f"{line} · {count}" if servers else f"{name} gen {service['generation']}: {count} agree"
        if gone or away:
            line += f" · unreachable: {' '.join([*gone, *away])}"
        if (servers or pools) and line not in said:
            said.add(line)
            _line(run, line)
        left_s = service["old_ttl_left_s"]
        ttl = f"{name} gen {service['generation']}: old TTL"
        if left_s and agreeing == len(servers) - len(gone) and ttl not in said:
            said.add(ttl)
            _line(run, f"{name}: resolvers may keep the old answer for {seconds(left_s)} more")


class Sessions:
    """What is left at the sites that a change empties: shown, not awaited."""

    def __init__(self, change: Change) -> None:
        self._sites = change.sites if change.empties else ()
        self._seen: dict[str, list[int]] = {}
        self._told: dict[str, list[int]] = {}
        self._told_at = 0.0

    def look(self, run: Run, mine: dict[str, Doc], now: float) -> None:
        """Remember what is new; a line now and then."""
        for site, count in left(mine, self._sites).items():
            seen = self._seen.setdefault(site, [])
            if not seen or seen[-1] != count:
                seen.append(count)
        if not self._told or now - self._told_at >= SESSIONS_EVERY_S:
            self._told_at = now
            self.tell(run)

    def tell(self, run: Run) -> None:
        """A line for each site: how many there were, as they came to be fewer."""
        for site, seen in self._seen.items():
            if seen != self._told.get(site):
                self._told[site] = list(seen)
                shown = seen if len(seen) <= 8 else [*seen[:4], *seen[-4:]]
                _line(run, f"sessions at {site} {', '.join(map(str, shown))}")


def left(mine: dict[str, Doc], sites: Sequence[str]) -> dict[str, int]:
    """Sessions at these sites, over all pools of these services; sites of which no pool says anything are left out."""
    found: dict[str, int] = {}
    for service in mine.values():
        for pool in service["pools"]:
            for site, count in pool["sessions"].items():
                if site in sites:
                    found[site] = found.get(site, 0) + count
    return found


def _line(run: Run, text: str) -> None:
    moment = clock(now().isoformat(), run.utc)
    run.people.print(Text(f" {moment}  ", style="bright_black").append_text(safe(text)))


def committed(run: Run, change: Change) -> None:
    _line(run, f"committed, {change.in_force}")


def _finish(run: Run, change: Change, mine: dict[str, Doc], took_s: float) -> Doc:
    carrying = sorted(
        f"{name} at {site}"
        for name, service in mine.items()
        for site in change.sites
        if any(region.get(site) for region in service["shares"].values())
    )
    if change.empties and carrying:
        text = f"Decided and verified, but still served: {', '.join(carrying)} (nobody else can). {standing(change)}"
        raise Stop(Code.NOT_CONVERGED, text, **_ids(change))
    asked = [s for service in mine.values() for s in service["servers"]]
    servers = {s["server"] for s in asked}
    agree = servers - {s["server"] for s in asked if not s["agrees"]}
    silent = {s["server"] for s in asked if s["generation"] is None}
    pools = {(p["driver"], p["site"]) for service in mine.values() for p in service["pools"]}
    told = [p for service in mine.values() for p in service["pools"]]
    away = {(p["driver"], p["site"]) for p in told if p["generation"] is None}
    set_ = pools - {(p["driver"], p["site"]) for p in told if not p["agrees"]}
    remaining = left(mine, change.sites) if change.empties else {}
    counts = [f"{len(agree)}/{len(servers)} name servers"] if servers or not pools else []
    counts += [f"{len(set_)}/{len(pools)} pools"] if pools else []
    counts += [f"{sum(remaining.values())} sessions"] if remaining else []
    counts += [f"{len(silent) + len(away)} unreachable"] if silent or away else []
    text = f"{change.done} in {seconds(took_s)}, verified: {', '.join(counts)}"
    run.people.print(Text(text, style="green"))
    for line in () if change.empties else _comes_back(change, mine):
        run.people.print(Text("  ").append_text(safe(line)))
    return {
        "ok": True,
        **_ids(change),
        "took_s": round(took_s, 3),
        "services": mine,
        "servers": {"agree": len(agree), "of": len(servers), "unreachable": len(silent)},
        "pools": {"agree": len(set_), "of": len(pools), "unreachable": len(away)},
        "sessions": remaining,
    }


def _comes_back(change: Change, mine: dict[str, Doc]) -> list[str]:
    """How the sites stand that are not simply ready: what will still happen by itself."""
    return [
        f"{name}: {site} {service['standing'][site]['rule']}, {service['standing'][site]['reason']}"
        for name, service in mine.items()
        for site in change.sites
        if service["standing"].get(site, {"rule": "ready"})["rule"] != "ready"
    ][:8]


def _ids(change: Change) -> dict[str, Sequence[str]]:
    return {"added": change.added, "removed": change.removed}
