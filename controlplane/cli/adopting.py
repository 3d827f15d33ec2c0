"""`adopt`: give records of another incarnation to this cluster."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.text import Text

from controlplane.cli import sending
from controlplane.cli.context import Code, Run, Stop, command
from controlplane.cli.output import lead, safe, table
from controlplane.cli.plan import interactive
from controlplane.cli.sending import DryRun, Reason, Yes

Doc = dict[str, Any]
SHOWN = 40  # records


def register(app: typer.Typer) -> None:
    command(app, "adopt")(adopt)


def adopt(
    run: Run,
    incarnation: Annotated[
        str, typer.Argument(metavar="[INCARNATION]", help="Whose records, as the alarm names it.", show_default=False)
    ] = "",
    all_: Annotated[bool, typer.Option("--all", help="Those of every other incarnation that was found.")] = False,
    reason: Reason = "",
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Take over records that another cluster wrote.

    A store that was built anew, or a second cluster in the same zone, has another incarnation: what stands under it
    is not touched until it is adopted. Then it is overwritten, whatever its generation.

    Make sure that the other cluster does not run any more. If it does, it finds our records foreign from then on and
    leaves them alone; should it adopt us in turn, ours are foreign to us again until we adopt once more: the last one
    to adopt has them, and nobody fights. An adoption takes the place of the one before it: to adopt several, say --all,
    or wait until the records of the first are ours.

    \b
    Example:
      failoverctl adopt --all --dry-run
      failoverctl adopt 3f9c0a1be2d47788 --reason "etcd was rebuilt after the fire"
    """
    if bool(incarnation) == all_:
        raise Stop(Code.USAGE, "name one incarnation, as the alarm does, or say --all")
    ask: Doc = {"author": sending.author(), "reason": reason, "incarnations": [incarnation] if incarnation else []}
    for _ in range(sending.TRIES):
        try:
            doc = sending.dry(run, "POST", "/v1/adopt", ask)
        except Stop as stop:
            if not (all_ and stop.detail.get("nothing")):
                raise
            run.people.print(Text(f"{stop.message}; nothing to do"))
            run.document({"ok": True, "found": {}})
            return
        for part in _screen(doc):
            run.people.print(part)
        if dry_run:
            run.document(doc)
            return
        _confirm(run, doc, yes)
        named = ask | {"incarnations": list(doc["found"]), "adoption": doc["adoption"]}
        made = sending.mutate(run, "POST", "/v1/adopt", named)
        if made is not None:
            text = f"ADOPTED {' '.join(doc['found'])}; agents write now. Watch: failoverctl status --watch"
            run.people.print(Text(text, style="green"))
            run.document(made)
            return
        run.stderr.print("Something changed since the plan was made; here is the new one:", style="yellow")
    raise Stop(Code.REFUSED, "The state keeps changing. Nothing was done.")


def _screen(doc: Doc) -> list[Any]:
    source = doc["source"]
    parts: list[Any] = [
        lead("PREFLIGHT ").append(f"{doc['cluster']} rev {doc['config_rev']}, from {source['node']} api")
    ]
    parts.append(lead(" OURS ").append(doc["own"]))
    for incarnation, services in doc["found"].items():
        parts.append(lead(f" {incarnation} ").append(f"{len(services)} records that will be overwritten:"))
        rows = [
            (safe(f"  {found['name'] or service}"), safe(", ".join(found["drivers"])))
            for service, found in list(services.items())[:SHOWN]
        ]
        if len(services) > SHOWN:
            rows.append((Text(f"  and {len(services) - SHOWN} more"), Text("")))
        parts.append(table(("", ""), rows))
    return parts


def _confirm(run: Run, doc: Doc, yes: bool) -> None:
    """The incarnation has to be typed, or the cluster's name where there are several. Raises Stop."""
    if yes:
        return
    if not interactive():
        raise Stop(Code.USAGE, "Nobody to ask for confirmation here: add --yes. Nothing was changed.")
    run.stderr.print(Text(f"Cluster {doc['cluster']}: adopt {' '.join(doc['found'])}.", style="bold"))
    word = next(iter(doc["found"])) if len(doc["found"]) == 1 else doc["cluster"]
    if sending.said(run, f"Type {word} to go on: ") != word:
        raise Stop(Code.REFUSED, "Nothing was changed.")
