"""`status --watch`: it moves on to whoever knows more, and never shows old news as new."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest
from aiohttp import web
from rich.console import Console

from controlplane.api.listen import Server, serve
from controlplane.cli.context import Run, Stop
from controlplane.cli.watch import Watch, watch
from tests.support import run as run_async

DEAD = "http://127.0.0.1:1"


def document(node: str, age_s: float) -> dict[str, Any]:
    return {
        "type": "status",
        "changed": True,
        "cluster": "acme",
        "config_rev": 1,
        "source": {"node": node, "site": node, "age_s": age_s, "current": age_s < 1},
        "leader": node,
        "token": 7,
        "summary": {"state": "ok", "facts": []},
        "services": {},
        "sites": {},
        "overrides": [],
        "alarms": [],
    }


def decision(n: int, **more: Any) -> dict[str, Any]:
    return {"type": "decision", "at": "", "decision": f"d-{n}", "text": f"d-{n} www gen {n}: moved", **more}


def arrival(agree: int, **more: Any) -> dict[str, Any]:
    text = f"www gen 2: {agree}/3 name servers agree"
    return {
        "type": "applied",
        "at": "",
        "service": "www",
        "arriving": 2,
        "driver": "d",
        "writer": "w",
        "text": text,
    } | more


def test_what_was_missed_is_asked_for_and_told_once() -> None:
    async def main() -> tuple[list[str], str]:
        run, out = pipe(DEAD)
        view = Watch(run, "")
        paths = [view._path()]
        view.take(document("a", 0.1) | {"decision": "d-3"})
        view.take(decision(4))
        view.take(arrival(1))
        paths.append(view._path())
        view.take(arrival(1, replayed=True))
        view.take(arrival(3, replayed=True, at="2020-01-01T00:00:00.000Z"))
        view.take(decision(4, replayed=True))
        view.take(decision(5, replayed=True))
        view.take(document("b", 0.1) | {"decision": "d-5"})
        paths.append(view._path())
        view.take(document("b", 0.1) | {"decision": "d-2"})
        paths.append(view._path())
        return paths, out.getvalue()

    paths, text = run_async(main())
    assert paths == ["/v1/events", "/v1/events?after=d-4", "/v1/events?after=d-5", "/v1/events?after=d-2"]
    told = [json.loads(line) for line in text.splitlines()]
    assert [e["text"] for e in told if e["type"] == "decision"] == [decision(4)["text"], decision(5)["text"]]
    assert len([e for e in told if e["type"] == "applied"]) == 1


def test_one_line_for_each_generation_and_decisions_first() -> None:
    async def main() -> str:
        run, out = pipe(DEAD)
        view = Watch(run, "")
        view.live = True
        view.take(document("a", 0.1))
        for event in (arrival(1), arrival(2), decision(4), arrival(3)):
            view.take(event)
        run.stdout.print(view.screen())
        return out.getvalue()

    drawn = run_async(main())
    assert "1/3" not in drawn and "2/3" not in drawn
    assert drawn.index("d-4 www") < drawn.index("www gen 2: 3/3 name servers agree")


async def speaker(node: str, age_s: float, times: int = 1000) -> Server:
    """A node that streams the same status, `times` times, and then hangs up."""

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(times):
            await response.write(b"data: " + json.dumps(document(node, age_s)).encode() + b"\n\n")
            await asyncio.sleep(0.02)
        return response

    app = web.Application()
    app.router.add_get("/v1/events", events)
    return await serve(app, "127.0.0.1", 0)


def pipe(*urls: str) -> tuple[Run, io.StringIO]:
    out = io.StringIO()
    return Run(api=urls, stdout=Console(file=out), stderr=Console(file=io.StringIO())), out


def nodes(out: io.StringIO) -> list[str]:
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    return [line["source"]["node"] for line in lines if line["type"] == "status"]


async def heard_from(out: io.StringIO, node: str) -> None:
    async with asyncio.timeout(20):
        while node not in nodes(out):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("age_s", "times"), [(5.0, 1000), (0.1, 2)])
def test_it_leaves_a_node_that_is_cut_off_or_hangs_up(age_s: float, times: int) -> None:
    async def main() -> None:
        first, second = await speaker("first", age_s, times), await speaker("second", 0.1)
        run, out = pipe(DEAD, first.url, second.url)
        watching = asyncio.ensure_future(watch(run, ""))
        await heard_from(out, "second")
        assert nodes(out)[0] == "first"
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await first.aclose()
        await second.aclose()

    run_async(main())


def test_nobody_ever_answered() -> None:
    run, _ = pipe(DEAD)
    with pytest.raises(Stop, match="Nobody to ask") as stop:
        run_async(watch(run, ""))
    assert stop.value.code == 4


def test_a_pipe_is_told_once_for_each_step_of_silence() -> None:
    async def main() -> list[str]:
        run, out = pipe(DEAD)
        view = Watch(run, "")
        view.pipe()
        for age_s in (0.1, 4.0, 5.0, 11.0, 12.0, 0.2):
            view.take(document("a", age_s) | {"changed": False})
            view._heard_at = asyncio.get_running_loop().time()
            view.pipe()
        return [json.loads(line)["type"] for line in out.getvalue().splitlines()]

    assert run_async(main()) == ["stale", "lost", "live"]


def test_the_screen_carries_its_age_and_what_happened() -> None:
    async def main() -> str:
        run, out = pipe("http://127.0.0.1:80")
        view = Watch(run, "")
        run.stdout.print(view.screen())
        view._heard_at, view._via = asyncio.get_running_loop().time(), "http://127.0.0.1:80"
        view.take(document("a", 0.1))
        view.take(decision(7) | {"at": "2026-03-02T03:14:06+00:00", "text": "d-7 www\x1b[2J"})
        run.stdout.print(view.screen())
        view.take(document("a", 4.0))
        run.stdout.print(view.screen())
        view.take(document("a", 11.0))
        run.stdout.print(view.screen())
        return out.getvalue()

    drawn = run_async(main())
    for words in ("waiting for the first answer", "LIVE 0.1s via 127.0.0.1:80", "STALE 4.0s", "? no news for 11s"):
        assert words in drawn
    assert "d-7 www\ufffd" in drawn and "\x1b[2J" not in drawn


def test_a_terminal_that_cannot_be_redrawn_gets_plain_lines() -> None:
    async def main() -> str:
        server, out = await speaker("first", 0.1), io.StringIO()
        dumb = Console(file=out, force_terminal=True, width=200, _environ={"TERM": "dumb"})
        run = Run(api=(server.url,), stdout=dumb, stderr=Console(file=io.StringIO()))
        watching = asyncio.ensure_future(watch(run, ""))
        async with asyncio.timeout(20):
            while "from first" not in out.getvalue():
                await asyncio.sleep(0.02)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await server.aclose()
        view = Watch(run, "")
        view.take(document("a", 0.1))
        view.take(decision(7) | {"at": "2026-03-02T03:14:06+00:00"})
        view._heard_at = asyncio.get_running_loop().time() - 5
        view.pipe()
        return out.getvalue()

    drawn = run_async(main())
    assert "d-7 www gen 7: moved" in drawn and "STALE 5.1s" in drawn
    assert "\x1b[?25l" not in drawn and "{" not in drawn, "neither a cursor that moves nor JSON"
