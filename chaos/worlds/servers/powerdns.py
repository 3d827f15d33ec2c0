"""PowerDNS Authoritative Server with the lmdb backend: UPDATE with TSIG, LUA records, client subnets."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from chaos.worlds.servers.nameserver import Key, NameServer, zone_text
from chaos.worlds.servers.process import Failed, Process, program

CONFIG = """\
launch={backends}
lmdb-filename={directory}/pdns.lmdb
lmdb-shards=1
enable-lua-records=yes
edns-subnet-processing=yes
dnsupdate=yes
allow-dnsupdate-from=0.0.0.0/0,::/0
local-address={address}
local-port={port}
socket-dir={directory}
resolver=no
receiver-threads=1
distributor-threads=1
daemon=no
guardian=no
security-poll-suffix=
"""

GEO = """\
geoip-database-files=mmdb:{mmdb}
geoip-zones-file={directory}/geo.yaml
"""


class PowerDns(NameServer):
    """`key` may write and transfer the zone, `reader` only transfer it; clients are told apart by `mmdb`, a MaxMind
    file. What is in `directory` already is served as it is; otherwise the zone begins with its name servers alone
    (`ns`: name -> addresses)."""

    ready_line = b"Creating backend connection for TCP"

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
        mmdb: Path | None = None,
        netns: str = "",
    ) -> None:
        argv = ("pdns_server", f"--config-dir={directory}")
        super().__init__(directory, address, port, zone, Process("powerdns", argv, directory, netns=netns))
        self.ns, self.key, self.reader, self.mmdb = ns, key, reader, mmdb

    def start(self) -> None:
        self._write_config()
        if not (self.directory / "pdns.lmdb").exists():
            self._load()
        super().start()

    def forget(self) -> None:
        """All that was written, while it does not run: it begins anew."""
        for file in self.directory.glob("pdns.lmdb*"):
            file.unlink()

    def _write_config(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        text = CONFIG.format(
            backends="lmdb,geoip" if self.mmdb else "lmdb",
            directory=self.directory,
            address=self.address,
            port=self.port,
        )
        if self.mmdb is not None:
            text += GEO.format(mmdb=self.mmdb, directory=self.directory)
            (self.directory / "geo.yaml").write_text("domains: []\n")
        (self.directory / "pdns.conf").write_text(text)

    def _load(self) -> None:
        zone_file = self.directory / "first.zone"
        zone_file.write_text(zone_text(self.zone, self.ns))
        keys = [self.key, *([self.reader] if self.reader else [])]
        self.util("load-zone", self.zone, str(zone_file))
        for key in keys:
            self.util("import-tsig-key", key.name, key.algorithm, key.secret)
        self.util("set-meta", self.zone, "TSIG-ALLOW-DNSUPDATE", self.key.name)
        self.util("set-meta", self.zone, "TSIG-ALLOW-AXFR", *[key.name for key in keys])
        self.util("set-meta", self.zone, "SOA-EDIT-DNSUPDATE", "INCREASE")

    def util(self, *arguments: str) -> str:
        """pdnsutil, beside the running server or before it. Raises Failed."""
        argv = [program("pdnsutil"), f"--config-dir={self.directory}", *arguments]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode:
            raise Failed(f"pdnsutil {arguments[0]}: {done.stderr.strip()}")
        return done.stdout
