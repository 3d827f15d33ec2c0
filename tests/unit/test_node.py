"""A node under configurations that change while it runs: its name server is never interrupted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import dns.message
import msgspec
import pytest

from controlplane.cli.dev_config import free_port, template
from controlplane.config import read_config
from controlplane.dns.ask import ask
from controlplane.drivers import Actual, Place
from controlplane.node import Node
from controlplane.store.memory import MemoryStore
from policies.topology import Config, PoolDriver
from probes.target import Cancel, Done, Sample, Target
from tests.support import run
from tests.unit.fake_driver import FakeDriver

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
                await until(lambda: "stays as it was" in caplog.text)
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


class FakePool(FakeDriver):
    """A load balancer; `log` is told of every one that is opened and closed."""

    name = "lb"

    def __init__(self, log: list[str], place: Place, names: dict[str, Actual]) -> None:
        super().__init__()
        self.log, self.names = log, names
        log.append(f"open {place.site}")

    async def aclose(self) -> None:
        self.log.append("close")


@asynccontextmanager
async def one_site(
    state_dir: Path | None, may_open: asyncio.Event | None = None, trouble: Sequence[str] = ()
) -> AsyncIterator[tuple[Node, list[str], dict[str, Actual]]]:
    """A node of site-a with a pool, a memory store, and what became of the pool's driver. may_open: opening it hangs
    until then. trouble: while something is in it, it cannot be opened, for the last reason."""
    pools = "drivers:\n  pools: [{driver: haproxy, sites: [site-a], socket: /run/x}]"
    text = template(free_port(), 8080).replace("drivers:", pools)
    text = text.replace("dns: {name: www.dev.test", "pools: {backend: bk}\n    dns: {name: www.dev.test")
    log: list[str] = []
    names: dict[str, Actual] = {}

    async def open_pool(entry: PoolDriver, config: Config, place: Place) -> FakePool:
        assert entry.name in [pool.name for pool in config.pools]
        if may_open is not None:
            log.append("asked")
            await may_open.wait()
        if trouble:
            log.append("refused")
            raise OSError(trouble[-1])
        return FakePool(log, place, names)

    store, first = MemoryStore(), config(text)
    others = [s for s in first.sites if s != "site-a"]
    nodes = [Node(s, first.cluster, store, AllWell(), wall=lambda: 0.0, rng=random.Random(s)) for s in others]
    node = Node(
        "site-a",
        first.cluster,
        store,
        AllWell(),
        wall=lambda: 0.0,
        rng=random.Random("a"),
        open_pool=open_pool,
        state_dir=state_dir,
    )
    await node.operator.apply_config(first, ())
    tasks = [asyncio.create_task(each.run()) for each in (node, *nodes)]
    try:
        yield node, log, names
        assert not any(task.done() for task in tasks), "no node ended"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def test_a_node_opens_its_pool_and_opens_it_anew_for_new_secrets(tmp_path: Path) -> None:
    async def main() -> None:
        async with one_site(tmp_path) as (node, log, names):
            await until(lambda: "bk" in names)
            assert log == ["open site-a"]
            assert {a.site for a in names["bk"].answers} == {"site-a", "site-b", "site-c"}
            server = node.drivers["embedded-site-a"]
            await node.reload()
            await until(lambda: "close" in log)
            assert log == ["open site-a", "open site-a", "close"], "first the new one"
            assert node.drivers["embedded-site-a"] is server, "what is in this process has no secrets"
        assert log[-1] == "close" and log.count("close") == 2

    run(main())


def test_a_driver_that_hangs_when_it_is_opened_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("controlplane.node.OPEN_S", 0.5)
    monkeypatch.setattr("controlplane.node.OPEN_AGAIN_S", 0.1)

    async def main() -> None:
        may_open = asyncio.Event()
        async with one_site(tmp_path, may_open) as (node, log, names):
            await until(lambda: "embedded-site-a" in node.drivers and "asked" in log)
            await until(lambda: "driver haproxy is not open: not done within 0.5 s" in caplog.text)
            monkeypatch.setattr("controlplane.node.OPEN_S", 3600)
            before = len(log)
            await until(lambda: len(log) > before)
            now = node.view.config
            assert now is not None
            # With another configuration while it hangs: the others follow it.
            more = msgspec.structs.replace(
                now, dns=tuple(msgspec.structs.replace(d, zones=("x.test",)) for d in now.dns)
            )
            await node.operator.apply_config(more, ())
            await until(lambda: node._configured["embedded-site-a"][1] == more.dns[0])
            assert set(log) == {"asked"} and not names
            may_open.set()
            await until(lambda: "haproxy" in node.drivers)
            await until(lambda: node._configured["haproxy"][0].revision == now.revision + 1)

    run(main())


def test_a_driver_that_hangs_when_it_is_opened_does_not_keep_the_node_from_ending(tmp_path: Path) -> None:
    async def main() -> None:
        async with one_site(tmp_path, asyncio.Event()) as (_, log, _names):
            await until(lambda: "asked" in log)

    run(main())


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.message.startswith("driver haproxy")]


def test_a_driver_that_cannot_be_opened_is_told_to_all_and_not_logged_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("controlplane.node.OPEN_AGAIN_S", 0.05)
    trouble = ["no secret"]

    async def main() -> None:
        async with one_site(tmp_path, trouble=trouble) as (node, log, names):
            await until(lambda: log.count("refused") >= 5)
            assert complaints(caplog) == ["driver haproxy is not open: no secret"]
            assert node.driver_faults == {"haproxy": "is not open: no secret"}
            await until(lambda: node.view.mirror.nodes["site-a"].driver_faults == node.driver_faults)
            trouble.append("no file")
            await until(lambda: len(complaints(caplog)) == 2)
            monkeypatch.setattr("controlplane.node.SAY_AGAIN_S", 0.0)
            await until(lambda: complaints(caplog).count("driver haproxy is not open: no file") > 1)
            trouble.clear()
            await until(lambda: "bk" in names)
            assert node.driver_faults == {}
            await until(lambda: node.view.mirror.nodes["site-a"].driver_faults == {})

    run(main())


def test_what_cannot_be_opened_anew_goes_on_as_it_was_and_reload_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.node.OPEN_AGAIN_S", 0.05)
    trouble: list[str] = []

    async def main() -> None:
        async with one_site(tmp_path, trouble=trouble) as (node, log, names):
            await until(lambda: "bk" in names)
            assert await node.reload() == {} and log == ["open site-a", "open site-a", "close"]
            running = node.drivers["haproxy"]
            trouble.append("its file is gone")
            assert await node.reload() == {"haproxy": "stays as it was: its file is gone"}
            await until(lambda: log.count("refused") >= 3)
            assert node.drivers["haproxy"] is running and log.count("close") == 1
            trouble.clear()
            await until(lambda: node.driver_faults == {})
            assert node.drivers["haproxy"] is not running, "without another signal"

    run(main())


def test_a_driver_that_is_configured_no_more_is_no_trouble(tmp_path: Path) -> None:
    async def main() -> None:
        async with one_site(tmp_path, trouble=["no secret"]) as (node, _, _names):
            await until(lambda: bool(node.driver_faults))
            now = node.view.config
            assert now is not None
            await node.operator.apply_config(msgspec.structs.replace(now, pools=()), ())
            await until(lambda: node.driver_faults == {})

    run(main())


def test_without_a_directory_of_its_own_a_node_runs_no_pool_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with one_site(None) as (node, log, names):
            await until(lambda: "www" in node.view.desired and "embedded-site-a" in node.drivers)
            await node.reload()
            await asyncio.sleep(0.2)
            assert (log, names) == ([], {})

    run(main())
    said = [r.message for r in caplog.records if "cannot run without a directory" in r.message]
    assert len(said) >= 1 and said.count("haproxy cannot run without a directory for what was applied last") == len(
        said
    )
