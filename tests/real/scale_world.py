"""Thousands of services that all leave a site at once: real etcd, a real BIND a site, real failoverd processes."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import socket
import threading
import time
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.tsigkeyring
import dns.xfr
import dns.zone
from msgspec import Struct
from msgspec.structs import replace

from chaos.worlds.servers.bind import Bind
from chaos.worlds.servers.nameserver import Key
from chaos.worlds.servers.process import free_port
from controlplane.config import read_config
from policies.topology import Config
from tests.real.election_world import Rivals, Scribe
from tests.real.failoverd_world import SITES, Web, until

BEAT_S = 0.4
HEIR, VICTIM = "site-b", "site-a"

# The services' own checks are rare, as thousands must be; what tells of a site's death is its own target.
TEXT = """\
version: 1
cluster: real
target: 10m
sites:
  site-a: {{country: FR, capacity: 1000000, checks: [{uplink}]}}
  site-b: {{country: NL, capacity: 1000000}}
  site-c: {{country: ES, capacity: 1000000}}
services:
  s00000:
    endpoints: {{site-a: 127.0.1.1, site-b: 127.0.2.1, site-c: 127.0.3.1}}
    demand: 10
    steering: {{mode: priority, order: [site-a, site-b, site-c]}}
    checks: [{{tcp: {{port: {web}, interval: {rare}, fast_interval: {rare}, fall: 2, rise: 1, clear: 1}}}}]
    dns: {{name: s00000.real.test, ttl: 5s}}
policy:
  hold: 1s
  failback: {{soak: 1s, ramp: [100], step: 1s}}
"""
UPLINK = (
    "{{tcp: {{host: 127.0.1.1, port: {web}, interval: 500ms, fast_interval: 100ms, timeout: 500ms, "
    "fall: 2, rise: 2, clear: 2}}}}"
)


class Move(Struct, frozen=True):
    """Seconds from the site's death to each of these; `late_s`: by how much the latest leader's beat was late."""

    first_commit_s: float
    last_commit_s: float
    answers_s: dict[str, float]  # site -> its name server gave the last new answer
    late_s: float
    leaders: int


class Door(Web):
    """Accepts connections and closes them: thousands of checks want nothing else."""

    def __init__(self, address: str, port: int) -> None:
        self.up = True
        self._socket = socket.create_server((address, port), backlog=4096)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed: the end
            while True:
                self._socket.accept()[0].close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


class Crowd(Rivals):
    """`count` services at three sites, all of them at site-a."""

    def __init__(self, directory: Path, count: int) -> None:
        super().__init__(directory)
        for site, web in self.webs.items():
            web.close()
            self.webs[site] = Door(SITES[site], self.web_port)
        self.count = count
        self.key = Key("failover", base64.b64encode(os.urandom(32)).decode())
        self.servers: dict[str, Bind] = {}
        for site in SITES:
            ns = {"ns.real.test": ["127.0.0.1"]}
            # BIND listens on addresses that an interface has, and loopback has only this one.
            self.servers[site] = Bind(
                directory / f"bind-{site}", "127.0.0.1", free_port(), "real.test", ns=ns, key=self.key
            )
        for node in self.nodes.values():
            node.process.env["TSIG_KEY"] = self.key.secret

    def crowd(self) -> Config:
        rare = max(10, self.count // 100)
        text = TEXT.format(uplink=UPLINK.format(web=self.web_port), web=self.web_port, rare=f"{rare}s")
        text += "drivers:\n  dns:\n"
        for site, server in self.servers.items():
            text += f"    - {{driver: rfc2136, site: {site}, zones: [real.test], address: 127.0.0.1, "
            text += f"port: {server.port}, tsig: {{name: failover, key: {{env: TSIG_KEY}}}}}}\n"
        result = read_config(text, "crowd.yaml")
        assert result.config is not None, [str(problem) for problem in result.problems]
        one = result.config.services["s00000"]
        assert one.dns is not None
        names = [f"s{n:05}" for n in range(self.count)]
        services = {name: replace(one, dns=replace(one.dns, name=f"{name}.real.test")) for name in names}
        return replace(result.config, services=services)

    def start(self) -> Crowd:
        for server in self.servers.values():
            server.start()
        self.cluster.start()
        self.scribe = Scribe(self.cluster.urls)
        self.scribe.run(self.scribe.apply(self.crowd()))
        self.nodes[HEIR].start()
        until("site-b to lead", lambda: bool(self.book.beats(HEIR)))
        for site in (VICTIM, "site-c"):
            self.nodes[site].start()
        patience_s = 120.0 + self.count / 10
        until("every service decided", lambda: len(self.served_by(VICTIM)) == self.count, patience_s)
        for site in SITES:
            until(f"every answer of {site}", lambda s=site: self.answers(s, SITES[VICTIM]), patience_s)
        until("every node to be ready", lambda: all(n.ready for n in self.nodes.values()), patience_s)
        return self

    def served_by(self, site: str) -> set[str]:
        """Services whose desired has this site, and no other."""
        found = {d.service: d for _, d in self.book.commits()}
        return {name for name, d in found.items() if all(set(shares) == {site} for shares in d.shares.values())}

    def answers(self, site: str, address: str) -> bool:
        """Does the site's name server answer this for every service? All are asked for only when some say so."""
        port = self.servers[site].port
        try:
            for n in range(0, self.count, max(1, self.count // 7)):
                reply = dns.query.udp(dns.message.make_query(f"s{n:05}.real.test", "A"), "127.0.0.1", 1, port)
                if [str(record) for rrset in reply.answer for record in rrset] != [address]:
                    return False
            zone = dns.zone.Zone("real.test.")
            query, _ = dns.xfr.make_query(zone, keyring=dns.tsigkeyring.from_text({self.key.name: self.key.secret}))
            dns.query.inbound_xfr("127.0.0.1", zone, query, port, timeout=5, lifetime=20)
        except (OSError, dns.exception.DNSException):
            return False
        found = [str(record) for _, _, record in zone.iterate_rdatas("A")]
        return found.count(address) >= self.count

    def lose_site(self) -> Move:
        """site-a dies: its service, its failoverd and its name server."""
        leader = self.wait_for_leader()
        if leader.site == VICTIM:  # a loaded machine may have made it change: its death is another story
            leader.process.stop()
            leader.start()
            leader = self.wait_for_leader(other_than=VICTIM)
            until("site-a's node to be ready", lambda: self.nodes[VICTIM].ready, 60)
        leaders = len({d.token for _, d in self.book.commits()})
        self.webs.pop(VICTIM).close()
        self.nodes[VICTIM].process.kill()
        self.servers[VICTIM].kill()
        died = time.monotonic()
        rest = [site for site in SITES if site != VICTIM]
        answers: dict[str, float] = {}

        def all_answer() -> bool:
            for site in rest:
                if site not in answers and self.answers(site, SITES[HEIR]):
                    answers[site] = time.monotonic() - died
            return len(answers) == len(rest)

        until("every surviving answer", all_answer, within_s=60 + self.count / 50)
        moved = [at for at, d in self.book.commits(died) if VICTIM not in str(d.shares)]
        assert len(self.served_by(HEIR)) == self.count
        beats = [at for at in self.book.beats(leader.site) if at > died - 1]
        late_s = max(b - a for a, b in itertools.pairwise(beats)) - BEAT_S
        return Move(
            first_commit_s=min(moved) - died,
            last_commit_s=max(moved) - died,
            answers_s=answers,
            late_s=late_s,
            leaders=len({d.token for _, d in self.book.commits()}) - leaders + 1,
        )

    def close(self) -> None:
        super().close()
        for server in self.servers.values():
            server.kill()
