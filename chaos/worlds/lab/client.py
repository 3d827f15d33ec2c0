"""Clients in several places who ask a resolver and connect to what it says, all the time. Runs as a process:

    python -m chaos.worlds.lab.client --every 100 --resolver 203.0.113.130 \\
        --client www/eu-west,203.0.113.10,http://www.lab.example:8080

One JSON line for each request on standard output. A request that hangs delays no other.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import ssl
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

import dns.asyncquery
import dns.exception
import dns.message
import dns.rdatatype
from msgspec import Struct

from chaos.worlds.lab.layout import Client

SPREAD_S = 0.2
TIMEOUT_S = 1.0  # for the resolver's answer, and again for the request


class Record(Struct, frozen=True, omit_defaults=True):
    """One request. `t`: when it began, seconds of CLOCK_MONOTONIC, which all namespaces share; `took`: seconds.
    site: who answered. error "": it succeeded."""

    t: float
    client: str
    took: float
    address: str = ""
    site: str = ""
    error: str = ""


class Failed(Exception):
    """The request failed; why, in a few words."""


async def ask(resolver: str, name: str, source: str) -> str:
    """The first address of the answer, as a stub resolver would take it. Raises Failed."""
    query = dns.message.make_query(name, "A")
    try:
        reply = await dns.asyncquery.udp(query, resolver, timeout=TIMEOUT_S, source=source)
    except (OSError, dns.exception.DNSException) as error:
        raise Failed(f"resolver: {type(error).__name__}") from error
    for rrset in reply.answer:
        if rrset.rdtype == dns.rdatatype.A:
            return str(rrset[0].address)
    raise Failed(f"resolver: no address ({reply.rcode().name})")


async def fetch(client: Client, address: str, context: ssl.SSLContext | None) -> str:
    """The site that answered. Raises Failed."""
    url = urlsplit(client.url)
    tls = url.scheme == "https"
    writer = None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(
                address,
                url.port,
                local_addr=(client.source, 0),
                ssl=context if tls else None,
                server_hostname=(client.server_name or url.hostname) if tls else None,
            )
            writer.write(f"GET / HTTP/1.1\r\nHost: {url.hostname}\r\nConnection: close\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).split(b" ", 2)
            body = (await reader.readline()).decode(errors="replace")
    except TimeoutError as error:
        raise Failed("timeout") from error
    except (OSError, asyncio.IncompleteReadError) as error:  # an SSLError is an OSError
        raise Failed(type(error).__name__) from error
    finally:
        if writer is not None:
            writer.transport.abort()
    if head[1:2] != [b"200"]:
        raise Failed(f"status {head[1].decode(errors='replace')}")
    return body.split(" ", 1)[0]


async def request(client: Client, resolver: str, context: ssl.SSLContext | None) -> Record:
    clock = asyncio.get_running_loop().time
    began = clock()
    address = site = error = ""
    try:
        host = urlsplit(client.url).hostname or ""
        literal = host.replace(".", "").isdigit()
        address = host if literal else await ask(resolver, host, client.source)
        site = await fetch(client, address, context)
    except Failed as failed:
        error = str(failed)
    return Record(round(began, 4), client.name, round(clock() - began, 4), address, site, error)


async def ask_for_ever(
    clients: Sequence[Client], resolver: str, context: ssl.SSLContext | None, every_s: float
) -> None:
    """Each every `every_s`, one after the other within SPREAD_S, so that they do not all ask at once."""
    clock = asyncio.get_running_loop().time
    under_way: set[asyncio.Task[None]] = set()

    async def one(client: Client) -> None:
        record = await request(client, resolver, context)
        print(json.dumps(_plain(record)), flush=True)

    begins, apart_s = clock(), min(every_s, SPREAD_S) / len(clients)
    while True:
        for number, client in enumerate(clients):
            await asyncio.sleep(begins + number * apart_s - clock())
            task = asyncio.create_task(one(client))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        begins += every_s
        for task in [task for task in under_way if task.done()]:
            task.result()


def _plain(record: Record) -> dict[str, object]:
    return {key: value for key in record.__struct_fields__ if (value := getattr(record, key)) != ""}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--every", type=int, required=True, help="milliseconds between two requests of a client")
    parser.add_argument("--resolver", required=True)
    parser.add_argument("--client", action="append", required=True, help="NAME,SOURCE,URL[,SERVER_NAME]")
    parser.add_argument("--ca", help="whom to trust, for https")
    given = parser.parse_args(argv)
    clients = [Client(*entry.split(",")) for entry in given.client]
    context = ssl.create_default_context(cafile=given.ca) if given.ca else None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    asyncio.run(ask_for_ever(clients, given.resolver, context, given.every / 1000))


if __name__ == "__main__":
    main()
