"""An operator in virtual time: failoverctl's own commands against the API of simulated nodes.

Nothing of a command is imitated: its options, its preflight, its wait for the verified end and its exit codes are
the product's. Only its way to the API is another one, and whoever runs it: `--yes` is always said, and there is one
author.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar, cast

import msgspec
import typer
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from rich.console import Console

from chaos.worlds.loop import Kernel, NodeLoop
from controlplane.api import wishes
from controlplane.api.app import make_app
from controlplane.api.guard import Refusal, guard
from controlplane.api.mutations import AskOverride
from controlplane.api.node import NodeApi
from controlplane.cli import adopting, configuration, steer
from controlplane.cli.client import Client, Doc, NoAnswer, decode_reply
from controlplane.cli.context import Code, Globals, Run, Stop, command
from policies.topology import Config

T = TypeVar("T")
HOP_S = 0.005  # to a node and back, in halves
AUTHOR = "operator"  # the same on any machine: it is stored, and equal seeds have equal histories
WIDE = 1000  # columns
_Usage: type[Exception] = cast(
    Any, typer.BadParameter.__mro__[1]
)  # of click, or of the copy of it that newer versions of typer carry


class SimApi(NodeApi, Protocol):
    """A simulated node: what its API speaks for, and where it runs."""

    @property
    def loop(self) -> NodeLoop: ...


class Operating:
    """Runs command lines against `nodes`, which may change as nodes are killed and started.

    folder: of the scenario, where the files of `apply` are.
    """

    def __init__(self, nodes: Mapping[str, SimApi], kernel: Kernel, folder: Path = Path()) -> None:
        self._nodes, self._kernel, self._folder = nodes, kernel, folder
        self._apps: dict[str, tuple[SimApi, web.Application]] = {}
        self._talks: list[_Talk] = []

    def run(self, argv: Sequence[str], done: Callable[[int, str], None]) -> None:
        """Begin a command, without the word "failoverctl"; call it at a moment of the kernel's.

        done is called when it has ended, with its exit code and what it said last (a refusal in full). Never, if the
        kernel is closed before. A bug in a command is raised by the kernel.
        """
        seen = _Seen(utc=True, connect=self._connect)
        talk = _Talk(self._kernel.loop("operator"), lambda: _run(argv, seen, self._folder), seen, done)
        seen.talk = talk
        self._talks = [other for other in self._talks if other.alive] + [talk]
        # Whom to ask is known a moment later: what falls due at this very instant happens first.
        self._kernel.at(self._kernel.now, self._begin, talk, seen)

    def _begin(self, talk: _Talk, seen: _Seen) -> None:
        living = {name: node for name, node in self._nodes.items() if node.loop.alive and not node.loop.paused}
        current = [name for name, node in living.items() if node.loop.ask(partial(_is_current, node))]
        seen.api = tuple(f"http://{name}" for name in current or self._nodes)
        talk.resume()

    def _connect(self, urls: Sequence[str], timeout_s: float) -> Client:
        return _SimClient(urls, timeout_s, self._nodes, self._app_of)

    def _app_of(self, name: str) -> web.Application:
        node = self._nodes[name]
        known = self._apps.get(name)
        if known is None or known[0] is not node:
            self._apps[name] = known = (node, make_app(node))
        return known[1]


def _is_current(node: SimApi) -> bool:
    return node.view.current


def problems(argv: Sequence[str], config: Config, folder: Path = Path()) -> list[str]:
    """What is wrong with a command line before anybody is asked; [] = nothing. Names have to be those of `config`."""
    seen = _Seen()
    try:
        name, params = _parsed(argv, seen, folder)
    except Stop as stop:
        return [stop.message]
    found = []
    sites, services = (params["site"],) if "site" in params else (), tuple(params.get("service") or ())
    if sites or services:
        asked = AskOverride(
            author=AUTHOR, command="drain" if sites else "freeze", sites=sites, services=services, for_s=None
        )
        try:
            wishes.override(config, asked, 0.0)
        except Refusal as refusal:
            found.append(refusal.error)
    code = _run(argv, seen, folder)
    if code is not None and code != Code.OK:
        found.append(seen.said)
    return [f"failoverctl {name}: {text}" for text in found]


# --- one command ------------------------------------------------------------------------------------------------


class _Asks(Exception):
    """A command that is only looked at would ask the cluster now."""


def _console() -> Console:
    return Console(file=StringIO(), width=WIDE, color_system=None, markup=False, highlight=False, emoji=False)


@dataclass
class _Seen(Run):
    """A run of a command whose words are kept, and that waits in virtual time."""

    stdout: Console = field(default_factory=_console)
    stderr: Console = field(default_factory=_console)
    talk: _Talk | None = None
    failed: str = ""
    dry: bool = False

    def wait(self, main: Coroutine[Any, Any, T]) -> T:
        if self.talk is None:
            main.close()
            raise _Asks
        return self.talk.wait(main)

    def fail(self, stop: Stop) -> typer.Exit:
        self.failed = stop.message
        return super().fail(stop)

    @property
    def said(self) -> str:
        """Why it failed, or its last line; of a plan nothing, as it names times of the real day."""
        if self.failed or self.dry:
            return self.failed
        lines = cast(StringIO, self.people.file).getvalue().splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def _commands(seen: _Seen) -> Any:
    def make(_: Globals) -> Run:
        return seen

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    steer.register(app, make)
    command(app, "adopt", make)(adopting.adopt)
    command(app, "apply", make)(configuration.apply)
    return typer.main.get_command(app)


def _context(argv: Sequence[str], seen: _Seen, folder: Path) -> tuple[Any, Any]:
    """The command and its context, as click makes them of a command line. Raises Stop for a wrong one."""
    group = _commands(seen)
    if not argv or argv[0] not in group.commands:
        there = ", ".join(sorted(group.commands))
        raise Stop(Code.USAGE, f"no failoverctl command {argv[0] if argv else ''!r}; a scenario can have {there}")
    if "--help" in argv:
        raise Stop(Code.USAGE, f"{' '.join(argv)} does nothing")
    found = group.commands[argv[0]]
    try:
        context = found.make_context(argv[0], list(argv[1:]))
    except _Usage as error:
        raise Stop(Code.USAGE, cast(Any, error).format_message()) from None
    seen.dry = bool(context.params.get("dry_run"))
    if "yes" in context.params:
        context.params["yes"] = True
    if "file" in context.params:
        context.params["file"] = folder / context.params["file"]
    return found, context


def _parsed(argv: Sequence[str], seen: _Seen, folder: Path) -> tuple[str, dict[str, Any]]:
    _, context = _context(argv, seen, folder)
    return argv[0], context.params


def _run(argv: Sequence[str], seen: _Seen, folder: Path) -> int | None:
    """The exit code. None: it is only looked at, and would ask the cluster."""
    try:
        found, context = _context(argv, seen, folder)
        with context:
            found.invoke(context)
    except typer.Exit as end:
        code = end.exit_code
    except Stop as stop:
        seen.failed, code = stop.message, stop.code
    except _Usage as error:
        seen.failed, code = cast(Any, error).format_message(), Code.USAGE
    except _Asks:
        return None
    else:
        code = Code.OK
    # Where the files are is another place on another machine.
    seen.failed = seen.failed.replace(f"{folder}/", "")
    return int(code)


class _Talk:
    """A command in a thread of its own, and the kernel: only one of the two ever runs, so that nothing is left to
    chance. A command is written as one that blocks; whatever it waits for happens in virtual time meanwhile."""

    def __init__(
        self, loop: NodeLoop, main: Callable[[], int | None], seen: _Seen, done: Callable[[int, str], None]
    ) -> None:
        self._loop, self._main, self._seen, self._done = loop, main, seen, done
        self._commands_turn, self._kernels_turn = threading.Semaphore(0), threading.Semaphore(0)
        self._wanted: Coroutine[Any, Any, Any] | None = None
        self._task: asyncio.Task[Any] | None = None
        self._end: int | BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="failoverctl", daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def resume(self) -> None:
        """The kernel's side: let the command go on, until it waits for something or ends."""
        if self._task is None:
            self._thread.start()
        self._commands_turn.release()
        self._kernels_turn.acquire()
        if self._wanted is not None:
            self._task, self._wanted = self._loop.create_task(self._wanted), None
            self._task.add_done_callback(lambda _: self.resume())
            return
        self._thread.join()
        if isinstance(self._end, int):
            self._done(self._end, self._seen.said)
        elif isinstance(self._end, BaseException) and not isinstance(self._end, asyncio.CancelledError):
            raise self._end

    def wait(self, main: Coroutine[Any, Any, T]) -> T:
        """The command's side: the result of `main`, which runs on the operator's loop."""
        self._wanted = main
        self._kernels_turn.release()
        self._commands_turn.acquire()
        assert self._task is not None
        found: T = self._task.result()
        return found

    def _work(self) -> None:
        self._commands_turn.acquire()
        try:
            self._end = self._main()
        except BaseException as error:  # handed to the kernel's side, which raises it
            self._end = error
        self._kernels_turn.release()


# --- the way to the API -----------------------------------------------------------------------------------------


class _SimClient(Client):
    """Asks a simulated node's API by calling it, through the real routes and the guard before them."""

    def __init__(
        self,
        urls: Sequence[str],
        timeout_s: float,
        nodes: Mapping[str, SimApi],
        app_of: Callable[[str], web.Application],
    ) -> None:
        super().__init__(urls, timeout_s)
        self._patience_s, self._nodes, self._app_of = timeout_s, nodes, app_of

    async def __aenter__(self) -> _SimClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def once(self, method: str, url: str, path: str, params: Sequence[tuple[str, str]], body: Doc | None) -> Doc:
        name = url.removeprefix("http://")
        await asyncio.sleep(HOP_S / 2)
        node = self._nodes[name]
        if not node.loop.alive:
            raise NoAnswer("connection refused", sent=False)
        sent = None if body is None else msgspec.json.encode(body | {"author": AUTHOR})
        query = "&".join(f"{key}={value}" for key, value in params)
        app = node.loop.ask(lambda: self._app_of(name))
        task = node.loop.create_task(_answer(app, method, f"{path}?{query}" if query else path, sent))
        reply: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        task.add_done_callback(lambda _: _arrive(task, reply))
        try:
            async with asyncio.timeout(self._patience_s):
                status, raw = await reply
        except TimeoutError:
            raise NoAnswer("time-out", sent=True) from None
        await asyncio.sleep(HOP_S / 2)
        return decode_reply(status, raw)


def _arrive(task: asyncio.Task[tuple[int, bytes]], reply: asyncio.Future[tuple[int, bytes]]) -> None:
    if reply.done():  # nobody waits for it any more
        return
    if task.cancelled():
        reply.set_exception(NoAnswer("connection lost", sent=True))
    elif error := task.exception():
        reply.set_exception(error)
    else:
        reply.set_result(task.result())


class _Payload:
    """The body of a request, as aiohttp reads it."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def set_read_chunk_size(self, size: int) -> None:
        """All is there at once."""

    async def readany(self) -> bytes:
        raw, self._raw = self._raw, b""
        return raw


async def _answer(app: web.Application, method: str, path: str, raw: bytes | None) -> tuple[int, bytes]:
    """(status, body) of the API's reply."""
    headers = {"Host": "localhost", "Content-Type": "application/json"}
    match = await app.router.resolve(make_mocked_request(method, path, headers, app=app))
    request = make_mocked_request(
        method,
        path,
        headers,
        app=app,
        match_info=dict(match),
        payload=cast(Any, _Payload(raw or b"")),
        loop=asyncio.get_running_loop(),
    )
    response = await guard(request, match.handler)
    assert isinstance(response, web.Response) and isinstance(response.body, bytes), path
    return response.status, response.body
