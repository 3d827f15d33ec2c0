"""Commands about the configuration: check, schema, apply."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.text import Text

from controlplane.cli import files, sending
from controlplane.cli.context import Code, Run, Stop, command
from controlplane.cli.output import safe
from controlplane.cli.plan import interactive
from controlplane.cli.sending import DryRun, Reason, Yes
from controlplane.config import Problem, check_document, human_lines, schema

File = Annotated[Path, typer.Argument(metavar="FILE", help="A configuration (YAML); - for standard input.")]
Doc = dict[str, Any]
CHANGES_SHOWN = 60
WIDE = 100  # characters of one value


def register(app: typer.Typer) -> None:
    command(app, "check")(check)
    command(app, "schema")(print_schema)
    command(app, "apply")(apply)


def check(run: Run, file: File) -> None:
    """Find all that is wrong in a file; compute its worst case.

    Needs no cluster. Every problem is reported at once, as file:line:column, with what would be right.
    Warnings alone are ok.

    \b
    Example:
      failoverctl check acme.yaml
      failoverctl check acme.yaml --json
    """
    result, _ = files.read(file)
    run.document(check_document(result))
    if not run.json:
        for line in human_lines(result):
            run.stdout.print(coloured(line), soft_wrap=True)
    if not result.ok:
        raise typer.Exit(int(Code.REFUSED))


def coloured(line: str) -> Text:
    """A problem's line, its severity in colour."""
    text = safe(line)
    for word, style in ((": error: ", "red"), (": warning: ", "yellow")):
        at = line.find(word)
        if at >= 0:
            text.stylize(style, at + 2, at + len(word) - 2)
            break
    return text


def print_schema(run: Run) -> None:
    """Print the configuration's JSON Schema, for editors.

    \b
    Example:
      failoverctl schema > failover.schema.json
    """
    run.stdout.file.write(json.dumps(schema(), indent=2) + "\n")


def apply(run: Run, file: File, reason: Reason = "", yes: Yes = False, dry_run: DryRun = False) -> None:
    """Put a configuration in force.

    Validates it, shows the difference, asks, and compares-and-sets. Applying never takes an answer away
    before its successor was seen UP. Removing a service leaves its records in place.

    \b
    Example:
      failoverctl apply acme.yaml --dry-run
      failoverctl apply acme.yaml --reason "new site in Madrid"
    """
    result, text = files.read(file)
    if result.config is None:
        raise files.unsound(result)
    ask: Doc = {"author": sending.author(), "reason": reason, "text": text, "file": str(file)}
    for _ in range(sending.TRIES):
        doc = sending.dry(run, "POST", "/v1/apply", ask)
        _difference(run, doc)
        if dry_run or not doc["changes"]:
            run.document(doc)
            return
        _confirm(run, doc, yes)
        done = sending.mutate(run, "POST", "/v1/apply", {**ask, "expect": doc["revision"]})
        if done is not None:
            run.document(done)
            text = f"APPLIED as rev {done['revision']}. Watch: failoverctl status --watch"
            run.people.print(Text(text, style="green"))
            return
        run.stderr.print("Another configuration was applied meanwhile; here is the difference to that:", style="yellow")
    raise Stop(Code.REFUSED, "The configuration keeps changing. Nothing was applied.")


def _difference(run: Run, doc: Doc) -> None:
    head = f"{doc['cluster']} rev {doc['revision']} -> {doc['revision'] + 1}"
    if not doc["changes"]:
        run.people.print(f"{doc['cluster']} rev {doc['revision']}: nothing to change")
        return
    run.people.print(Text(head, style="bold"))
    for change in doc["changes"][:CHANGES_SHOWN]:
        run.people.print(safe(f"  {change['path']}: ").append_text(shown(change["before"], change["after"])))
        if change["after"] is None and change["path"].startswith("services.") and change["path"].count(".") == 1:
            run.people.print("    its records stay in place: remove them by hand once nobody asks", style="yellow")
    if len(doc["changes"]) > CHANGES_SHOWN:
        run.people.print(f"  ... and {len(doc['changes']) - CHANGES_SHOWN} more (--json has all)")
    for problem in doc["problems"]:
        run.stderr.print(coloured(str(msgspec.convert(problem, Problem))))


def shown(before: Any, after: Any) -> Text:
    """One change on one line; None: it is not there. Of what is long only where it differs."""
    if isinstance(before, list) and isinstance(after, list) and max(len(_json(before)), len(_json(after))) > WIDE:
        came = [item for item in after if item not in before]
        went = [item for item in before if item not in after]
        if came or went:
            parts = [shown(item, None) for item in went] + [shown(None, item) for item in came]
            return Text(" ").join(parts[:8]).append(" ..." if len(parts) > 8 else "")
    if before is None:
        return Text().append("+ ", style="green").append_text(safe(_cut(_text(after), 0)))
    if after is None:
        return Text().append("- ", style="red").append_text(safe(_cut(_text(before), 0)))
    old, new = _text(before), _text(after)
    start = 0
    if max(len(old), len(new)) > WIDE:
        same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        start = max(0, same - 20)
    return safe(f"{_cut(old, start)} -> {_cut(new, start)}")


def _json(value: Any) -> str:
    return json.dumps(value, separators=(", ", ": "), ensure_ascii=False)


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else _json(value)


def _cut(text: str, start: int) -> str:
    text = "..." + text[start:] if start else text
    return text if len(text) <= WIDE else text[: WIDE - 3] + "..."


def _confirm(run: Run, doc: Doc, yes: bool) -> None:
    if yes:
        return
    if not interactive():
        raise Stop(Code.USAGE, "Nobody to ask for confirmation here: add --yes. Nothing was applied.")
    if not sending.agreed(run, f"Apply to cluster {doc['cluster']}? [y/N] "):
        raise Stop(Code.REFUSED, "Nothing was applied.")
