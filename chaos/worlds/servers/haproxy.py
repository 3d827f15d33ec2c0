"""A real HAProxy: a frontend for each backend, the retries that hide a server's death, and a runtime API.

Master-worker mode (-W) is what Debian's unit runs: a reload replaces the worker and keeps the master. Signals go to
the whole process group, because it is the worker that serves.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from chaos.worlds.servers.process import Failed, Process

Place = tuple[str, int]  # address, port

_CONFIG = """\
global
    log stderr format raw local0 notice
    {sockets}
    server-state-base {directory}
    server-state-file {state_file}
    hard-stop-after 10s

defaults
    mode http
    load-server-state-from-file global
    timeout client 10s
    timeout connect {connect}ms
    timeout check {connect}ms
    timeout queue 1s
    timeout server {server}ms
    retries 3
    option redispatch 1
    retry-on conn-failure empty-response response-timeout 500 502 503 504
{pools}"""
_FRONTEND = """
frontend {name}_in
    bind {listen}
    default_backend {name}
"""
_BACKEND = """
backend {name}
    balance roundrobin
    # Only requests that may be sent twice.
    http-request disable-l7-retry if !METH_GET
    {check}default-server {options}
{servers}
"""
_CHECKS = "check inter 1s fastinter 200ms fall 3 rise 2 observe layer7 on-error fastinter"


class HAProxy:
    """`backends`: backend -> server -> its place. `listen`: where the frontend of each backend listens; those that
    are left out have none.

    admin: a second runtime API over TCP (a unix socket there is always). check_path: what HAProxy's own health checks
    ask for; "" = no checks. server_timeout_ms: how long a server may take to answer before another is asked.
    server_options: for each `server` line, such as "ssl verify none". netns: see Process.

    Files are in `directory`: haproxy.cfg, admin.sock (level admin), operator.sock (level operator), haproxy.state
    (the server-state-file, loaded at each start and reload).
    """

    def __init__(
        self,
        directory: Path,
        listen: Mapping[str, Place],
        backends: Mapping[str, Mapping[str, Place]],
        *,
        admin: Place | None = None,
        check_path: str = "/",
        connect_timeout_ms: int = 500,
        server_timeout_ms: int = 300,
        server_options: str = "",
        netns: str = "",
    ) -> None:
        self.directory, self.admin = directory, admin
        self.listen, self.backends = dict(listen), {name: dict(servers) for name, servers in backends.items()}
        self.socket = directory / "admin.sock"
        self.operator_socket = directory / "operator.sock"
        self.state_file = directory / "haproxy.state"
        self.config_file = directory / "haproxy.cfg"
        self._check_path, self._server_options = check_path, server_options
        self._connect_ms, self._server_ms = connect_timeout_ms, server_timeout_ms
        self._master = directory / "master.sock"
        argv = ("haproxy", "-W", "-S", str(self._master), "-f", str(self.config_file))
        self.process = Process("haproxy", argv, directory, netns=netns)

    def config(self) -> str:
        sockets = [f"stats socket {self.socket} mode 660 level admin"]
        sockets.append(f"stats socket {self.operator_socket} mode 660 level operator")
        if self.admin:
            sockets.append(f"stats socket {_join(self.admin)} level admin")
        return _CONFIG.format(
            sockets="\n    ".join(sockets),
            directory=self.directory,
            state_file=self.state_file,
            connect=self._connect_ms,
            server=self._server_ms,
            pools="".join(self._pool(name) for name in self.backends),
        )

    def _pool(self, name: str) -> str:
        checked = bool(self._check_path)
        options = " ".join(word for word in (_CHECKS if checked else "", "weight 1", self._server_options) if word)
        frontend = _FRONTEND.format(name=name, listen=_join(self.listen[name])) if name in self.listen else ""
        return frontend + _BACKEND.format(
            name=name,
            check=f"option httpchk GET {self._check_path}\n    " if checked else "",
            options=options,
            servers="\n".join(f"    server {server} {_join(at)}" for server, at in self.backends[name].items()),
        )

    @property
    def alive(self) -> bool:
        return self.process.alive

    def start(self, within_s: float = 15.0) -> None:
        """Returns when it answers its runtime API. Raises Failed with the end of its log."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for left in (self.socket, self.operator_socket, self._master):
            left.unlink(missing_ok=True)
        self.config_file.write_text(self.config())
        self.process.start()
        try:
            self.process.ready(lambda: self.worker() > 0 and self._master_listens(), within_s)
        except Failed:
            self.stop()
            raise

    def reload(self, within_s: float = 15.0) -> None:
        """Read the configuration again; returns when a new worker answers. Sessions of the old one go on."""
        before = self.worker()
        self.config_file.write_text(self.config())
        _say(self._master, "reload", within_s)
        self.process.ready(lambda: self.worker() not in (0, before) and self._master_listens(), within_s)

    def restart(self) -> None:
        self.stop()
        self.start()

    def stop(self) -> None:
        """The master ends its workers, and waits for them."""
        self.thaw()
        self.process.stop()

    def kill(self) -> None:
        """Master and workers at once, as a power cut would."""
        self._signal(signal.SIGKILL)
        self.process.kill()

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _master_listens(self) -> bool:
        """A master executes itself anew once its worker runs, and until then loses signals and commands."""
        try:
            return "worker" in _say(self._master, "show proc", 2.0)
        except OSError:
            return False

    def _signal(self, number: int) -> None:
        if self.process.alive:
            os.killpg(self.process.pid, number)

    def command(self, text: str, timeout_s: float = 2.0) -> str:
        """What the runtime API says to `text`, as an operator with socat would see it. Raises OSError."""
        return _say(self.socket, text, timeout_s)

    def worker(self) -> int:
        """The pid of the worker that answers now; 0 = none does."""
        try:
            lines = self.command("show info").splitlines()
        except OSError:
            return 0
        return next((int(line.split()[1]) for line in lines if line.startswith("Pid:")), 0)


def _say(path: Path, text: str, timeout_s: float) -> str:
    with socket.socket(socket.AF_UNIX) as api:
        api.settimeout(timeout_s)
        api.connect(str(path))
        api.sendall(text.encode() + b"\n")
        api.shutdown(socket.SHUT_WR)  # the master's would wait for more
        said = b""
        while part := api.recv(65536):
            said += part
    return said.decode()


def _join(place: Place) -> str:
    address, port = place
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
