"""A cluster of real processes on loopback: one etcd, a failoverd a site with its embedded name server, web services."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query

from chaos.worlds.servers.etcd import Address, EtcdCluster
from chaos.worlds.servers.process import Process, free_port
from controlplane.cli.dev_config import free_port as free_everywhere

SITES = {"site-a": "127.0.1.1", "site-b": "127.0.2.1", "site-c": "127.0.3.1"}
NAME = "www.real.test"

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
    dns: {{name: www.real.test, ttl: 1s}}
policy:
  probe: {{interval: 500ms, fast_interval: 100ms, timeout: 500ms, fall: 2, rise: 2, clear: 2}}
  hold: 1s
  failback: {{soak: 1s, ramp: [100], step: 1s}}
drivers:
  dns:
    - {{driver: embedded, site: site-a, zones: [real.test], listen: ["127.0.1.1:{dns}"]}}
    - {{driver: embedded, site: site-b, zones: [real.test], listen: ["127.0.2.1:{dns}"]}}
    - {{driver: embedded, site: site-c, zones: [real.test], listen: ["127.0.3.1:{dns}"]}}
"""


def until(what: str, true: Callable[[], Any], within_s: float = 25) -> None:
    """Generous: what is asserted is that it comes about, not how fast."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, f"not within {within_s:g}s: {what}"
        time.sleep(0.05)


class Web:
    """A site's web service; `up` False: it answers 500."""

    def __init__(self, address: str, port: int) -> None:
        self.up = True
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if web.up else 500)
                self.end_headers()
                self.wfile.write(b"ok" if web.up else b"no")

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        self._server = http.server.ThreadingHTTPServer((address, port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Failoverd:
    """One failoverd. `args`: more flags, which override those given here; `env`: more environment."""

    def __init__(self, site: str, etcd: str, directory: Path, *args: str, env: dict[str, str] | None = None) -> None:
        self.site = site
        self.api_port = free_port()
        self.url = f"http://127.0.0.1:{self.api_port}"
        command = [
            sys.executable, "-m", "controlplane.failoverd",
            "--site", site, "--cluster", "real", "--etcd", etcd,
            "--listen", f"127.0.0.1:{self.api_port}", "--state-dir", str(directory / f"{site}-state"), *args,
        ]  # fmt: skip
        self.process = Process(f"failoverd-{site}", command, directory, env=env)

    def start(self) -> Failoverd:
        self.process.start()
        return self

    def get(self, path: str, timeout_s: float = 5.0) -> tuple[int, dict[str, Any]]:
        """(HTTP status, document); (0, {}) if nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=timeout_s) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except (OSError, ValueError):
            return 0, {}

    def missing(self) -> str:
        """What /readyz says is missing; "?" if nobody answers."""
        assert self.process.alive, f"{self.site} has ended:\n{self.process.tail()}"
        status, document = self.get("/readyz")
        return "; ".join(document["missing"]) if status else "?"

    @property
    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def status(self) -> dict[str, Any]:
        return self.get("/v1/status")[1]

    def log(self) -> list[dict[str, Any]]:
        """Its lines so far; every one of them has to be JSON."""
        text = self.process.log.read_text() if self.process.log.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def said(self, *words: str) -> list[dict[str, Any]]:
        """The lines whose message has all these words."""
        return [line for line in self.log() if all(word in line["msg"] for word in words)]


class World:
    """etcd and a failoverd at each site; nothing is started. close() ends all, whatever happened."""

    def __init__(self, directory: Path, sites: Sequence[str] = tuple(SITES)) -> None:
        self.directory = directory
        self.dns_port, self.web_port = (free_everywhere(tuple(SITES.values())) for _ in range(2))
        self.config = CONFIG.format(dns=self.dns_port, web=self.web_port)
        self.file = directory / "real.yaml"
        address = Address("127.0.0.1", free_port(), free_port())
        self.etcd = EtcdCluster(directory / "etcd", {"etcd": address}).members["etcd"]
        self.webs = {site: Web(SITES[site], self.web_port) for site in SITES}
        self.nodes = {site: Failoverd(site, self.etcd.url, directory) for site in sites}

    def start(self) -> World:
        """All of it, with the configuration applied, and served."""
        self.etcd.start()
        self.etcd.ready()
        for node in self.nodes.values():
            node.start()
        self.wait_for_store()
        self.apply()
        self.wait_until_served()
        return self

    def wait_for_store(self) -> None:
        for node in self.nodes.values():
            until(f"{node.site} to see etcd", lambda n=node: "etcd" not in n.missing() and n.missing() != "?")

    def apply(self, text: str = "") -> None:
        self.file.write_text(text or self.config)
        result = self.ctl("apply", str(self.file), "--yes")
        assert result.returncode == 0, result.stdout + result.stderr

    def ctl(self, *args: str, api: str = "") -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "XDG_RUNTIME_DIR": str(self.directory), "NO_COLOR": "1"}
        urls = api or ",".join(node.url for node in self.nodes.values() if node.process.alive)
        command = [sys.executable, "-m", "controlplane.cli.main", "--api", urls, *args]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=50)

    def answers(self) -> set[str]:
        """What the name servers of all sites whose failoverd runs answer; "" stands for nothing useful."""
        alive = [site for site, node in self.nodes.items() if node.process.alive]
        return {address for site in alive for address in (self.told(site) or [""])}

    def wait_until_served(self) -> str:
        """Until all of them answer the same address; which."""
        until("one answer everywhere", lambda: len(self.answers() - {""}) == 1 and "" not in self.answers())
        return next(iter(self.answers()))

    def fail(self) -> str:
        """The service fails at the site that carries it: its address."""
        address = self.wait_until_served()
        next(web for site, web in self.webs.items() if SITES[site] == address).up = False
        return address

    def wait_until_left(self, address: str) -> None:
        """Every site whose failoverd runs answers something, and not this."""
        until(f"answers without {address}", lambda: not self.answers() & {address, ""})

    def told(self, site: str) -> list[str]:
        """What the site's name server answers; [] if nothing useful."""
        try:
            reply = dns.query.udp(dns.message.make_query(NAME, "A"), SITES[site], timeout=1, port=self.dns_port)
        except (OSError, dns.exception.DNSException):
            return []
        return sorted(str(record) for rrset in reply.answer for record in rrset)

    def leader(self) -> Failoverd | None:
        """As the first node that answers, and is current, sees it."""
        for node in self.nodes.values():
            if node.process.alive:
                document = node.get("/v1/status", timeout_s=2)[1]
                if document and document["source"]["current"]:
                    return self.nodes.get(str(document["leader"]))
        return None

    def wait_for_leader(self, other_than: str = "") -> Failoverd:
        found: list[Failoverd] = []

        def there() -> bool:
            leader = self.leader()
            if leader is not None and leader.site != other_than:
                found.append(leader)
            return bool(found)

        until("a leader", there)
        return found[0]

    def close(self) -> None:
        for node in self.nodes.values():
            node.process.kill()
        self.etcd.kill()
        for web in self.webs.values():
            web.close()
