"""Real clients: each asks a resolver, connects to what it says, and gets a URL, once a second. What they meet is what
users would meet: it is recorded, and it ends a drill that hurts more than its scenario allows.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from urllib.parse import urlsplit

import dns.edns
import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype

from chaos.history import Asked, Served
from chaos.worlds.staging.file import Measured
from chaos.worlds.world import Say
from controlplane.dns.ask import ask
from controlplane.dns.regions import Client as Subnet

EVERY_S = 1.0
WINDOW_S = 10.0  # over which the share of failed requests is taken
_RTYPES = ("A", "AAAA")
Clock = Callable[[], float]


class _Failed(Exception):
    """A request failed; why, in a few words."""


class Client:
    """One of them. `places`: address -> site, of its service. subnet: of its region, sent along to the resolver (RFC
    7871); None: nothing is sent."""

    def __init__(self, name: str, spec: Measured, places: Mapping[str, str], subnet: Subnet | None) -> None:
        self.name, self.spec = name, spec
        self.requests = self.failed = 0
        self.site = self.error = ""
        self._places, self._subnet = places, subnet
        self._told: tuple[str, ...] = ()
        self._told_until = 0.0
        url = urlsplit(spec.url)
        self._host, self._port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        self._tls = ssl.create_default_context(cafile=spec.ca or None) if url.scheme == "https" else None
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        host = url.netloc
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: failoverctl-drill\r\nConnection: close\r\n\r\n"
        )

    async def request(self) -> None:
        """One request; `site` and `error` are what came of it ("" = all is well)."""
        self.requests += 1
        self.site, self.error = "", ""
        try:
            address = await self._resolve()
            self.site = self._places.get(address, "")
            await self._get(address)
        except _Failed as failed:
            self.error = str(failed)
            self.failed += 1

    async def _resolve(self) -> str:
        if not self._host.strip("0123456789.") or ":" in self._host:
            return self._host
        loop = asyncio.get_running_loop()
        if loop.time() >= self._told_until:
            self._told, ttl_s = await self._ask()
            self._told_until = loop.time() + ttl_s
        return self._told[0]

    async def _ask(self) -> tuple[tuple[str, ...], float]:
        options: list[dns.edns.Option] = []
        if self._subnet is not None:
            options.append(dns.edns.ECSOption(str(self._subnet.address), self._subnet.bits))
        for rtype in _RTYPES:
            query = dns.message.make_query(self._host, rtype, use_edns=0, payload=1232, options=options)
            try:
                reply = await ask(self.spec.resolver, query)
            except (OSError, dns.exception.DNSException) as error:  # a TimeoutError is an OSError
                raise _Failed(f"resolver: {type(error).__name__}") from error
            if reply.rcode() != dns.rcode.NOERROR:
                raise _Failed(f"resolver: {dns.rcode.to_text(reply.rcode())}")
            rows = [rrset for rrset in reply.answer if rrset.rdtype == dns.rdatatype.from_text(rtype)]
            if rows:
                return tuple(record.address for rrset in rows for record in rrset), min(rrset.ttl for rrset in rows)
        raise _Failed("resolver: no address")

    async def _get(self, address: str) -> None:
        writer = None
        try:
            async with asyncio.timeout(self.spec.patience_s):
                reader, writer = await asyncio.open_connection(
                    address, self._port, ssl=self._tls, server_hostname=self._host if self._tls else None
                )
                writer.write(self._request.encode())
                head = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
                while await reader.read(65536):
                    pass
        except TimeoutError as error:
            raise _Failed("time-out") from error
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:  # an SSLError is an OSError
            raise _Failed(type(error).__name__) from error
        finally:
            if writer is not None:
                writer.transport.abort()
        status = head[1].decode("ascii", "replace")[:3] if len(head) > 1 else "?"
        if status[:1] not in ("2", "3"):
            raise _Failed(f"status {status}")


class Tally:
    """Says when the clients of a service fail more than the scenario allows.

    A client may fail for `allowed_s` (what the scenario's `outage` says of its service, else its worst case) after each
    beginning and end of a fault that touches the service. What fails beyond that, or before the first such fault, is
    too much; when its share of the requests of the service's clients over the last WINDOW_S is over `most`, the drill
    ends: the worst service counts, not how many others are well."""

    def __init__(self, allowed_s: Mapping[str, float], most: float) -> None:
        self._allowed_s, self._most = allowed_s, most
        self._spent_s: dict[str, dict[str, float]] = {}  # service -> client -> failing since it was touched last
        self._last: dict[str, deque[tuple[float, bool]]] = {}  # service -> (when, too much)

    def changed(self, services: Iterable[str]) -> None:
        """A fault that touches these began, or ended."""
        for service in services:
            self._spent_s[service] = {}

    def take(self, at: float, client: str, service: str, failed: bool, took_s: float) -> str:
        """A request ended: why the drill has to end, or ""."""
        too_much, spent_s = failed, self._spent_s.get(service)
        if failed and spent_s is not None:
            spent_s[client] = spent_s.get(client, 0.0) + max(took_s, EVERY_S)
            too_much = spent_s[client] > self._allowed_s.get(service, 0.0)
        last = self._last.setdefault(service, deque())
        last.append((at, too_much))
        while last[0][0] <= at - WINDOW_S:
            last.popleft()
        share = sum(bad for _, bad in last) / len(last)
        if not too_much or share <= self._most:
            return ""
        allowed = f"before any fault touched {service}"
        if spent_s is not None:
            allowed = f"beyond the {self._allowed_s.get(service, 0.0):g} s that {service} may be away"
        return (
            f"client errors {share:.0%} > {self._most:.0%} over the last {WINDOW_S:g} s, {allowed} ({client} was last)"
        )


class Clients:
    """All of them, until cancelled. `clock`: seconds of the scenario."""

    def __init__(self, clients: Sequence[Client], tally: Tally, clock: Clock, say: Say) -> None:
        self.clients, self._tally, self._clock, self._say = clients, tally, clock, say
        self._known: dict[str, tuple[str, str]] = {}

    async def run(self, stop: Callable[[str], None]) -> None:
        """stop: called with the reason when it is too much."""
        gap_s = EVERY_S / len(self.clients)  # spread, so that they do not all ask at once
        await asyncio.gather(*(self._run(client, index * gap_s, stop) for index, client in enumerate(self.clients)))

    async def _run(self, client: Client, wait_s: float, stop: Callable[[str], None]) -> None:
        await asyncio.sleep(wait_s)
        while True:
            at = self._clock()
            await client.request()
            took_s = self._clock() - at
            self._record(client, at)
            why = self._tally.take(self._clock(), client.name, client.spec.service, bool(client.error), took_s)
            if why:
                stop(why)
            await asyncio.sleep(max(0.0, EVERY_S - took_s))

    def _record(self, client: Client, at: float) -> None:
        now = (client.site, client.error)
        if self._known.get(client.name) != now:
            self._known[client.name] = now
            spec = client.spec
            self._say(
                Served(
                    at=at,
                    client=client.name,
                    service=spec.service,
                    region=spec.region,
                    site=client.site,
                    error=client.error,
                )
            )

    def asked(self) -> None:
        """Record how much each asked in all."""
        at = self._clock()
        for client in self.clients:
            spec = client.spec
            self._say(
                Asked(
                    at=at,
                    client=client.name,
                    service=spec.service,
                    region=spec.region,
                    requests=client.requests,
                    failed=client.failed,
                )
            )
