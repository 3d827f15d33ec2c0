"""A name server that is told to listen elsewhere too: it goes on where it is, and keeps what was written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import dns.message
import msgspec
import pytest

from controlplane.cli.dev_config import free_port, template
from controlplane.dns import DRIVERS
from controlplane.dns.ask import ask
from controlplane.dns.embedded import EmbeddedServer
from controlplane.dns.regions import Regions
from controlplane.node import Node
from policies.topology import Config, DnsDriver
from tests.support import run
from tests.unit.test_node import SERVER, cluster, config, told, until


def listening(good: Config, *ports: int) -> Config:
    """With site-a's name server on these ports."""
    options = msgspec.json.encode({"listen": [f"{SERVER}:{port}" for port in ports]}).decode()
    servers = [msgspec.structs.replace(d, options=options) if d.site == "site-a" else d for d in good.dns]
    return msgspec.structs.replace(good, dns=tuple(servers))


def test_an_address_more_and_one_less() -> None:
    first, second = free_port(), free_port()
    good = config(template(first, 8080))

    async def main() -> None:
        async with cluster(good) as node:
            await until(lambda: "www" in node.view.desired and bool(node.drivers))
            driver = node.drivers["embedded-site-a"]
            for ports in ((first, second), (second,), (second, first)):
                await node.operator.apply_config(listening(good, *ports), ())
                await until(lambda p=ports: driver.server.listen == tuple((SERVER, port) for port in p))  # type: ignore[misc,attr-defined]
                assert all([await told(port) for port in ports]), "nothing that was written is lost"
            assert node.drivers["embedded-site-a"] is driver

    run(main())


async def served(node: Node, port: int) -> None:
    """Wait until site-a's name server has something to say there."""
    await until(lambda: "www" in node.view.desired and bool(node.drivers))
    async with asyncio.timeout(20):
        while not await told(port):
            await asyncio.sleep(0.05)


def renamed(good: Config, name: str) -> Config:
    """With another name for site-a's name server."""
    servers = [msgspec.structs.replace(d, name=name) if d.site == "site-a" else d for d in good.dns]
    return msgspec.structs.replace(good, dns=tuple(servers))


@asynccontextmanager
async def asked_all_the_time(port: int) -> AsyncIterator[None]:
    """Every query meanwhile is answered, and with the same answer, over UDP and TCP."""
    before, said, over = await told(port), list[tuple[bool, int, list[str]]](), asyncio.Event()
    query = dns.message.make_query("www.dev.test", "A")

    async def over_tcp() -> dns.message.Message:
        reader, writer = await asyncio.open_connection(SERVER, port)
        try:
            writer.write(len(wire := query.to_wire()).to_bytes(2, "big") + wire)
            size = int.from_bytes(await reader.readexactly(2), "big")
            return dns.message.from_wire(await reader.readexactly(size))
        finally:
            writer.transport.abort()

    async def main() -> None:
        while not over.is_set():
            for tcp, reply in ((False, await ask(f"{SERVER}:{port}", query)), (True, await over_tcp())):
                said.append((tcp, int(reply.rcode()), [str(record) for rrset in reply.answer for record in rrset]))
            await asyncio.sleep(0.001)

    task = asyncio.create_task(main())
    try:
        yield
    finally:
        over.set()
        await task
    assert before and len(said) > 2
    assert [answer for answer in said if answer[1:] != (0, before)] == []


def test_another_name_for_it_costs_no_query() -> None:
    port, other = free_port(), free_port()
    good = config(template(port, 8080))

    async def main() -> None:
        async with cluster(good) as node:
            await served(node, port)
            running = node.drivers["embedded-site-a"]
            async with asked_all_the_time(port):
                for name in ("other", "embedded-site-a", "third"):
                    await node.operator.apply_config(renamed(good, name), ())
                    await until(lambda n=name: set(node.drivers) == {n} and running.name == n)  # type: ignore[misc]
                    await until(lambda n=name: "www" in (k.applied if (k := node.agent.keepers.get(n)) else ()))  # type: ignore[misc]
            assert node.drivers["third"] is running
            await node.operator.apply_config(renamed(listening(good, other), "fourth"), ())
            await until(lambda: set(node.drivers) == {"fourth"} and node._configured["fourth"][1].name == "fourth")
            assert await told(other), "elsewhere too: nothing that was written is lost"
            assert node.drivers["fourth"] is running and not node.driver_faults

    run(main())


def test_one_more_server_is_not_an_older_one_under_another_name() -> None:
    port, other = free_port(), free_port()
    good = config(template(port, 8080))
    mine = next(d for d in good.dns if d.site == "site-a")
    moved = next(d for d in listening(good, other).dns if d.site == "site-a")

    def with_(*drivers: DnsDriver) -> Config:
        return msgspec.structs.replace(good, dns=(*drivers, *(d for d in good.dns if d.site != "site-a")))

    async def main() -> None:
        async with cluster(good) as node:
            await served(node, port)
            running = node.drivers["embedded-site-a"]
            # The old name goes; of two new ones that are there now, one is where the old one was.
            new = with_(msgspec.structs.replace(moved, name="away"), msgspec.structs.replace(mine, name="here"))
            async with asked_all_the_time(port):
                await node.operator.apply_config(new, ())
                await until(lambda: set(node.drivers) == {"away", "here"})
                await asyncio.sleep(0.1)
            assert node.drivers["here"] is running and node.drivers["away"] is not running
            await node.operator.apply_config(with_(msgspec.structs.replace(moved, name="away")), ())
            await until(lambda: set(node.drivers) == {"away"})
            with pytest.raises((OSError, TimeoutError)):
                await told(port)

    run(main())


@pytest.mark.parametrize("fails", [False, True])
def test_a_name_that_is_changed_while_it_is_opened(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    port = free_port()
    good = config(template(port, 8080))

    async def main() -> None:
        async with cluster(good) as node:
            await served(node, port)
            running, slow, kind = node.drivers["embedded-site-a"], asyncio.Event(), DRIVERS["embedded"]

            async def later(*args: Any) -> bool:
                if not slow.is_set():
                    await slow.wait()
                    if fails:
                        raise OSError("not now")
                return await kind.reconfigure(*args)

            monkeypatch.setitem(DRIVERS, "embedded", msgspec.structs.replace(kind, reconfigure=later))
            async with asked_all_the_time(port):
                await node.operator.apply_config(listening(good, port), ())
                await until(lambda: "embedded-site-a" in node._opening)
                await node.operator.apply_config(renamed(good, "other"), ())
                await until(lambda: any(d.name == "other" for d in node.view.config.dns))  # type: ignore[union-attr]
                await asyncio.sleep(0.1)
                assert set(node.drivers) == {"embedded-site-a"}, "it has to be done first"
                slow.set()
                await until(lambda: set(node.drivers) == {"other"} and running.name == "other")
                await until(lambda: not node.driver_faults)
            assert node.drivers["other"] is running

    run(main())


def test_an_address_that_is_taken_changes_nothing() -> None:
    async def main() -> None:
        one, other = (EmbeddedServer((), Regions({}), (f"{SERVER}:0",)) for _ in range(2))
        try:
            await one.start()
            await other.start()
            before, taken = one.addresses, other.addresses[0]
            try:
                await one.listen_at((f"{SERVER}:{free_port()}", taken))
            except OSError as error:
                assert "in use" in str(error)
            else:
                raise AssertionError("the address is taken")
            assert one.addresses == before and one.listen == ((SERVER, 0),)
            await asyncio.sleep(0)
        finally:
            await one.aclose()
            await other.aclose()

    run(main())
