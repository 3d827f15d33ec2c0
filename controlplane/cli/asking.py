"""`verify`: asks every name server itself. Tells the truth also when the control plane is gone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import RenderableType
from rich.text import Text

from controlplane.api.survey import verified
from controlplane.cli.context import Code, Run, Stop, command
from controlplane.cli.files import load_config
from controlplane.cli.observe import fetch
from controlplane.cli.output import mark, seconds, table
from policies.topology import Config
from policies.world import Desired

Doc = dict[str, Any]


def register(app: typer.Typer) -> None:
    command(app, "verify")(verify)


def verify(
    run: Run,
    service: Annotated[str, typer.Argument(metavar="[SERVICE]", help="Only this one.", show_default=False)] = "",
    file: Annotated[
        Path | None, typer.Option("-f", "--file", metavar="FILE", help="Ask the servers of this file; no cluster.")
    ] = None,
) -> None:
    """Ask every name server itself, and compare.

    Also those that only the zone's own NS set names, for each region of which an address is known or whose view's key
    can be had here; and the load balancers of this machine. With a cluster, the answers are compared with what is
    desired. With -f FILE no cluster is needed: the servers have to agree with each other and with the file. Exit 0:
    all that can be reached agree; 1: they do not; 4: none can be reached.

    \b
    Example:
      failoverctl verify
      failoverctl verify www -f acme.yaml
    """
    config, desired, incarnation, source = _expected(run, file)
    if service and service not in config.services:
        known = ", ".join(list(config.services)[:8])
        raise Stop(Code.USAGE, f"{config.cluster} has no service {service!r}; there are {known}")
    doc = run.wait(verified(config, (service,) if service else (), desired, incarnation)) | {"source": source}
    run.document(doc)
    if not run.json:
        where = f"{file}; nothing desired is known without the cluster"
        if source is not None:
            where = f"desired from {source['node']} api, {seconds(source['age_s'])} old; asked from here"
        run.stdout.print(Text(f"({where})", style="bright_black"))
        for part in _screen(doc):
            run.stdout.print(part)
    if doc["ok"] is None and doc["asked"]:
        raise typer.Exit(int(Code.UNKNOWN))
    if doc["ok"] is False:
        raise typer.Exit(int(Code.REFUSED))


def _expected(run: Run, file: Path | None) -> tuple[Config, dict[str, Desired] | None, str, Doc | None]:
    """(configuration, desired, incarnation, source); the last three only with a cluster."""
    if file is not None:
        return load_config(file), None, "", None
    try:
        doc = fetch(run, "/v1/config")
    except Stop as stop:
        raise Stop(stop.code, f"{stop.message}\nWithout a cluster: failoverctl verify -f FILE") from None
    config = msgspec.convert(doc["config"], Config)
    desired = msgspec.convert(doc["desired"], dict[str, Desired])
    return config, desired, doc["incarnation"], doc["source"]


def _screen(doc: Doc) -> Iterator[RenderableType]:
    rows = []
    for name, service in doc["services"].items():
        for line in service["servers"]:
            told = " ".join(f"{region or 'here'}={','.join(a) or '-'}" for region, a in line["answers"].items())
            generation = "-" if line["generation"] is None else str(line["generation"])
            ttl = "" if line["ttl_s"] is None else f"{line['ttl_s']}s"
            why = line["reason"] if line["reachable"] else f"unreachable: {line['reason']}"
            cells = (name, line["server"], mark(line["agrees"]), generation, ttl, told, "" if line["agrees"] else why)
            rows.append(cells)
        for line in service["pools"]:
            told = " ".join(f"{server}={weight}" for server, weight in line["servers"].items())
            where = f"{line['driver']} {line['backend']}"
            rows.append((name, where, mark(line["agrees"]), "", "", told, "" if line["agrees"] else line["reason"]))
    if not rows:
        yield Text("no service has a DNS name or a pool: nothing to ask")
        return
    yield table(("SERVICE", "SERVER", "", "GEN", "TTL", "ANSWERS", ""), rows)
    yield from _unasked(doc)
    unreachable = doc["asked"] - doc["reachable"]
    words = {True: "AGREED", False: "NOT AGREED", None: "NOBODY ANSWERED"}
    text = f"{words[doc['ok']]}: {doc['reachable']} of {doc['asked']} answered"
    style = {True: "green", False: "red", None: "yellow"}[doc["ok"]]
    yield Text(text + (f", {unreachable} unreachable" if unreachable and doc["reachable"] else ""), style=style)


def _unasked(doc: Doc) -> Iterator[RenderableType]:
    """What could not be asked about, and why."""
    for region, agrees in doc["regions"].items():
        if agrees is None and doc["reachable"]:
            lines = [line for service in doc["services"].values() for line in service["servers"]]
            where = sorted({line["server"] for line in lines if region in line["not_asked"]})
            text = f"region {region} not asked: no address known to be there that {', '.join(where)} heeds"
            yield Text(text + ", and no key of a view", style="yellow")
    for zone, told in doc["zones"].items():
        for name in told["unknown"]:
            text = f"{zone}: name server {name} not asked: the zone does not tell its address; add it to servers"
            yield Text(text, style="yellow")
