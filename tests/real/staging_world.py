"""A staging on loopback: three sites, each a demo service behind HAProxy behind a toxiproxy, with a PowerDNS and a
failoverd; one etcd. And drills in it, in this process or in one of their own."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from chaos.drill import Drilled, play
from chaos.history import AnyRecord
from chaos.reading import read_scenario
from chaos.scenario import Scenario
from chaos.worlds.servers.etcd import Address, EtcdCluster
from chaos.worlds.servers.haproxy import HAProxy
from chaos.worlds.servers.nameserver import Key
from chaos.worlds.servers.powerdns import PowerDns
from chaos.worlds.servers.process import free_port
from chaos.worlds.servers.toxiproxy import ToxiproxyServer, Upstream
from chaos.worlds.staging import StagingWorld
from chaos.worlds.staging.toxiproxy import Proxy, Toxiproxy
from controlplane.cli.dev_config import free_port as free_everywhere
from tests.real.failoverd_world import SITES, Failoverd, Web, until

CLUSTER, ZONE, NAME = "real", "staging.test", "www.staging.test"
FAILOVERCTL = (sys.executable, "-m", "controlplane.cli.main")
KEY = Key("failover", base64.b64encode(b"a secret of thirty-two bytes ....").decode())

CONFIG = """\
version: 1
cluster: real
target: 60s
sites:
  site-a: {{country: FR, capacity: 100}}
  site-b: {{country: NL, capacity: 100}}
  site-c: {{country: ES, capacity: 100}}
services:
  www:
    endpoints: {{site-a: 127.0.1.1, site-b: 127.0.2.1, site-c: 127.0.3.1}}
    demand: 10
    steering: {{mode: priority, order: [site-a, site-b, site-c]}}
    checks: [{{http: {{port: {web}, path: /, contains: ok}}}}]
    dns: {{name: www.staging.test, ttl: 1s}}
policy:
  probe: {{interval: 500ms, fast_interval: 100ms, timeout: 500ms, fall: 2, rise: 2, clear: 2}}
  hold: 1s
  failback: {{soak: 1s, ramp: [100], step: 1s}}
drivers:
  dns:
"""
DRIVER = (
    "    - {{driver: rfc2136, dialect: powerdns, site: {site}, address: {address}, port: {port}, "
    "zones: [staging.test], tsig: {{name: failover, key: {{file: {file}}}}}}}\n"
)


class Staging:
    """Nothing is started; close() ends all, whatever happened."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.state = directory, directory / "state" / "failoverctl" / "drills"
        self.web_port, dns_port = (free_everywhere(tuple(SITES.values())) for _ in range(2))
        app_port, self.pool_port = (free_everywhere(tuple(SITES.values())) for _ in range(2))
        address = Address("127.0.0.1", free_port(), free_port())
        self.etcd = EtcdCluster(directory / "etcd", {"etcd": address}).members["etcd"]
        self.webs = {site: Web(SITES[site], app_port) for site in SITES}
        self.pools = {
            site: HAProxy(directory / site, {"www": (at, self.pool_port)}, {"www": {"app": (at, app_port)}})
            for site, at in SITES.items()
        }
        self.toxiproxies = {
            site: ToxiproxyServer(
                directory / site,
                f"toxiproxy-{site}",
                {f"www-{site}": Upstream(f"{at}:{self.web_port}", f"{at}:{self.pool_port}")},
            )
            for site, at in SITES.items()
        }
        self.names = {
            site: PowerDns(directory / site, at, dns_port, ZONE, ns={f"ns.{ZONE}": tuple(SITES.values())}, key=KEY)
            for site, at in SITES.items()
        }
        self.nodes = {site: Failoverd(site, self.etcd.url, directory) for site in SITES}
        secret = directory / "tsig"
        secret.write_text(KEY.secret)
        secret.chmod(0o600)
        self.config = directory / "staging-config.yaml"
        drivers = (DRIVER.format(site=site, address=at, port=dns_port, file=secret) for site, at in SITES.items())
        self.config.write_text(CONFIG.format(web=self.web_port) + "".join(drivers))
        self.file = directory / "real.staging.yaml"
        self.file.write_text(self.text(resolvers=[f"{SITES[site]}:{dns_port}" for site in ("site-b", "site-c")]))

    def text(self, resolvers: list[str]) -> str:
        """The staging file; a client for each resolver."""
        lines = ["version: 1", f"cluster: {CLUSTER}", f"api: [{', '.join(node.url for node in self.nodes.values())}]"]
        lines.append("sites:")
        for site, toxiproxy in self.toxiproxies.items():
            lines.append(f"  {site}: {{toxiproxy: {toxiproxy.url}, services: {{www: www-{site}}}}}")
        lines.append("clients:")
        for resolver in resolvers:
            url = f"http://{NAME}:{self.web_port}/"
            lines.append(f'  - {{service: www, resolver: "{resolver}", url: "{url}", patience: 1s}}')
        return "\n".join([*lines, ""])

    def start(self) -> Staging:
        self.etcd.start()
        for site in SITES:
            self.pools[site].start()
            self.toxiproxies[site].start()
            self.names[site].start()
        self.etcd.ready()
        for node in self.nodes.values():
            node.start()
        for node in self.nodes.values():
            until(f"{node.site} to see etcd", lambda n=node: "etcd" not in n.missing() and n.missing() != "?")
        applied = self.ctl("apply", str(self.config), "--yes")
        assert applied.returncode == 0, applied.stdout + applied.stderr
        self.wait_until_well()
        return self

    def wait_until_well(self) -> None:
        until("everything to be well", self.well, within_s=40)

    def well(self) -> bool:
        """Does every node say so, and with site-a, the first in order, serving?"""
        for node in self.nodes.values():
            status = node.status()
            if not status or status["summary"]["state"] != "ok" or not status["source"]["current"]:
                return False
            if status["services"]["www"]["shares"]["world"] != {"site-a": 100}:
                return False
        return True

    def ctl(self, *args: str) -> subprocess.CompletedProcess[str]:
        urls = ",".join(node.url for node in self.nodes.values())
        command = [*FAILOVERCTL, "--api", urls, *args]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=50)

    @property
    def env(self) -> dict[str, str]:
        """Of a failoverctl that shares nothing with its user's."""
        own = {"XDG_RUNTIME_DIR": str(self.directory), "XDG_STATE_HOME": str(self.directory / "state"), "NO_COLOR": "1"}
        return {**os.environ, **own}

    def scenario_file(self, name: str, body: str, duration: str = "20s") -> Path:
        file = self.directory / f"{name}.yaml"
        head = f"name: {name}\nabout: A drill of a test.\nconfig: {self.config.name}\nduration: {duration}\n"
        file.write_text(head + body)
        return file

    def scenario(self, name: str, body: str, duration: str = "20s") -> Scenario:
        read = read_scenario(self.scenario_file(name, body, duration))
        assert read.scenario is not None, [str(problem) for problem in read.problems]
        return read.scenario

    def world(self, abort_at: float = 0.05) -> StagingWorld:
        return StagingWorld(self.file, yes_on=CLUSTER, abort_at=abort_at, state_dir=self.state)

    def drill(self, scenario: Scenario, abort_at: float = 0.05) -> Drilled:
        heard: list[AnyRecord] = []
        drilled = play(scenario, self.world(abort_at), 0, heard.append)
        assert sorted(heard, key=lambda record: record.at) == list(drilled.history.records)
        return drilled

    def proxies(self) -> dict[str, Proxy]:
        """Every proxy of every site, as it is now."""
        found: dict[str, Proxy] = {}
        for toxiproxy in self.toxiproxies.values():
            found |= Toxiproxy(toxiproxy.url).proxies()
        return found

    def healed(self) -> bool:
        return all(proxy.enabled and not proxy.toxics for proxy in self.proxies().values())

    def close(self) -> None:
        for node in self.nodes.values():
            node.process.kill()
        self.etcd.kill()
        for site in SITES:
            self.names[site].kill()
            self.toxiproxies[site].kill()
            self.pools[site].kill()
            self.webs[site].close()


class Runner:
    """A drill in a process of its own: `failoverctl drill run --world staging`."""

    def __init__(self, staging: Staging, scenario: Path) -> None:
        self.staging = staging
        self.log = staging.directory / f"{scenario.stem}.err"
        self._report = staging.directory / f"{scenario.stem}.json"
        command = [*FAILOVERCTL, "--json", "drill", "run", str(scenario), "--world", "staging"]
        command += ["--staging", str(staging.file), "--yes-on", CLUSTER]
        with open(self.log, "wb") as log, open(self._report, "wb") as report:
            self.process = subprocess.Popen(command, stdout=report, stderr=log, env=staging.env, start_new_session=True)

    def wait_for_fault(self) -> None:
        until("the first fault", self._faulted, within_s=30)

    def _faulted(self) -> bool:
        assert self.process.poll() is None, f"the drill ended:\n{self.log.read_text()}"
        return not self.staging.healed()

    def stopped(self) -> str:
        """Wait for its end, which is that of a drill that did not pass: why it stopped."""
        assert self.process.wait(30) == 1, self.log.read_text()
        report = json.loads(self._report.read_text())
        assert not report["passed"] and report["left"] == []
        return str(report["stopped"])

    def end(self) -> None:
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGCONT)  # the killed need not wake up, but who waits for them may
            self.process.kill()
        self.process.wait()
