"""Commands that look and change nothing: status, explain, overrides list."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from controlplane.cli import screens
from controlplane.cli.client import ApiError, Client, Unreachable, is_current, nobody
from controlplane.cli.context import Code, Run, Stop, command
from controlplane.cli.sending import refused
from controlplane.cli.watch import watch
from controlplane.cli.why import explanation

Doc = dict[str, Any]


def register(app: typer.Typer) -> None:
    command(app, "status")(status)
    command(app, "explain")(explain)


def fetch(run: Run, path: str, *params: tuple[str, str]) -> Doc:
    """One answer of the API, the freshest that can be had. Raises Stop."""

    async def ask() -> Doc:
        async with Client.of(run) as client:
            return await client.get(path, params)

    try:
        return run.wait(ask())
    except Unreachable as error:
        raise nobody(error) from None
    except ApiError as error:
        raise refused(error) from None


def fetch_overrides(run: Run) -> list[Doc]:
    """Those in force, as a node knows them that may judge what is to be done about them. Raises Stop."""
    doc = fetch(run, "/v1/overrides")
    if not is_current(doc):
        raise Stop(Code.UNKNOWN, f"Nobody to ask. {doc['source']['node']}: this node's view is not current")
    overrides: list[Doc] = doc["overrides"]
    return overrides


def status(
    run: Run,
    subject: Annotated[
        str, typer.Argument(metavar="[SERVICE or SITE]", help="Show only this one.", show_default=False)
    ] = "",
    watching: Annotated[
        bool, typer.Option("--watch", "-w", help="Keep showing it; in a pipe, one JSON event a line.")
    ] = False,
) -> None:
    """Show sites, services, overrides and alarms.

    Every screen says whose view it is and how old. Older than 3 s it says STALE; after 10 s nothing is claimed
    any more.

    \b
    Example:
      failoverctl status
      failoverctl status www --json
      failoverctl status --watch
    """
    if watching:
        try:
            run.wait(watch(run, subject))
        except KeyboardInterrupt:
            return
    doc = fetch(run, "/v1/status")
    if subject and subject not in doc["services"] and subject not in doc["sites"]:
        known = ", ".join([*sorted(doc["services"])[:8], *sorted(doc["sites"])[:8]])
        raise Stop(Code.USAGE, f"{doc['cluster']} has no service and no site {subject!r}; there are {known}")
    if subject in doc["services"]:
        doc["services"] = {subject: doc["services"][subject]}
    run.document(doc)
    if not run.json:
        for part in screens.status(doc, run.utc, subject):
            run.stdout.print(part)


def explain(
    run: Run,
    subject: Annotated[str, typer.Argument(metavar="SERVICE or DECISION", help="A service, or d-7.")],
) -> None:
    """Say why: the rule that won, and its evidence.

    For each site of a service the rule that decides, the verdict and who saw what; and what the guards say.

    \b
    Example:
      failoverctl explain www
      failoverctl explain d-7
    """
    decision = subject.startswith("d-") and subject[2:].isdigit()
    doc = fetch(run, f"/v1/decisions/{subject}" if decision else f"/v1/explain/{subject}")
    run.document(doc)
    if not run.json:
        for part in explanation(doc, run.utc):
            run.stdout.print(part)
