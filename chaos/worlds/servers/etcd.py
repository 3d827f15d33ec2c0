"""A real etcd cluster: members as child processes, anywhere, with or without certificates."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import Struct

from chaos.worlds.servers.process import Failed, Process, program

READY_S = 15.0
ETCDCTL_ENV = {"ETCDCTL_API": "3"}


class Tls(Struct, frozen=True):
    """PEM files of one member, for its clients and its peers: clients must then show a certificate of `ca`."""

    ca: Path
    cert: Path
    key: Path


class Address(Struct, frozen=True):
    """Where a member listens. peer_via: "host:port" by which the others reach it, where that is not direct."""

    host: str
    client_port: int
    peer_port: int
    netns: str = ""
    peer_via: str = ""
    tls: Tls | None = None

    @property
    def client_url(self) -> str:
        return f"{self._scheme}://{_bracketed(self.host)}:{self.client_port}"

    @property
    def listen_peer_url(self) -> str:
        return f"{self._scheme}://{_bracketed(self.host)}:{self.peer_port}"

    @property
    def peer_url(self) -> str:
        return f"{self._scheme}://{self.peer_via}" if self.peer_via else self.listen_peer_url

    @property
    def _scheme(self) -> str:
        return "https" if self.tls else "http"


class EtcdMember:
    """One member; its data is in `directory`/data. Made by EtcdCluster."""

    def __init__(self, cluster: EtcdCluster, name: str, address: Address, extra: Sequence[str]) -> None:
        self.cluster, self.name, self.address = cluster, name, address
        self.directory = cluster.directory / name
        self.data = self.directory / "data"
        self.directory.mkdir(parents=True, exist_ok=True)
        argv = [
            *("etcd", "--name", name, "--data-dir", str(self.data)),
            *("--listen-client-urls", address.client_url, "--advertise-client-urls", address.client_url),
            *("--listen-peer-urls", address.listen_peer_url, "--initial-advertise-peer-urls", address.peer_url),
            *("--initial-cluster", cluster.initial, "--initial-cluster-token", cluster.token),
            *("--pre-vote=true", "--heartbeat-interval", "100", "--election-timeout", "1000"),
            *("--grpc-keepalive-min-time", "1s"),
            *("--auto-compaction-mode", "periodic", "--auto-compaction-retention", "10m"),
            *("--logger", "zap", "--log-outputs", "stderr"),
        ]
        if address.tls is not None:
            tls = address.tls
            argv += ["--client-cert-auth", "--trusted-ca-file", str(tls.ca)]
            argv += ["--cert-file", str(tls.cert), "--key-file", str(tls.key)]
            argv += ["--peer-client-cert-auth", "--peer-trusted-ca-file", str(tls.ca)]
            argv += ["--peer-cert-file", str(tls.cert), "--peer-key-file", str(tls.key)]
        self.process = Process(name, (*argv, *extra), self.directory, netns=address.netns)

    @property
    def url(self) -> str:
        return self.address.client_url

    @property
    def alive(self) -> bool:
        return self.process.alive

    def start(self) -> None:
        self.process.start()

    def ready(self, within_s: float = READY_S) -> None:
        """Wait until it serves: it is started, and it and a majority know a leader. Raises Failed."""
        self.process.ready(lambda: bool(self.status().get("leader")), within_s)

    def status(self) -> dict[str, Any]:
        """`leader`, `raftTerm`, `dbSize`, `header` ... of its Status; {} if it does not answer within a second."""
        done = self.cluster.etcdctl("endpoint", "status", "-w", "json", member=self, check=False)
        if done.returncode or not done.stdout:
            return {}
        found: list[dict[str, Any]] = msgspec.json.decode(done.stdout)
        return cast(dict[str, Any], found[0]["Status"]) if found else {}

    def kill(self) -> None:
        self.process.kill()

    def freeze(self) -> None:
        self.process.freeze()

    def thaw(self) -> None:
        self.process.thaw()

    def stop(self) -> None:
        self.process.stop()

    def restart(self) -> None:
        """Stopped by whatever means, it starts again with its data."""
        self.stop()
        self.start()


class EtcdCluster:
    """`members`: name -> Address. extra: flags for every member, after the usual ones.

    client_tls: what etcdctl shows; by default a member's own certificate.
    """

    def __init__(
        self,
        directory: Path,
        members: Mapping[str, Address],
        *,
        token: str = "failover",
        quota_bytes: int = 0,
        extra: Sequence[str] = (),
        client_tls: Tls | None = None,
    ) -> None:
        self.directory, self.token, self.client_tls = directory, token, client_tls
        self.initial = ",".join(f"{name}={address.peer_url}" for name, address in members.items())
        flags = [*(("--quota-backend-bytes", str(quota_bytes)) if quota_bytes else ()), *extra]
        self.members = {name: EtcdMember(self, name, address, flags) for name, address in members.items()}

    @property
    def urls(self) -> list[str]:
        return [member.url for member in self.members.values()]

    def start(self) -> None:
        """All of them, and wait until they serve. Raises Failed."""
        for member in self.members.values():
            member.start()
        self.ready()

    def ready(self) -> None:
        for member in self.members.values():
            member.ready()

    def stop(self) -> None:
        for member in self.members.values():
            member.thaw()
        for member in self.members.values():
            member.stop()

    def leader(self, within_s: float = READY_S) -> EtcdMember:
        """Raises Failed if there is none."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            for member in self.members.values():
                status = member.status() if member.alive else {}
                if status and status.get("leader") == status["header"]["member_id"]:
                    return member
            time.sleep(0.05)
        raise Failed(f"etcd has no leader after {within_s:g} s")

    def backup(self, path: Path) -> Path:
        """A snapshot of one member, at `path`."""
        self.etcdctl("snapshot", "save", str(path), timeout="10s")
        return path

    def restore(self, path: Path) -> None:
        """End all, put all back to a backup, and start them: with the same names, addresses and cluster id."""
        for member in self.members.values():
            member.kill()  # a graceful stop waits for the clients' watches
        for member in self.members.values():
            shutil.rmtree(member.data, ignore_errors=True)
            self.etcdctl(
                *("snapshot", "restore", str(path), "--name", member.name, "--data-dir", str(member.data)),
                *("--initial-cluster", self.initial, "--initial-cluster-token", self.token),
                *("--initial-advertise-peer-urls", member.address.peer_url),
            )
        self.start()

    def ctl(self, at: EtcdMember, *argv: str) -> list[str]:
        """The command line of an etcdctl that asks one member, from where it is."""
        tls = self.client_tls or at.address.tls
        inside = [program("ip"), "netns", "exec", at.address.netns] if at.address.netns else []
        files = ["--cacert", str(tls.ca), "--cert", str(tls.cert), "--key", str(tls.key)] if tls else []
        return [*inside, program("etcdctl"), "--endpoints", at.url, "--dial-timeout", "1s", *files, *argv]

    def etcdctl(
        self, *argv: str, member: EtcdMember | None = None, timeout: str = "1s", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run it against one member, by default the first that lives. check: raises Failed with what it said."""
        at = member or next((m for m in self.members.values() if m.alive), next(iter(self.members.values())))
        call = self.ctl(at, "--command-timeout", timeout, *argv)
        done = subprocess.run(
            call, capture_output=True, text=True, env={**os.environ, **ETCDCTL_ENV}, timeout=60, check=False
        )
        if check and done.returncode:
            raise Failed(f"etcdctl {' '.join(argv)}: {done.stderr.strip()}")
        return done

    def __enter__(self) -> EtcdCluster:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
