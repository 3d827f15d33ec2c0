"""What comes into the store, seen at every member, from where it is: no cut of the network hides it from them."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
import time
from queue import Empty, SimpleQueue

import msgspec
from msgspec import Struct

from chaos.worlds.lab import layout
from chaos.worlds.servers.etcd import ETCDCTL_ENV, EtcdCluster, EtcdMember
from chaos.worlds.servers.process import program
from controlplane.documents import Keys

AGAIN_S = 0.2
DELETED = 1  # the type of such an event
KEYS = Keys(layout.CLUSTER)
# config/, decisions/, desired/, incarnation, leader: all that is decided, and none of the beats.
FIRST, END = KEYS.prefix + "config", KEYS.leader + "/"


class Event(Struct, frozen=True):
    """`t`: CLOCK_MONOTONIC, when the first member knew it. value None: the key is gone."""

    t: float
    rev: int
    key: str
    value: bytes | None


class _Kv(Struct):
    key: str
    mod_revision: int
    value: str = ""


class _Change(Struct):
    kv: _Kv
    type: int = 0


class _Reply(Struct, rename={"events": "Events", "compacted": "CompactRevision"}):
    events: list[_Change] | None = None
    compacted: int = 0


read = msgspec.json.Decoder(_Reply).decode


class StoreWatch:
    """Of one lab's etcd: begin(), take() as often as wanted, end(), and again."""

    def __init__(self, etcd: EtcdCluster) -> None:
        self._etcd = etcd
        self._watchers: list[_Watcher] = []
        self._highest = 0

    def begin(self, rev: int) -> None:
        """Everything from this revision on, whenever that was."""
        self._highest = rev - 1
        self._watchers = [_Watcher(self._etcd, member, rev) for member in self._etcd.members.values()]
        for watcher in self._watchers:
            watcher.start()

    def take(self) -> list[Event]:
        """What is new, in the order of the revisions. Each member says all, in that order: so whatever is not above the
        highest revision seen was said by another before. Raises what a watcher died of."""
        found: list[Event] = []
        for watcher in self._watchers:
            for reply in watcher.take():
                found += [event for event in reply if event.rev > self._highest]
                self._highest = max([self._highest, *(event.rev for event in reply)])
        return found

    def again(self) -> None:
        """All members were away, and begin anew: etcdctl would ask them seconds later, it waits longer each time."""
        for watcher in self._watchers:
            watcher.again()

    def end(self) -> None:
        for watcher in self._watchers:
            watcher.end()
        self._watchers = []


class _Watcher(threading.Thread):
    """`etcdctl watch` at one member, again and again: it ends when that is away and its history gone meanwhile."""

    def __init__(self, etcd: EtcdCluster, member: EtcdMember, rev: int) -> None:
        super().__init__(name=f"watch {member.name}", daemon=True)
        self._etcd, self._member, self._rev = etcd, member, rev
        self._queue: SimpleQueue[list[Event] | Exception] = SimpleQueue()
        self._over = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def take(self) -> list[list[Event]]:
        """By transaction, or several of them."""
        found: list[list[Event]] = []
        while True:
            try:
                entry = self._queue.get_nowait()
            except Empty:
                return found
            if isinstance(entry, Exception):
                raise entry
            found.append(entry)

    def again(self) -> None:
        """Ask anew at once."""
        if self._process is not None:
            self._process.kill()

    def end(self) -> None:
        self._over.set()
        self.again()
        self.join(5)

    def run(self) -> None:
        try:
            while not self._over.is_set():
                if self._etcd.etcdctl("endpoint", "status", member=self._member, check=False).returncode == 0:
                    self._watch()
                self._over.wait(AGAIN_S)
        except Exception as error:  # told to whoever takes
            self._queue.put(error)

    def _watch(self) -> None:
        watch = ("watch", "--rev", str(self._rev), "-w", "json", FIRST, END)
        with subprocess.Popen(
            (program("setpriv"), "--pdeathsig", "KILL", *self._etcd.ctl(self._member, *watch)),
            env={**os.environ, **ETCDCTL_ENV},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what it says while its member is away
            start_new_session=True,
        ) as self._process:
            assert self._process.stdout is not None
            if self._over.is_set():  # since before there was a process to end
                self._process.kill()
            for line in self._process.stdout:
                if line.startswith(b"{"):
                    self._heard(time.monotonic(), read(line))

    def _heard(self, t: float, reply: _Reply) -> None:
        events = [
            Event(t, c.kv.mod_revision, _plain(c.kv.key).decode(), None if c.type == DELETED else _plain(c.kv.value))
            for c in reply.events or ()
        ]
        self._rev = max([self._rev, reply.compacted, *(event.rev + 1 for event in events)])
        if events:
            self._queue.put(events)


def _plain(text: str) -> bytes:
    return base64.b64decode(text)
