"""Asks every name server itself, without a cache, every few milliseconds: when did which answer change? A process:

    python -m chaos.worlds.lab.poller --name www.lab.example,20 --server site-a=198.51.100.3 \\
        --client eu-west=203.0.113.10

One JSON line on standard output whenever the answer of a server to a client differs from the one before.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from functools import partial
from itertools import count

import dns.exception
import dns.message
import dns.rdatatype
from msgspec import Struct

DNS_PORT = 53
SILENT_S = 0.5  # without any reply: the answer is "nothing"


class Change(Struct, frozen=True):
    """From `t` (CLOCK_MONOTONIC) on, `server` tells a client in `region` these addresses; () = it is silent."""

    t: float
    name: str
    server: str
    region: str
    addresses: tuple[str, ...]


class Asker(asyncio.DatagramProtocol):
    """One name, one server, one client's address."""

    def __init__(self, name: str, every_s: float, server: str, region: str) -> None:
        self.name, self.every_s, self.server, self.region = name, every_s, server, region
        self.told: tuple[str, ...] | None = None
        self._clock = asyncio.get_running_loop().time
        self._heard_at = self._clock()
        self._ids = count()
        self._query = dns.message.make_query(name, "A", id=0).to_wire()[2:]
        self._seen = b""
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    async def run(self) -> None:
        assert self._transport is not None
        while True:
            if self._clock() - self._heard_at > SILENT_S:
                self._say(())
                self._seen = b""
            self._transport.sendto((next(self._ids) & 0xFFFF).to_bytes(2, "big") + self._query)
            await asyncio.sleep(self.every_s)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self._heard_at = self._clock()
        if data[2:] == self._seen:  # as nearly always; reading it would cost more than asking
            return
        self._seen = data[2:]
        try:
            reply = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return
        rows = [rrset for rrset in reply.answer if rrset.rdtype == dns.rdatatype.A]
        self._say(tuple(sorted(rdata.address for rrset in rows for rdata in rrset)))

    def error_received(self, exc: Exception) -> None:
        pass  # a refusal is as silent as silence

    def _say(self, addresses: tuple[str, ...]) -> None:
        if addresses != self.told:
            self.told = addresses
            line = {"t": round(self._clock(), 4), "name": self.name, "server": self.server, "region": self.region}
            print(json.dumps(line | {"addresses": addresses}), flush=True)


async def poll(names: dict[str, float], servers: dict[str, str], clients: dict[str, str]) -> None:
    """`names`: name -> seconds between two questions."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        for name, every_s in names.items():
            for server, address in servers.items():
                for region, source in clients.items():
                    _, asker = await loop.create_datagram_endpoint(
                        partial(Asker, name, every_s, server, region),
                        local_addr=(source, 0),
                        remote_addr=(address, DNS_PORT),
                    )
                    group.create_task(asker.run())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", action="append", required=True, help="NAME,MILLISECONDS")
    parser.add_argument("--server", action="append", required=True, help="SITE=ADDRESS")
    parser.add_argument("--client", action="append", required=True, help="REGION=SOURCE")
    given = parser.parse_args(argv)
    pairs = [dict(entry.split("=", 1) for entry in entries) for entries in (given.server, given.client)]
    names = {name: int(every) / 1000 for name, every in (entry.split(",") for entry in given.name)}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    asyncio.run(poll(names, *pairs))


if __name__ == "__main__":
    main()
