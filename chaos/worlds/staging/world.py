"""The staging world: a scenario's faults through toxiproxy servers, seen by real clients."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

from chaos.history import AnyRecord, Faulted, History
from chaos.scenario import Scenario
from chaos.worlds.staging import journal as journals
from chaos.worlds.staging import switch as deadman
from chaos.worlds.staging.faults import VERBS, places_of, refusals
from chaos.worlds.staging.file import Staging, read_staging
from chaos.worlds.staging.journal import Begun, Ended, Journal, JournalError, Lock
from chaos.worlds.staging.preflight import Looked, allowed_s, preflight
from chaos.worlds.staging.runner import Runner, Setup
from chaos.worlds.world import Refused, Say

ABORT_AT = 0.05
Confirm = Callable[[str], str]


class StagingWorld:
    """yes_on: the cluster's name; "": `confirm` is shown what is about to be broken, and returns what was typed.
    abort_at: the share of client requests, failed beyond what the scenario allows, that ends the drill (0 to 1).
    state_dir: of the journals (journal.directory() by default). Raises Refused for a file that is not right."""

    name = "staging"
    verbs = VERBS

    def __init__(
        self,
        file: Path,
        *,
        yes_on: str = "",
        confirm: Confirm | None = None,
        abort_at: float = ABORT_AT,
        state_dir: Path | None = None,
    ) -> None:
        read = read_staging(file)
        if read.staging is None:
            raise Refused([str(problem) for problem in read.problems])
        self.staging: Staging = read.staging
        self._yes_on, self._confirm, self._abort_at = yes_on, confirm, abort_at
        self._state_dir = journals.directory() if state_dir is None else state_dir

    def check(self, scenario: Scenario) -> list[str]:
        """What TCP proxies, or this file, cannot do of the scenario."""
        measured = {client.service for client in self.staging.clients}
        problems = refusals(scenario, self.staging)
        for expect in scenario.expect:
            for service in sorted(expect.outages.keys() - measured):
                where = f"{scenario.file}:{expect.line}:{expect.column}"
                problems.append(f"{where}: outage of {service}: {self.staging.file} has no client that asks for it")
        return problems

    def play(self, scenario: Scenario, seed: int, say: Say) -> History:
        """In real time. Raises Refused before anything is broken; KeyboardInterrupt after everything was healed."""
        problems = self.check(scenario)
        if problems:
            raise Refused(problems)
        try:
            journals.prepare(self._state_dir)
            lock = Lock(self._state_dir, self.staging.cluster)
        except JournalError as error:
            raise Refused([str(error)]) from None
        try:
            journals.tidy(self._state_dir)
            looked = self._permitted(scenario)
            journal, switch = self._armed(scenario)
            return asyncio.run(self._drill(scenario, seed, say, looked, journal, switch))
        finally:
            lock.release()

    def _permitted(self, scenario: Scenario) -> Looked:
        """Raises Refused."""
        for earlier in journals.journals(self._state_dir, self.staging.cluster):
            if not earlier.healed():
                raise Refused(
                    [f"an earlier drill was not healed to its end ({earlier.path}); failoverctl drill halt heals it"]
                )
        looked = asyncio.run(preflight(scenario, self.staging, self._yes_on))
        if looked.problems:
            raise Refused(looked.problems)
        if self._yes_on:
            return looked
        typed = self._confirm(self.plan(scenario)) if self._confirm else ""
        if typed != self.staging.cluster:
            said = f'"{typed}" was typed' if typed else "it was not typed"
            raise Refused([f'the cluster\'s name is "{self.staging.cluster}", and {said}; nothing was broken'])
        looked = asyncio.run(preflight(scenario, self.staging, self.staging.cluster))  # it may have been a while
        if looked.problems:
            raise Refused(looked.problems)
        return looked

    def plan(self, scenario: Scenario) -> str:
        """What is about to be broken, for people."""
        lines = [f"Cluster {self.staging.cluster}: everything is healthy. This drill breaks it:"]
        for fault in scenario.faults:
            lasts = "" if fault.for_s is None else f" for {fault.for_s:g} s"
            lines.append(f"  at {fault.at_s:g} s{lasts}: {fault.text}")
        lines += [f"through toxiproxy {url}: {', '.join(names)}" for url, names in places_of(self.staging).items()]
        return "\n".join(lines)

    def _armed(self, scenario: Scenario) -> tuple[Journal, deadman.Switch]:
        """The journal, and the switch that reads it. Raises Refused."""
        stamp = deadman.now().replace(":", "").replace("-", "").partition(".")[0]
        journal = Journal(self._state_dir / f"{self.staging.cluster}-{stamp}-{os.getpid()}.jsonl")
        begun = Begun(
            at=deadman.now(),
            cluster=self.staging.cluster,
            scenario=scenario.name,
            pid=os.getpid(),
            host=socket.gethostname(),
            places=places_of(self.staging),
        )
        try:
            journal.write(begun)
            return journal, deadman.Switch(journal)
        except OSError as error:
            raise Refused([f"{journal.path} cannot be written: {error.strerror}; nothing was broken"]) from None
        except deadman.SwitchError as error:
            journal.write(Ended(at=deadman.now(), by="drill", why=str(error)))
            raise Refused([f"{error}; nothing was broken"]) from None

    async def _drill(
        self, scenario: Scenario, seed: int, say: Say, looked: Looked, journal: Journal, switch: deadman.Switch
    ) -> History:
        assert looked.config is not None, "the preflight passed"
        loop = asyncio.get_running_loop()
        began, started = deadman.now(), loop.time()
        setup = Setup(
            scenario=scenario,
            staging=self.staging,
            clients=looked.clients,
            allowed_s=allowed_s(scenario, looked.config),
            most=self._abort_at,
            journal=journal,
            switch=switch,
        )
        runner = Runner(setup, say)
        try:
            await runner.run()
        finally:
            over_s = runner.clock()
            if not await asyncio.to_thread(switch.done):
                journal.write(Ended(at=deadman.now(), by="drill", why=runner.stopped, left=_left(runner.records)))
        return History(
            scenario=scenario.name,
            world=self.name,
            seed=seed,
            config=runner.config or looked.config,
            duration_s=over_s if runner.stopped else scenario.duration_s,
            records=tuple(sorted(runner.records, key=lambda record: record.at)),
            began=began,
            took_s=loop.time() - started,
            stopped=runner.stopped,
        )


def _left(records: list[AnyRecord]) -> tuple[str, ...]:
    return tuple(record.left for record in records if isinstance(record, Faulted) and record.left)
