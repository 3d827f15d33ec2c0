"""Knot DNS: plain records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from chaos.worlds.servers.nameserver import Key, NameServer, zone_text
from chaos.worlds.servers.process import Process

CONFIG = """\
server:
  rundir: {directory}
  listen: {address}@{port}
  udp-workers: 1
  tcp-workers: 1
  background-workers: 1
database:
  storage: {directory}
log:
  - target: stdout
    any: info
key:
{keys}
acl:
{acls}
zone:
  - domain: {zone}
    storage: {directory}
    file: {file}
    acl: [{names}]
"""
KEY = """\
  - id: {key.name}
    algorithm: {key.algorithm}
    secret: {key.secret}"""
ACL = """\
  - id: {key.name}
    key: {key.name}
    action: [{actions}]"""


class Knot(NameServer):
    """`key` may write and transfer the zone, `reader` only transfer it. A zone file that is in `directory` already is
    served as it is."""

    ready_line = b"loaded, serial"

    def __init__(
        self,
        directory: Path,
        address: str,
        port: int,
        zone: str,
        *,
        ns: Mapping[str, Sequence[str]],
        key: Key,
        reader: Key | None = None,
        netns: str = "",
    ) -> None:
        argv = ("knotd", "-c", str(directory / "knot.conf"))
        super().__init__(directory, address, port, zone, Process("knot", argv, directory, netns=netns))
        self.ns, self.key, self.reader = ns, key, reader

    @property
    def file(self) -> Path:
        return self.directory / f"{self.zone}.zone"

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.file.exists():
            self.file.write_text(zone_text(self.zone, self.ns))
        keys = [self.key, *([self.reader] if self.reader else [])]
        text = CONFIG.format(
            directory=self.directory,
            address=self.address,
            port=self.port,
            keys="\n".join(KEY.format(key=key) for key in keys),
            acls="\n".join(
                ACL.format(key=key, actions="update, transfer" if key is self.key else "transfer") for key in keys
            ),
            names=", ".join(key.name for key in keys),
            zone=self.zone,
            file=self.file.name,
        )
        (self.directory / "knot.conf").write_text(text)
        super().start()
