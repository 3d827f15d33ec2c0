"""A scenario's faults in the simulated world: each verb's beginning, which returns how it is undone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chaos.history import Faulted, Operated
from chaos.scenario import LEADER, STORE_LEADER, Fault
from chaos.worlds.sim.cluster import Cluster
from chaos.worlds.sim.network import Undo
from controlplane.store.memory import Backup

Operate = Callable[[Sequence[str], Callable[[int, str], None]], None]  # a command line, and what it ended with


class Faults:
    """All of a scenario. operate: begins a failoverctl command."""

    def __init__(self, cluster: Cluster, faults: Sequence[Fault], operate: Operate) -> None:
        self._cluster, self._faults, self._operate = cluster, tuple(faults), operate
        self._undo: dict[int, Undo] = {}
        self._backups: dict[float, Backup] = {}
        self._beginning = 0  # index of the fault that begins now

    def schedule(self) -> None:
        """From now on: it is the scenario's time 0."""
        kernel = self._cluster.kernel
        zero = kernel.now
        for to in dict.fromkeys(fault.by_s for fault in self._faults if fault.verb == "store_rewind"):
            kernel.at(zero + to, self._backup, to)
        for index, fault in enumerate(self._faults):
            kernel.at(zero + fault.at_s, self._start, index, fault)
            if fault.ends_s is not None:
                kernel.at(zero + fault.ends_s, self._end, index)

    def heal(self) -> None:
        """End all that has not ended."""
        for index in list(self._undo):
            self._end(index)

    def _start(self, index: int, fault: Fault) -> None:
        about = f" ({who})" if (who := self._who(fault)) else ""
        self._say(index, True, about)
        self._beginning = index
        undo = BEGIN[fault.verb](self, fault)
        if undo is not None:
            self._undo[index] = undo

    def _end(self, index: int) -> None:
        undo = self._undo.pop(index, None)
        if undo is not None:
            undo()
            self._say(index, False)

    def _say(self, index: int, began: bool, about: str = "") -> None:
        fault, recorder = self._faults[index], self._cluster.recorder
        text = (fault.text or fault.verb) + about
        recorder.say(Faulted(at=recorder.now, index=index, began=began, text=text))

    # --- whom it means at this moment ---

    def _who(self, fault: Fault) -> str:
        """For people: who the leader is."""
        if fault.node == STORE_LEADER:
            return self._cluster.members.leader or "nobody"
        return self._node(fault) if fault.node == LEADER else ""

    def _node(self, fault: Fault) -> str:
        return self._cluster.leader_or_last() if fault.node == LEADER else fault.node

    # --- the verbs ---

    def _cut(self, fault: Fault) -> Undo:
        return self._cluster.network.cut(fault.one, fault.other)

    def _cut_one_way(self, fault: Fault) -> Undo:
        return self._cluster.network.cut(fault.one, fault.other, both=False)

    def _loss(self, fault: Fault) -> Undo:
        if fault.message:
            return self._cluster.messages.lose(fault.message, self._node(fault), fault.rate)
        return self._cluster.network.lose(fault.one, fault.other, fault.rate)

    def _slow(self, fault: Fault) -> Undo:
        if fault.service:
            return self._cluster.services.slow(fault.service, fault.site, fault.by_s)
        return self._cluster.network.slow(fault.one, fault.other, fault.by_s)

    def _delay(self, fault: Fault) -> Undo:
        return self._cluster.messages.delay(fault.message, self._node(fault), fault.by_s)

    def _pause(self, fault: Fault) -> Undo:
        return self._store_leader() if fault.node == STORE_LEADER else self._cluster.pause(self._node(fault))

    def _kill(self, fault: Fault) -> Undo:
        return self._store_leader() if fault.node == STORE_LEADER else self._cluster.kill(self._node(fault))

    def _restart(self, fault: Fault) -> Undo:
        return self._store_leader() if fault.node == STORE_LEADER else self._cluster.restart(self._node(fault))

    def _store_leader(self) -> Undo:
        """Whether it dies or stands still: the others elect another one."""
        members = self._cluster.members
        return members.kill(members.leader or members.names[0])

    def _power_off(self, fault: Fault) -> Undo:
        return self._cluster.power_off(fault.site)

    def _stop(self, fault: Fault) -> Undo:
        return self._cluster.services.stop(fault.service, fault.site, fault.how)

    def _flaky(self, fault: Fault) -> Undo:
        return self._cluster.services.flaky(fault.service, fault.site, fault.rate)

    def _reset(self, fault: Fault) -> Undo:
        return self._cluster.services.reset(fault.service, fault.site)

    def _lag(self, fault: Fault) -> Undo:
        return self._cluster.services.lag(fault.service, fault.site, fault.by_s)

    def _lie(self, fault: Fault) -> Undo:
        return self._cluster.lie(fault.node, fault.says)

    def _clock_step(self, fault: Fault) -> None:
        self._cluster.steps[self._node(fault)] += fault.by_s

    def _store_down(self, fault: Fault) -> Undo:
        return self._cluster.members.refuse()

    def _store_compact(self, fault: Fault) -> None:
        self._cluster.store.compact(self._cluster.store.rev)

    def _store_rewind(self, fault: Fault) -> None:
        self._cluster.restore(self._backups[fault.by_s], fault.by_s)

    def _dns_api_down(self, fault: Fault) -> Undo:
        return self._cluster.servers.refuse(fault.site)

    def _edit_zone(self, fault: Fault) -> None:
        self._cluster.servers.edit(fault.service, fault.site, fault.other, fault.how)

    def _operator(self, fault: Fault) -> None:
        index = self._beginning

        def done(code: int, said: str) -> None:
            recorder = self._cluster.recorder
            recorder.say(Operated(at=recorder.now, index=index, argv=fault.argv, code=code, said=said))

        self._operate(fault.argv, done)

    def _backup(self, to: float) -> None:
        self._backups[to] = self._cluster.store.snapshot()


# How each verb begins. What that returns undoes it; None: it is a deed.
BEGIN: dict[str, Callable[[Faults, Fault], Undo | None]] = {
    "cut": Faults._cut,
    "cut_one_way": Faults._cut_one_way,
    "loss": Faults._loss,
    "slow": Faults._slow,
    "delay": Faults._delay,
    "pause": Faults._pause,
    "kill": Faults._kill,
    "restart": Faults._restart,
    "power_off": Faults._power_off,
    "stop": Faults._stop,
    "flaky": Faults._flaky,
    "reset": Faults._reset,
    "lag": Faults._lag,
    "lie": Faults._lie,
    "clock_step": Faults._clock_step,
    "store_down": Faults._store_down,
    "store_compact": Faults._store_compact,
    "store_rewind": Faults._store_rewind,
    "dns_api_down": Faults._dns_api_down,
    "edit_zone": Faults._edit_zone,
    "operator": Faults._operator,
}
