"""etcd refuses: it is out of space, it does not accept a certificate, it may not be written by this user, or it is
another cluster than before. Clients write and watch meanwhile, as in test_etcd_faults."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from chaos.worlds.servers.etcd import Address, EtcdCluster, Tls
from chaos.worlds.servers.process import free_port
from controlplane.documents import Keys, NodeDoc
from controlplane.store import OutcomeUnknown, Put, StoreError, Txn, Unavailable
from controlplane.store.etcd import Credentials, EtcdStore, PermissionDenied, store, watch
from controlplane.view import View
from tests.contract.store_contract import PATIENCE_S, put
from tests.real.etcd_world import Books, World
from tests.real.proxies import HOST
from tests.support import run

QUOTA = 8 << 20


# --- out of space ---


def test_the_quota_is_used_up(tmp_path: Path) -> None:
    with World(tmp_path, quota_bytes=QUOTA) as world:

        async def main() -> str:
            async with Books(world, "a", "b") as books:
                filler = world.store("c")
                big = Txn((), (Put(f"{books.prefix}big", bytes(1 << 20)),))
                with pytest.raises(OutcomeUnknown, match="out of space"):
                    for _ in range(40):
                        await filler.txn(big)
                with pytest.raises(Unavailable, match="out of space"):
                    await filler.txn(big)
                refused = [writer.refused for writer in books.writers]
                await books.until(
                    lambda: (
                        all(w.refused > n for w, n in zip(books.writers, refused, strict=True))
                        and all("out of space" in w.errors[-1] for w in books.writers)
                    )
                )
                health = await filler.health()
                assert health.alarms == ("NOSPACE",)
                assert any(m.half_full for m in health.members)
                assert {member.quota_bytes for member in health.members} == {QUOTA}
                # The way back, as the message tells it. The history since the start goes with it.
                await filler.compact((await filler.range(books.prefix)).rev)
                for member in world.cluster.members.values():
                    world.cluster.etcdctl("defrag", member=member, timeout="10s")
                world.cluster.etcdctl("alarm", "disarm")
                await books.more(20)
                assert (await filler.health()).alarms == ()
                await filler.aclose()
                await books.settle()
                assert books.watcher is not None
                assert books.watcher.snapshots == []
                books.check_operations([event for event in books.watcher.events if not event.key.endswith("/big")])
                return books.line("out of space, compacted, defragmented")

        print(run(main()))


# --- certificates ---


class Authority:
    """A certificate authority, and the files of what it issued. A name is the certificate's CN: the etcd user."""

    def __init__(self, directory: Path) -> None:
        self.ca, self.directory = trustme.CA(), directory
        directory.mkdir(parents=True, exist_ok=True)
        self.ca.cert_pem.write_to_path(str(directory / "ca.pem"))

    def issue(self, name: str) -> Credentials:
        issued = self.ca.issue_cert(HOST, common_name=name)
        cert, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        cert.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        return Credentials(str(self.directory / "ca.pem"), str(cert), str(key))


def tls(credentials: Credentials) -> Tls:
    return Tls(Path(credentials.ca), Path(credentials.cert), Path(credentials.key))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[World]:
    """Users: root; agent, which may read all and write only below /real/agent/."""
    world = World(tmp_path_factory.mktemp("etcd"), tls=tls(authority.issue("root")))
    with world:
        ctl = world.cluster.etcdctl
        ctl("role", "add", "agent")
        ctl("role", "grant-permission", "agent", "--prefix=true", "read", "/real/")
        ctl("role", "grant-permission", "agent", "--prefix=true", "readwrite", "/real/agent/")
        for user in ("root", "agent"):
            ctl("user", "add", user, "--no-password")
            ctl("user", "grant-role", user, user)
        ctl("auth", "enable")
        yield world


def test_a_certificate_is_refused_and_then_replaced(
    secure: World, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files change under a running client; reload() reads them."""
    monkeypatch.setattr(store, "CALL_S", 2.0)
    monkeypatch.setattr(watch, "GIVE_UP_S", 2.0)
    good, bad = authority.issue("root"), Authority(tmp_path / "other").issue("root")
    mine = Credentials(good.ca, str(tmp_path / "mine.pem"), str(tmp_path / "mine.key"))

    def install(credentials: Credentials) -> None:
        shutil.copy(credentials.cert, mine.cert)
        shutil.copy(credentials.key, mine.key)

    def cut_short() -> None:
        Path(mine.cert).write_bytes(Path(good.cert).read_bytes()[:200])

    async def main() -> str:
        install(good)
        async with Books(secure, "a", "b", mine) as books:
            assert books.watcher is not None
            install(bad)
            for each in books.stores:
                await each.reload()
            await books.until(lambda: all("etcd does not serve" in " ".join(w.errors) for w in books.writers))
            assert "our certificate was refused?" in books.writers[0].errors[-1]
            (tmp_path / "mine.key").unlink()
            with pytest.raises(Unavailable, match=r"cannot read .*mine\.key"):
                await books.stores[0].reload()
            install(good)
            for each in books.stores:
                await each.reload()
            # A file that is there and is no certificate (a copy that was cut short) must not cost the connection.
            cut_short()
            with pytest.raises(Unavailable, match=r"mine\.pem is no certificate in PEM"):
                await books.stores[0].reload()
            shutil.copy(bad.key, mine.key)
            shutil.copy(good.cert, mine.cert)
            with pytest.raises(Unavailable, match=r"mine\.key is not the key of"):
                await books.stores[0].reload()
            await books.more(20)
            install(good)
            for each in books.stores:
                await each.reload()
            await books.more(20)
            await books.check()
            return books.line("certificate refused, then replaced")

    print(run(main()))


def test_a_member_with_a_certificate_of_another_authority_is_not_trusted(secure: World, tmp_path: Path) -> None:
    async def main() -> None:
        stranger = secure.store("a", Authority(tmp_path).issue("root"))
        members = (await stranger.health()).members
        assert not any(member.reachable for member in members)
        assert "CERTIFICATE_VERIFY_FAILED" in members[0].why
        await stranger.aclose()

    run(main())


def test_what_a_user_may_not_do_is_named(secure: World, authority: Authority) -> None:
    async def main() -> None:
        store = secure.store("a", authority.issue("agent"))
        assert (await store.txn(Txn((), (Put("/real/agent/a", b""),)))).ok
        with pytest.raises(PermissionDenied, match=r"agent\.pem may not write /real/agent/a, /real/desired/web"):
            await store.txn(Txn((), (Put("/real/agent/a", b"2"), Put("/real/desired/web", b""))))
        found = await store.get("/real/agent/a")
        assert found is not None
        assert found.value == b""  # all or nothing
        with pytest.raises(PermissionDenied, match="may not read /elsewhere/"):
            await store.range("/elsewhere/")
        with pytest.raises(PermissionDenied, match="may not watch /elsewhere/"):
            await anext(store.watch("/elsewhere/", 1))
        health = await store.health()  # needs no permission, and a certificate for the quota
        assert health.majority
        assert {member.quota_bytes for member in health.members} == {2 << 30}
        await store.aclose()
        anonymous = secure.store("a", authority.issue("nobody"))
        with pytest.raises(PermissionDenied, match="nobody"):
            await anonymous.get("/real/agent/a")
        await anonymous.aclose()

    run(main())


def test_a_view_waits_for_its_permissions(secure: World, authority: Authority) -> None:
    """A node whose user may do nothing yet goes on trying, and is current as soon as it may."""
    keys, ctl = Keys("view"), secure.cluster.etcdctl
    me = NodeDoc("node-1", "site-a", ("controller",), "0.1.0", "run-1", 0, 0.0)

    async def main() -> None:
        store = secure.store("a", authority.issue("late"))
        view = View(store, "view", me, lambda: 0.0)
        task = asyncio.create_task(view.run())
        await asyncio.sleep(1)
        assert not task.done()
        assert not view.current
        ctl("user", "add", "late", "--no-password")
        ctl("role", "add", "late")
        ctl("role", "grant-permission", "late", "--prefix=true", "readwrite", keys.prefix)
        ctl("user", "grant-role", "late", "late")
        async with asyncio.timeout(PATIENCE_S):
            while not view.current:
                await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await store.aclose()

    run(main())


# --- what is said of it ---


def test_an_outage_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Reads, writes and a watch each meet it in another way, again and again."""
    cluster = EtcdCluster(tmp_path, {"one": Address(HOST, free_port(), free_port())})

    async def main() -> None:
        (member,) = cluster.members.values()
        store = EtcdStore(cluster.urls)
        await put(store, "/a")
        tasks = [asyncio.create_task(each) for each in (follow(store), use(store, "/b"), use(store, "/c"))]
        for end, again in ((member.freeze, member.thaw), (member.kill, member.start)):
            caplog.clear()
            end()
            await asyncio.sleep(6)
            again()
            async with asyncio.timeout(PATIENCE_S):
                while not any("serves again" in line for line in caplog.messages):
                    await asyncio.sleep(0.1)
            told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
            assert len(told) == 1 and told[0].startswith(f"etcd at {member.url}: "), told
            assert sum("serves again" in line for line in caplog.messages) == 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.aclose()

    async def use(store: EtcdStore, key: str) -> None:
        while True:
            with contextlib.suppress(StoreError, TimeoutError):
                async with asyncio.timeout(2):
                    await store.txn(Txn((), (Put(key, b""),)))
                    await store.get(key)
            await asyncio.sleep(0.1)

    async def follow(store: EtcdStore) -> None:
        while True:
            with contextlib.suppress(StoreError):
                async for _ in store.watch("/", 1):
                    pass

    with cluster, caplog.at_level("INFO", logger="controlplane.store"):
        run(main())


# --- another cluster ---


def test_an_endpoint_of_another_cluster_is_refused(tmp_path: Path) -> None:
    """One endpoint suddenly leads to another etcd, as after a wrong restore or a moved address."""
    other = EtcdCluster(tmp_path / "other", {"x": Address(HOST, free_port(), free_port())}, token="other")
    with World(tmp_path / "mine") as world, other:

        async def main() -> str:
            async with Books(world, "a", "b") as books:
                mine = (await books.stores[0].health()).cluster_id
                world.clients["a"].target = other.members["x"].address.client_port
                world.sever_client("a")
                await books.more(30)
                health = await books.stores[0].health()
                assert health.cluster_id == mine
                assert [member.reachable for member in health.members] == [False, True, True]
                assert "member of another etcd cluster" in health.members[0].why
                stranger = EtcdStore(other.urls)
                assert (await stranger.range(books.prefix)).items == ()  # nothing of ours went there
                await put(stranger, "/theirs")
                await stranger.aclose()
                await books.check()
                return books.line("an endpoint that leads to another cluster")

        print(run(main()))
