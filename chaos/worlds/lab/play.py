"""Scenarios played by real servers: the lab as a world (DESIGN 8)."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from types import TracebackType

from chaos.history import AnyRecord, Faulted, History
from chaos.scenario import Fault, Scenario
from chaos.worlds.lab import adapt, deeds
from chaos.worlds.lab.recorder import LATE_S, Recorder, heard
from chaos.worlds.lab.storewatch import StoreWatch
from chaos.worlds.lab.world import Lab
from chaos.worlds.servers.process import Failed, Missing
from chaos.worlds.world import Refused, Say

REQUEST_MS = 1000  # between two requests of a client
POLL_MS = 100
TICK_S = 0.05
SHORT = "/tmp"  # the path of a unix socket, of which HAProxy has some there, may have 107 characters
SERVED_S = 30.0
COMMAND_S = 15.0  # for an operator's command that is under way at the end


def _on_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class LabWorld:
    """One lab, built by the first play, which then plays one scenario after the other; each in a new cluster, so that
    nothing of the one before is remembered. `close()` removes it; so does the end of this process, however it ends.

    Play from the thread that closes it: the kernel ends the servers with the thread that began them.
    tell: progress, a line each.
    """

    name = "lab"
    verbs = frozenset(deeds.VERBS)

    def __init__(self, tell: Callable[[str], None] = _on_stderr) -> None:
        self._tell = tell
        self._lab: Lab | None = None

    def __enter__(self) -> LabWorld:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the lab down, if there is one."""
        lab, self._lab = self._lab, None
        atexit.unregister(self.close)
        if lab is not None:
            self._tell("lab: taken down")
            lab.down()

    @property
    def directory(self) -> Path | None:
        """Where the lab's files are, while there is one."""
        return self._lab.directory if self._lab else None

    def check(self, scenario: Scenario) -> list[str]:
        found = [f"{scenario.file}:{fault.line}:{fault.column}: {problem}" for fault, problem in deeds.cannot(scenario)]
        if scenario.resolvers.stretch or scenario.resolvers.stale:
            found.append(f"{scenario.file}: the lab's resolver keeps to the rules: leave `resolvers` out")
        if scenario.transfer_s:
            found.append(f"{scenario.file}: the lab's name servers have no secondaries: leave `transfer` out")
        found += adapt.misfits(scenario)
        return found

    def play(self, scenario: Scenario, seed: int, say: Say) -> History:
        problems = self.check(scenario)
        if os.geteuid() != 0:
            problems.append("the lab needs root, for network namespaces: run it with sudo")
        if problems:
            raise Refused(problems)
        began = time.monotonic()
        try:
            lab = self._ready(scenario)
            return _Play(lab, scenario, seed, say, self._tell).run(began)
        except (Missing, Failed) as error:  # nothing is broken yet: what a deed cannot do is recorded
            self.close()
            raise Refused([str(error)]) from error
        except BaseException:
            self.close()  # which heals everything that was broken
            raise

    def _ready(self, scenario: Scenario) -> Lab:
        """A new cluster with the scenario's configuration, and nobody who asks."""
        lab = self._lab
        if lab is None:
            self._tell("lab: building three sites, a witness and clients (about 15 s)")
            lab = self._lab = Lab(Path(tempfile.mkdtemp(prefix="failover-lab-", dir=SHORT)))
            atexit.register(self.close)
            lab.build()
        else:
            self._tell("lab: wiping the cluster of the scenario before")
            lab.quiet()
            lab.wipe()
        return lab


class _Play:
    """One scenario. Everything happens in one thread, so that faults come in their order; what has to be seen at once
    is seen by other processes."""

    def __init__(self, lab: Lab, scenario: Scenario, seed: int, say: Say, tell: Callable[[str], None]) -> None:
        self._lab, self._scenario, self._seed, self._say, self._tell = lab, scenario, seed, say, tell
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._heals: dict[int, Callable[[], object]] = {}

    def run(self, began: float) -> History:
        lab, scenario = self._lab, self._scenario
        watch = StoreWatch(lab.etcd)
        watch.begin(int(lab.etcd.leader().status()["header"]["revision"]) + 1)
        try:
            self._warm_up(watch)
            wall = datetime.now(UTC)
            self._tell(f"lab: {scenario.name} begins, for {scenario.duration_s:g} s")
            self._play()
            records = self._end()
        finally:
            watch.end()
        return History(
            scenario=scenario.name,
            world=LabWorld.name,
            seed=self._seed,
            config=scenario.config,
            duration_s=scenario.duration_s,
            records=records,
            began=wall.isoformat(timespec="seconds"),
            took_s=round(time.monotonic() - began, 1),
        )

    def _warm_up(self, watch: StoreWatch) -> None:
        lab, scenario = self._lab, self._scenario
        self._tell("lab: starting failoverd, applying the configuration")
        text = adapt.adapted(scenario.config, scenario.config, lab.site_dir, lab.pki / "ca.crt", lab.key)
        lab.begin("scenario", text)
        lab.poll(dict.fromkeys(scenario.config.services, POLL_MS), adapt.sources(scenario.config))
        lab.until(lambda: heard(lab, scenario), "every name server answers", SERVED_S)
        lab.resolver.restart()
        lab.ask(adapt.clients(scenario.config), REQUEST_MS)
        self._recorder = Recorder(lab, scenario, watch, self._say)
        self._deeds = deeds.Deeds(lab, scenario, self._recorder, watch)
        # The clients begin at 0, as in the simulator: how old the resolver's answers are at a fault is then the same.
        lab.until(self._recorder.begin, "every client is served", SERVED_S)

    def _play(self) -> None:
        recorder, scenario = self._recorder, self._scenario
        for index, fault in enumerate(scenario.faults):
            if fault.verb == "store_rewind":
                self._at(fault.by_s, partial(self._deeds.back_up, fault.by_s))
            self._at(fault.at_s, partial(self._begin, index, fault))
        while recorder.now() < scenario.duration_s:
            while self._due and self._due[0][0] <= recorder.now():
                heappop(self._due)[2]()
            recorder.pump()
            self._deeds.ended()
            time.sleep(TICK_S)

    def _end(self) -> tuple[AnyRecord, ...]:
        recorder, duration_s = self._recorder, self._scenario.duration_s
        for index in sorted(self._heals):
            self._heal(index)
        until = time.monotonic() + (COMMAND_S if self._deeds.running else LATE_S)
        while time.monotonic() < until and (self._deeds.running or recorder.now() < duration_s + LATE_S):
            self._deeds.ended()
            time.sleep(TICK_S)
        self._deeds.ended(all_of_them=True)
        return recorder.finish()

    def _at(self, moment: float, what: Callable[[], None]) -> None:
        heappush(self._due, (moment, next(self._numbers), what))

    def _begin(self, index: int, fault: Fault) -> None:
        at, left = self._recorder.now(), ""
        try:
            heal = self._deeds.begin(index, fault)
        except (OSError, Failed) as error:
            heal, left = None, str(error)
        self._recorder.add(Faulted(at=at, index=index, began=True, text=fault.text, left=left))
        if heal is not None:
            self._heals[index] = heal
            if fault.ends_s is not None:
                self._at(fault.ends_s, partial(self._heal, index))

    def _heal(self, index: int) -> None:
        left = ""
        try:
            self._heals.pop(index)()
        except (OSError, Failed) as error:
            left = str(error)
        at = min(self._recorder.now(), self._scenario.duration_s)
        text = self._scenario.faults[index].text
        self._recorder.add(Faulted(at=at, index=index, began=False, text=text, left=left))
