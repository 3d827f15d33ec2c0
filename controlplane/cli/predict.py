"""`whatif`: where the load would go. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import RenderableType
from rich.text import Text

from controlplane.api.predict import settle_file
from controlplane.cli.context import Code, Run, Stop, command
from controlplane.cli.files import load_config
from controlplane.cli.observe import fetch
from controlplane.cli.output import OK, WARN, lead, number, seconds, table
from controlplane.cli.screens import shares

Doc = Mapping[str, Any]


def register(app: typer.Typer) -> None:
    command(app, "whatif")(whatif)


def whatif(
    run: Run,
    file: Annotated[
        Path | None,
        typer.Option("-f", "--file", metavar="FILE", help="Of this file, everything up; needs no cluster."),
    ] = None,
    lose: Annotated[list[str] | None, typer.Option("--lose", metavar="SITE", help="This site is lost.")] = None,
    drain: Annotated[list[str] | None, typer.Option("--drain", metavar="SITE", help="This site is drained.")] = None,
    demand: Annotated[
        str | None, typer.Option("--demand", metavar="PERCENT", help="Demand changes: +30%, -10%, or 130%.")
    ] = None,
) -> None:
    """Show where load would go. Changes nothing.

    Sites may be lost or drained, and demand may grow: shows the shares, loads and shortfall that follow.

    \b
    Example:
      failoverctl whatif --lose site-a
      failoverctl whatif -f acme.yaml --lose site-a --lose site-b --demand +30%
    """
    lost, drained = list(lose or ()), list(drain or ())
    factor = demand_factor(demand) if demand is not None else 1.0
    if file is not None:
        config = load_config(file)
        for site in (*lost, *drained):
            if site not in config.sites:
                raise Stop(Code.USAGE, f"{file} has no site {site!r}; there are {', '.join(config.sites)}")
        doc: Doc = msgspec.to_builtins(settle_file(config, lost, drained, factor))
        where = str(file)
    else:
        params = [*(("lose", s) for s in lost), *(("drain", s) for s in drained), ("demand", str(factor))]
        doc = fetch(run, "/v1/whatif", *params)
        source, overrides = doc["source"], doc["overrides"]
        where = f"{doc['cluster']} rev {doc['config_rev']}, from {source['node']} api, {seconds(source['age_s'])} old"
        where += f"; {' '.join(overrides)} open" if overrides else "; no override open"
    run.document(doc)
    if not run.json:
        run.stdout.print(Text(f"({where}; changes nothing)", style="bright_black"))
        for part in prediction(doc):
            run.stdout.print(part)


def demand_factor(text: str) -> float:
    """ "+30%" -> 1.3, "-10%" -> 0.9, "130%" -> 1.3. Raises typer.BadParameter."""
    match = re.fullmatch(r"([+-]?)(\d{1,5}(?:\.\d+)?)\s*%", text.strip())
    if not match:
        raise typer.BadParameter(f"--demand: {text!r} is not a percentage; write +30%, -10% or 130%")
    value = float(match[2]) / 100
    factor = 1 + value if match[1] == "+" else 1 - value if match[1] == "-" else value
    if factor < 0:
        raise typer.BadParameter("--demand: there is no demand below nothing")
    return factor


def prediction(doc: Doc) -> Iterator[RenderableType]:
    """The screen, from the document."""
    regions = sorted({region for s in doc["services"].values() for region in s["shares"]})
    rows = []
    for name, service in doc["services"].items():
        was = service["was"] or {}
        cells = [_share(service["shares"].get(region, {}), was.get(region)) for region in regions]
        short = Text(number(service["shortfall"]), style="red" if service["shortfall"] else "")
        note = f"last resort: {service['tier']}" if service["tier"] else ""
        rows.append((Text(name), *cells, short, Text(note, style="yellow")))
    yield table(("SERVICE", *regions, "SHORTFALL", ""), rows, right=("SHORTFALL",))
    yield _loads(doc)
    yield from _agreement("VOTERS", doc["voters"])
    if doc["store"] is not None:
        yield from _agreement("STORE", doc["store"])
    for name, service in doc["services"].items():
        line = lead("TIME     ")
        if not all(left is None or left["left"] >= left["needed"] for left in (doc["voters"], doc["store"])):
            line.append(f"{WARN} holds only once it can fail over again: ", style="yellow")
        yield line.append(f"{name} {arithmetic(service['timing'])}")
    if doc["then"] is not None:
        then = doc["then"]
        total = f"shortfall {number(then['shortfall'])}" if then["shortfall"] else "all fits"
        yield lead("THEN     ").append(f"lose {then['lost']} as well: {total}")


def arithmetic(bound: Mapping[str, float]) -> str:
    """ "32.4s = max(detect 8.6 + publish 0.5, takeover 5) + decide 0.1 + apply 2.2 + ttl 21; target 60s"."""
    b = {key: f"{value:.1f}" for key, value in bound.items()}
    return (
        f"{b['worst_case_s']}s = max(detect {b['detect_s']} + publish {b['publish_s']}, takeover {b['takeover_s']})"
        f" + decide {b['decide_s']} + apply {b['apply_s']} + ttl {b['ttl_s']}; target {number(bound['target_s'])}s"
    )


def _share(now: Mapping[str, int], was: Mapping[str, int] | None) -> Text:
    text = shares(now)
    if was is not None and was != now:
        text.append(" (was ", style="bright_black").append_text(shares(was)).append(")", style="bright_black")
    return text


def _loads(doc: Doc) -> RenderableType:
    rows = []
    for name, site in doc["sites"].items():
        full = site["load"] / site["usable"] if site["usable"] else None
        word = "" if full is None else f"{full:.0%}"
        if full is None and site["load"]:
            word = f"{WARN} over"
        elif full is not None and full > 0.95:
            word += f" {WARN}"
        rows.append((Text(name), Text(number(site["load"])), Text(number(site["usable"])), Text(word)))
    return table(("SITE", "LOAD", "USABLE", ""), rows, right=("LOAD", "USABLE"))


def _agreement(name: str, left: Doc) -> Iterator[Text]:
    good = left["left"] >= left["needed"]
    line = lead(f"{name:<8} ")
    line.append(f"{left['left']} of {left['of']} left, {left['needed']} needed ")
    yield line.append(OK if good else f"{WARN} it could not fail over", style="green" if good else "red")
