"""unbound, a caching resolver for clients: keeps TTLs, tells the name servers which network asks (RFC 7871)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from chaos.worlds.servers.process import Process

# Everything that is not in a stub zone is unknown: no root servers are asked, there is no way to them.
# stub-prime no: it chooses itself among the name servers, by how fast they answer, as among those of an NS set.
_CONFIG = """
server:
  directory: "{directory}"
  username: ""
  chroot: ""
  pidfile: ""
  use-syslog: no
  logfile: ""
  do-daemonize: no
  num-threads: 1
  interface: {address}
  port: {port}
  do-ip6: no
  access-control: 0.0.0.0/0 allow
  do-not-query-localhost: no
  module-config: "subnetcache iterator"
  client-subnet-always-forward: yes
  max-client-subnet-ipv4: {subnet_bits}
  qname-minimisation: no
  local-zone: "." refuse
{zones}
remote-control:
  control-enable: no
"""


class Unbound:
    """`stubs`: zone -> addresses of its name servers, as "address" or "address@port".

    subnet_bits: how much of a client's address it tells. It is ready when it answers at all.
    """

    def __init__(
        self,
        directory: Path,
        stubs: Mapping[str, Sequence[str]],
        *,
        address: str = "127.0.0.1",
        port: int = 53,
        subnet_bits: int = 24,
        netns: str = "",
    ) -> None:
        self.address, self.port = address, port
        directory.mkdir(parents=True, exist_ok=True)
        zones = []
        for zone in stubs:
            zones += [f'  client-subnet-zone: "{zone}."', f'  local-zone: "{zone}." transparent']
        for zone, servers in stubs.items():
            zones += ["stub-zone:", f'  name: "{zone}."', "  stub-prime: no"]
            zones += [f"  stub-addr: {server}" for server in servers]
        config = directory / "unbound.conf"
        config.write_text(
            _CONFIG.format(
                directory=directory, address=address, port=port, subnet_bits=subnet_bits, zones="\n".join(zones)
            )
        )
        self.process = Process("unbound", ("unbound", "-d", "-c", str(config)), directory, netns=netns)
        self.kill, self.freeze, self.thaw = self.process.kill, self.process.freeze, self.process.thaw

    def start(self) -> None:
        """Raises process.Failed."""
        log = self.process.log
        seen = log.stat().st_size if log.exists() else 0  # of an earlier run
        self.process.start()
        self.process.ready(lambda: b"start of service" in log.read_bytes()[seen:])

    def stop(self) -> None:
        self.process.stop()

    def restart(self) -> None:
        self.stop()
        self.start()
