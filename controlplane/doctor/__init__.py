"""doctor: asks the real parts of a configuration, and says what is wrong with them and what would help.

Needs no cluster that runs. Every check is bounded in time, all run at once, and none changes anything.

etcd   members, majority, space, compaction, roles      tls    certificates, and clocks by HTTP
names  name servers: SOA, NS set, TSIG keys, clocks     pools  load balancers: backends, servers
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from controlplane.dns.ask import Ask
from controlplane.dns.ask import ask as ask_sockets
from controlplane.doctor.etcd import examine as examine_etcd
from controlplane.doctor.finding import Finding, Severity, Wall
from controlplane.doctor.names import examine as examine_names
from controlplane.doctor.pools import examine as examine_pools
from controlplane.store.etcd import Credentials
from policies.topology import Config

__all__ = ["Finding", "Severity", "Wall", "examine", "verdict"]


async def examine(
    config: Config,
    endpoints: Sequence[str],
    credentials: Credentials | None,
    *,
    site: str = "",
    wall: Wall,
    ask: Ask = ask_sockets,
) -> tuple[Finding, ...]:
    """endpoints: etcd's URLs, () = not to be asked. site: where this machine is, "" = nowhere in particular; its
    pools and secrets have to be at hand. Never raises for what a part does."""
    parts = (
        examine_etcd(config, endpoints, credentials, site, wall),
        examine_names(config, site, wall, ask),
        examine_pools(config, site),
    )
    return tuple(finding for findings in await asyncio.gather(*parts) for finding in findings.all)


def verdict(findings: Sequence[Finding]) -> bool | None:
    """True: nothing is wrong (warnings are no errors). None: nobody answered."""
    if not any(finding.answered for finding in findings):
        return None
    return not any(finding.severity is Severity.ERROR for finding in findings)
