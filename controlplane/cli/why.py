"""The screen of `explain`: which rule won at each site, on whose evidence, and what the guards say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from controlplane.cli.output import OK, WARN, clock, lead, number, safe, seconds, table
from controlplane.cli.screens import does, quoted, shares, verdict

Doc = Mapping[str, Any]


def explanation(doc: Doc, utc: bool) -> Iterator[RenderableType]:
    yield _head(doc, utc)
    rows = []
    for site, why in doc["sites"].items():
        carries = "" if why["load"] is None else f"carries {number(why['load'])} of {number(doc['usable'].get(site))}"
        seen = verdict(why["verdict"]).append(f" {why['tally']}")
        reason = " · ".join(part for part in (why["reason"], carries) if part)
        rows.append((Text(site), Text(why["rule"], style="bold"), seen, safe(reason)))
    yield table(("SITE", "RULE", "VERDICT", "WHY"), rows)
    yield from _regions(doc)
    yield from _evidence(doc)
    if doc["guards"]:
        yield _guards(doc)
    if doc.get("note"):
        yield lead("NOTE     ", "yellow").append_text(safe(doc["note"]))
    for waiting in doc["refused"]:
        yield lead("WAITS    ").append_text(safe(waiting))
    for event in doc["events"]:
        what = f"{event['site']} {event['rule']}: {event['reason']}".strip()
        yield lead("DECIDED  ").append_text(safe(what))
    for override in doc["overrides"]:
        if "command" not in override:
            yield lead("OVERRIDE ").append_text(safe(f"{override['id']} (over by now)"))
            continue
        left = "no expiry" if override["left_s"] is None else f"{seconds(override['left_s'])} left"
        who = override["author"] + quoted(override["reason"])
        said = f"{override['id']} {does(override)} by {who}, {left}"
        yield lead("OVERRIDE ").append_text(safe(said))
    if doc.get("next"):
        yield lead("NEXT     ").append_text(safe(_next(doc["next"])))


def _next(then: Doc) -> str:
    """ "if site-a fails: site-c 180, shortfall 520"."""
    parts = [f"{site} {number(amount)}" for site, amount in then["loads"].items()]
    parts += [f"shortfall {number(then['shortfall'])}"] if then["shortfall"] else []
    parts += [f"last resort: {then['tier']}"] if then["tier"] else []
    return f"if {then['lost']} fails: {', '.join(parts)}"


def _guards(doc: Doc) -> Text:
    guards = lead("GUARDS   ")
    for guard in doc["guards"]:
        sign, style = (OK, "green") if guard["ok"] else (WARN, "yellow")
        guards.append(f"{sign} {guard['name']}", style=style).append(f" {guard['text']}   ")
    return guards


def _head(doc: Doc, utc: bool) -> Text:
    source = doc["source"]
    decided = "not decided yet"
    if doc["decision"]:
        decided = f"{doc['decision']} {clock(doc['at'], utc) if doc['at'] else ''} gen {doc['generation']}"
    line = lead(doc["service"])
    line.append(f"  {decided}")
    if doc.get("state"):
        line.append(f"  {doc['state']}")
    if doc.get("tier"):
        line.append(f"  {WARN} last resort: {doc['tier']}", style="yellow")
    if doc.get("shortfall"):
        line.append(f"  {WARN} shortfall {number(doc['shortfall'])}", style="yellow")
    return line.append(f"  from {source['node']} api, {seconds(source['age_s'])} old", style="bright_black")


def _regions(doc: Doc) -> Iterator[RenderableType]:
    if doc["shares"]:
        yield table(("REGION", "SERVED BY"), [(Text(r), shares(s)) for r, s in sorted(doc["shares"].items())])


def _evidence(doc: Doc) -> Iterator[RenderableType]:
    rows = []
    for site in doc["sites"].values():
        for line in site["evidence"]:
            word = verdict(line["health"].lower())
            votes = "" if line["votes"] else "no vote, own site" if line["own"] else "no vote"
            age = f"{seconds(line['age_s'])} ago" if line.get("age_s") is not None else ""
            why = " · ".join(part for part in (line["reason"], line.get("warning", ""), votes) if part)
            rows.append((safe(line["target"]), Text(line["vantage"]), word, Text(age), safe(why)))
    if rows:
        yield table(("EVIDENCE", "SEEN FROM", "SAYS", "AGE", "REASON"), rows)
