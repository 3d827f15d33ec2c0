"""Clients as a browser would be: a caching resolver that keeps the TTL, then a connection to what it says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import dns.asyncquery
import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
from msgspec import Struct

from controlplane.dns.server import endpoint

QUERY_TIMEOUT_S = 0.5
REQUEST_TIMEOUT_S = 1.0


class Request(Struct, frozen=True):
    """One request of one client. `at`: seconds on the event loop's clock; `site`: who answered, or ""."""

    client: str
    at: float
    ok: bool
    site: str
    reason: str


class CachingResolver:
    """Asks the name servers in turn from `source` (its region), keeps an answer for its TTL, never longer."""

    def __init__(self, servers: Sequence[str], source: str) -> None:
        self.servers = [endpoint(server) for server in servers]
        self.source = source
        self._kept: dict[str, tuple[str, float]] = {}

    def kept_for_s(self, name: str) -> float:
        """How long the kept answer is kept still; 0 if there is none."""
        return max(0.0, self._kept.get(name, ("", 0.0))[1] - asyncio.get_running_loop().time())

    async def resolve(self, name: str) -> str:
        """An IPv4 address. Raises LookupError if no server has an answer."""
        now = asyncio.get_running_loop().time()
        address, until = self._kept.get(name, ("", 0.0))
        if now < until:
            return address
        for index, (host, port) in enumerate(list(self.servers)):
            query = dns.message.make_query(name, dns.rdatatype.A)
            try:
                reply = await dns.asyncquery.udp(query, host, QUERY_TIMEOUT_S, port=port, source=self.source)
            except (dns.exception.DNSException, OSError):
                continue
            if reply.rcode() == dns.rcode.NOERROR and reply.answer:
                self.servers.insert(0, self.servers.pop(index))  # whoever answered is asked first next time
                rrset = reply.answer[0]
                self._kept[name] = (str(rrset[0]), now + rrset.ttl)
                return self._kept[name][0]
        raise LookupError("no name server answers")


class Client:
    """Asks for `name` and connects, once every `interval_s`, until cancelled."""

    def __init__(
        self,
        label: str,
        resolver: CachingResolver,
        name: str,
        port: int,
        heard: Callable[[Request], None],
        interval_s: float = 1.0,
    ) -> None:
        self.label, self.resolver, self.name, self.port = label, resolver, name, port
        self.heard, self.interval_s = heard, interval_s

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self.heard(await self.once())
            due = max(due + self.interval_s, loop.time())
            await asyncio.sleep(due - loop.time())

    async def once(self) -> Request:
        at = asyncio.get_running_loop().time()
        address = ""
        try:
            address = await self.resolver.resolve(self.name)
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                site = await self._get(address)
        except ConnectionRefusedError:
            return Request(self.label, at, False, "", f"{address} refused the connection")
        except (OSError, LookupError, ValueError, asyncio.IncompleteReadError) as err:
            return Request(self.label, at, False, "", str(err) or type(err).__name__)
        return Request(self.label, at, True, site, "")

    async def _get(self, address: str) -> str:
        """One HTTP/1.1 request on a new connection from the client's own address; the site that answered."""
        source = (self.resolver.source, 0)
        reader, writer = await asyncio.open_connection(address, self.port, local_addr=source)
        try:
            writer.write(f"GET / HTTP/1.1\r\nHost: {self.name}\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()
            reply = (await reader.read()).decode("latin-1")
        finally:
            writer.close()
        status, _, body = reply.partition("\r\n")
        if " 200 " not in f"{status} ":
            raise ValueError(status or "empty reply")
        return body.partition("hello from ")[2].partition("\n")[0]
