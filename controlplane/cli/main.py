"""failoverctl: the operator's command line. Commands live in the modules that are registered here."""

from __future__ import annotations

import io
import sys
from importlib import metadata
from typing import Annotated

import typer

from controlplane.cli import adopting, asking, configuration, dev, doctor, drill, observe, predict, steer
from controlplane.cli.context import Api, Json, Timeout, Utc, read_globals

app = typer.Typer(
    name="failoverctl",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# In the order in which --help lists them: a cluster to try, how things are, what would be, what changes them, the
# configuration, what breaks them on purpose.
for module in (dev, observe, asking, predict, steer, adopting, configuration, doctor, drill):
    module.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"failoverctl {metadata.version('failover-control-plane')}")
        raise typer.Exit


@app.callback()
def failoverctl(
    ctx: typer.Context,
    api: Api = None,
    json: Json = None,
    timeout: Timeout = None,
    utc: Utc = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Keep services reachable when a site dies: see, steer and check a failover cluster.

    Global options may stand before or after the command. Exit codes: 0 ok; 1 refused or failed; 2 usage;
    3 not converged in time (in force, still going on); 4 outcome unknown, or nobody to ask; 130 Ctrl-C at a prompt
    (nothing was changed).

    \b
    Example:
      failoverctl check acme.yaml
      failoverctl status --watch
      failoverctl drain site-b --for 2h --reason "switch firmware"
    """
    ctx.obj = read_globals(api, json, timeout, utc)


def main() -> None:
    """Entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without ✔ gets a ? instead of a traceback
    app()


if __name__ == "__main__":
    main()
