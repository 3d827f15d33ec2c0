"""A drill while it runs: a screen that is drawn again and again on a terminal, else one line for each event."""

from __future__ import annotations

import threading
import time
from collections import deque
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from chaos import screen
from chaos.history import Answered, AnyRecord, Committed, Faulted, Led, Served
from chaos.scenario import Scenario
from chaos.timeline import CALM_S, Event, Teller, clock, goes_on
from controlplane.cli.output import BAD, OK, lead, safe, seconds, table

EVENTS_SHOWN = 10
REDRAWS_A_SECOND = 5.0


class Situation:
    """How things are at the last record; what a screen shows is read from here."""

    def __init__(self) -> None:
        self.at = 0.0
        self.faults: dict[int, tuple[float, str]] = {}  # index -> since, text
        self.leaders: dict[str, None] = {}
        self.generations: dict[str, int] = {}
        self._answers: dict[str, dict[tuple[str, str], tuple[str, ...] | None]] = {}  # service -> server, region
        self._clients: dict[
            str, dict[str, dict[str, float | None]]
        ] = {}  # service -> region -> client -> failing since

    def take(self, record: AnyRecord) -> None:
        self.at = max(self.at, record.at)
        if isinstance(record, Faulted):
            if record.began and goes_on(record.text):
                self.faults[record.index] = (record.at, record.text)
            else:
                self.faults.pop(record.index, None)
        elif isinstance(record, Led):
            if record.leading:
                self.leaders[record.node] = None
            else:
                self.leaders.pop(record.node, None)
        elif isinstance(record, Committed):
            self.generations[record.decision.service] = record.decision.desired.generation
        elif isinstance(record, Answered):
            told = self._answers.setdefault(record.service, {})
            told[record.server, record.region] = record.sites if record.reachable else None
        elif isinstance(record, Served) and record.resolver == "keeps":
            clients = self._clients.setdefault(record.service, {}).setdefault(record.region, {})
            since = clients.get(record.client)
            clients[record.client] = (record.at if since is None else since) if record.error else None

    @property
    def services(self) -> list[str]:
        return sorted({*self._answers, *self._clients})

    def answers(self, service: str) -> str:
        """ "site-b (4)  nobody (2)": how many servers and regions give which answer, the most frequent first."""
        counts: dict[str, int] = {}
        for sites in self._answers.get(service, {}).values():
            word = "unreachable" if sites is None else "+".join(sites) or "nothing"
            counts[word] = counts.get(word, 0) + 1
        if len(counts) == 1:
            return next(iter(counts))
        return "  ".join(f"{word} {n}" for word, n in sorted(counts.items(), key=lambda i: (-i[1], i[0])))

    def failing(self, service: str) -> dict[str, float | None]:
        """region -> since when requests of a client there fail; None: they do not."""
        regions = self._clients.get(service, {})
        return {
            region: min((since for since in clients.values() if since is not None), default=None)
            for region, clients in sorted(regions.items())
        }


class Progress:
    """A context manager; `say` is what a world tells. It shows nothing before the first record: until then the world
    may ask its user something. real_time: the scenario's clock is a real one, so it goes on between two records.
    quiet: nothing stays on the screen."""

    def __init__(
        self, scenario: Scenario, world: str, seed: int, console: Console, *, real_time: bool, quiet: bool = False
    ) -> None:
        self._scenario, self._console = scenario, console
        self._head = f"{scenario.name} · {world} · seed {seed}"
        self._real_time, self._quiet = real_time, quiet
        self._begun = False
        self._teller, self._now = Teller(scenario.duration_s), Situation()
        self._lock = threading.Lock()  # the screen is drawn by a thread of its own: a world may say nothing for long
        self._heard = time.monotonic()
        self._last: deque[Event] = deque(maxlen=EVENTS_SHOWN)
        self._held: list[Event] = []  # in simulated time there is time enough to wait for what belongs before them
        self.left: list[str] = []  # what could not be healed
        self._live: Live | None = None
        if console.is_terminal and not console.is_dumb_terminal:
            self._live = Live(
                console=console, get_renderable=self.screen, refresh_per_second=REDRAWS_A_SECOND, transient=True
            )

    @property
    def told(self) -> bool:
        """Are the events on the screen for good (so that no report needs to repeat them)?"""
        return self._live is None

    def __enter__(self) -> Progress:
        return self

    def _begin(self) -> None:
        self._begun = True
        if self._live is not None:
            self._live.start()
        elif not self._quiet:
            self._console.print(Text(f"{self._head} · {seconds(self._scenario.duration_s)}", style="bold"))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif self._begun and not self._quiet:
            if error is None:
                self._held += self._teller.end(self._scenario.duration_s)
            self._print(float("inf"))

    def say(self, record: AnyRecord) -> None:
        if not self._begun:
            self._begin()
        with self._lock:
            self._heard = time.monotonic()
            if isinstance(record, Faulted) and record.left:
                self.left.append(f"{record.text}: {record.left}")
            self._now.take(record)
            told = self._teller.tell(record)
            self._last.extend(told)
        if self._live is None and not self._quiet:
            self._held += told
            self._print(record.at if self._real_time else record.at - CALM_S)

    def _print(self, until: float) -> None:
        """Those up to then, in the order of time."""
        for event in sorted((e for e in self._held if e.at <= until), key=lambda e: e.at):
            self._console.print(screen.event(event))
        self._held = [event for event in self._held if event.at > until]

    def screen(self) -> RenderableType:
        with self._lock:
            parts = [self._clock(), *self._faults(), *self._services(), Text()]
            last = [screen.event(event) for event in self._last]
            for line in last:
                line.no_wrap, line.overflow = True, "ellipsis"
            return Group(*parts, *last)

    def _clock(self) -> Text:
        at = self._now.at + (time.monotonic() - self._heard if self._real_time else 0.0)
        duration_s = self._scenario.duration_s
        at = min(max(at, 0.0), duration_s)
        done = f"{at / duration_s:.0%}" if duration_s else ""
        return lead(self._head).append(f"   {clock(at)} of {clock(duration_s)}  {done}", style="not bold")

    def _faults(self) -> list[Text]:
        leaders = " ".join(self._now.leaders) or "nobody"
        lines = [lead("LEADER  ").append_text(safe(leaders))]
        for since, text in self._now.faults.values():
            line = Text().append("FAULT   ", style="bold red").append_text(safe(text))
            lines.append(line.append(f"  for {seconds(self._now.at - since)}", style="bright_black"))
        return lines if len(lines) > 1 else [*lines, lead("FAULT   ").append("none in force", style="bright_black")]

    def _services(self) -> list[RenderableType]:
        rows = []
        for service in self._now.services:
            clients = Text()
            for region, since in self._now.failing(service).items():
                sign, style = (OK, "green") if since is None else (BAD, "red")
                clients.append(f"{sign} {region}", style=style)
                clients.append("  " if since is None else f" {seconds(self._now.at - since)}  ")
            generation = self._now.generations.get(service)
            rows.append((service, "?" if generation is None else str(generation), self._now.answers(service), clients))
        return [table(("SERVICE", "GEN", "ANSWERS", "CLIENTS"), rows)] if rows else []
