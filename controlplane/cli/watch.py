"""`status --watch`: a live screen on a terminal, one JSON event a line in a pipe. It shows its age, always."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing, suppress
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from controlplane.cli import screens
from controlplane.cli.client import Client, Unreachable, endpoints, nobody, port_of
from controlplane.cli.context import Run, Stop
from controlplane.cli.output import clock, json_line, now, safe, seconds

AGAIN_S = 0.5  # between two rounds over the endpoints
REDRAW_S = 0.25
EVENTS_SHOWN = 12

Doc = dict[str, Any]


class Watch:
    """What was heard, and when. Times are readings of the running loop's clock."""

    def __init__(self, run: Run, only: str) -> None:
        self._run = run
        self.live = run.stdout.is_terminal and not run.json
        self._only = only
        self._doc: Doc | None = None
        self._age_s = 0.0  # of the view, when it was last heard of
        self._heard_at = 0.0
        self._via = ""
        self._trying = ""
        self._said = "live"  # what a pipe was told: live | stale | lost
        self._events: deque[Doc] = deque(maxlen=EVENTS_SHOWN)

    async def follow(self) -> None:
        """Listen until cancelled, to whichever endpoint speaks. Raises Stop (4) if nobody ever did."""
        loop = asyncio.get_running_loop()
        urls = endpoints(self._run)
        while True:
            async with Client(urls, self._run.timeout_s) as client, aclosing(client.events("/v1/events")) as stream:
                try:
                    async for url, event in stream:
                        self._via, self._heard_at = url, loop.time()
                        self.take(event)
                        if self._age_s >= screens.STALE_S:
                            break  # this node is cut off itself; another may know more
                except Unreachable as error:
                    if self._doc is None:
                        raise nobody(error) from None
            with suppress(Stop):  # a cluster that was started anew has new endpoints
                urls = endpoints(self._run)
            if self._via in urls:
                next_ = urls.index(self._via) + 1
                urls = (*urls[next_:], *urls[:next_])
            self._trying = urls[0]
            await asyncio.sleep(AGAIN_S)

    def take(self, event: Doc) -> None:
        """One event of the stream: a status document, or something that happened."""
        kind = event.get("type")
        source = event.get("source")
        if source is not None:
            self._age_s = float(source.get("age_s") or 0.0)
        if kind == "status":
            self._doc = event
        else:
            self._events.append(event)
        if (kind != "status" or event.get("changed")) and not self.live:
            self._line(event)

    def silent_s(self) -> float:
        """How old what we show is."""
        return self._age_s + asyncio.get_running_loop().time() - self._heard_at

    def pipe(self) -> None:
        """Tell a pipe when what it read last has become old, once for each step."""
        if self._doc is None:
            return
        age_s = self.silent_s()
        word = "lost" if age_s >= screens.LOST_S else "stale" if age_s >= screens.STALE_S else "live"
        if word != self._said:
            self._said = word
            self._line({"type": word, "silent_s": round(age_s, 1), "via": self._via, "trying": self._trying or None})

    def _line(self, event: Doc) -> None:
        self._run.stdout.file.write(json_line(event))
        self._run.stdout.file.flush()

    def screen(self) -> RenderableType:
        if self._doc is None:
            return Text("waiting for the first answer ...", style="bright_black")
        age_s = self.silent_s()
        doc = {**self._doc, "source": {**self._doc["source"], "age_s": age_s}}
        head, *body = screens.status(doc, self._run.utc, self._only)
        lines: list[RenderableType] = [self._banner(age_s), head, *body]
        lines += [Text(f"{clock(e.get('at'), self._run.utc)} ").append_text(safe(e["text"])) for e in self._events]
        return Group(*lines)

    def _banner(self, age_s: float) -> Text:
        moment = clock(now().isoformat(), self._run.utc)
        trying = f", trying {port_of(self._trying)}" if self._trying else ""
        if age_s >= screens.LOST_S:
            return Text(f"? no news for {seconds(age_s)}{trying}  {moment}", style="bright_black")
        if age_s >= screens.STALE_S:
            return Text(f"STALE {seconds(age_s)}{trying}  {moment}", style="yellow")
        return Text(f"LIVE {seconds(age_s)} via {port_of(self._via)}  {moment}", style="green")


async def watch(run: Run, only: str) -> None:
    """Show until Ctrl-C. Raises Stop if nobody answers at all."""
    view = Watch(run, only)
    listener = asyncio.ensure_future(view.follow())
    try:
        if view.live:
            with Live(view.screen(), console=run.stdout, auto_refresh=False, screen=False) as live:
                while not listener.done():
                    live.update(view.screen(), refresh=True)
                    await asyncio.sleep(REDRAW_S)
        else:
            while not listener.done():
                view.pipe()
                await asyncio.sleep(REDRAW_S)
        await listener
    finally:
        listener.cancel()
        with suppress(asyncio.CancelledError, Stop):
            await listener
