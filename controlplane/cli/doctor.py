"""`doctor FILE`: asks the real parts of a configuration. Needs no cluster that runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from controlplane.cli.context import Code, Run, Stop, command
from controlplane.cli.files import load_config
from controlplane.cli.output import BAD, OK, WARN, table
from policies.topology import Config

if TYPE_CHECKING:
    from controlplane.doctor import Finding
    from controlplane.store.etcd import Credentials

# By severity: mark, style, and the word of the last line.
MARKS = {
    "error": (BAD, "red", "wrong"),
    "warning": (WARN, "yellow", "to look at"),
    "unknown": ("?", "bright_black", "not known"),
    "ok": (OK, "green", "fine"),
}


def register(app: typer.Typer) -> None:
    command(app, "doctor")(doctor)


def _option(name: str, metavar: str, text: str) -> object:
    """The same names, on the command line and in the environment, as failoverd's."""
    env = "FAILOVERD_" + name.removeprefix("--").replace("-", "_").upper()
    return typer.Option(name, metavar=metavar, envvar=env, show_default=False, help=text)


def doctor(
    run: Run,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A configuration (YAML); - for standard input.")],
    etcd: Annotated[str, _option("--etcd", "URL,URL", "etcd's members.")] = "",
    etcd_ca: Annotated[str, _option("--etcd-ca", "FILE", "Who signed etcd's certificates (PEM).")] = "",
    etcd_cert: Annotated[str, _option("--etcd-cert", "FILE", "A certificate; its CN is the etcd user.")] = "",
    etcd_key: Annotated[str, _option("--etcd-key", "FILE", "Its private key.")] = "",
    site: Annotated[
        str, _option("--site", "NAME", "Where this machine is: then its pools and secrets have to be here.")
    ] = "",
) -> None:
    """Ask the real parts: etcd, name servers, load balancers.

    Looks at etcd's majority, space, compaction, rights and certificates; at each zone's SOA, NS set and TSIG key; at
    pools; and at everybody's clock. Changes nothing, and needs no cluster that runs. At a node, with the settings of
    its failoverd, it finds most. Exit 0: nothing is wrong; 1: something is; 4: nobody answered.

    \b
    Example:
      failoverctl doctor acme.yaml --etcd https://192.0.2.1:2379 \\
          --etcd-ca ca.crt --etcd-cert site-a.crt --etcd-key site-a.key
      set -a; . /etc/failover/failoverd.env; failoverctl doctor acme.yaml
    """
    from controlplane.doctor import examine, verdict  # gRPC is slow to import, and no other command needs it

    config = load_config(file)
    if site and site not in config.sites:
        raise Stop(Code.USAGE, f"--site: {file} has no site {site!r}; there are {', '.join(config.sites)}")
    endpoints, credentials = _etcd(config, etcd, etcd_ca, etcd_cert, etcd_key)
    clock = time.time  # noqa: TID251 - this is the port: clocks are what is compared
    findings = run.wait(examine(config, endpoints, credentials, site=site, wall=clock))
    ok = verdict(findings)
    run.document({"ok": ok, "checks": findings})
    if not run.json:
        run.stdout.print(table(("", "PART", "WHICH", "FOUND", "WHAT HELPS"), [_row(finding) for finding in findings]))
        counts = [(word, sum(f.severity == severity for f in findings)) for severity, (_, _, word) in MARKS.items()]
        run.stdout.print(", ".join(f"{count} {word}" for word, count in counts))
    if ok is None:
        run.stderr.print("Nobody answered." if findings else "There is nobody to ask in this file.", style="red")
        raise typer.Exit(int(Code.UNKNOWN))
    if not ok:
        raise typer.Exit(int(Code.REFUSED))


def _etcd(config: Config, etcd: str, ca: str, cert: str, key: str) -> tuple[Sequence[str], Credentials | None]:
    """Checked as failoverd would. ((), None): it is not to be asked."""
    from controlplane.settings import Given, SettingsError, read_settings

    if not etcd:
        return (), None
    given = Given(site="doctor", cluster=config.cluster, etcd=etcd, etcd_ca=ca, etcd_cert=cert, etcd_key=key)
    try:
        settings = read_settings(given, {}, root=False)
    except SettingsError as error:
        raise Stop(Code.USAGE, "\n".join(error.problems)) from None
    return settings.etcd, settings.credentials


def _row(finding: Finding) -> Sequence[str | Text]:
    mark, style, _ = MARKS[finding.severity]
    return (Text(mark, style=style), finding.what, finding.subject, finding.detail, finding.remedy or "")
