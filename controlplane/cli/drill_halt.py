"""What `failoverctl drill halt` does."""

from __future__ import annotations

from pathlib import Path

import msgspec
import typer
from rich.text import Text

from chaos.worlds.staging import halt as heal_all
from chaos.worlds.world import Refused
from controlplane.cli.context import Code, Run, Stop
from controlplane.cli.output import BAD, safe


def halt(run: Run, staging: Path | None) -> None:
    """Heal what drills of this machine (or of one staging) have broken. Raises Stop; exits with 1 if some is left."""
    try:
        halted = heal_all(staging, say=lambda line: run.people.print(safe(line)))
    except Refused as error:
        raise Stop(Code.REFUSED, str(error)) from None
    run.document({"ok": not halted.left, **msgspec.structs.asdict(halted)})
    for line in halted.left:
        run.people.print(Text(f"{BAD} ", style="red").append_text(safe(line)))
    what = f"{len(halted.stopped)} drills ended, {len(halted.healed)} proxies healed, {len(halted.left)} left"
    run.people.print(what if halted.stopped or halted.healed or halted.left else "Nothing to heal.")
    if halted.left:
        raise typer.Exit(int(Code.REFUSED))
