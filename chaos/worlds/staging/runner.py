"""One drill under way: makes and heals the faults in time, feeds the dead-man's switch, records, and stops early.

Everything runs on one event loop, so that what feeds the switch stands still when the rest does; what blocks (calls of
toxiproxy, the disk) runs in threads.
"""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from msgspec import Struct

from chaos.history import AnyRecord, Faulted, Operated
from chaos.scenario import Fault, Scenario
from chaos.worlds.staging import switch as deadman
from chaos.worlds.staging.clients import Client, Clients, Tally
from chaos.worlds.staging.faults import Deed, deeds, heal, make, mine, places_of, touched
from chaos.worlds.staging.file import Staging
from chaos.worlds.staging.journal import Healed, Journal, Making
from chaos.worlds.staging.toxiproxy import ToxiproxyError
from chaos.worlds.staging.watching import API_S, ControlPlane, NameServers
from chaos.worlds.world import Say
from controlplane.cli.client import ApiError, Unreachable
from controlplane.cli.client import Client as ApiClient
from controlplane.signal import together
from policies.topology import Config

T = TypeVar("T")
WARM_S = 3.0  # before the scenario's 0: clients, name servers and the API have been heard of by then
FEED_S = 1.0
ENDING_S = 5.0  # patience with an operator's command at the end of the scenario
_SAID = 4000  # characters of what a command said that are kept


class Setup(Struct, frozen=True, kw_only=True):
    """What a drill works with. most: the share of failed requests that ends it (see Tally)."""

    scenario: Scenario
    staging: Staging
    clients: tuple[Client, ...]
    allowed_s: dict[str, float]
    most: float
    journal: Journal
    switch: deadman.Switch


class Runner:
    """run() once. `stopped`: why it ended before its time. `config`: in force at 0."""

    def __init__(self, setup: Setup, say: Say) -> None:
        self.stopped = ""
        self.records: list[AnyRecord] = []
        self.config: Config | None = None
        self._setup, self._tell = setup, say
        self._loop = asyncio.get_running_loop()
        self._zero = self._loop.time() + WARM_S
        self._stopping: asyncio.Future[None] = self._loop.create_future()
        self._open: dict[int, tuple[Deed, ...]] = {}  # faults that are not healed yet
        self._work: asyncio.Future[Any] | None = None  # what a thread does at a toxiproxy now
        self._commands: set[asyncio.Task[None]] = set()
        self._tally = Tally(setup.allowed_s, setup.most)
        self._clients = Clients(setup.clients, self._tally, self.clock, self._say)
        self._control = ControlPlane(setup.staging.api, self.clock, self._say)

    def clock(self) -> float:
        """Seconds of the scenario."""
        return self._loop.time() - self._zero

    async def run(self) -> None:
        """Whatever happens, it heals before it returns or raises."""
        feeding = self._loop.create_task(self._feed())
        try:
            with self._sigterm():
                await self._drill()
        finally:
            await self._finish()
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    def stop(self, why: str) -> None:
        """End it: heal, and judge what was recorded. The first reason counts."""
        if not self._stopping.done():
            self.stopped = why
            self._stopping.set_result(None)

    # ---- until its time is over

    async def _drill(self) -> None:
        try:
            self.config, incarnation = await self._control.begin()
        except (Unreachable, ApiError) as error:
            self.stop(f"the control plane does not answer: {error}")
            return
        names = await asyncio.to_thread(NameServers, self.config, incarnation, self.clock, self._say)
        await names.look()
        await together(
            self._clients.run(self.stop), names.run(), self._control.run(), self._script(), self._until_stopped()
        )

    async def _until_stopped(self) -> None:
        await self._stopping

    async def _feed(self) -> None:
        while True:
            if not self._setup.switch.feed():
                self.stop("the dead-man's switch ended, or gave this process up")
            await asyncio.sleep(FEED_S)

    async def _script(self) -> None:
        """The faults, in the order of their times; at equal times what ends goes before what begins."""
        end_s = self._setup.scenario.duration_s
        steps: list[tuple[float, int, int, Callable[[int, Fault], object]]] = []
        for index, fault in enumerate(self._setup.scenario.faults):
            steps.append((fault.at_s, 1, index, self._begin))
            if fault.ends_s is not None and fault.ends_s <= end_s and fault.verb != "operator":
                steps.append((fault.ends_s, 0, index, self._end))
        for at_s, _, index, step in sorted(steps, key=lambda each: each[:3]):
            await asyncio.sleep(max(0.0, at_s - self.clock()))
            await step(index, self._setup.scenario.faults[index])  # type: ignore[misc] # both are coroutines
            if self._stopping.done():
                return
        await asyncio.sleep(max(0.0, end_s - self.clock()))

    async def _begin(self, index: int, fault: Fault) -> None:
        if fault.verb == "operator":
            self._say(Faulted(at=self.clock(), index=index, began=True, text=fault.text))
            task = self._loop.create_task(self._operate(index, fault))
            self._commands.add(task)
            task.add_done_callback(self._commands.discard)
            return
        found = deeds(fault, index, self._setup.staging)
        try:
            await asyncio.to_thread(
                self._setup.journal.write, Making(at=deadman.now(), index=index, text=fault.text, deeds=found)
            )
        except OSError as error:
            self.stop(f"the journal cannot be written, so {fault.text} was not made: {error.strerror}")
            return
        if not self._setup.switch.feed():
            self.stop("the dead-man's switch ended, or gave this process up")
            return
        self._open[index] = found
        self._tally.changed(touched(found, self._setup.staging))
        # Before it is made, which takes several calls: no client may fail of it before it began.
        self._say(Faulted(at=self.clock(), index=index, began=True, text=fault.text))
        try:
            await self._at_toxiproxy(lambda: make(found))
        except ToxiproxyError as error:
            self.stop(f"{fault.text} could not be made: {error}")

    async def _end(self, index: int, fault: Fault) -> None:
        places: dict[str, tuple[str, ...]] = {}
        for deed in self._open[index]:
            places[deed.url] = (*places.get(deed.url, ()), deed.proxy)
        healing = await self._at_toxiproxy(lambda: heal(places, mine(index)))
        if healing.left:
            self.stop(f"{fault.text} could not be healed: {'; '.join(healing.left)}")
            return
        self._healed(index, fault, ())

    def _healed(self, index: int, fault: Fault, left: tuple[str, ...]) -> None:
        self._tally.changed(touched(self._open.pop(index), self._setup.staging))
        self._say(Faulted(at=self.clock(), index=index, began=False, text=fault.text, left="; ".join(left)))
        with suppress(OSError):  # for people only: what is healed needs no journal
            self._setup.journal.write(Healed(at=deadman.now(), index=index, left=left))

    async def _at_toxiproxy(self, deed: Callable[[], T]) -> T:
        """In a thread, which goes on when we are cancelled: whoever heals waits for it first."""
        work = self._loop.run_in_executor(None, deed)
        self._work = work
        return await asyncio.shield(work)

    async def _operate(self, index: int, fault: Fault) -> None:
        """A real failoverctl; nobody is there to answer its questions."""
        api = ",".join(self._setup.staging.api)
        command = (sys.executable, "-m", "controlplane.cli.main", "--api", api, *fault.argv)
        child = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            said, _ = await child.communicate()
        except asyncio.CancelledError:
            with suppress(ProcessLookupError):
                child.terminate()
            said, _ = await child.communicate()
        text = said.decode("utf-8", "replace")[-_SAID:].strip()
        code = child.returncode if child.returncode is not None else -1
        self._say(Operated(at=self.clock(), index=index, argv=fault.argv, code=code, said=text))

    # ---- the end

    async def _finish(self) -> None:
        """Heal everything, and record what is left."""
        if self._work is not None:
            await asyncio.gather(self._work, return_exceptions=True)  # what it raised, whoever asked for it has
        places = places_of(self._setup.staging)
        healing = await asyncio.to_thread(heal, places)
        faults = self._setup.scenario.faults
        for index in list(self._open):
            urls = {deed.url for deed in self._open[index]}
            self._healed(index, faults[index], tuple(line for line in healing.left if any(u in line for u in urls)))
        if self._commands:
            await asyncio.wait(self._commands, timeout=ENDING_S)
        for task in list(self._commands):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._overrides()
        await self._control.end()
        self._clients.asked()

    async def _overrides(self) -> None:
        """What operators' commands of the scenario left in force is left of the drill."""
        operated = [index for index, fault in enumerate(self._setup.scenario.faults) if fault.verb == "operator"]
        operated = [
            index for index in operated if any(isinstance(r, Operated) and r.index == index for r in self.records)
        ]
        if not operated:
            return
        try:
            async with ApiClient(self._setup.staging.api, API_S) as client:
                there = (await client.get("/v1/overrides"))["overrides"]
            left = [f"override {o['id']} ({o['command']} {' '.join(o['sites'])})".replace(" )", ")") for o in there]
            said = f"{', '.join(left)} in force; failoverctl overrides cancel ends it" if left else ""
        except (Unreachable, ApiError) as error:
            said = f"whether overrides are left is not known: {error}"
        if said:
            index = operated[-1]
            text = self._setup.scenario.faults[index].text
            self._say(Faulted(at=self.clock(), index=index, began=False, text=text, left=said))

    @contextmanager
    def _sigterm(self) -> Iterator[None]:
        """`drill halt` asks so: heal, and end. Only the main thread can be told by a signal; elsewhere it is death."""
        try:
            self._loop.add_signal_handler(signal.SIGTERM, self.stop, "halted")
        except (RuntimeError, ValueError):
            yield
            return
        try:
            yield
        finally:
            self._loop.remove_signal_handler(signal.SIGTERM)

    def _say(self, record: AnyRecord) -> None:
        self.records.append(record)
        self._tell(record)
