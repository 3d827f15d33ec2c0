"""A name server's key that is lost, or changed, while failoverd runs: noticed at every writer before it is needed."""

from __future__ import annotations

import base64
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from chaos.worlds.servers.knot import Knot
from chaos.worlds.servers.nameserver import Key
from controlplane.config import read_config
from policies.topology import Config
from tests.real.election_world import Scribe
from tests.real.failoverd_world import SITES, Failoverd, World, until

HOME, DEPUTY = "site-a", "site-b"
LOST = "driver knot {}: TSIG key failover: [Errno 2] No such file or directory: '{}'"


def new_key() -> Key:
    return Key("failover", base64.b64encode(os.urandom(32)).decode())


class KeyWorld(World):
    """A Knot at site-a, which site-b's agent deputises for; both read the key from `secret`. Two failoverd."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, (HOME, DEPUTY))
        self.secret = directory / "tsig.key"
        self.give(new_key())
        ns = {"ns.real.test": [SITES[HOME]]}
        self.knot = Knot(directory / "knot", SITES[HOME], self.dns_port, "real.test", ns=ns, key=self.key)

    def give(self, key: Key) -> None:
        self.key = key
        self.secret.write_text(key.secret + "\n")

    def parsed(self) -> Config:
        """With a deputy: `check` refuses that for a loopback address, which here all sites share."""
        text = self.config.split("drivers:", maxsplit=1)[0] + "drivers:\n  dns:\n"
        text += f"    - {{driver: rfc2136, name: knot, site: {HOME}, zones: [real.test], address: {SITES[HOME]}, "
        text += f"port: {self.dns_port}, tsig: {{name: failover, key: {{file: {self.secret}}}}}}}\n"
        result = read_config(text, "keys.yaml")
        assert result.config is not None, [str(problem) for problem in result.problems]
        return replace(result.config, dns=tuple(replace(d, writers=(HOME, DEPUTY)) for d in result.config.dns))

    def start(self) -> KeyWorld:
        self.knot.start()
        self.etcd.start()
        self.etcd.ready()
        for node in self.nodes.values():
            node.start()
        self.wait_for_store()
        scribe = Scribe([self.etcd.url])
        try:
            scribe.run(scribe.apply(self.parsed()))
        finally:
            scribe.close()
        until("both to be ready", lambda: all(node.ready for node in self.nodes.values()))
        until("an answer", lambda: self.told(HOME) == [SITES[HOME]])
        return self

    def alarms(self, node: Failoverd) -> dict[str, str]:
        """Of drivers: what is wrong with which -> its remedy."""
        found = node.status().get("alarms", [])
        return {f"{a['name']} {a['subject']}": a["remedy"] for a in found if "knot" in a["subject"]}

    def close(self) -> None:
        super().close()
        self.knot.kill()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[KeyWorld]:
    built = KeyWorld(tmp_path)
    try:
        yield built.start()
    finally:
        built.close()


@pytest.mark.timeout(120)
def test_a_key_that_is_lost_and_a_key_that_is_changed(world: KeyWorld) -> None:
    home, deputy = world.nodes[HOME], world.nodes[DEPUTY]
    assert world.alarms(home) == {}

    # Its deputy starts without the key: everybody knows, before it is needed.
    world.secret.unlink()
    assert deputy.process.stop(10) == 0
    deputy.start()
    until("it to lack its driver", lambda: deputy.missing() == LOST.format("is not open", world.secret))
    until("an alarm", lambda: "driver_silent knot at site-a, by site-b" in world.alarms(home))
    assert "No such file" in world.alarms(home)["driver_silent knot at site-a, by site-b"]
    assert home.ready, "it has read it before"

    # Told to read it again, the home says that it could not, and goes on with what it had.
    home.process.signal(signal.SIGHUP)
    until("it to say so", lambda: home.said("SIGHUP: not everything could be read again: driver knot stays as it was"))
    assert home.said("SIGHUP:")[-1]["level"].lower() == "error"
    assert home.missing() == LOST.format("stays as it was", world.secret)
    until("an alarm", lambda: "driver_stale knot at site-a" in world.alarms(deputy))
    world.webs[HOME].up = False
    until("it to write with the old key", lambda: world.told(HOME) == [SITES[DEPUTY]])
    assert len(home.said("driver knot stays as it was")) == 2, "in its own line and in the signal's: not every 2 s"

    world.secret.write_text(world.key.secret)
    for node in world.nodes.values():
        until(f"{node.site} to find it without a signal", lambda n=node: n.ready)

    # The server has a new key now.
    world.give(new_key())
    world.knot.key = world.key
    world.knot.restart()
    world.webs[HOME].up = True
    world.webs[DEPUTY].up = False
    for node in world.nodes.values():
        until(f"{node.site} to be refused", lambda n=node: n.said("does not take TSIG key failover"))
    assert world.told(HOME) == [SITES[DEPUTY]]
    for node in world.nodes.values():
        node.process.signal(signal.SIGHUP)
    until("it to write with the new key", lambda: world.told(HOME) == [SITES[HOME]])
    for node in world.nodes.values():
        assert node.said("SIGHUP: certificates and secrets were read again")
        until(f"{node.site} to see no alarm", lambda n=node: world.alarms(n) == {}, within_s=45)
