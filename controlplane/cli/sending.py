"""Sending what changes something: options that all mutations share, the dry run, and the honest end of the real one."""

from __future__ import annotations

import os
import pwd
import sys
from typing import Annotated, Any

import typer

from controlplane.cli.client import ApiError, Client, Unreachable, nobody
from controlplane.cli.context import Code, Run, Stop

Doc = dict[str, Any]
TRIES = 5  # plans shown before giving up on a state that keeps changing

Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for whoever finds it at 3 a.m.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Answer every prompt with yes; guards still need --accept.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan; change nothing.")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Return once it is committed, without the verified end.")]
Accept = Annotated[
    list[str] | None,
    typer.Option("--accept", metavar="GUARD", help="Accept that this guard is broken: min_sites, capacity or data."),
]
Patience = Annotated[str, typer.Option("--patience", metavar="DURATION", help="How long to wait for the verified end.")]
Services = Annotated[
    list[str] | None, typer.Option("--service", "-s", metavar="SERVICE", help="Only this service. Default: all.")
]


def author() -> str:
    """Who is asking: the account's name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"


def dry(run: Run, method: str, path: str, body: Doc) -> Doc:
    """What would happen. Raises Stop."""

    async def ask() -> Doc:
        async with Client.of(run) as client:
            return await client.send(method, path, {**body, "dry_run": True}, harmless=True)

    try:
        return run.wait(ask())
    except Unreachable as error:
        raise nobody(error) from None
    except ApiError as error:
        raise refused(error) from None


def mutate(run: Run, method: str, path: str, body: Doc) -> Doc | None:
    """Do it. None: the state changed since the plan was made, and nothing was done. Raises Stop, or OutcomeUnknown
    if nobody said what became of it."""

    async def ask() -> Doc:
        async with Client.of(run) as client:
            return await client.send(method, path, {**body, "dry_run": False})

    try:
        return run.wait(ask())
    except KeyboardInterrupt:
        raise Stop(Code.UNKNOWN, f"Interrupted while it was being sent. {LOOK}") from None
    except Unreachable as error:
        if error.sent:
            raise OutcomeUnknown(str(error)) from None
        raise Stop(Code.UNKNOWN, f"Nobody to ask; nothing was changed. {error}") from None
    except ApiError as error:
        if error.doc.get("changed"):
            return None
        raise refused(error) from None


LOOK = "It may be in force or not: see failoverctl overrides and failoverctl status. Repeating it is safe."


class OutcomeUnknown(Stop):
    """Sent, and no answer came."""

    def __init__(self, why: str) -> None:
        super().__init__(Code.UNKNOWN, f"Outcome unknown: {why}. {LOOK}")


def refused(error: ApiError) -> Stop:
    """The API said no, and why. What it said of 400 and 404 is the user's mistake: usage."""
    usage = error.status in (400, 404)
    detail = {key: value for key, value in error.doc.items() if key not in ("ok", "error", "code")}
    return Stop(Code.USAGE if usage else Code.REFUSED, str(error), **detail)


def agreed(run: Run, question: str) -> bool:
    """Ask on stderr, read one line; the end of input is a no."""
    return said(run, question).lower() in ("y", "yes")


def said(run: Run, question: str) -> str:
    run.stderr.file.write(question)
    run.stderr.file.flush()
    try:
        return sys.stdin.readline().strip()
    except KeyboardInterrupt:
        run.stderr.file.write("\n")
        raise
