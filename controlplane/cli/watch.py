"""`status --watch`: a live screen on a terminal, plain lines on a dumb one, one JSON event a line in a pipe.

It shows its age, always.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import aclosing, suppress
from datetime import datetime
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
EVENTS_SHOWN = 8  # of each kind
EVENTS_KNOWN = 1000  # by which what is told again is recognised

Doc = dict[str, Any]


class Watch:
    """What was heard, and when. Times are readings of the running loop's clock."""

    def __init__(self, run: Run, only: str) -> None:
        self._run = run
        people = run.stdout.is_terminal and not run.json
        self.live = people and not run.stdout.is_dumb_terminal
        self._plain = people and not self.live
        self._only = only
        self._began = now()
        self._doc: Doc | None = None
        self._age_s = 0.0  # of the view, when it was last heard of
        self._heard_at = 0.0
        self._via = ""
        self._trying = ""
        self._said = "live"  # what a pipe was told: live | stale | lost
        self._events: deque[Doc] = deque(maxlen=EVENTS_SHOWN)
        self._arrivals: dict[tuple[str, int], Doc] = {}  # service and generation -> the last word on it
        self._known: deque[tuple[Any, ...]] = deque(maxlen=EVENTS_KNOWN)
        self._last: int | None = None  # number of the last decision that was told

    async def follow(self) -> None:
        """Listen until cancelled, to whichever endpoint speaks. Raises Stop (4) if nobody ever did."""
        loop = asyncio.get_running_loop()
        urls = endpoints(self._run)
        while True:
            async with Client(urls, self._run.timeout_s) as client, aclosing(client.events(self._path())) as stream:
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
            latest = event.get("decision")
            number = int(latest.removeprefix("d-")) if latest else 0
            # A store that was rewound, or founded anew, numbers from further down.
            self._last = number if self._last is None else min(self._last, number)
        elif not self._news(event):
            return
        if (kind != "status" or event.get("changed")) and not self.live:
            self._line(event)

    def _path(self) -> str:
        """Whoever is asked next tells what was missed in between."""
        return "/v1/events" if self._last is None else f"/v1/events?after=d-{self._last}"

    def _news(self, event: Doc) -> bool:
        """Keep something that happened; False if it was told before, by another endpoint."""
        mark = (event.get("decision"), event.get("driver"), event.get("writer"), event["text"])
        if event.get("replayed") and (mark in self._known or self._before(event)):
            return False
        self._known.append(mark)
        if event.get("type") == "decision":
            number = int(event["decision"].removeprefix("d-"))
            self._last = max(self._last or 0, number)
        if event.get("type") == "applied":
            key = (event["service"], event["arriving"])
            self._arrivals.pop(key, None)
            self._arrivals[key] = event
            while len(self._arrivals) > EVENTS_SHOWN:
                del self._arrivals[next(iter(self._arrivals))]
        else:
            self._events.append(event)
        return True

    def _before(self, event: Doc) -> bool:
        """How far an earlier decision had come before anybody watched is no news."""
        try:
            return event.get("type") == "applied" and datetime.fromisoformat(event["at"]) < self._began
        except ValueError:
            return False

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
        if self._plain:
            for part in self._words(event):
                self._run.stdout.print(part)
            return
        self._run.stdout.file.write(json_line(event))
        self._run.stdout.file.flush()

    def _words(self, event: Doc) -> list[RenderableType]:
        """For people whose terminal cannot be redrawn: a screen whenever the status changes, a line for the rest."""
        if event.get("type") == "status":
            return [*screens.status(event, self._run.utc, self._only), ""]
        if "text" in event:
            return [self._happened(event)]
        return [self._banner(self.silent_s())]

    def _happened(self, event: Doc) -> Text:
        return Text(f"{clock(event.get('at'), self._run.utc)} ").append_text(safe(event["text"]))

    def screen(self) -> RenderableType:
        if self._doc is None:
            return Text("waiting for the first answer ...", style="bright_black")
        age_s = self.silent_s()
        doc = {**self._doc, "source": {**self._doc["source"], "age_s": age_s}}
        head, *body = screens.status(doc, self._run.utc, self._only)
        lines: list[RenderableType] = [self._banner(age_s), head, *body]
        shown = [*self._events, *self._arrivals.values()]  # decisions first, then how far they have come
        lines += [self._happened(event) for event in shown]
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
