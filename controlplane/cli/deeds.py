"""Carrying out what an operator wants: plan, question, commit, verified end. What the plan showed is what is done."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import msgspec
from msgspec import Struct
from rich.text import Text

from controlplane.cli import progress, sending
from controlplane.cli.context import Code, Run, Stop
from controlplane.cli.observe import fetch_overrides
from controlplane.cli.output import WARN, clock, lead, now, safe, seconds
from controlplane.cli.plan import confirm, plan, refusals

Doc = dict[str, Any]
LOOKS = 6  # after a commit that nobody confirmed
LOOK_AGAIN_S = 0.5


class How(Struct, frozen=True):
    """The options that all mutations share."""

    reason: str
    yes: bool
    dry_run: bool
    no_wait: bool
    accept: tuple[str, ...]
    patience_s: float


def ask(how: How) -> Doc:
    return {"author": sending.author(), "reason": how.reason, "accepts": how.accept}


def wish(
    name: str, how: How, sites: tuple[str, ...], services: list[str] | None, for_s: float | msgspec.UnsetType | None
) -> Doc:
    """for_s: None = no expiry; unset = not said, the API has a default."""
    wanted = ask(how) | {"command": name, "sites": sites, "services": services or []}
    return wanted if for_s is msgspec.UNSET else wanted | {"for_s": for_s}


def flags(services: list[str] | None) -> str:
    return "".join(f" --service {name}" for name in services or ())


def same(override: Doc, services: list[str] | None) -> bool:
    return not services or sorted(override["services"]) == sorted(set(services))


def carry_out(run: Run, ask: Doc, how: How, what: str, done: str, undo: str, *, empties: bool = False) -> None:
    """A new override, from preflight to its verified end."""
    sites = tuple(ask["sites"])
    for _ in range(sending.TRIES):
        doc = sending.dry(run, "POST", "/v1/overrides", ask)
        if "existing" in doc:
            _already(run, doc, how, done, undo, empties)
            return
        _show(run, doc, how, doc["for_s"], undo.format(id="(its id comes with the commit)"))
        if how.dry_run:
            run.document(doc)
            return
        confirm(run, doc, what, sites[0] if sites else doc["cluster"], how.yes)
        try:
            made = sending.mutate(run, "POST", "/v1/overrides", ask | {"basis": doc["basis"]})
        except sending.OutcomeUnknown as unknown:
            made = _look_for(run, ask, unknown)
        if made is not None:
            id_ = (made.get("override") or made["existing"])["id"]
            services, back = tuple(ask["services"]), undo.format(id=id_)
            gone = tuple(o["id"] for o in made.get("replaces", ()))
            change = progress.Change((id_,), gone, sites, services, done, f"as {id_}", back, empties)
            _end(run, made, change, how, back if back != undo else "")
            return
        run.stderr.print("Something changed since the plan was made; here is the new one:", style="yellow")
    raise Stop(Code.REFUSED, "The state keeps changing. Nothing was done.")


def nothing(run: Run, why: str) -> None:
    """What was asked for is so already."""
    run.people.print(Text(f"{why}; nothing to do"))
    run.document({"ok": True, **progress.UNKNOWN_END, "added": (), "removed": (), "override": None})


def _already(run: Run, doc: Doc, how: How, done: str, undo: str, empties: bool) -> None:
    """A repeat creates no second override: say so, and wait for the same end."""
    there = doc["existing"]
    left = "without end" if there["left_s"] is None else f"{seconds(there['left_s'])} left"
    text = f'In force already as {there["id"]} by {there["author"]}: "{there["reason"]}", {left}.'
    run.people.print(Text(text, style="yellow"))
    if how.dry_run:
        run.document(doc)
        return
    id_ = there["id"]
    sites, services = tuple(there["sites"]), tuple(there["services"])
    change = progress.Change((id_,), (), sites, services, done, f"as {id_}", undo.format(id=id_), empties)
    _end(run, doc, change, how)


def _look_for(run: Run, ask: Doc, unknown: Stop) -> Doc:
    """Was it stored after all? One that says the same is as good."""
    run.stderr.print("No answer came; looking whether it is in force ...", style="yellow")
    for _ in range(LOOKS):
        try:
            doc = sending.dry(run, "POST", "/v1/overrides", ask)
        except Stop:
            doc = {}
        if "existing" in doc:
            return doc
        run.sleep(LOOK_AGAIN_S)
    raise unknown


def _look_gone(run: Run, ids: list[str], unknown: Stop) -> Doc:
    """Were they ended after all?"""
    run.stderr.print("No answer came; looking whether it is done ...", style="yellow")
    for _ in range(LOOKS if ids else 0):
        try:
            there = {o["id"] for o in fetch_overrides(run)}
        except Stop:
            there = set(ids)
        if not there & set(ids):
            return {"ok": True, "cancelled": ids}
        run.sleep(LOOK_AGAIN_S)
    raise unknown


def cancel(run: Run, overrides: Sequence[Doc], how: How, what: str, done: str, undo: str = "") -> None:
    """The end of these overrides (as the API lists them)."""
    finish(run, "DELETE", f"/v1/overrides/{','.join(o['id'] for o in overrides)}", overrides, how, what, done, undo)


def finish(
    run: Run, method: str, path: str, overrides: Sequence[Doc], how: How, what: str, done: str, undo: str = ""
) -> None:
    """The end of overrides, from preflight to its verified end."""
    sites = tuple(sorted({site for o in overrides for site in o["sites"]}))
    scoped = bool(overrides) and all(o["services"] for o in overrides)
    services = tuple(sorted({name for o in overrides for name in o["services"]})) if scoped else ()
    request = ask(how)
    for _ in range(sending.TRIES):
        doc = sending.dry(run, method, path, request)
        _show(run, doc, how, None, undo, ending=True)
        if how.dry_run:
            run.document(doc)
            return
        confirm(run, doc, what, sites[0] if sites else doc["cluster"], how.yes)
        try:
            made = sending.mutate(run, method, path, request | {"basis": doc["basis"]})
        except sending.OutcomeUnknown as unknown:
            made = _look_gone(run, [id_ for id_ in doc["ends"] if id_ != "rewound"], unknown)
        if made is not None:
            ended = tuple(id_ for id_ in made["cancelled"] if id_ != "rewound")
            change = progress.Change(
                (), ended, sites, services, done, f"as the end of {' '.join(ended) or 'the wait'}", undo
            )
            _end(run, made, change, how, "")
            return
        run.stderr.print("Something changed since the plan was made; here is the new one:", style="yellow")
    raise Stop(Code.REFUSED, "The state keeps changing. Nothing was done.")


def _show(run: Run, doc: Doc, how: How, for_s: float | None, undo: str, *, ending: bool = False) -> None:
    """The plan; raises Stop if a guard refuses it."""
    for part in plan(doc):
        run.people.print(part)
    for there in doc.get("replaces", ()):
        left = "no expiry" if there["left_s"] is None else f"{seconds(there['left_s'])} left"
        what = f"{there['id']} {there['command']} {' '.join(there['sites'])}".rstrip()
        run.people.print(lead("REPLACES  ").append_text(safe(f"{what} by {there['author']}, {left}")))
    text = refusals(doc)
    if text:
        nothing = "" if how.dry_run else "\nNothing was changed."
        raise Stop(Code.REFUSED, f"Refused by preflight:\n{text}{nothing}", preflight=doc["preflight"])
    ramp = " ".join(str(percent) for percent in doc.get("ramp") or ())
    if not ending:
        then = f"then ramp {ramp}" if ramp else ""
        ends = f"{WARN} never by itself" if for_s is None else ", ".join(filter(None, (_ends(run, for_s), then)))
        run.people.print(lead("UNDO  ").append(f"{undo}    ENDS {ends}"))
        return
    if ramp:
        run.people.print(lead("THEN  ").append(f"ramp {ramp}"))
    if undo:
        run.people.print(lead("UNDO  ").append(undo))


def _ends(run: Run, for_s: float) -> str:
    return f"{clock((now() + timedelta(seconds=for_s)).isoformat(), run.utc)}, in {seconds(for_s)}"


def _end(run: Run, made: Doc, change: progress.Change, how: How, undo: str | None = None) -> None:
    """undo: None: nothing was committed now; else how to take it back, if that was not known before."""

    def say() -> None:
        if undo is not None:
            progress.committed(run, change)
        if undo:
            run.people.print(lead("UNDO  ").append(undo))

    if how.no_wait:
        say()
        run.people.print(Text(progress.standing(change), style="yellow"))
        end: Doc = {"ok": True, **progress.UNKNOWN_END, "added": change.added, "removed": change.removed}
    else:
        end = progress.wait(run, change, how.patience_s, say)
    run.document(end | {"override": made.get("override") or made.get("existing")})
