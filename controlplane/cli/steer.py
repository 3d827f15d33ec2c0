"""Commands that steer traffic: overrides, their preflight, confirmation, and verified end."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer
from rich.text import Text

from controlplane.cli import deeds
from controlplane.cli.client import is_current
from controlplane.cli.context import Code, Globals, Run, Stop, command, make_run
from controlplane.cli.durations import parse_duration
from controlplane.cli.observe import fetch, fetch_overrides
from controlplane.cli.output import seconds
from controlplane.cli.screens import override_table
from controlplane.cli.sending import Accept, DryRun, NoWait, Patience, Reason, Services, Yes

Doc = dict[str, Any]
Site = Annotated[str, typer.Argument(metavar="SITE", help="A site's name.")]
For = Annotated[str | None, typer.Option("--for", metavar="DURATION", help="Until it ends by itself; at most 72h.")]
NoExpiry = Annotated[bool, typer.Option("--no-expiry", help="It never ends by itself.")]


class Way(StrEnum):
    IN = "in"
    OUT = "out"


class Action(StrEnum):
    LIST = "list"
    CANCEL = "cancel"


def register(app: typer.Typer, make: Callable[[Globals], Run] = make_run) -> None:
    for name, function in (
        ("drain", drain),
        ("undrain", undrain),
        ("pin", pin),
        ("freeze", freeze),
        ("unfreeze", unfreeze),
        ("failback", failback),
        ("overrides", overrides),
    ):
        command(app, name, make)(function)


def drain(
    run: Run,
    site: Site,
    reason: Reason = "",
    service: Services = None,
    for_: For = None,
    no_expiry: NoExpiry = False,
    accept: Accept = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    no_wait: NoWait = False,
    patience: Patience = "120s",
) -> None:
    """Take a site out of service, gently.

    Preflight, plan, confirmation, progress, verified end. The site keeps its last resort: where nothing else
    is left, it still serves. By default it ends after 4h (said again with another --for, it takes the place of
    the first); the site then comes back by its ramp. DRAINED means
    that all reachable name servers and load balancers agree and old TTLs are over; sessions that are left are
    shown, and not waited for.

    \b
    Example:
      failoverctl drain site-b --for 2h --reason "switch firmware"
    """
    how = _how(reason, yes, dry_run, no_wait, accept, patience, needs_reason="drain")
    ask = deeds.wish("drain", how, (site,), service, _for_s(for_, no_expiry))
    undo = f"failoverctl undrain {site}" + deeds.flags(service)
    deeds.carry_out(run, ask, how, f"drain {site}", "DRAINED", undo, empties=True)


def undrain(
    run: Run,
    site: Site,
    reason: Reason = "",
    service: Services = None,
    accept: Accept = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    no_wait: NoWait = False,
    patience: Patience = "120s",
) -> None:
    """End a site's drains.

    It comes back by its ramp, once its soak is over.

    \b
    Example:
      failoverctl undrain site-b
    """
    how = _how(reason, yes, dry_run, no_wait, accept, patience)
    drains = [o for o in fetch_overrides(run) if o["command"] == "drain" and site in o["sites"]]
    mine = [o for o in drains if deeds.same(o, service)]
    if not mine:
        deeds.nothing(run, f"{site} is not drained{deeds.flags(service)}")
        return
    others = sorted({s for o in mine for s in o["sites"]} - {site})
    if others:
        run.stderr.print(f"This also ends the drain of {', '.join(others)}.", style="yellow")
    undo = f"failoverctl drain {site}{deeds.flags(service)} --reason TEXT"
    deeds.cancel(run, mine, how, f"undrain {site}", "UNDRAINED", undo)


def pin(
    run: Run,
    site: Site,
    way: Annotated[Way, typer.Argument(metavar="in|out", help="in: it serves whatever is seen; out: it does not.")],
    reason: Reason = "",
    service: Services = None,
    for_: For = None,
    no_expiry: NoExpiry = False,
    accept: Accept = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    no_wait: NoWait = False,
    patience: Patience = "120s",
) -> None:
    """Force a site in or out, whatever is seen of it.

    Observation goes on and is shown. A site that is pinned out is not even a last resort (but no service is
    ever left without an answer).

    \b
    Example:
      failoverctl pin site-b out --service www --for 1h --reason "bad build"
    """
    how = _how(reason, yes, dry_run, no_wait, accept, patience, needs_reason="pin")
    ask = deeds.wish("pin", how, (site,), service, _for_s(for_, no_expiry)) | {"verb": way.value}
    what = f"pin {site} {way.value}"
    done = f"PINNED {way.value.upper()}"
    deeds.carry_out(run, ask, how, what, done, "failoverctl overrides cancel {id}", empties=way is Way.OUT)


def freeze(
    run: Run,
    reason: Reason = "",
    service: Services = None,
    for_: For = None,
    no_expiry: NoExpiry = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    no_wait: NoWait = False,
    patience: Patience = "120s",
) -> None:
    """Let shares stand still.

    A failed site is NOT failed over while it lasts. What was decided before is still applied, verdicts go on,
    and a new drain or pin makes one plan.

    \b
    Example:
      failoverctl freeze --for 30m --reason "network maintenance: expect false alarms"
    """
    how = _how(reason, yes, dry_run, no_wait, None, patience, needs_reason="freeze")
    ask = deeds.wish("freeze", how, (), service, _for_s(for_, no_expiry))
    what = "freeze " + (" ".join(service) if service else "all services")
    deeds.carry_out(run, ask, how, what, "FROZEN", "failoverctl unfreeze")


def unfreeze(
    run: Run,
    reason: Reason = "",
    accept: Accept = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    no_wait: NoWait = False,
    patience: Patience = "120s",
) -> None:
    """End every freeze.

    Also the wait for you after the store was restored from a backup.

    \b
    Example:
      failoverctl unfreeze
    """
    how = _how(reason, yes, dry_run, no_wait, accept, patience)
    try:
        deeds.finish(run, "POST", "/v1/unfreeze", (), how, "unfreeze", "UNFROZEN")
    except Stop as stop:
        if not stop.detail.get("nothing"):
            raise
        deeds.nothing(run, stop.message)


def failback(
    run: Run,
    site: Site,
    reason: Reason = "",
    service: Services = None,
    accept: Accept = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    no_wait: NoWait = False,
    patience: Patience = "120s",
) -> None:
    """Let a site come back that waits for you.

    For services with failback: manual. It enters by its ramp, once its soak is over.

    \b
    Example:
      failoverctl failback site-a
    """
    how = _how(reason, yes, dry_run, no_wait, accept, patience)
    ask = deeds.wish("failback", how, (site,), service, msgspec.UNSET)
    deeds.carry_out(run, ask, how, f"failback {site}", "RELEASED", "failoverctl overrides cancel {id}")


def overrides(
    run: Run,
    action: Annotated[Action, typer.Argument(metavar="[list|cancel]", help="What to do.", show_default=False)] = (
        Action.LIST
    ),
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Which to cancel, such as ov-19.", show_default=False)
    ] = None,
    reason: Reason = "",
    accept: Accept = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    no_wait: NoWait = False,
    patience: Patience = "120s",
) -> None:
    """List the overrides in force, or cancel some.

    \b
    Example:
      failoverctl overrides
      failoverctl overrides cancel ov-19
    """
    if action is Action.LIST:
        if ids:
            raise Stop(Code.USAGE, "list takes no ID; to cancel: failoverctl overrides cancel ID")
        _list(run)
        return
    if not ids:
        raise Stop(Code.USAGE, "cancel needs an ID, such as ov-19; see failoverctl overrides")
    how = _how(reason, yes, dry_run, no_wait, accept, patience)
    there = {o["id"]: o for o in fetch_overrides(run)}
    missing = [id_ for id_ in ids if id_ not in there]
    if missing:
        raise Stop(Code.REFUSED, f"No override {', '.join(missing)}: cancelled before, or at its end.")
    deeds.cancel(run, [there[id_] for id_ in ids], how, f"cancel {' '.join(ids)}", "CANCELLED")


def _list(run: Run) -> None:
    doc = fetch(run, "/v1/overrides")
    run.document(doc)
    if run.json:
        return
    source = doc["source"]
    run.stdout.print(Text(f"(from {source['node']} api, {seconds(source['age_s'])} old)", style="bright_black"))
    stale = not is_current(doc)
    if stale:
        run.stdout.print(Text("STALE: this node's view is not current", style="yellow"))
    if doc["overrides"]:
        run.stdout.print(override_table(doc["overrides"], run.utc))
    else:
        run.stdout.print("no override was in force then" if stale else "no override is in force")


def _how(
    reason: str,
    yes: bool,
    dry_run: bool,
    no_wait: bool,
    accept: list[str] | None,
    patience: str,
    needs_reason: str = "",
) -> deeds.How:
    if needs_reason and not reason.strip():
        raise Stop(Code.USAGE, f'{needs_reason} needs a reason, such as --reason "switch firmware"')
    known = ("min_sites", "capacity", "data")
    for guard in accept or ():
        if guard not in known:
            why = "never_empty cannot be accepted" if guard == "never_empty" else f"{guard!r} is not a guard to accept"
            raise Stop(Code.USAGE, f"--accept: {why}; there are {', '.join(known)}")
    return deeds.How(reason, yes, dry_run, no_wait, tuple(accept or ()), parse_duration(patience))


def _for_s(text: str | None, no_expiry: bool) -> float | msgspec.UnsetType | None:
    """Unset: not said."""
    if text is not None and no_expiry:
        raise Stop(Code.USAGE, "--for and --no-expiry exclude each other")
    if no_expiry:
        return None
    if text is None:
        return msgspec.UNSET
    value_s = parse_duration(text)
    if not 0 < value_s <= 72 * 3600:
        raise Stop(Code.USAGE, "--for: over 0 and at most 72h; or --no-expiry")
    return value_s
