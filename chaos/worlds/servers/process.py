"""One real server as a child process: started in the foreground, frozen, killed, and gone when we are."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

# Debian's package of each program; what is not in PATH is looked for where Debian puts daemons.
PACKAGES = {
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "etcd": "etcd-server",
    "etcdctl": "etcd-client",
    "haproxy": "haproxy",
    "ip": "iproute2",
    "knotc": "knot",
    "knotd": "knot",
    "named": "bind9",
    "named-checkconf": "bind9-utils",
    "nft": "nftables",
    "openssl": "openssl",
    "pdns_server": "pdns-server pdns-backend-lmdb pdns-backend-geoip",
    "pdnsutil": "pdns-server",
    "podman": "podman",
    "setpriv": "util-linux",
    "socat": "socat",
    "systemd-analyze": "systemd",
    "unbound": "unbound",
}
_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


class Missing(Exception):
    """A program is not installed; says which command installs it."""


class Failed(Exception):
    """A server ended, or did not become ready; has the end of its log."""


def program(name: str) -> str:
    """Its path. Raises Missing."""
    found = shutil.which(name, path=_PATH)
    if found is None:
        raise Missing(f"{name} is not installed. Install it with:  sudo apt-get install {PACKAGES.get(name, name)}")
    return found


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free for UDP and TCP now."""
    for _ in range(50):
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind((host, 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind((host, port))
            except OSError:
                continue
            return port
    raise OSError("no free port")


class Process:
    """`argv[0]` is found by `program`. Its output goes to `directory`/`name`.log. netns: the name of a network
    namespace to start it in (root). Start it from the main thread: the kernel ends it with the thread that began it.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        directory: Path,
        *,
        netns: str = "",
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.directory, self.netns = name, directory, netns
        self.argv = (program(argv[0]), *argv[1:])
        self.env = {**os.environ, **(env or {})}
        self.log = directory / f"{name}.log"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None, f"{self.name} was not started"
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        assert not self.alive, f"{self.name} runs already"
        self.directory.mkdir(parents=True, exist_ok=True)
        # It must not outlive a test run that is killed. (A preexec_fn would do, but forking in a process that uses
        # gRPC crashes the child.)
        tied = (program("setpriv"), "--pdeathsig", "KILL")
        inside = (program("ip"), "netns", "exec", self.netns) if self.netns else ()
        with open(self.log, "ab") as log:
            self._child = subprocess.Popen(
                (*tied, *inside, *self.argv),
                cwd=self.directory,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is meant for us
            )

    def signal(self, number: int) -> None:
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """As a power cut would (SIGKILL), and wait until it is gone."""
        self.signal(signal.SIGKILL)
        if self._child is not None:
            self._child.wait()

    def stop(self, patience_s: float = 5.0) -> int | None:
        """Ask it to end (SIGTERM); kill it if it does not. Returns its exit code."""
        if self._child is None:
            return None
        self.thaw()
        self.signal(signal.SIGTERM)
        try:
            return self._child.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._child.returncode

    def ready(self, when: Callable[[], bool], within_s: float = 15.0) -> None:
        """Wait until `when` holds. Raises Failed if the process ends first, or takes too long."""
        until = time.monotonic() + within_s
        while not when():
            if not self.alive:
                raise Failed(f"{self.name} ended with {self._child and self._child.returncode}:\n{self.tail()}")
            if time.monotonic() > until:
                raise Failed(f"{self.name} was not ready within {within_s:g} s:\n{self.tail()}")
            time.sleep(0.02)

    def tail(self, lines: int = 30) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Process:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def accepts(host: str, port: int) -> bool:
    """Does something accept TCP connections there now?"""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((host, port)) == 0
