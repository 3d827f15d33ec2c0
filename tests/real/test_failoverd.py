"""One failoverd as a process: it starts before everything else, says what it lacks, and ends as it is told to."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from chaos.worlds.servers.etcd import Address, EtcdCluster, Tls
from chaos.worlds.servers.process import free_port
from tests.real.failoverd_world import Failoverd, World, until

pytestmark = pytest.mark.timeout(150)  # real processes, on a machine that may be busy


class Systemd:
    """What a service manager hears at its NOTIFY_SOCKET. It listens all the time: the kernel keeps 10 messages."""

    def __init__(self, directory: Path) -> None:
        path = directory / "notify"
        self.heard: list[str] = []
        self.env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "600000"}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while message := self._socket.recv(4096):
            self.heard.append(message.decode().strip())

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self.env["NOTIFY_SOCKET"])
        self._thread.join(5)
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    manager = Systemd(tmp_path)
    yield manager
    manager.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    built = World(tmp_path, ("site-a",))
    try:
        yield built
    finally:
        built.close()


def ended(node: Failoverd) -> int:
    """Its exit code, once it has ended by itself."""
    until(f"{node.site} to end", lambda: not node.process.alive)
    code = node.process.stop()
    assert code is not None
    return code


def test_from_nothing_to_ready_and_to_a_clean_end(world: World, systemd: Systemd) -> None:
    node = Failoverd("site-a", world.etcd.url, world.directory, env=systemd.env).start()
    world.nodes["site-a"] = node

    # Before etcd is there.
    until("the API", lambda: node.get("/healthz") == (200, {"ok": True}))
    until("etcd to be missed", lambda: node.missing() == "waiting for etcd: none of 1 endpoint answers")
    until("a log line", lambda: node.said("waiting for etcd: none of 1 endpoint answers"))
    assert "READY=1" in systemd.heard, "it is up: a site that boots alone must not wait for the others"
    until("a status", lambda: "STATUS=waiting for etcd: none of 1 endpoint answers" in systemd.heard)
    refused = world.ctl("apply", world_file(world), "--yes")
    assert refused.returncode == 4 and "view is not current" in refused.stderr and "Traceback" not in refused.stderr

    # Before a configuration was applied.
    world.etcd.start()
    waiting = f"waiting for a configuration: failoverctl apply FILE --api {node.url}"
    until("a configuration to be missed", lambda: node.missing() == waiting)
    until("a log line", lambda: node.said(waiting))
    assert len(node.said("waiting for etcd: none")) == 1, "once for each change"
    foreign = world.ctl("apply", world_file(world, world.config.replace("cluster: real", "cluster: other")), "--yes")
    assert foreign.returncode == 1 and "is for cluster other; this is real" in foreign.stderr

    # Bootstrapped through its API.
    world.apply()
    until("it to be ready", lambda: node.ready)
    until("it to lead", lambda: any(m.startswith("STATUS=leading with token") for m in systemd.heard))
    assert len([m for m in systemd.heard if m == "WATCHDOG=1"]) > 3, "pings come from the event loop"

    # SIGHUP.
    systemd.heard.clear()
    before = len(node.log())
    node.process.signal(signal.SIGHUP)
    until("the reload", lambda: node.said("certificates and secrets were read again"))
    until("systemd to hear of it", lambda: "READY=1" in systemd.heard)
    assert any(re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", m) for m in systemd.heard)

    until("it to see etcd", lambda: node.ready)
    assert [line["msg"] for line in node.log()[before:] if line["level"] != "info"] == [], "all is well"

    # A clean end.
    assert node.process.stop(10) == 0
    assert "STOPPING=1" in systemd.heard
    assert node.said("stopped (stopped)") and node.log()[-1]["level"] == "info"
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", node.api_port))
    journal = world.directory / "site-a-state" / "journal.jsonl"
    assert (world.directory / "site-a-state").stat().st_mode & 0o777 == 0o700
    assert any(json.loads(line)["kind"] == "audit" for line in journal.read_text().splitlines())
    assert {"at", "level", "node", "msg"} <= node.log()[0].keys()
    assert not [line for line in node.log() if "Traceback" in line.get("error", "")]


def world_file(world: World, text: str = "") -> str:
    file = world.directory / "given.yaml"
    file.write_text(text or world.config)
    return str(file)


def test_what_is_not_its_own_is_left_alone(world: World) -> None:
    world.etcd.start()
    node = world.nodes["site-a"].start()
    until("the API", lambda: node.get("/healthz")[0] == 200)

    twin = Failoverd("site-a", world.etcd.url, world.directory).start()
    assert ended(twin) == 1
    said = twin.process.log.read_text()
    assert f"another failoverd (pid {node.process.pid}) uses it" in said and "Traceback" not in said

    (world.directory / "b").mkdir()
    taken = ("--listen", f"127.0.0.1:{node.api_port}")
    second = Failoverd("site-b", world.etcd.url, world.directory / "b", *taken).start()
    assert ended(second) == 1
    assert f"cannot listen on 127.0.0.1:{node.api_port}: in use" in second.log()[-1]["msg"]
    assert not any("Traceback" in line.get("error", "") for line in second.log())

    world.wait_for_store()
    world.apply()
    (world.directory / "c").mkdir()
    stranger = Failoverd("site-x", world.etcd.url, world.directory / "c").start()
    try:
        lost = "site site-x is not in the applied configuration, which has site-a, site-b, site-c: idle"
        until("it to say so", lambda: stranger.missing() == lost and stranger.said(lost))
        node.process.kill()
        until("the leader to be missed", lambda: stranger.status()["leader"] is None)
        assert not stranger.said("leading"), "it is no member, whatever happens to the others"
        assert stranger.process.stop(10) == 0
    finally:
        stranger.process.kill()


def test_of_two_of_one_site_the_first_stays_and_the_second_says_so(world: World) -> None:
    """systemd starts the second again and again; nobody else may notice."""
    world.etcd.start()
    node = world.nodes["site-a"].start()
    world.wait_for_store()
    world.apply()
    until("its beat", lambda: node.ready)
    (world.directory / "other").mkdir()
    second = Failoverd("site-a", world.etcd.url, world.directory / "other")
    try:
        for _ in range(2):
            second.start()
            assert ended(second) == 1
        said = second.said("another failoverd of site-a runs", "each site has one failoverd, so this one ends")
        assert len(said) == 2 and not second.said("leading")
        assert node.ready and not node.said("another process")

        # Once the first is gone, however it went, the second may be started at once.
        began = time.monotonic()
        node.process.kill()
        second.start()
        until("the second to work", lambda: second.ready)
        print(f"ready {time.monotonic() - began:.1f} s after the first was killed")

        # Who only sleeps is not noticed (but for its port), and yields when it wakes.
        second.process.freeze()
        node.start()
        until("the first to lead again", lambda: len(node.said("leading (")) == 2)
        second.process.thaw()
        assert ended(second) == 1
        assert second.said("another process reports as site-a/main")
    finally:
        second.process.kill()


def test_asked_to_end_without_etcd_it_ends_and_asked_twice_at_once(world: World) -> None:
    world.etcd.start()
    node = world.nodes["site-a"].start()
    world.wait_for_store()
    world.apply()
    until("it to lead", lambda: node.said("leading ("))
    world.etcd.freeze()
    assert node.process.stop(10) == 0, "what it could not tell the others they will notice"
    world.etcd.thaw()

    node.start()
    until("it to lead", lambda: len(node.said("leading (")) == 2)
    world.etcd.freeze()
    node.process.signal(signal.SIGTERM)
    until("it to hear", lambda: len(node.said("SIGTERM: stopping")) == 2)
    node.process.signal(signal.SIGTERM)
    assert ended(node) == 128 + signal.SIGTERM, "the first one was still waiting for etcd"


def pem(authority: trustme.CA, directory: Path, cn: str) -> dict[str, Path]:
    """A certificate and its key, with the authority that signed it."""
    directory.mkdir(exist_ok=True)
    files = {part: directory / f"{part}.pem" for part in ("ca", "cert", "key")}
    leaf = authority.issue_cert("127.0.0.1", common_name=cn)
    authority.cert_pem.write_to_path(files["ca"])
    leaf.cert_chain_pems[0].write_to_path(files["cert"])
    leaf.private_key_pem.write_to_path(files["key"])
    return files


def test_certificates_are_read_again_on_sighup(tmp_path: Path) -> None:
    ours, others = trustme.CA(), trustme.CA()
    address = Address("127.0.0.1", free_port(), free_port(), tls=Tls(**pem(ours, tmp_path / "e", cn="e")))
    mine = pem(others, tmp_path / "mine", cn="site-a")
    foreign = mine["key"].read_bytes()
    pem(ours, tmp_path / "mine", cn="site-a")
    mine["key"].write_bytes(foreign)
    with EtcdCluster(tmp_path / "etcd", {"etcd": address}) as etcd:
        flags = [flag for part, file in mine.items() for flag in (f"--etcd-{part}", str(file))]
        node = Failoverd("site-a", etcd.urls[0], tmp_path, *flags)
        refused = subprocess.run(node.process.argv, capture_output=True, text=True, timeout=30)
        assert refused.returncode == 2 and f"--etcd-key: {mine['key']} is not the key" in refused.stderr
        pem(others, tmp_path / "mine", cn="site-a")
        try:
            node.start()
            until("it to be refused", lambda: node.said("waiting for etcd: none of 1 endpoint answers"))
            pem(ours, tmp_path / "mine", cn="site-a")
            node.process.signal(signal.SIGHUP)
            until("it to be let in", lambda: "waiting for a configuration" in node.missing())
            assert node.said("SIGHUP: certificates and secrets were read again")
            mine["cert"].write_text("no certificate")
            node.process.signal(signal.SIGHUP)
            until("it to say so", lambda: node.said("SIGHUP: not everything could be read again"))
            assert "waiting for a configuration" in node.missing(), "and it goes on with the old one"
            assert node.process.stop(10) == 0
        finally:
            node.process.kill()


def test_without_a_named_api_failoverctl_asks_this_machine(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "controlplane.cli.main", "status"]
    env = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path)}
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30)
    assert result.returncode == 4
    for word in ("http://127.0.0.1:8600: connection refused", "failoverctl dev", "--api URL"):
        assert word in result.stderr
