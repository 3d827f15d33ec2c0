"""A name server that is told to listen elsewhere too: it goes on where it is, and keeps what was written."""

from __future__ import annotations

import asyncio

import msgspec

from controlplane.cli.dev_config import free_port, template
from controlplane.dns.embedded import EmbeddedServer
from controlplane.dns.regions import Regions
from policies.topology import Config
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
