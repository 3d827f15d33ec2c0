"""What a node still lacks before it does all of its work, in words: for /readyz, systemd and the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from controlplane.node import Node
from controlplane.signal import Signal, together
from controlplane.store import StoreError
from controlplane.store.etcd import EtcdStore, StoreHealth

log = logging.getLogger(__name__)

LOOK_S = 0.25
STEADY_S = 2.0  # what passes within this time is no news
HEALTH_S = 10.0
HEALTH_WAITING_S = 2.0
CALL_S = 5.0  # patience with all members of etcd


class Readiness:
    """`tell` hears each change, one line: systemd's STATUS. `apply_at`: where a first configuration can be applied,
    or "". Reads the node's view; asks the store itself every few seconds."""

    def __init__(
        self, node: Node, store: EtcdStore, endpoints: int, apply_at: Callable[[], str], tell: Callable[[str], None]
    ) -> None:
        self._node, self._store, self._endpoints, self._apply_at, self._tell = node, store, endpoints, apply_at, tell
        self._health: StoreHealth | None = None
        self._error = ""  # of the last try to read something from the store
        self._examine_now = Signal()
        self._said: tuple[str, ...] | None = None
        self._status = ""

    def lacks(self) -> tuple[str, ...]:
        """One line each; () = ready."""
        view = self._node.view
        if not view.synced or not view.current:
            return (f"waiting for etcd: {self._why()}", *self._ills())
        found = []
        if view.config is None:
            url = self._apply_at()
            where = f" --api {url}" if url else ""
            found.append(f"waiting for a configuration: failoverctl apply FILE{where}")
        elif self._node.site not in view.config.sites:
            known = ", ".join(view.config.sites)
            found.append(f"site {self._node.site} is not in the applied configuration, which has {known}: idle")
        for key, why in sorted(view.mirror.unreadable.items())[:1]:
            found.append(f"cannot read {key}: {why}; upgrade this node; until then it does not lead")
        if view.clock_suspect:
            found.append("this node's wall clock differs from the others' by over 5s; see its NTP")
        found += [f"driver {name} {fault}" for name, fault in sorted(self._node.driver_faults.items())]
        return (*found, *self._ills())

    async def run(self) -> None:
        """Look, log what changes, until cancelled."""
        await together(self._look(), self._examine())

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        seen, since = self.lacks(), loop.time()
        current = False
        while True:
            if current and not self._node.view.current:  # what is known of etcd is from before
                self._health, self._error = None, ""
                self._examine_now.set()
            current = self._node.view.current
            now = self.lacks()
            if now != seen:
                seen, since = now, loop.time()
            if seen != self._said and (not seen or loop.time() - since >= STEADY_S):
                self._say(seen)
            status = seen[0] if seen else self._role()
            if status != self._status:
                self._status = status
                self._tell(status)
            await asyncio.sleep(LOOK_S)

    def _say(self, lacks: tuple[str, ...]) -> None:
        before, self._said = self._said or (), lacks
        for line in lacks:
            if line not in before:
                log.warning("%s", line)
        if not lacks:
            log.info("ready: %s", self._role())

    def _role(self) -> str:
        token = self._node.election.token
        if token is not None:
            return f"leading with token {token}"
        leader = self._node.view.leader
        # Its own name stands there until another one claims the key: after etcd was away, say.
        return f"following {leader.node}" if leader and leader.node != self._node.site else "nobody leads"

    # --- the store

    async def _examine(self) -> None:
        while True:
            count = self._examine_now.count
            try:
                async with asyncio.timeout(CALL_S):
                    self._health = await self._store.health()
                    await self._store.get(self._node.view.keys.incarnation)
                self._error = ""
            except (StoreError, TimeoutError) as error:
                self._error = str(error) or "no answer"
            await self._examine_now.wait(HEALTH_S if self._node.view.current else HEALTH_WAITING_S, count)

    def _why(self) -> str:
        health, of = self._health, f"{self._endpoints} endpoint{'s' * (self._endpoints != 1)}"
        if health is None and not self._error:
            return f"asking {of}"
        answer = sum(member.reachable for member in health.members) if health else 0
        if not answer:
            return f"none of {of} answers"
        if self._error:
            return f"{answer} of {of} answer{'s' * (answer == 1)}, but: {self._error}"
        return "it answers, and its changes do not come in time"

    def _ills(self) -> list[str]:
        """What ends in a store that takes no writes, while there is time to do something."""
        health = self._health
        if health is None:
            return []
        found = []
        for member in health.members:
            alarms = ", ".join(member.alarms)
            if alarms:
                found.append(f"etcd {member.name or member.endpoint} raises {alarms}: compact, defrag, alarm disarm")
            elif member.reachable and member.half_full:
                where = member.name or member.endpoint
                found.append(f"etcd {where} has filled {member.fills}: run it with auto-compaction")
        return found
