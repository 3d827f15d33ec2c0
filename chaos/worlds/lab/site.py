"""One place of the lab with all that runs there: web servers, etcd, PowerDNS, HAProxy and failoverd."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from chaos.worlds.lab import layout, web
from chaos.worlds.lab.net import Network
from chaos.worlds.lab.profile import TSIG_NAME
from chaos.worlds.servers.etcd import EtcdMember
from chaos.worlds.servers.haproxy import HAProxy
from chaos.worlds.servers.nameserver import Key
from chaos.worlds.servers.powerdns import PowerDns
from chaos.worlds.servers.process import Process

API_TIMEOUT_S = 5.0
_OUT = 0x01 | 0x08  # of srv_admin_state: in maintenance, or drained
JOURNAL = "journal.jsonl"


class Part(Protocol):
    """What every server can."""

    def kill(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


class Failoverd:
    """A real failoverd of this checkout, run by the Python that runs us."""

    def __init__(self, directory: Path, site: str, roles: str, pki: Path, network: Network) -> None:
        self.site, self._network = site, network
        self.state_dir = directory / "state"
        argv = [sys.executable, "-m", "controlplane.failoverd", "--site", site, "--cluster", layout.CLUSTER]
        argv += ["--roles", roles, "--etcd", ",".join(layout.endpoints(site)), "--etcd-ca", str(pki / "ca.crt")]
        argv += ["--etcd-cert", str(pki / f"{site}.crt"), "--etcd-key", str(pki / f"{site}.key")]
        argv += ["--listen", f"127.0.0.1:{layout.API_PORT}", "--state-dir", str(self.state_dir)]
        argv += ["--log-format", "human"]
        self.process = Process("failoverd", argv, directory, netns=network.namespace(site))
        self.kill, self.freeze, self.thaw = self.process.kill, self.process.freeze, self.process.thaw

    @property
    def journal(self) -> Path:
        return self.state_dir / JOURNAL

    def start(self) -> None:
        """Returns at once: it need not have anybody to talk to."""
        self.process.start()

    def stop(self) -> int | None:
        """SIGTERM: it hands leadership over. Its exit code."""
        return self.process.stop(15.0)

    def get(self, path: str) -> Any:
        """What its API says. Raises OSError."""
        connection = http.client.HTTPConnection("127.0.0.1", layout.API_PORT, timeout=API_TIMEOUT_S)
        try:
            with self._network.inside(self.site):
                connection.connect()
            connection.request("GET", path)
            return json.loads(connection.getresponse().read())
        except http.client.HTTPException as error:
            raise OSError(f"{self.site} {path}: {error!r}") from error
        finally:
            connection.close()


class Site:
    """All of one site; `die()` is a power cut."""

    def __init__(self, name: str, directory: Path, network: Network, pki: Path, tsig: str, etcd: EtcdMember) -> None:
        self.name, self.etcd, self._network, self._pki = name, etcd, network, pki
        directory.mkdir(parents=True)
        inside = network.namespace(name)
        self.control = directory / "web.sock"
        self.web = Process("web", self._web_argv(), directory, netns=inside)
        self.dns = PowerDns(
            directory / "powerdns",
            layout.dns(name),
            layout.DNS_PORT,
            layout.ZONE,
            ns={f"ns-{site}.{layout.ZONE}": [layout.dns(site)] for site in layout.SITES},
            key=Key(TSIG_NAME, tsig),
            netns=inside,
        )
        self.haproxy = HAProxy(
            directory / "haproxy",
            {layout.POOLS[name_]: (layout.edge(name), port) for name_, port in layout.EDGE_PORTS.items()},
            {layout.POOLS[name_]: _places(name_) for name_ in layout.EDGE_PORTS},
            check_path="/healthz",
            netns=inside,
        )
        self.failoverd = Failoverd(directory, name, "vantage,controller,agent,api", pki, network)
        self.parts: Mapping[str, Part] = {
            "web": self.web,
            "haproxy": self.haproxy,
            "etcd": self.etcd,
            "dns": self.dns,
            "failoverd": self.failoverd,
        }

    def _web_argv(self) -> list[str]:
        right, wrong = self._pki / "login.crt", self._pki / "elsewhere.crt"
        argv = [sys.executable, "-m", "chaos.worlds.lab.web", "--site", self.name, "--control", str(self.control)]
        argv += ["--right", str(right), "--wrong", str(wrong)]
        for name, spec in layout.SERVICES.items():
            tls = "tls:" if spec.server_name else ""
            argv += ["--service", f"{name}={tls}{layout.web(self.name, name)}:{spec.port}"]
        return argv

    def serve(self) -> None:
        """The web servers; they answer when this returns."""
        self.control.unlink(missing_ok=True)  # it listens there when all services do
        self.web.start()
        self.web.ready(self.control.exists)

    def tell(self, service: str, mode: web.Mode, amount: float = 0.0) -> None:
        """Let one of its services fail, or be well again."""
        web.told(self.control, service, mode, amount)

    def pool(self, service: str) -> dict[str, int]:
        """What its HAProxy gives the servers of a service: site -> weight, 0 = no new requests. Raises OSError."""
        lines = self.haproxy.command(f"show servers state {layout.POOLS[service]}").splitlines()
        names = next((line.split()[1:] for line in lines if line.startswith("# ")), [])
        found = {}
        for line in lines:
            row = dict(zip(names, line.split(), strict=False))
            if "srv_uweight" in row and not line.startswith("#"):
                out = int(row["srv_admin_state"]) & _OUT
                found[row["srv_name"]] = 0 if out else int(row["srv_uweight"])
        return found

    def die(self) -> None:
        """Every process killed and the link cut, at once: nothing of it says goodbye."""
        self._network.dark(self.name)
        for part in self.parts.values():
            part.kill()

    def revive(self, but: Collection[str] = ()) -> None:
        """Power is back: the link first, and every process with what its disk has, `but` some parts."""
        self._network.light(self.name)
        for part in self.parts.values():
            part.thaw()
        if self.web.alive:
            for service in layout.SERVICES:
                self.tell(service, web.Mode.OK)
        else:
            self.serve()
        processes = {
            "haproxy": (self.haproxy.start, self.haproxy.process),
            "etcd": (self.etcd.start, self.etcd.process),
            "dns": (self.dns.start, self.dns.process),
            "failoverd": (self.failoverd.start, self.failoverd.process),
        }
        for name, (start, process) in processes.items():
            if not process.alive and name not in but:
                start()


def _places(service: str) -> dict[str, tuple[str, int]]:
    spec = layout.SERVICES[service]
    return {site: (layout.web(site, service), spec.port) for site in layout.SITES}
