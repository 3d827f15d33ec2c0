"""etcd is restored from a backup under three failoverd that write real name servers: what those serve goes on."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.exception
import dns.message
import dns.query
import pytest

from chaos.worlds.servers.knot import Knot
from chaos.worlds.servers.nameserver import Key, NameServer
from chaos.worlds.servers.powerdns import PowerDns
from tests.real.failoverd_world import NAME, SITES, World, free_everywhere, until

pytestmark = pytest.mark.timeout(150)  # real processes, on a machine that may be busy

ZONE = "real.test"
KEY = Key("failover", base64.b64encode(b"a secret of thirty-two bytes ....").decode())
NS = {f"ns.{ZONE}": ("127.0.0.1",)}
DRIVER = (
    "    - {{driver: rfc2136, dialect: {dialect}, site: {site}, address: 127.0.0.1, port: {port}, zones: [real.test], "
    "tsig: {{name: failover, key: {{file: {file}}}}}}}\n"
)


class Served:
    """A Knot, which knows neither weights nor regions, and a PowerDNS, which knows both."""

    def __init__(self, directory: Path) -> None:
        self.world = World(directory)
        knot_port, pdns_port = (free_everywhere(["127.0.0.1"]) for _ in range(2))
        self.servers: list[NameServer] = [
            Knot(directory / "knot", "127.0.0.1", knot_port, ZONE, ns=NS, key=KEY),
            PowerDns(directory / "pdns", "127.0.0.1", pdns_port, ZONE, ns=NS, key=KEY),
        ]
        file = directory / "tsig"
        file.write_text(KEY.secret)
        file.chmod(0o600)
        head = self.world.config[: self.world.config.index("    - {driver: embedded")]
        self.world.config = (
            head
            + DRIVER.format(dialect="plain", site="site-a", port=knot_port, file=file)
            + DRIVER.format(dialect="powerdns", site="site-b", port=pdns_port, file=file)
        )

    def start(self) -> None:
        for server in self.servers:
            server.start()
        self.world.etcd.start()
        self.world.etcd.ready()
        for node in self.world.nodes.values():
            node.start()
        self.world.wait_for_store()
        self.world.apply()

    def told(self) -> list[set[str]]:
        """What each server answered to forty questions: PowerDNS takes one of several by lot."""
        return [{address for _ in range(40) for address in ask(server)} for server in self.servers]

    def service(self) -> dict[str, Any]:
        document: dict[str, Any] = self.world.nodes["site-a"].status().get("services", {}).get("www", {})
        return document

    def close(self) -> None:
        self.world.close()
        for server in self.servers:
            server.kill()


def ask(server: NameServer) -> list[str]:
    try:
        reply = dns.query.udp(dns.message.make_query(NAME, "A"), server.address, timeout=2, port=server.port)
    except (OSError, dns.exception.DNSException):
        return []
    return [str(record) for rrset in reply.answer for record in rrset]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    built = Served(tmp_path)
    try:
        built.start()
        yield built
    finally:
        built.close()


def test_traffic_stays_where_it_was_until_unfreeze(served: Served, tmp_path: Path) -> None:
    world, a, b, c = served.world, *SITES.values()
    until("the first answer", lambda: served.told() == [{a}, {a}])
    backup = world.etcd.cluster.backup(tmp_path / "backup.db")
    weighted = "steering: {mode: weighted, weights: {site-b: 70, site-c: 30}}"
    world.apply(world.config.replace("steering: {mode: priority, order: [site-a, site-b, site-c]}", weighted))
    until("the other answer", lambda: served.told() == [{b, c}, {b, c}])
    lost = served.service()["generation"]

    world.etcd.cluster.restore(backup)
    until("a generation above the one that was lost", lambda: (served.service().get("generation") or 0) > lost, 40)
    assert served.service()["shares"] == {"world": {"site-b": 70, "site-c": 30}}, "as PowerDNS has it"
    for _ in range(20):
        assert served.told() == [{b, c}, {b, c}]
    node = world.nodes["site-a"]
    until("the alarm", lambda: "rewound" in {alarm["name"] for alarm in node.status()["alarms"]})
    until("all of it to be applied", lambda: not node.missing())

    ended = world.ctl("unfreeze", "--yes", "--reason", "looked at what was lost")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    until("the configuration that is left to count", lambda: served.told() == [{a}, {a}])
    assert served.service()["shares"] == {"world": {"site-a": 100}} and served.service()["generation"] > lost + 1
    until("the alarm to end", lambda: "rewound" not in {alarm["name"] for alarm in node.status()["alarms"]})
