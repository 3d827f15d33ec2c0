"""A leader that freezes at any step of a commit or of an apply, and wakes when another leads, changes nothing."""

from __future__ import annotations

import base64
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dns.message
import dns.query
import pytest
from msgspec.structs import replace

from chaos.worlds.servers.knot import Knot
from chaos.worlds.servers.nameserver import Key
from controlplane.config import read_config
from controlplane.dns.table import fence_name
from controlplane.drivers import Fence
from policies.topology import Config
from tests.real.election_world import Rivals, Scribe
from tests.real.failoverd_world import NAME, SITES, until
from tests.real.frozen_node import STEPS

FROZEN = "site-a"
AWAKE_S = 3.0  # how long a leader that woke is watched


class FrozenWorld(Rivals):
    """Knot at each site, written by the site's agent and by the next site's; site-a's failoverd freezes at `step`."""

    def __init__(self, directory: Path, step: str) -> None:
        super().__init__(directory)
        self.key = Key("failover", base64.b64encode(os.urandom(32)).decode())
        self.armed = directory / "armed"
        self.servers = {
            site: Knot(directory / f"knot-{site}", address, self.dns_port, "real.test", ns=self._ns(), key=self.key)
            for site, address in SITES.items()
        }
        for node in self.nodes.values():
            node.process.env["TSIG_KEY"] = self.key.secret
        node = self.nodes[FROZEN]
        flags = node.process.argv[node.process.argv.index("--site") :]
        child = str(Path(__file__).with_name("frozen_node.py"))
        node.process.argv = (sys.executable, child, step, str(self.armed), *flags)
        node.process.env["PYTHONPATH"] = str(Path(__file__).parents[2])

    @staticmethod
    def _ns() -> dict[str, list[str]]:
        return {f"ns-{site}.real.test": [address] for site, address in SITES.items()}

    def parsed(self) -> Config:
        """With deputies: `check` refuses those for loopback addresses, which here all sites share."""
        text = self.config.split("drivers:", maxsplit=1)[0] + "drivers:\n  dns:\n"
        for site, address in SITES.items():
            text += f"    - {{driver: rfc2136, site: {site}, zones: [real.test], address: {address}, "
            text += f"port: {self.dns_port}, tsig: {{name: failover, key: {{env: TSIG_KEY}}}}}}\n"
        config = read_config(text, "frozen.yaml").config
        assert config is not None
        sites = list(SITES)
        deputy = {site: sites[(i + 1) % len(sites)] for i, site in enumerate(sites)}
        return replace(config, dns=tuple(replace(d, writers=(d.site, deputy[d.site])) for d in config.dns))

    def start(self) -> FrozenWorld:
        for server in self.servers.values():
            server.start()
        self.cluster.start()
        self.scribe = Scribe(self.cluster.urls)
        self.scribe.run(self.scribe.apply(self.parsed()))
        self.nodes[FROZEN].start()
        until("site-a to lead", lambda: self.leader() is self.nodes[FROZEN])
        for node in self.nodes.values():
            if not node.process.alive:
                node.start()
        self.wait_until_calm()
        assert self.leader() is self.nodes[FROZEN]
        return self

    def fence(self, site: str) -> Fence:
        """What stands in the site's zone."""
        query = dns.message.make_query(fence_name(NAME), "TXT")
        reply = dns.query.udp(query, SITES[site], timeout=2, port=self.dns_port)
        found = Fence.parse(b"".join(reply.answer[0][0].strings).decode())
        assert found is not None
        return found

    def state(self) -> str:
        """T: stopped."""
        return Path(f"/proc/{self.nodes[FROZEN].process.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def close(self) -> None:
        self.nodes[FROZEN].process.thaw()
        super().close()
        for server in self.servers.values():
            server.kill()


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[FrozenWorld]:
    built = FrozenWorld(tmp_path, request.param)
    try:
        yield built.start()
    finally:
        built.close()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("world", STEPS, indirect=True)
def test_a_leader_that_wakes_changes_nothing(world: FrozenWorld) -> None:
    old = world.token()
    world.armed.touch()
    world.webs["site-a"].up = False
    until("site-a's failoverd to freeze", lambda: world.state() == "T")

    # The others go on: away from site-a, and on from site-b as well, whatever the frozen one had in hand.
    until("another leader", lambda: (led := world.leader()) is not None and led.site != FROZEN, within_s=40)
    until("traffic away from site-a", lambda: world.told("site-a") == [SITES["site-b"]], within_s=40)
    world.webs["site-b"].up = False
    until("site-c everywhere", lambda: all(world.told(s) == [SITES["site-c"]] for s in SITES), within_s=40)
    last = world.book.commits()[-1][1]
    assert last.token > old
    before = {site: world.fence(site) for site in SITES}

    woke = time.monotonic()
    world.nodes[FROZEN].process.thaw()
    while time.monotonic() < woke + AWAKE_S:
        for site in SITES:
            assert world.told(site) == [SITES["site-c"]], f"{site} was changed by a leader that slept"
            assert world.fence(site) == before[site]
        time.sleep(0.02)
    assert [d for _, d in world.book.commits(woke) if d.token <= old] == []
    assert world.book.check() >= 3
    until("site-a to follow", lambda: world.nodes[FROZEN].ready)
    assert (led := world.leader()) is not None and led.site != FROZEN
