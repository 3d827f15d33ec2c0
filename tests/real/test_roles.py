"""Least privilege on a real etcd: certificates.sh and etcd-roles.sh, and what each node can then do (DESIGN 5)."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from chaos.worlds.servers.etcd import Address, EtcdCluster, Tls
from chaos.worlds.servers.process import free_port, program
from controlplane.config import read_config
from controlplane.documents import AppliedDoc, GovernorDoc, Keys, LeaderDoc, NodeDoc, encode
from controlplane.fence import Committed, commit
from controlplane.operator import Operator
from controlplane.store import Compare, Delete, Put, StoreError, Txn
from controlplane.store.etcd import Credentials, EtcdStore, PermissionDenied
from policies.topology import Config, Override
from probes.target import Beat
from tests.real.failoverd_world import SITES, Failoverd, World
from tests.support import run

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"
KEYS = Keys("acme")
# As the usage of etcd-roles.sh has it; site-c has no controller, cloud only looks.
NODES = {
    "site-a": "vantage,agent,controller,api,admin",
    "site-b": "vantage,agent,controller,api",
    "site-c": "vantage,agent",
    "cloud": "vantage",
}


class Secured:
    """An etcd with roles. `store(name)` is what a client with that certificate sees."""

    def __init__(self, directory: Path) -> None:
        self.pki = directory / "pki"
        addresses = [f"{name}=127.0.0.1" for name in ("site-a", "site-b", "site-c")]
        script(str(DEPLOY / "certificates.sh"), str(self.pki), *addresses, "cloud", "root", "stranger")
        self.etcd = EtcdCluster(
            directory / "etcd",
            {
                name: Address("127.0.0.1", free_port(), free_port(), tls=self.tls(name))
                for name in ("site-a", "site-b", "site-c")
            },
            extra=("--enable-grpc-gateway=false",),
            client_tls=self.tls("root"),
        )

    def tls(self, name: str) -> Tls:
        return Tls(self.pki / "ca.crt", self.pki / f"{name}.crt", self.pki / f"{name}.key")

    def store(self, name: str) -> EtcdStore:
        files = self.tls(name)
        return EtcdStore(self.etcd.urls, Credentials(str(files.ca), str(files.cert), str(files.key)))

    def roles(self, *arguments: str, by: str = "root", cluster: str = "acme") -> str:
        files = self.tls(by)
        environment = {
            "ETCDCTL_ENDPOINTS": ",".join(self.etcd.urls),
            "ETCDCTL_CACERT": str(files.ca),
            "ETCDCTL_CERT": str(files.cert),
            "ETCDCTL_KEY": str(files.key),
        }
        return script(str(DEPLOY / "etcd-roles.sh"), "--cluster", cluster, *arguments, **environment)


def script(*argv: str, **env: str) -> str:
    program("openssl"), program("etcdctl")
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **env})
    assert done.returncode == 0, f"{argv[0]}: {done.stdout}{done.stderr}"
    return done.stdout


def nodes(**changed: str) -> list[str]:
    return [word for name, roles in {**NODES, **changed}.items() for word in ("--node", f"{name}={roles}")]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    found = Secured(tmp_path_factory.mktemp("roles"))
    with found.etcd:
        found.roles(*nodes())
        yield found


def as_(secured: Secured, name: str, act: Callable[[EtcdStore], Awaitable[object]]) -> object:
    """Do something with the certificate of `name`. Raises what the store raises."""

    async def main() -> object:
        store = secured.store(name)
        try:
            return await act(store)
        finally:
            await store.aclose()

    return run(main())


def put(key: str, value: bytes = b"{}") -> Callable[[EtcdStore], Awaitable[object]]:
    return lambda store: store.txn(Txn((), (Put(key, value),)))


def delete(key: str) -> Callable[[EtcdStore], Awaitable[object]]:
    return lambda store: store.txn(Txn((), (Delete(key),)))


# Every key that the code writes: whose role covers it
OWN = {
    KEYS.node("site-c"): {"site-c", "site-a", "site-b"},  # the controllers sweep
    KEYS.beat("site-c", "main"): {"site-c", "site-a", "site-b"},
    KEYS.shard("site-c", "main", "www"): {"site-c", "site-a", "site-b"},
    KEYS.applied_by("site-c", "site-a", "rfc2136-site-a"): {"site-c", "site-a", "site-b"},
    KEYS.leader: {"site-a", "site-b"},
    KEYS.leader_beat: {"site-a", "site-b"},
    KEYS.service("www"): {"site-a", "site-b"},
    KEYS.decision("d-1"): {"site-a", "site-b"},
    KEYS.timers_overrides: {"site-a", "site-b"},
    KEYS.timers_governor: {"site-a", "site-b"},
    KEYS.overrides_rev: {"site-a", "site-b"},
    KEYS.override("ov-1"): {"site-a", "site-b"},
    KEYS.config: {"site-a"},
    KEYS.past_config(1): {"site-a"},
    KEYS.incarnation: {"site-a"},
    KEYS.adopted: {"site-a"},
    Keys("acme2").leader: set(),  # another cluster in the same etcd
    KEYS.prefix: set(),
    "/elsewhere": set(),
}


@pytest.mark.parametrize("name", [*NODES, "stranger"])
def test_every_node_writes_its_own_keys_and_no_others(secured: Secured, name: str) -> None:
    async def who_may(store: EtcdStore) -> dict[str, bool]:
        found = {}
        for key in OWN:
            try:
                await store.txn(Txn((), (Put(key, b"{}"),)))
                await store.txn(Txn((), (Delete(key),)))
            except PermissionDenied:
                found[key] = False
            else:
                found[key] = True
        return found

    assert as_(secured, name, who_may) == {key: name in writers for key, writers in OWN.items()}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("site-c", KEYS.service("www")),
        ("site-c", KEYS.leader),
        ("site-c", KEYS.leader_beat),
        ("site-c", KEYS.beat("cloud", "main")),
        ("cloud", KEYS.beat("site-c", "main")),
        ("cloud", KEYS.shard("site-c", "main", "www")),
        ("cloud", KEYS.node("site-c")),
        ("cloud", KEYS.applied_by("cloud", "site-a", "rfc2136-site-a")),
    ],
)
def test_a_refusal_says_who_and_what(secured: Secured, name: str, key: str) -> None:
    for attempt in (put(key), delete(key)):
        with pytest.raises(PermissionDenied, match=f"write {key}"):
            as_(secured, name, attempt)


def test_one_key_that_is_not_its_own_spoils_a_whole_transaction(secured: Secured) -> None:
    mine, other = KEYS.beat("cloud", "main"), KEYS.beat("site-c", "main")
    with pytest.raises(PermissionDenied):
        as_(secured, "cloud", lambda store: store.txn(Txn((), (Put(mine, b"{}"), Put(other, b"{}")))))
    assert as_(secured, "cloud", lambda store: store.get(mine)) is None


def test_every_node_reads_and_watches_the_whole_cluster_and_a_stranger_nothing(secured: Secured) -> None:
    as_(secured, "site-a", put(KEYS.service("read-me"), b"{}"))

    async def read(store: EtcdStore) -> list[str]:
        snapshot = await store.range(KEYS.prefix)
        batches = store.watch(KEYS.prefix, snapshot.rev)
        try:
            async with asyncio.timeout(10):
                assert (await anext(batches)).rev >= snapshot.rev
        finally:
            await batches.aclose()
        return [kv.key for kv in snapshot.items]

    for name in NODES:
        assert KEYS.service("read-me") in as_(secured, name, read), name
    with pytest.raises(StoreError):
        as_(secured, "stranger", lambda store: store.get(KEYS.incarnation))
    with pytest.raises(StoreError):
        as_(secured, "site-a", lambda store: store.range("/failover/acme2/"))
    as_(secured, "site-a", delete(KEYS.service("read-me")))


def config() -> Config:
    text = (DEPLOY.parent / "three-sites.yaml").read_text()
    found = read_config(text).config
    assert found is not None
    return found


def test_the_work_of_each_role_can_be_done_with_its_certificate(secured: Secured) -> None:
    """The real writers: apply, an election's claim, a commit, a node's beat, an agent's report, drain, the sweep."""

    def operator(store: EtcdStore) -> Operator:
        return Operator(store, KEYS, random.Random(1))

    async def apply(store: EtcdStore) -> object:
        return await operator(store).apply_config(config(), ())

    async def lead(store: EtcdStore) -> object:
        claim = Put(KEYS.leader, encode(LeaderDoc("site-b", "run")))
        token = (await store.txn(Txn((Compare(KEYS.leader, mod_rev=0),), (claim,)))).rev
        leading = (Compare(KEYS.leader, mod_rev=token),)
        then = [Put(KEYS.decision("d-1"), b"{}"), Put(KEYS.service("www"), b"{}")]
        applied = Compare(KEYS.config, mod_rev=await kv_rev(store, KEYS.config))
        basis = (applied, Compare(KEYS.service("www"), mod_rev=0))
        done = await commit(store, leading, basis, [*then, Put(KEYS.timers_governor, encode(GovernorDoc()))])
        swept = [Delete(KEYS.node("gone")), Delete(KEYS.beat("gone", "main")), Delete(KEYS.decision("d-0"))]
        assert isinstance(await commit(store, leading, (), swept), Committed)
        return done

    async def add(store: EtcdStore, verb: str, sites: tuple[str, ...]) -> str:
        draft = Override("", verb, False, "drain", sites, (), "ana", "test", "2026-01-01T00:00:00Z", 0, None)
        return (await operator(store).add_override(draft, await kv_rev(store, KEYS.overrides_rev))).id

    async def drain(store: EtcdStore) -> str:
        return await add(store, "out", ("site-b",))

    async def unfreeze(store: EtcdStore) -> object:
        return await operator(store).unfreeze([await add(store, "freeze", ())])

    with pytest.raises(PermissionDenied, match="config"):
        as_(secured, "site-b", apply)
    as_(secured, "site-a", apply)
    assert isinstance(as_(secured, "site-b", lead), Committed)
    assert as_(secured, "site-b", drain) == "ov-1"
    assert as_(secured, "site-b", unfreeze) == ("ov-2",)
    node = NodeDoc(node="site-c", site="site-c", roles=("agent",), version="1", run="r", n=1, wall_s=0.0)
    as_(secured, "site-c", put(KEYS.node("site-c"), encode(node)))
    report = AppliedDoc("site-a", "rfc2136-site-a", "site-c", "r", 1, {}, {}, {})
    as_(secured, "site-c", put(KEYS.applied_by("site-c", "site-a", "rfc2136-site-a"), encode(report)))
    as_(secured, "cloud", put(KEYS.beat("cloud", "main"), encode(Beat("cloud", "r", 1, {}, False, 0.0))))
    with pytest.raises(PermissionDenied):
        as_(secured, "site-c", drain)


async def kv_rev(store: EtcdStore, key: str) -> int:
    found = await store.get(key)
    return found.mod_rev if found else 0


def test_transactions_do_not_notice_that_users_are_made(secured: Secured) -> None:
    """What etcd began before a change of users or roles it refuses after it ("revision of auth store is old"),
    before it is applied."""

    async def main() -> list[int]:
        done = asyncio.Event()
        store = secured.store("site-a")
        try:
            writers = [asyncio.create_task(write(store, KEYS.node(f"writer-{n}"), done)) for n in range(8)]
            for n in range(12):
                await asyncio.to_thread(secured.etcd.etcdctl, "user", "add", f"new-{n}", "--no-password", timeout="10s")
            done.set()
            return await asyncio.gather(*writers)
        finally:
            await store.aclose()

    async def write(store: EtcdStore, key: str, done: asyncio.Event) -> int:
        rev = count = 0
        while not done.is_set():
            result = await store.txn(Txn((Compare(key, mod_rev=rev),), (Put(key, b"{}"),)))
            assert result.ok, "applied once, and not twice"
            rev, count = result.rev, count + 1
            found = await store.get(key)
            assert found is not None and found.mod_rev == rev
        await store.txn(Txn((), (Delete(key),)))
        return count

    assert min(run(main())) > 12


def test_run_again_it_changes_nothing_and_then_only_what_is_asked_for(secured: Secured) -> None:
    assert secured.roles(*nodes()).splitlines() == ["etcdctl auth enable"]
    taken = secured.roles("--node", "cloud=vantage,agent").splitlines()
    applied = f"{KEYS.applied}cloud/"
    assert taken == [
        "etcdctl role add acme/agent/cloud",
        f"etcdctl role grant-permission acme/agent/cloud readwrite {applied} --prefix=true",
        "etcdctl user grant-role cloud acme/agent/cloud",
        "etcdctl auth enable",
    ]
    as_(secured, "cloud", put(f"{applied}site-a/x/0"))
    secured.roles("--node", "cloud=vantage")
    with pytest.raises(PermissionDenied):
        as_(secured, "cloud", put(f"{applied}site-a/x/0"))
    as_(secured, "cloud", put(KEYS.beat("cloud", "main")))
    secured.roles("--remove", "cloud")
    for attempt in (put(KEYS.beat("cloud", "main")), lambda store: store.get(KEYS.config)):
        with pytest.raises(StoreError):
            as_(secured, "cloud", attempt)
    secured.roles(*nodes())
    as_(secured, "cloud", put(KEYS.beat("cloud", "main")))


def test_it_does_not_lock_everybody_out(secured: Secured, tmp_path: Path) -> None:
    """Switching authentication on needs root's certificate, and an etcd that asks for certificates."""
    with pytest.raises(AssertionError, match=r"site-a\.crt is not root's certificate"):
        secured.roles(*nodes(), by="site-a")
    open_etcd = EtcdCluster(tmp_path / "open", {"one": Address("127.0.0.1", free_port(), free_port())})
    with open_etcd:
        environment = {
            "ETCDCTL_ENDPOINTS": open_etcd.urls[0],
            "ETCDCTL_CERT": str(secured.pki / "root.crt"),
            "ETCDCTL_KEY": str(secured.pki / "root.key"),
            "ETCDCTL_CACERT": str(secured.pki / "ca.crt"),
        }
        with pytest.raises(AssertionError, match="does not ask for a client's certificate"):
            script(str(DEPLOY / "etcd-roles.sh"), "--cluster", "acme", *nodes(), **environment)
        open_etcd.etcdctl("put", "still", "writable")


@pytest.mark.timeout(120)
def test_a_cluster_of_failoverd_does_all_its_work_with_these_rights(secured: Secured, tmp_path: Path) -> None:
    """Real nodes: bootstrapped at site-a alone, led by a or b, drained through site-c's API, and nobody is refused."""
    roles = {
        "site-a": "vantage,agent,controller,api,admin",
        "site-b": "vantage,agent,controller,api",
        "site-c": "vantage,agent,api",
    }
    secured.roles(*[word for name, its in roles.items() for word in ("--node", f"{name}={its}")], cluster="real")
    world = World(tmp_path)
    try:
        for site, its in roles.items():
            files = secured.tls(site)
            world.nodes[site] = Failoverd(
                *(site, ",".join(secured.etcd.urls), tmp_path, "--roles", its.removesuffix(",admin")),
                *("--etcd-ca", str(files.ca), "--etcd-cert", str(files.cert), "--etcd-key", str(files.key)),
            ).start()
        world.wait_for_store()
        world.file.write_text(world.config)
        refused = world.ctl("apply", str(world.file), "--yes", api=world.nodes["site-b"].url)
        assert refused.returncode in (1, 4), refused.stdout + refused.stderr
        assert "permission" in refused.stderr
        world.apply()
        first = world.wait_until_served()
        leader = world.wait_for_leader().site
        assert leader in ("site-a", "site-b")
        left = next(site for site, address in SITES.items() if address == first)
        drained = world.ctl("drain", left, "--reason", "test", "--yes", "--no-wait", api=world.nodes["site-c"].url)
        assert drained.returncode == 0, drained.stdout + drained.stderr
        world.wait_until_left(first)
        before = world.wait_for_leader()
        before.process.stop()
        world.wait_for_leader(other_than=before.site)
        denied = {name: node.said("permission") for name, node in world.nodes.items()}
        assert [line["msg"] for line in denied.pop("site-a")] == []
        assert [line["msg"] for line in denied.pop("site-c")] == []
    finally:
        world.close()
