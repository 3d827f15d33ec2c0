"""What every command of failoverctl shares: global options, where text goes, how a command ends."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit

import typer
from rich.console import Console

from controlplane.cli.output import json_text, make_console

if TYPE_CHECKING:
    from controlplane.cli.client import Client

T = TypeVar("T")


class Code(IntEnum):
    """Exit codes (DESIGN section 7)."""

    OK = 0
    REFUSED = 1  # refused or failed
    USAGE = 2
    NOT_CONVERGED = 3  # not converged in time: in force, still going on
    UNKNOWN = 4  # outcome unknown, or nobody to ask
    INTERRUPTED = 130  # Ctrl-C before anything was changed; what shells expect


class Stop(Exception):
    """Ends a command with a message for people and an exit code; `detail` is added to the JSON document."""

    def __init__(self, code: Code, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail = detail


@dataclass(frozen=True)
class Globals:
    """Global options as given; None = not given here."""

    api: str | None = None
    json: bool | None = None
    timeout_s: float | None = None
    utc: bool | None = None

    def over(self, other: Globals) -> Globals:
        """These, and where they are silent the others."""
        return Globals(
            api=self.api if self.api is not None else other.api,
            json=self.json if self.json is not None else other.json,
            timeout_s=self.timeout_s if self.timeout_s is not None else other.timeout_s,
            utc=self.utc if self.utc is not None else other.utc,
        )


@dataclass
class Run:
    """One run of a command. `json`: exactly one document goes to stdout, all else to stderr.

    The command line takes its client as an argument, `connect`: what makes one for API addresses and a patience in
    seconds; None: over HTTP. (Drills in virtual time have another one, and tests have one that loses replies.)"""

    api: tuple[str, ...] = ()
    json: bool = False
    timeout_s: float = 5.0
    utc: bool = False
    answered: str = ""  # the endpoint that answered last: it is asked first
    connect: Callable[[Sequence[str], float], Client] | None = None
    stdout: Console = field(default_factory=lambda: make_console(stderr=False))
    stderr: Console = field(default_factory=lambda: make_console(stderr=True))

    @property
    def people(self) -> Console:
        """Where text for people goes: stdout, unless a program reads that."""
        return self.stderr if self.json else self.stdout

    def document(self, document: Any) -> None:
        """The one document of `--json`; does nothing without it."""
        if self.json:
            self.stdout.file.write(json_text(document))
            self.stdout.file.flush()

    def fail(self, stop: Stop) -> typer.Exit:
        """Say why the command stops, and give the exit to raise."""
        if stop.message:
            self.stderr.print(stop.message, style="red" if stop.code is not Code.NOT_CONVERGED else "yellow")
        self.document({"ok": False, "code": int(stop.code), "error": stop.message, **stop.detail})
        return typer.Exit(int(stop.code))

    def wait(self, main: Coroutine[Any, Any, T]) -> T:
        """Run what a command does over the network."""
        return asyncio.run(main)

    def sleep(self, seconds: float) -> None:
        self.wait(asyncio.sleep(seconds))


_PANEL = "Global options"
Api = Annotated[
    str | None,
    typer.Option(
        "--api",
        metavar="URL,URL",
        envvar="FAILOVERCTL_API",
        help="Where to ask; all are tried. Default: a `failoverctl dev` here, else this machine's failoverd.",
        rich_help_panel=_PANEL,
    ),
]
Json = Annotated[
    bool | None,
    typer.Option("--json", help="One JSON document on stdout; messages go to stderr.", rich_help_panel=_PANEL),
]
Timeout = Annotated[
    str | None,
    typer.Option(
        "--timeout", metavar="DURATION", help="Patience with one request. Default: 5s.", rich_help_panel=_PANEL
    ),
]
Utc = Annotated[
    bool | None, typer.Option("--utc", help="Show times in UTC, not in local time.", rich_help_panel=_PANEL)
]
_SHARED = (("api", Api), ("json", Json), ("timeout", Timeout), ("utc", Utc))


def read_globals(api: str | None, json: bool | None, timeout: str | None, utc: bool | None) -> Globals:
    """Raises typer.BadParameter for a time-out that is not a duration."""
    from controlplane.cli.durations import parse_duration

    timeout_s = None if timeout is None else parse_duration(timeout)
    if timeout_s is not None and timeout_s <= 0:
        raise typer.BadParameter("--timeout has to be over 0, such as 5s")
    # An option that was not given is None or False, depending on the version of typer.
    return Globals(api=api, json=json or None, timeout_s=timeout_s, utc=utc or None)


def make_run(options: Globals) -> Run:
    if "@" in (options.api or ""):  # not quoted: a password may be in it
        raise typer.BadParameter("--api: a URL has a user in it, and the API has none; write http://127.0.0.1:8053")
    urls = tuple(u.strip().rstrip("/") for u in (options.api or "").split(",") if u.strip())
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise typer.BadParameter(f"--api: {url!r} is not a URL such as http://127.0.0.1:8053")
        if why := _flaw(url):
            raise typer.BadParameter(f"--api: {url!r}: {why}; write a URL such as http://127.0.0.1:8053")
    return Run(
        api=urls,
        json=bool(options.json),
        timeout_s=5.0 if options.timeout_s is None else options.timeout_s,
        utc=bool(options.utc),
    )


def _flaw(url: str) -> str:
    """Why nobody can be asked there, or ""."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return str(error)
    if not parts.hostname:
        return "it names no host"
    return "port 0 is none" if port == 0 else ""


def command(
    app: typer.Typer, name: str, make: Callable[[Globals], Run] = make_run
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register `function(run, ...)` as a command that also takes the global options, of which `make` makes the run:
    with another one, the same command speaks through another client (see Run).

    People write `failoverctl status --json` as often as `failoverctl --json status`: both work. A `Stop` ends
    the command with its message and code; Ctrl-C with 130, unless the command knows better.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
        context = inspect.Parameter("ctx", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
        shared = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for key, annotation in _SHARED
        ]

        @functools.wraps(function)
        def call(**given: Any) -> None:
            ctx: typer.Context = given.pop("ctx")
            here = read_globals(*(given.pop(key) for key, _ in _SHARED))
            before = ctx.obj if isinstance(ctx.obj, Globals) else Globals()
            run = make(here.over(before))
            try:
                function(run, **given)
            except Stop as stop:
                raise run.fail(stop) from None
            except KeyboardInterrupt:
                raise run.fail(Stop(Code.INTERRUPTED, "Interrupted. Nothing was changed.")) from None

        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        call.__signature__ = inspect.Signature([*parameters, *shared, context])  # type: ignore[attr-defined]
        call.__annotations__ = {}
        del call.__wrapped__  # or typer reads the wrong signature
        app.command(name)(call)
        return function

    return register
