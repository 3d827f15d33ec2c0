"""The status screen, from the API's status document. Lines for people; the document is what programs read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from controlplane.cli.output import BAD, OK, WARN, clock, lead, number, safe, seconds, table

Doc = Mapping[str, Any]

STALE_S = 3.0
LOST_S = 10.0

_VERDICT = {
    "up": ("● up", "green"),
    "down": (f"{BAD} down", "red"),
    "held": (f"{WARN} held", "yellow"),
    "unknown": ("? unknown", "bright_black"),
}
_ROLES = {"active": 0, "backup": 1, "witness": 2}
_STATE = {"converged": "green", "propagating": "yellow", "diverged": "red"}
_HEADLINE = {"ok": ("●", "OK", "green"), "degraded": (WARN, "DEGRADED", "yellow")}
_HEADLINE["failing over"] = (BAD, "FAILING OVER", "red")
_HEADLINE["frozen"] = (BAD, "FROZEN", "red")


def status(doc: Doc, utc: bool, only: str = "") -> Iterator[RenderableType]:
    """Line by line. `only`: a service or a site to show alone, "" = everything."""
    age_s = doc["source"].get("age_s")
    lost = age_s is None or age_s >= LOST_S
    yield header(doc)
    yield headline(doc, lost)
    if not lost:
        yield from phases(doc)
    sites = {s: d for s, d in doc["sites"].items() if not only or s == only or _at(doc, only, s)}
    sites = dict(sorted(sites.items(), key=lambda item: _ROLES.get(item[1]["role"], 9)))
    if sites:
        yield _sites(sites, lost)
    services = {n: d for n, d in doc["services"].items() if not only or n == only or only in doc["sites"]}
    if services:
        yield _services(services, lost)
    overrides = [o for o in doc["overrides"] if not only or _concerns(o, only)]
    if overrides:
        yield override_table(overrides, utc)
    yield from _alarms(doc, only)


def header(doc: Doc) -> Text:
    """ "acme  rev 41  from site-b api, 0.3s old  leader site-a token 8812"."""
    source = doc["source"]
    leader = f"leader {doc['leader']} token {doc['token']}" if doc["leader"] else "no leader"
    age_s = source.get("age_s")
    line = Text(f"{doc['cluster']}  rev {_known(doc['config_rev'])}  from {source['node']} api, {seconds(age_s)} old")
    if age_s is None or age_s >= STALE_S:
        line.append("  STALE", style="yellow" if (age_s or LOST_S) < LOST_S else "bright_black")
    return line.append(f"  {leader}", style="" if doc["leader"] else "yellow")


def headline(doc: Doc, lost: bool = False) -> Text:
    """One line that says how things are."""
    summary = doc["summary"]
    if lost:
        return Text("? what follows is old; nobody knows how things are now", style="bright_black")
    sign, word, colour = _HEADLINE.get(summary["state"], ("?", summary["state"].upper(), "bright_black"))
    facts = list(summary["facts"])
    if summary["state"] == "failing over":
        moving = [_going(failover) for failover in doc.get("failovers", ())[:3]]
        facts = [*moving, *facts[1:]] if moving else facts
    return lead(f"{sign} {word}", colour).append("  " + " · ".join(facts))


def _going(failover: Doc) -> str:
    """ "www left site-a; 8.1s of at most 32.4s"."""
    text = f"{failover['service']} left {' '.join(failover['left'])}; {seconds(failover['since_s'])}"
    bound_s = failover["worst_case_s"]
    return text if bound_s is None else f"{text} of at most {bound_s:.1f}s"


def phases(doc: Doc) -> Iterator[Text]:
    """ "detect 5.1 ✔  decide 0.0 ✔  apply 0.2 ✔  verify 2/3  old TTL 17s left", of each failover that goes on."""
    for failover in doc.get("failovers", ())[:3]:
        line = Text("  ")
        if len(doc["failovers"]) > 1:
            line.append(f"{failover['service']}  ")
        agree, reachable = failover["servers_agree"], failover["servers_reachable"]
        done = 0 < reachable == agree
        for phase in ("detect", "decide", "apply"):
            took_s = failover[f"{phase}_s"]
            if phase == "apply" and not done:
                line.append("apply …  ")
            elif took_s is not None:
                line.append(f"{phase} {took_s:.1f} {OK}  ")
        line.append(f"verify {agree}/{failover['servers']}{f' {OK}' if done else ''}")
        left_s = failover["old_ttl_left_s"]
        yield line.append(f"  old TTL {seconds(left_s)} left" if left_s else "")


def _sites(sites: Mapping[str, Doc], lost: bool) -> RenderableType:
    rows = []
    for name, site in sites.items():
        load = Text("-")
        if site["usable"] is not None:
            over = site["load"] is not None and site["load"] > 0.95 * site["usable"]
            load = Text(f"{number(site['load'])}/{number(site['usable'])}", style="yellow" if over else "")
        rows.append(
            (
                Text(name),
                Text(site["role"]),
                verdict(site["observed"], lost),
                load,
                _word(site["vantage"], lost),
                _word(site["dns"], lost),
                _word(site["pool"], lost),
                safe(" · ".join(site["notes"])),
            )
        )
    headers = ("SITE", "ROLE", "OBSERVED", "LOAD/USABLE", "VANTAGE", "DNS", "POOL", "NOTE")
    return table(headers, rows, right=("LOAD/USABLE",))


def _services(services: Mapping[str, Doc], lost: bool) -> RenderableType:
    regions = sorted({region for d in services.values() for region in d["shares"]})
    rows = []
    for name, service in services.items():
        state = "unknown" if lost else service["state"]
        bound = f"{number(service['worst_case_s'])}/{number(service['target_s'])}s"
        rows.append(
            (
                Text(name),
                Text(state, style=_STATE.get(state, "bright_black")),
                Text(_known(service["generation"])),
                *(shares(service["shares"].get(region, {})) for region in regions),
                Text(bound if service["worst_case_s"] is not None else f"?/{number(service['target_s'])}s"),
                safe(" · ".join(service["notes"])),
            )
        )
    return table(("SERVICE", "STATE", "GEN", *regions, "WORST/TARGET", "NOTE"), rows, right=("GEN",))


def shares(region: Mapping[str, int]) -> Text:
    """ "site-a", or "site-a 60 site-b 40"."""
    if not region:
        return Text("-")
    if len(region) == 1:
        return Text(next(iter(region)))
    return Text(" ".join(f"{site} {percent}" for site, percent in sorted(region.items(), key=lambda i: (-i[1], i[0]))))


def override_table(overrides: list[Doc], utc: bool) -> RenderableType:
    rows = []
    for o in overrides:
        left = "no expiry" if o["left_s"] is None else f"{seconds(o['left_s'])} left"
        what, said = does(o), o["author"] + quoted(o["reason"])
        scope = " ".join(o["services"]) or "all services"
        rows.append(tuple(safe(cell) for cell in (o["id"], what, scope, said, clock(o["created_at"], utc), left)))
    return table(("OVERRIDE", "DOES", "FOR", "BY", "SINCE", "ENDS"), rows)


def does(override: Doc) -> str:
    """ "pin site-b out"."""
    way = f" {override['verb']}" if override["command"] == "pin" else ""
    return f"{override['command']} {' '.join(override['sites'])}".strip() + way


def quoted(reason: str) -> str:
    """What was said, if anything was."""
    return f' "{reason}"' if reason else ""


def verdict(word: str | None, lost: bool = False) -> Text:
    if word is None:
        return Text("-")
    if lost:
        return Text("?", style="bright_black")
    text, style = _VERDICT.get(word, (word, ""))
    return Text(text, style=style)


def _word(word: str | None, lost: bool) -> Text:
    if word is None:
        return Text("-")
    if lost:
        return Text("?", style="bright_black")
    return Text(word, style="" if word == "ok" else "yellow")


def _alarms(doc: Doc, only: str) -> Iterator[Text]:
    for alarm in doc["alarms"]:
        if only and only not in alarm["subject"]:
            continue
        since = "" if alarm["since_s"] is None else f" for {seconds(alarm['since_s'])}"
        line = lead(f"{WARN} ", "yellow")
        line.append(f"{alarm['name']} {alarm['subject']}{since}", style="bold")
        yield line.append_text(safe(f": {alarm['remedy']}"))


def _known(value: Any) -> str:
    return "?" if value is None else str(value)


def _at(doc: Doc, service: str, site: str) -> bool:
    return service in doc["services"] and site in doc["services"][service]["verdicts"]


def _concerns(override: Doc, only: str) -> bool:
    return only in override["sites"] or only in override["services"] or not override["services"]
