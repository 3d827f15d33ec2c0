"""A node under configurations that change while it runs: its name server is never interrupted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import dns.message
import msgspec
import pytest

from controlplane.cli.dev_config import free_port, template
from controlplane.config import read_config
from controlplane.dns.ask import ask
from controlplane.node import Node
from controlplane.store.memory import MemoryStore
from policies.topology import Config
from probes.target import Cancel, Done, Sample, Target
from tests.support import run

SERVER = "127.0.1.1"


class AllWell:
    """A prober in a world in which everything passes."""

    def start(self, target: Target, done: Done) -> Cancel:
        return asyncio.get_running_loop().call_later(0.001, done, Sample(True, True, "ok", 0.001)).cancel

    async def aclose(self) -> None:
        return None


def config(text: str) -> Config:
    result = read_config(text, "t.yaml")
    assert result.config is not None, result.problems
    return result.config


@asynccontextmanager
async def cluster(first: Config) -> AsyncIterator[Node]:
    """Nodes at all sites; the first site's is the one that is looked at."""
    store = MemoryStore()
    nodes = [
        Node(site, first.cluster, store, AllWell(), wall=lambda: 0.0, rng=random.Random(site)) for site in first.sites
    ]
    await nodes[0].operator.apply_config(first, ())
    tasks = [asyncio.create_task(node.run()) for node in nodes]
    try:
        yield nodes[0]
        assert not any(task.done() for task in tasks), "no node ended"
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():
            await asyncio.sleep(0.05)


async def told(port: int) -> list[str]:
    reply = await ask(f"{SERVER}:{port}", dns.message.make_query("www.dev.test", "A"))
    return [str(record) for rrset in reply.answer for record in rrset]


def test_a_geo_file_that_is_missing_leaves_the_server_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    text = template(port, 8080)

    async def main() -> None:
        async with cluster(config(text)) as node:
            await until(lambda: "www" in node.view.desired and bool(node.drivers))
            async with asyncio.timeout(20):
                while not await told(port):
                    await asyncio.sleep(0.05)
            before = await told(port)
            server = node.drivers["embedded-site-a"]
            for name, content in (("missing.mmdb", None), ("junk.mmdb", b"junk" * 1000)):
                file = tmp_path / name
                if content:
                    file.write_bytes(content)
                bad = _with_geo_file(config(text), file)
                revision = (await node.operator.apply_config(bad, ())).config.revision
                await until(lambda r=revision: node.view.config is not None and node.view.config.revision == r)  # type: ignore[misc]
                await until(lambda: "stays as it is" in caplog.text)
                caplog.clear()
                assert await told(port) == before and node.drivers["embedded-site-a"] is server
            again = (await node.operator.apply_config(config(text.replace("ttl: 5s", "ttl: 9s")), ())).config
            await until(lambda: node.view.desired["www"].config_rev == again.revision)
            assert await told(port) == before and node.drivers["embedded-site-a"] is server

    run(main())


def _with_geo_file(good: Config, file: Path) -> Config:
    """As somebody's own tool would write it into the store: the configuration reader refuses such a file."""
    drivers = []
    for driver in good.dns:
        options = {**msgspec.json.decode(driver.options), "mmdb": str(file)}
        drivers.append(msgspec.structs.replace(driver, options=msgspec.json.encode(options).decode()))
    return msgspec.structs.replace(good, dns=tuple(drivers))


def test_a_server_whose_port_changes_moves_and_the_old_one_closes() -> None:
    port, other = free_port(), free_port()

    async def main() -> None:
        async with cluster(config(template(port, 8080))) as node:
            await until(lambda: "www" in node.view.desired and bool(node.drivers))
            await node.operator.apply_config(config(template(other, 8080)), ())
            async with asyncio.timeout(20):
                while True:
                    with suppress(OSError, TimeoutError):
                        if await told(other):
                            break
                    await asyncio.sleep(0.05)
            with pytest.raises((OSError, TimeoutError)):
                await told(port)

    run(main())
