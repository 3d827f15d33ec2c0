"""The preflight's screen, and the question that follows it. A plan shows only what changes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from controlplane.cli.context import Code, Run, Stop
from controlplane.cli.output import BAD, OK, WARN, lead, safe, table
from controlplane.cli.screens import shares
from controlplane.cli.sending import agreed, said

Doc = Mapping[str, Any]
_LEVEL = {"ok": (OK, "green"), "warning": (WARN, "yellow"), "refused": (BAD, "red")}


def plan(doc: Doc) -> Iterator[RenderableType]:
    """What would happen, and what the guards say of it."""
    found = doc["preflight"]
    source = doc["source"]
    yield lead("PREFLIGHT ").append(f"{doc['cluster']} rev {doc['config_rev']}, from {source['node']} api", style="")
    for finding in found["findings"]:
        sign, style = _LEVEL[finding["level"]]
        line = lead(f" {sign} {finding['guard']}", style).append(f"  {finding['text']}")
        if finding["level"] == "refused":
            line.append(_how(finding))
        yield line
    if "reach" in doc:
        yield _reach(doc["reach"])
    if found["ineffective"]:
        yield Text(f" {WARN} outranked from then on: {' '.join(found['ineffective'])}", style="yellow")
    if any(finding["guard"] == "never_empty" and finding["level"] == "refused" for finding in found["findings"]):
        return  # what would be served then is no plan
    if not found["plan"]:
        yield lead("PLAN  ").append("no traffic moves now")
        return
    rows = []
    for move in found["plan"]:
        change = shares(move["before"]).append(" -> ").append_text(shares(move["after"]))
        generation = f"gen {move['generation'] - 1} -> {move['generation']}"
        rows.append((Text("PLAN", style="bold"), safe(move["service"]), safe(move["region"]), change, Text(generation)))
    yield table(("", "", "", "", ""), rows)


def _reach(reach: Doc) -> Text:
    """ " ✔ dns 3/3   ✔ pools 2/3 (haproxy at site-c)": who can be told."""
    line = Text()
    for word in ("dns", "pools"):
        found = reach[word]
        if found["of"]:
            missing = found["unreachable"]
            sign, style = (WARN, "yellow") if missing else (OK, "green")
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            what = f" without {', '.join(missing[:3])}{more}" if missing else ""
            line.append(f" {sign} {word} {found['reachable']}/{found['of']}", style=style).append(f"{what}  ")
    return line


def _how(finding: Doc) -> str:
    if finding["flag"]:
        return f"  to accept it: {finding['flag']}"
    return "; this cannot be accepted" if finding["guard"] == "never_empty" else ""


def refusals(doc: Doc) -> str:
    """All of them at once, each with the exact flag; "" if there are none."""
    lines = []
    for finding in doc["preflight"]["findings"]:
        if finding["level"] == "refused":
            how = f"; add {finding['flag']}" if finding["flag"] else _how(finding)
            lines.append(f"{finding['guard']}: {finding['text']}{how}")
    return "\n".join(lines)


def interactive() -> bool:
    """Is there somebody to ask?"""
    return sys.stdin.isatty()


def confirm(run: Run, doc: Doc, what: str, word: str, yes: bool) -> None:
    """Ask, naming the cluster; where the preflight says so, `word` has to be typed. Raises Stop."""
    if yes:
        return
    if not interactive():
        raise Stop(Code.USAGE, "Nobody to ask for confirmation here: add --yes. Nothing was changed.")
    run.stderr.print(Text(f"Cluster {doc['cluster']}: {what}.", style="bold"))
    if doc["preflight"]["typed"]:
        n = sum(1 for finding in doc["preflight"]["findings"] if finding["level"] == "warning")
        good = said(run, f"{n} warning{'s' * (n > 1)}. Type {word} to go on: ") == word
    else:
        good = agreed(run, "Go on? [y/N] ")
    if not good:
        raise Stop(Code.REFUSED, "Nothing was changed.")
