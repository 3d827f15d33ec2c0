"""A real name server of somebody's own as a Backend: one for all tests of a module, a part of its zone for each."""

from __future__ import annotations

import base64
import itertools
import json
import time
from collections.abc import Mapping
from pathlib import Path

import dns.asyncquery
import dns.edns
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdata
import dns.tsig
import dns.update
from dns.rdataclass import IN
from dns.rdatatype import RdataType

from chaos.worlds.servers.nameserver import Key, NameServer
from controlplane.dns.notation import Lua, Notation, Plain
from controlplane.dns.rfc2136 import Rfc2136Driver, driver_for
from controlplane.dns.signing import Wall
from controlplane.dns.table import fence_name
from controlplane.drivers import Actual
from policies.topology import Config, DnsDriver, Policy, Region

ZONE = "example.org"
NS = {f"ns.{ZONE}": ("127.0.0.1",)}
KEY = Key("failover", base64.b64encode(b"a secret of thirty-two bytes ....").decode())
READER = Key("reader", base64.b64encode(b"a secret of another key .........").decode())
VIEW_KEYS = {
    "eu": Key("k-eu", base64.b64encode(b"a secret of the view for europe..").decode()),
    "rest": Key("k-rest", base64.b64encode(b"a secret of the view for the rest").decode()),
}
REGIONS = {"eu": Region(countries=("FR",), networks=("203.0.113.0/24",)), "rest": Region(default=True)}
# Where a client of a region asks from: a subnet for those that look at it, an address for those that do not.
SUBNETS = {"eu": "203.0.113.7", "rest": "198.51.100.7"}
SOURCES = {"eu": "127.0.1.1", "rest": "127.0.0.1"}
WALL: Wall = time.time  # noqa: TID251 - real servers compare it with theirs
_numbers = itertools.count(1)


class Rfc2136Backend:
    """dialect: plain | powerdns | bind (with views: one key each)."""

    keeps = True

    def __init__(
        self, server: NameServer, dialect: str, directory: Path, regions: Mapping[str, Region] = REGIONS
    ) -> None:
        self.running, self.dialect = server, dialect
        self.server = server.server
        self.zone = f"t{next(_numbers)}.{ZONE}"
        self.regions = ("",) if dialect == "plain" else tuple(regions)
        self.config = Config("acme", 60.0, {}, dict(regions), {}, Policy())
        self.weights = dialect == "powerdns"
        self.atomic = dialect != "bind"
        self._directory = directory

    async def driver(self) -> Rfc2136Driver:
        return self.driver_with()

    def driver_with(self, key: Key = KEY, wall: Wall = WALL, views: Mapping[str, Key] = VIEW_KEYS) -> Rfc2136Driver:
        return driver_for(self.entry_with(key, views), self.config, wall)

    def entry_with(self, key: Key = KEY, views: Mapping[str, Key] = VIEW_KEYS) -> DnsDriver:
        """Of the configuration."""
        options: dict[str, object] = {"address": self.running.address, "port": self.running.port}
        options["dialect"] = self.dialect
        if self.dialect == "bind":
            options["views"] = {region: self._tsig(key) for region, key in views.items()}
        else:
            options["tsig"] = self._tsig(key)
        return DnsDriver(
            "rfc2136", "dns-site-a", "site-a", (ZONE,), ("site-a",), 1.0, "freeze", (), json.dumps(options)
        )

    def _tsig(self, key: Key) -> Mapping[str, object]:
        file = self._directory / f"{key.name}-{len(key.secret)}-{hash(key.secret)}.secret"
        file.write_text(key.secret + "\n")
        return {"name": key.name, "key": {"file": str(file)}, "algorithm": key.algorithm}

    async def restart(self) -> None:
        self.running.restart()

    async def kill(self) -> None:
        self.running.kill()
        self.running.start()

    async def edit(self, name: str, actual: Actual | None) -> None:
        for region, key in VIEW_KEYS.items() if self.dialect == "bind" else [("", KEY)]:
            await self.edit_view(region, key, name, actual)

    async def edit_view(self, region: str, key: Key, name: str, actual: Actual | None) -> None:
        notation: Notation = Lua(self.config.regions) if self.dialect == "powerdns" else Plain(region)
        update = dns.update.UpdateMessage(ZONE)
        at, fence = dns.name.from_text(name), dns.name.from_text(fence_name(name))
        for owner, rtype in [(fence, RdataType.TXT), *((at, rtype) for rtype in notation.types)]:
            update.delete(owner, rtype)
        if actual is not None and actual.fence is not None:
            update.add(fence, actual.ttl_s, "TXT", f'"{actual.fence.text()}"')
        for record in notation.records(actual.answers) if actual is not None else ():
            update.add(at, actual.ttl_s, dns.rdata.from_wire(IN, record.rtype, record.rdata, 0, len(record.rdata)))
        await self.send(update, key)

    async def send(self, update: dns.update.UpdateMessage, key: Key = KEY) -> None:
        """By hand."""
        update.use_tsig({dns.name.from_text(key.name): dns.tsig.Key(key.name, key.secret, key.algorithm)})
        reply = await dns.asyncquery.tcp(update, self.running.address, port=self.running.port, timeout=5)
        assert reply.rcode() == dns.rcode.NOERROR, dns.rcode.to_text(reply.rcode())

    async def told(self, region: str, name: str, rtype: str) -> list[str]:
        if self.dialect == "powerdns":
            return await self.told_to(SUBNETS[region], name, rtype)
        return await self._ask(dns.message.make_query(name, rtype), SOURCES.get(region))

    async def told_to(self, client: str, name: str, rtype: str) -> list[str]:
        """What a resolver is told that asks for a client of that /24."""
        query = dns.message.make_query(name, rtype, use_edns=0, options=[dns.edns.ECSOption(client, 24)])
        return await self._ask(query, None)

    async def _ask(self, query: dns.message.Message, source: str | None) -> list[str]:
        reply = await dns.asyncquery.udp(query, self.running.address, port=self.running.port, source=source, timeout=5)
        return sorted(rdata.address for rrset in reply.answer for rdata in rrset)

    async def aclose(self) -> None:
        """The server is the module's."""
