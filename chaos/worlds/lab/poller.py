"""Asks every name server itself, without a cache, every few milliseconds: when did which answer change? A process:

    python -m chaos.worlds.lab.poller --name www.lab.example,20 --server site-a=198.51.100.3 \\
        --client eu-west=203.0.113.10

One JSON line on standard output whenever the answer of a server to a client differs from the one before, with the
generation of the fence beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial

import dns.exception
import dns.message
import dns.rcode
import dns.rdatatype
from msgspec import Struct

from controlplane.dns.table import fence_name
from controlplane.drivers import Fence

DNS_PORT = 53
SILENT_S = 0.5  # without any reply: the answer is "nothing"
MIXED_S = 3.0  # an answer that is drawn by lot is all that was drawn in so long, under one fence


class Change(Struct, frozen=True):
    """From `t` (CLOCK_MONOTONIC) on, `server` tells a client in `region` these addresses. reachable False: it is
    silent, or says that it cannot answer. generation: of the fence that it shows."""

    t: float
    name: str
    server: str
    region: str
    addresses: tuple[str, ...]
    generation: int | None = None
    reachable: bool = True


class Reply(Struct, frozen=True):
    """When it came, and what it says: sorted addresses, or the texts of a TXT record; None: that it cannot answer."""

    t: float
    said: tuple[str, ...] | None


class Asker(asyncio.DatagramProtocol):
    """One question to one server from one client's address. `replies`: number of the question -> its reply."""

    def __init__(self, name: str, rtype: str) -> None:
        self._query = dns.message.make_query(name, rtype, id=0).to_wire()[2:]
        self._rtype = dns.rdatatype.from_text(rtype)
        self._clock = asyncio.get_running_loop().time
        self._read: dict[bytes, tuple[str, ...] | None] = {}  # nearly always the same; reading costs more than asking
        self._transport: asyncio.DatagramTransport | None = None
        self.heard_at = self._clock()
        self.replies: dict[int, Reply] = {}

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def ask(self, number: int) -> None:
        assert self._transport is not None
        self.replies.pop((number - 4) & 0xFFFF, None)
        self._transport.sendto((number & 0xFFFF).to_bytes(2, "big") + self._query)

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.heard_at = self._clock()
        body = data[2:]
        if body not in self._read:
            if len(self._read) > 100:
                self._read.clear()
            self._read[body] = self._said(data)
        self.replies[int.from_bytes(data[:2], "big")] = Reply(self.heard_at, self._read[body])

    def _said(self, data: bytes) -> tuple[str, ...] | None:
        try:
            reply = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return None
        if reply.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return None
        rows = [rdata for rrset in reply.answer if rrset.rdtype == self._rtype for rdata in rrset]
        if self._rtype == dns.rdatatype.TXT:
            return tuple(sorted(b"".join(rdata.strings).decode(errors="replace") for rdata in rows))
        return tuple(sorted(rdata.address for rdata in rows))

    def error_received(self, exc: Exception) -> None:
        pass  # a refusal is as silent as silence


class Watcher:
    """One name at one server, for all regions.

    An answer and the fence beside it come in two replies. They belong together if the fence is the same in the
    replies before and after the answer.
    """

    def __init__(self, name: str, server: str, fence: Asker, regions: Mapping[str, Asker]) -> None:
        self.name, self.server = name, server
        self._fence, self._regions = fence, regions
        self._clock = asyncio.get_running_loop().time
        self._number = 0
        self._under: tuple[str, ...] | None = ()  # the fence's text
        self._drawn: dict[str, dict[tuple[str, ...], float]] = {region: {} for region in regions}
        self._told: dict[str, tuple[tuple[str, ...], int | None, bool]] = {}

    async def run(self, every_s: float) -> None:
        while True:
            self._number = (self._number + 1) & 0xFFFF
            for asker in (self._fence, *self._regions.values()):
                asker.ask(self._number)
            await asyncio.sleep(every_s)
            self._look()

    def _look(self) -> None:
        heard_at = max(asker.heard_at for asker in (self._fence, *self._regions.values()))
        if self._clock() - heard_at > SILENT_S:
            for region in self._regions:
                self._drawn[region].clear()
                self._say(heard_at, region, (), None, False)
            return
        before = self._fence.replies.get((self._number - 1) & 0xFFFF)
        after = self._fence.replies.get(self._number)
        if before is None or after is None or before.said != after.said:
            return
        if after.said != self._under:
            self._under = after.said
            for drawn in self._drawn.values():
                drawn.clear()
        fences = [Fence.parse(text) for text in after.said or ()]
        generation = fences[0].generation if fences and fences[0] else None
        for region, asker in self._regions.items():
            reply = asker.replies.get((self._number - 1) & 0xFFFF)
            if reply is None:
                continue
            if reply.said is None:
                self._say(reply.t, region, (), generation, False)
                continue
            drawn = self._drawn[region]
            drawn[reply.said] = reply.t
            for old in [said for said, t in drawn.items() if reply.t - t > MIXED_S]:
                del drawn[old]
            self._say(reply.t, region, tuple(sorted({a for said in drawn for a in said})), generation, True)

    def _say(self, t: float, region: str, addresses: tuple[str, ...], generation: int | None, reachable: bool) -> None:
        told = (addresses, generation, reachable)
        if told != self._told.get(region):
            self._told[region] = told
            line = {"t": round(t, 4), "name": self.name, "server": self.server, "region": region}
            line |= {"addresses": addresses, "generation": generation, "reachable": reachable}
            print(json.dumps(line), flush=True)


async def poll(names: Mapping[str, float], servers: Mapping[str, str], clients: Mapping[str, str]) -> None:
    """`names`: name -> seconds between two questions."""
    loop = asyncio.get_running_loop()

    async def asker(name: str, rtype: str, server: str, source: str) -> Asker:
        _, made = await loop.create_datagram_endpoint(
            partial(Asker, name, rtype), local_addr=(source, 0), remote_addr=(server, DNS_PORT)
        )
        return made

    async with asyncio.TaskGroup() as group:
        for name, every_s in names.items():
            for server, address in servers.items():
                fence = await asker(fence_name(name), "TXT", address, next(iter(clients.values())))
                regions = {region: await asker(name, "A", address, source) for region, source in clients.items()}
                group.create_task(Watcher(name, server, fence, regions).run(every_s))


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
