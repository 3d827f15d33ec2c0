"""Three failoverd over one real etcd: leadership changes hands, etcd goes away and comes back, a driver hangs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from controlplane.documents import Keys
from controlplane.store import KV, Put, Txn
from controlplane.store.etcd import EtcdStore
from tests.real.failoverd_world import SITES, Failoverd, World, until
from tests.support import run

pytestmark = pytest.mark.timeout(150)  # real processes, on a machine that may be busy


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    built = World(tmp_path_factory.mktemp("failoverd"))
    try:
        yield built.start()
    finally:
        built.close()


@pytest.fixture(autouse=True)
def as_it_was(world: World) -> Iterator[None]:
    """Each test finds three nodes that run, and all of them answer the same."""
    for node in world.nodes.values():
        if not node.process.alive:
            node.start()
    for node in world.nodes.values():
        until(f"{node.site} to be ready", lambda n=node: n.ready)
    world.wait_until_served()
    yield
    for web in world.webs.values():
        web.up = True
    world.etcd.thaw()
    for node in world.nodes.values():
        node.process.thaw()


def test_a_failover_leaves_one_thread_through_all_logs(world: World) -> None:
    before = {line["decision"] for node in world.nodes.values() for line in node.log() if "decision" in line}
    world.wait_until_left(world.fail())
    leader = world.wait_for_leader()
    moved = [line for line in leader.said("failed: world 100 -> 0") if line["decision"] not in before]
    assert len(moved) == 1 and moved[0]["msg"].startswith(moved[0]["decision"])
    decision = moved[0]["decision"]
    for node in world.nodes.values():

        def told(kind: str, node: Failoverd = node) -> bool:
            return any(line.get("decision") == decision for line in node.said(f"{kind} www at"))

        until(f"{node.site} to say that it applied {decision}", lambda t=told: t("applied"))
        until(f"{node.site} to say that it verified {decision}", lambda t=told: t("seen"))
    for node in world.nodes.values():
        assert {line["node"] for line in node.log()} == {node.site}
        assert not [line for line in node.log() if "Traceback" in line.get("error", "")]


def test_sigterm_hands_leadership_over(world: World) -> None:
    leader = world.wait_for_leader()
    others = [node for node in world.nodes.values() if node is not leader]
    before = {node.site: len(node.said("leading (")) for node in others}
    began = time.monotonic()
    assert leader.process.stop(10) == 0
    until("another leader", lambda: any(len(n.said("leading (")) > before[n.site] for n in others))
    print(f"handed over {time.monotonic() - began:.2f} s after SIGTERM was sent")
    new = next(n for n in others if len(n.said("leading (")) > before[n.site])
    assert "(nobody led)" in new.said("leading (")[-1]["msg"], "it did not have to wait for silence"


def test_a_leader_that_is_killed_is_succeeded(world: World) -> None:
    leader = world.wait_for_leader()
    began = time.monotonic()
    leader.process.kill()
    world.wait_until_left(world.fail())
    print(f"killed with the service: answers moved after {time.monotonic() - began:.2f} s")
    assert world.wait_for_leader().site != leader.site


def decisions(node: Failoverd) -> list[dict[str, Any]]:
    """What it committed itself."""
    return [line for line in node.log() if line["msg"].startswith("d-")]


def test_a_leader_that_was_frozen_changes_nothing_when_it_wakes(world: World) -> None:
    leader = world.wait_for_leader()
    address = world.fail()
    leader.process.freeze()
    others = [site for site in SITES if site != leader.site]
    until("the others to move", lambda: all(world.told(site) not in ([], [address]) for site in others))
    new = next(node for node in world.nodes.values() if node.site != leader.site)
    until("a new leader", lambda: new.status()["leader"] not in (None, leader.site))
    mine = len(decisions(leader))
    leader.process.thaw()
    until("it to see that it leads no more", lambda: leader.said("following (")[-1:] and leader.ready)
    world.wait_until_left(address)
    assert len(decisions(leader)) == mine, "it has decided nothing"


def test_without_etcd_everything_goes_on_as_it_is_and_says_so(world: World) -> None:
    node = world.nodes["site-b"]
    address = world.wait_until_served()
    world.etcd.freeze()
    assert world.fail() == address
    until("the age to show", lambda: node.status()["source"]["age_s"] > 3)
    assert node.status()["source"]["current"] is False
    assert "STALE" in world.ctl("status").stdout
    until("readyz", lambda: "waiting for etcd: none of 1 endpoint answers" in node.missing())
    assert node.get("/healthz")[0] == 200
    assert world.answers() == {address}, "the last good answer"
    refused = world.ctl("drain", "site-b", "--reason", "test", "--yes", "--no-wait")
    assert refused.returncode == 4 and "Traceback" not in refused.stderr
    world.etcd.kill()
    assert world.answers() == {address}
    world.etcd.start()
    world.wait_until_left(address)
    assert all(n.process.alive for n in world.nodes.values())
    until("it to be ready", lambda: node.ready)


# --- a driver that hangs

WALL = time.time  # noqa: TID251 - to be compared with what stands in logs
SURE_S = 0.1  # further from the beginning and the end of a call than two clocks' readings could be
ATTEMPTS = 15  # a write may come between two calls


class Hung:
    """A server that accepts, reads and never answers. `calls`: process, and the wall clock when it called and, unless
    it still waits, when it gave up."""

    def __init__(self, path: Path) -> None:
        self.calls: list[tuple[int, float, float | None]] = []
        self._threads: list[threading.Thread] = []
        self._kept: list[socket.socket] = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(50)
        self._start(self._accept)

    def _start(self, target: Callable[[], None]) -> None:
        self._threads.append(threading.Thread(target=target, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                caller = self._socket.accept()[0]
            except OSError:
                return
            pid, _, _ = struct.unpack("3i", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            self.calls.append((pid, WALL(), None))
            self._kept.append(caller)
            self._start(partial(self._listen, caller, len(self.calls) - 1))

    def _listen(self, caller: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            while caller.recv(4096):
                pass
        self.calls[number] = (*self.calls[number][:2], WALL())

    def waits(self, pid: int, at: float) -> bool:
        """Did this process wait for an answer at that time, and for some time before and after?"""
        calls = list(self.calls)
        return any(p == pid and began + SURE_S < at < (end or 0.0) - SURE_S for p, began, end in calls)

    def close(self) -> None:
        for each in (self._socket, *self._kept):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for each in (self._socket, *self._kept):
            each.close()


def applied(node: Failoverd, since: float) -> list[float]:
    """When it wrote answers into its name server."""
    lines = node.said("applied www at embedded")
    return [at for line in lines if (at := datetime.fromisoformat(line["at"]).timestamp()) > since]


def test_one_hung_driver_delays_nothing_else(world: World) -> None:
    path = world.directory / "hung.sock"
    hung = Hung(path)
    try:
        text = world.config.replace("    dns: {name", "    pools: {backend: bk_www}\n    dns: {name")
        world.apply(text + f"  pools:\n    - {{driver: haproxy, sites: all, socket: {path}}}\n")
        pids = {node.process.pid: node for node in world.nodes.values()}
        until("all to call it", lambda: {pid for pid, _, _ in hung.calls} == set(pids))
        began = WALL()

        def beside() -> dict[str, int]:
            """By site: how often it wrote to its name server while its own other driver waited for an answer."""
            return {n.site: sum(hung.waits(pid, at) for at in applied(n, began)) for pid, n in pids.items()}

        for _ in range(ATTEMPTS):
            address = world.fail()
            world.wait_until_left(address)
            next(web for site, web in world.webs.items() if SITES[site] == address).up = True
            if all(beside().values()):
                break
        print(f"written while the other driver hung: {beside()} of {len(applied(world.nodes['site-a'], began))}")
        assert all(beside().values()), "a name server was written only when the pool's call had ended"
        until("the one that hangs to say so", lambda: pool_result(world) == "transient")
        leader = world.wait_for_leader()
        node = next(n for n in world.nodes.values() if n is not leader)
        until("the alarm", lambda: len(unwritable(node)) == len(SITES))
        remedy = unwritable(node)["haproxy at site-a"]
        assert f"{path}: no answer within 2 s; until that is mended site-a cannot change" in remedy
        assert leader.process.stop(10) == 0, "nor the end"
    finally:
        world.apply()
        hung.close()


# --- documents of other versions


def store_of(world: World) -> EtcdStore:
    return EtcdStore([world.etcd.url])


def read(world: World, key: str) -> KV:
    async def main() -> KV:
        store = store_of(world)
        try:
            found = await store.get(key)
        finally:
            await store.aclose()
        assert found is not None
        return found

    return run(main())


def write(world: World, key: str, document: dict[str, Any]) -> None:
    async def main() -> None:
        store = store_of(world)
        try:
            assert (await store.txn(Txn((), (Put(key, json.dumps(document).encode()),)))).ok
        finally:
            await store.aclose()

    run(main())


KEYS = Keys("real")


def unwritable(node: Failoverd) -> dict[str, str]:
    """Subject -> remedy of the alarms of this name."""
    return {a["subject"]: a["remedy"] for a in node.status()["alarms"] if a["name"] == "unwritable"}


def pool_result(world: World) -> str:
    document = json.loads(read(world, KEYS.applied_by("site-a", "site-a", "haproxy")).value)
    return str(document["services"].get("www", {}).get("result", ""))


def unreadable(world: World, site: str) -> str:
    return str(json.loads(read(world, KEYS.node(site)).value)["unreadable"])


def test_a_document_of_a_newer_schema_leaves_the_last_good_copy_and_nobody_leads(world: World) -> None:
    address = world.wait_until_served()
    good = json.loads(read(world, KEYS.service("www")).value)
    write(world, KEYS.service("www"), good | {"schema": 2, "answers": "in a form of the future"})
    key = KEYS.service("www")
    said = f"{key}: schema 2, this version reads up to 1"
    for node in world.nodes.values():
        until(f"{node.site} to say so", lambda n=node: f"cannot read {key}: schema 2" in n.missing())
        until(f"{node.site} to say so in nodes/", lambda n=node: unreadable(world, n.site) == said)
    node = world.nodes["site-a"]
    until("nobody to lead", lambda: node.status()["leader"] is None)
    assert {a["name"] for a in node.status()["alarms"]} >= {"unreadable", "no_leader"}
    assert world.answers() == {address}, "the last good copy is served"
    write(world, key, good)
    world.wait_for_leader()
    until("all to be ready", lambda: all(n.ready for n in world.nodes.values()))


def test_fields_that_are_not_known_are_carried_along(world: World) -> None:
    key = KEYS.service("www")
    write(world, key, json.loads(read(world, key).value) | {"schema": 0, "colour": {"of": "the future"}})
    idle = next(site for site, address in SITES.items() if address != world.wait_until_served())
    drained = world.ctl("drain", idle, "--reason", "test", "--yes", "--no-wait")
    assert drained.returncode == 0, drained.stderr
    until("it to be written again", lambda: json.loads(read(world, key).value).get("overrides") == ["ov-1"])
    after = json.loads(read(world, key).value)
    assert after["colour"] == {"of": "the future"} and after["schema"] == 1
    assert world.ctl("undrain", idle, "--reason", "test", "--yes", "--no-wait").returncode == 0


def test_apply_refuses_what_a_node_that_runs_could_not_read(world: World) -> None:
    mine = json.loads(read(world, KEYS.node("site-a")).value)
    old = mine | {"node": "site-old", "run": "old", "reads_schema": 0}
    beating = threading.Event()

    async def beat() -> None:
        store = store_of(world)
        try:
            for n in range(200):
                if beating.is_set():
                    return
                value = json.dumps(old | {"n": n}).encode()
                await store.txn(Txn((), (Put(KEYS.node("site-old"), value),)))
                await asyncio.sleep(0.3)
        finally:
            await store.aclose()

    thread = threading.Thread(target=lambda: run(beat()))
    thread.start()
    try:
        node = world.nodes["site-a"]
        until("the old node to be seen", lambda: "site-old" in node.status()["nodes"])
        world.file.write_text(world.config.replace("demand: 10", "demand: 11"))
        refused = world.ctl("apply", str(world.file), "--yes")
        assert refused.returncode == 1 and "schema 1 cannot be read by site-old: upgrade first" in refused.stderr
    finally:
        beating.set()
        thread.join(10)
