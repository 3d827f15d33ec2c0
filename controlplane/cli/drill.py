"""`failoverctl drill`: break a cluster on purpose, measure what it does, and keep the record.

Only the options are here: what the commands do is imported when they run, for no other command needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.context import Api, Globals, Json, Run, Timeout, Utc, command, read_globals

Chosen = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME or FILE]...", help="Scenarios that ship, or files.", show_default=False),
]
Everything = Annotated[bool, typer.Option("--all", help="All scenarios that ship.")]
WorldName = Annotated[str, typer.Option("--world", metavar="sim|lab|staging", help="Where to play them.")]
Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Equal seeds give equal histories (sim).")]
ReportFile = Annotated[
    Path | None, typer.Option("--report", metavar="FILE.html", help="Write the report as a page, with a picture.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Your own configuration instead of the scenario's.")
]
StagingFile = Annotated[
    Path | None,
    typer.Option("--staging", metavar="FILE", help="Your toxiproxy servers. Default: SCENARIO.staging.yaml."),
]
YesOn = Annotated[str, typer.Option("--yes-on", metavar="CLUSTER", help="Break this cluster without asking (staging).")]
AbortAt = Annotated[
    str, typer.Option("--abort-at", metavar="PERCENT", help="Client errors that end a staging drill. Default: 5%.")
]
Jobs = Annotated[
    int,
    typer.Option(
        "--jobs", metavar="J", min=0, help="So many at once (sim). Default: one a processor.", show_default=False
    ),
]
Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="Scenario files, or names of those that ship.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="A scenario's name, or its file.")]


def register(app: typer.Typer) -> None:
    drills = typer.Typer(name="drill", no_args_is_help=True, rich_markup_mode=None, callback=drill)
    commands: dict[str, Callable[..., None]] = {
        "list": list_,
        "show": show,
        "check": check,
        "run": run_,
        "fuzz": fuzz,
        "status": status,
        "halt": halt,
    }
    for name, function in commands.items():
        command(drills, name)(function)
    app.add_typer(drills)


def drill(ctx: typer.Context, api: Api = None, json: Json = None, timeout: Timeout = None, utc: Utc = None) -> None:
    """Break things on purpose, and measure what happens.

    A scenario says what is broken when, and what clients must be told all the same. It is played in a world: `sim`
    (the real control plane in simulated time, at home everywhere), `lab` (real processes in network namespaces of this
    machine; root) or `staging` (toxiproxy servers of yours). What passed is recorded with the configuration that it was
    played with.

    \b
    Example:
      failoverctl drill list
      failoverctl drill run site-dark
      failoverctl drill run site-dark --report site-dark.html
    """
    ctx.obj = read_globals(api, json, timeout, utc).over(ctx.obj if isinstance(ctx.obj, Globals) else Globals())


def list_(run: Run) -> None:
    """Show the scenarios that ship.

    Each with the worlds that can play it, and when it passed last, with whatever configuration.

    \b
    Example:
      failoverctl drill list
      failoverctl drill list --json
    """
    from controlplane.cli import drill_look

    drill_look.list_all(run)


def show(run: Run, name: Name) -> None:
    """Show a scenario: what it breaks, what it expects, and the computed worst case.

    \b
    Example:
      failoverctl drill show site-dark
      failoverctl drill show my-scenario.yaml --json
    """
    from controlplane.cli import drill_look

    drill_look.show(run, name)


def check(run: Run, names: Files) -> None:
    """Find all that is wrong in scenario files, and in the configurations that they name.

    \b
    Example:
      failoverctl drill check my-scenario.yaml
      failoverctl drill check scenarios/*.yaml --json
    """
    from controlplane.cli import drill_look

    drill_look.check(run, names)


def run_(
    run: Run,
    names: Chosen = None,
    all_: Everything = False,
    world: WorldName = "sim",
    seed: Seed = 1,
    report: ReportFile = None,
    config: ConfigFile = None,
    staging: StagingFile = None,
    yes_on: YesOn = "",
    abort_at: AbortAt = "",
    jobs: Jobs = 0,
) -> None:
    """Play scenarios, and judge what happened.

    Shows the measured phases of each failover beside the computed worst case, what clients in each region had, and
    the invariants with the number of things that were looked at. What passed is recorded for failoverctl drill status.
    Several scenarios give one table. Ctrl-C heals what was broken. Exit 0: all passed; 1: one failed, or cannot be
    played.

    \b
    Example:
      failoverctl drill run site-dark
      failoverctl drill run site-dark --world lab --report site-dark.html
      failoverctl drill run my-scenario.yaml --config acme.yaml --seed 7
      failoverctl drill run --all
      failoverctl drill run blackout.yaml --world staging --yes-on acme-staging --abort-at 5%
    """
    from controlplane.cli import drill_run

    asked = drill_run.Asked(world, seed, report, config, staging, yes_on, abort_at, jobs)
    drill_run.run_drills(run, names or (), all_, asked)


def fuzz(
    run: Run,
    hours: Annotated[float, typer.Option("--hours", metavar="H", help="Simulated hours to play.")] = 1.0,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="S", min=0, help="Where to begin. Default: a new one.", show_default=False),
    ] = None,
    jobs: Jobs = 0,
    into: Annotated[Path, typer.Option("--into", metavar="FOLDER", help="Where failures are written.")] = Path(
        "fuzz-found"
    ),
) -> None:
    """Play random clusters with random faults in the simulator.

    Three to seven sites, random configurations, a phase of faults, then a healed phase in which all must come
    together again. What fails is shrunk to the shortest list of faults that still fails, and written as a scenario
    with the command that repeats it. Exit 0: nothing failed; 1: something did.

    \b
    Example:
      failoverctl drill fuzz --hours 10
      failoverctl drill fuzz --hours 500 --seed 7 --jobs 2
    """
    from controlplane.cli import drill_fuzz

    drill_fuzz.fuzz_drills(run, hours, seed, jobs, into)


def status(
    run: Run,
    file: Annotated[
        Path | None,
        typer.Option("-f", "--file", metavar="FILE", help="For this configuration; needs no cluster."),
    ] = None,
) -> None:
    """List the scenarios that have not passed with the running configuration.

    Of the scenarios that ship, and of your own that have ever passed. A drill counts that passed with exactly this
    configuration, this scenario and this version of the software, in any world; the records are those of this user on
    this machine. A scenario whose sites or services the configuration does not have does not fit, and is not missed.
    Exit 0: all that fit have passed; 1: some have not.

    \b
    Example:
      failoverctl drill status
      failoverctl drill status -f acme.yaml --json
    """
    from controlplane.cli import drill_status

    drill_status.status(run, file)


def halt(
    run: Run,
    staging: Annotated[
        Path | None,
        typer.Option("--staging", metavar="FILE", help="Of this staging; default: all that this machine has drilled."),
    ] = None,
) -> None:
    """Heal at once what a staging drill has broken, and list what is left.

    Needs neither the drill's own process nor the cluster. Exit 0: all is healed; 1: something is left.

    \b
    Example:
      failoverctl drill halt
      failoverctl drill halt --staging acme.staging.yaml
    """
    from controlplane.cli import drill_halt

    drill_halt.halt(run, staging)
