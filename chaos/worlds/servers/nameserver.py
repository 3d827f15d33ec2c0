"""What the real name servers have in common: a zone to begin with, a key that may write it, and being a process."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from chaos.worlds.servers.process import Process


class Key(Struct, frozen=True):
    """A TSIG key (RFC 8945). `secret`: base64."""

    name: str
    secret: str
    algorithm: str = "hmac-sha256"


def zone_text(zone: str, ns: Mapping[str, Sequence[str]]) -> str:
    """A zone with nothing but its name servers. ns: each name server's name (inside the zone or elsewhere) and its
    addresses. The SOA's minimum of 1 s is how long resolvers may remember that a name does not exist (RFC 2308)."""
    lines = [f"{zone}. 3600 IN SOA {next(iter(ns))}. hostmaster.{zone}. 1 3600 600 86400 1"]
    for name, addresses in ns.items():
        lines.append(f"{zone}. 3600 IN NS {name}.")
        for address in addresses if f".{name}".endswith(f".{zone}") else ():
            lines.append(f"{name}. 3600 IN {'AAAA' if ':' in address else 'A'} {address}")
    return "\n".join([*lines, ""])


class NameServer:
    """Start, freeze, kill. Ready means that it said so in its log: it may run in a network namespace that nobody
    here can connect to."""

    ready_line = b""  # of its log

    def __init__(self, directory: Path, address: str, port: int, zone: str, process: Process) -> None:
        self.directory, self.address, self.port, self.zone = directory, address, port, zone
        self.process = process

    @property
    def server(self) -> str:
        """ "address:port"."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    def start(self) -> None:
        """Raises process.Failed."""
        log = self.process.log
        seen = log.stat().st_size if log.exists() else 0  # of an earlier run
        self.process.start()
        self.process.ready(lambda: self.ready_line in log.read_bytes()[seen:])

    def restart(self) -> None:
        """Stop as an operator would, and start again with what is on disk."""
        self.process.stop()
        self.start()

    def kill(self) -> None:
        self.process.kill()

    def freeze(self) -> None:
        """Returns when all of its threads stand still: the signal alone may come after one more answer."""
        self.process.freeze()
        tasks = Path(f"/proc/{self.process.pid}/task")
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            states = {file.read_text().rpartition(")")[2].split()[0] for file in tasks.glob("*/stat")}
            if states == {"T"}:
                return
            time.sleep(0.005)

    def thaw(self) -> None:
        self.process.thaw()

    def stop(self) -> None:
        self.process.stop()
