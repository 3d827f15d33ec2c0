"""The embedded name server's sockets, on loopback."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable

import dns.message
import pytest

from controlplane.dns import DRIVERS, server
from controlplane.dns.ask import ask
from controlplane.dns.embedded import (
    EmbeddedDriver,
    EmbeddedServer,
    configure,
    server_for,
    zones_of,
)
from controlplane.dns.regions import Regions
from controlplane.dns.server import endpoint, join
from controlplane.dns.table import Zone
from controlplane.drivers import Actual, Fence
from policies.topology import Config, Dns, DnsDriver, Policy, Region, Service
from policies.world import Answer
from tests.support import run

FENCE = Fence("inc", 7, "d-7.1")
WORLD = {"world": Region(default=True)}


def made(listen: str = "127.0.1.1:0", count: int = 1) -> EmbeddedServer:
    made = EmbeddedServer([Zone("example.org", {"ns.example.org": ()})], Regions(WORLD), [listen])
    answers = tuple(Answer("world", "A", f"192.0.2.{i}", "a", 1) for i in range(count))
    made.table.edit("www.example.org", Actual(FENCE, 20, answers))
    return made


def served(body: Callable[[EmbeddedServer, tuple[str, int]], Awaitable[None]], count: int = 1) -> None:
    async def main() -> None:
        one = made(count=count)
        await one.start()
        try:
            await body(one, endpoint(one.addresses[0]))
        finally:
            await one.aclose()

    run(main())


def framed(name: str = "www.example.org") -> bytes:
    return dns.message.make_query(name, "A", id=7).to_wire(prepend_length=True)


async def reply_of(reader: asyncio.StreamReader) -> dns.message.Message:
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    return dns.message.from_wire(await reader.readexactly(length))


def test_a_truncated_answer_is_asked_for_again_over_tcp() -> None:
    async def body(one: EmbeddedServer, at: tuple[str, int]) -> None:
        reply = await ask(one.addresses[0], dns.message.make_query("www.example.org", "A", use_edns=0))
        assert len(reply.answer[0]) == 200

    served(body, count=200)


def test_tcp_queries_in_pieces_and_in_a_row() -> None:
    async def body(one: EmbeddedServer, at: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*at)
        wire = framed() + framed("nothing.example.org") + framed()
        for i in range(0, len(wire), 5):
            writer.write(wire[i : i + 5])
            await writer.drain()
        assert [(await reply_of(reader)).rcode() for _ in range(3)] == [0, 3, 0]
        writer.close()

    served(body)


@pytest.mark.parametrize("junk", [b"\x00\x00", b"\x00\x03abc", b"GET / HTTP/1.1\r\n\r\n" + bytes(30_000)])
def test_tcp_junk_ends_that_connection_only(junk: bytes) -> None:
    async def body(one: EmbeddedServer, at: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*at)
        writer.write(junk)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            while True:
                await reply_of(reader)  # a format error may come first
        writer.close()
        assert (await ask(one.addresses[0], dns.message.make_query("www.example.org", "A"))).answer

    served(body)


def test_a_silent_connection_is_closed_though_it_sends_single_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_S", 0.2)

    async def body(one: EmbeddedServer, at: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*at)
        trickle = asyncio.get_running_loop().create_task(drip(writer))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readexactly(1)
        trickle.cancel()
        await asyncio.gather(trickle, return_exceptions=True)
        writer.close()

    async def drip(writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"\x00\xff"[:1])
            await asyncio.sleep(0.02)
            if writer.is_closing():
                return
            writer.write(b"\xff")
            await asyncio.sleep(60)

    served(body)


def test_when_all_connections_are_taken_the_oldest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)

    async def body(one: EmbeddedServer, at: tuple[str, int]) -> None:
        links = []
        for _ in range(2):
            links.append(await asyncio.open_connection(*at))
            links[-1][1].write(framed())
            await reply_of(links[-1][0])
        links[0][1].write(framed())  # now the second is the one that was silent longest
        await reply_of(links[0][0])
        links.append(await asyncio.open_connection(*at))
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await links[1][0].readexactly(1)
        for reader, writer in (links[0], links[2]):
            writer.write(framed())
            assert (await reply_of(reader)).answer
        for _, writer in links:
            writer.close()

    served(body)


class Pipe(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 9)})
        self.written: list[bytes] = []
        self.reading = True
        self.gone = False

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.written.append(data)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.gone = True


def test_a_client_that_does_not_read_is_not_read_from_and_many_queries_take_turns() -> None:
    async def main() -> None:
        pipe, one = Pipe(), server._Tcp(made().responder, {})
        one.connection_made(pipe)
        one.data_received(framed() * (server.AT_ONCE + 1))
        assert (len(pipe.written), pipe.reading) == (server.AT_ONCE, False)
        await asyncio.sleep(0)
        assert (len(pipe.written), pipe.reading) == (server.AT_ONCE + 1, True)
        one.pause_writing()
        one.data_received(framed() * 2)
        assert (len(pipe.written), pipe.reading) == (server.AT_ONCE + 1, False)
        one.resume_writing()
        assert (len(pipe.written), pipe.reading) == (server.AT_ONCE + 3, True)
        one.close()
        assert pipe.gone

    run(main())


def test_a_port_that_is_taken_leaves_nothing_open() -> None:
    async def main() -> None:
        first = made()
        await first.start()
        taken = endpoint(first.addresses[0])[1]
        second = EmbeddedServer([], Regions(WORLD), ["127.0.2.1:0", f"127.0.1.1:{taken}"])
        with pytest.raises(OSError):
            await second.start()
        await first.aclose()
        again = made(f"127.0.1.1:{taken}")
        await again.start()
        await again.aclose()

    run(main())


def test_asking_where_nobody_listens_is_an_os_error() -> None:
    async def main() -> None:
        one = made()
        await one.start()
        gone = one.addresses[0]
        await one.aclose()
        with pytest.raises(OSError):
            await ask(gone, dns.message.make_query("www.example.org", "A"))

    run(main())


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("192.0.2.1", "192.0.2.1", 53),
        ("192.0.2.1:5300", "192.0.2.1", 5300),
        ("2001:db8::1", "2001:db8::1", 53),
        ("[2001:db8::1]", "2001:db8::1", 53),
        ("[2001:db8::1]:5300", "2001:db8::1", 5300),
    ],
)
def test_endpoints(text: str, host: str, port: int) -> None:
    assert endpoint(text) == (host, port)
    assert endpoint(join(host, port)) == (host, port)


# ---- from the configuration


def driver(site: str, options: str, zones: tuple[str, ...] = ("example.org",)) -> DnsDriver:
    return DnsDriver("embedded", f"embedded-{site}", site, zones, (site,), 1.0, "freeze", (), options)


def config(*drivers: DnsDriver) -> Config:
    service = Service({}, {}, (), Policy(), 60.0, dns=Dns("www.example.org"))
    return Config("acme", 60.0, {}, WORLD, {"www": service}, Policy(), dns=drivers)


def test_all_servers_of_a_zone_give_the_same_name_servers() -> None:
    a = driver("site-a", '{"listen": ["127.0.1.1:5300", "0.0.0.0:53"]}')
    b = driver("site-b", '{"listen": ["127.0.2.1:5300"], "ns": ["ns.example.org", "ns2.example.org"]}')
    c = driver("site-c", '{"listen": ["127.0.3.1:5300"]}', ("other.org",))
    both = {"ns.example.org": ("127.0.1.1", "127.0.2.1"), "ns2.example.org": ("127.0.2.1",)}
    everything = config(a, b, c)
    assert zones_of(a, everything) == zones_of(b, everything) == (Zone("example.org", both),)
    assert zones_of(c, everything) == (Zone("other.org", {"ns.other.org": ("127.0.3.1",)}),)


def test_a_driver_of_the_configuration_opens_with_its_server() -> None:
    async def main() -> None:
        one = driver("site-a", '{"listen": ["127.0.1.1:0"]}')
        opened = await DRIVERS["embedded"].open(one, config(one))
        assert opened.name == "embedded-site-a"
        assert await opened.read(["www.example.org"]) == {}
        await opened.aclose()

        running = server_for(one, config(one))
        await running.start()
        query = dns.message.make_query("www.example.org", "A")
        assert (await ask(running.addresses[0], query)).rcode() == 2
        configure(running, driver("site-a", '{"listen": []}', ("other.org",)), config())
        assert (await ask(running.addresses[0], query)).rcode() == 5
        await running.aclose()

    run(main())


def test_the_driver_of_a_server_that_is_down_raises() -> None:
    async def main() -> None:
        gone = EmbeddedDriver("embedded-site-a", lambda: None)
        for call in (gone.read(["x"]), gone.apply([]), gone.probe_write()):
            with pytest.raises(OSError):
                await call

    run(main())
