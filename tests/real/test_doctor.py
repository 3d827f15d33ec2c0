"""`failoverctl doctor` against real parts: etcd with and without rights, name servers, HAProxy; whole and broken."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from chaos.worlds.servers.bind import Bind
from chaos.worlds.servers.etcd import Address, EtcdCluster
from chaos.worlds.servers.haproxy import HAProxy
from chaos.worlds.servers.knot import Knot
from chaos.worlds.servers.nameserver import Key
from chaos.worlds.servers.powerdns import PowerDns
from chaos.worlds.servers.process import free_port
from controlplane.cli.main import app
from controlplane.config import read_config
from controlplane.doctor import etcd as etcd_parts
from controlplane.documents import Keys, NodeDoc, encode
from controlplane.store import Put, Txn
from controlplane.store.etcd import EtcdStore
from tests.real.test_roles import NODES, Secured, script
from tests.support import run

ZONE = "lb.example.org"
SECRET = "c2VjcmV0IG9mIDMyIGJ5dGVzIGZvciBhIFRTSUcga2V5ISE="
KEY = Key("failover", SECRET)
Doc = dict[str, Any]


def doctor(file: Path, *options: str, **env: str) -> tuple[int, Doc]:
    """Exit code, and the document."""
    done = CliRunner().invoke(app, ["doctor", str(file), "--json", *options], env={"TSIG_KEY": SECRET, **env})
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    document: Doc = json.loads(done.stdout)
    return done.exit_code, document


def found(document: Doc, what: str, subject: str = "") -> list[tuple[str, str]]:
    """(severity, detail) of the checks of one kind, whose subject has this in it."""
    checks = document["checks"]
    return [(c["severity"], c["detail"]) for c in checks if c["what"] == what and subject in c["subject"]]


def written(path: Path, drivers: str = "", pools: str = "", ports: str = "") -> Path:
    """A configuration of two sites and a witness."""
    text = f"""\
    version: 1
    cluster: acme
    sites:
      site-a: {{country: FR, capacity: 100}}
      site-b: {{country: NL, capacity: 100}}
      site-c: {{country: IE, role: witness}}
    store: {{members: [site-a, site-b, site-c]}}
    services:
      www:
        endpoints: {{site-a: 192.0.2.10, site-b: 198.51.100.10}}
        checks: [{{tcp: {{port: 80}}}}]
        dns: {{name: www.{ZONE}}}
        pools: {{backend: bk_www}}
    drivers:
      dns:
{textwrap.indent(drivers, "        ")}
      pools:
        - {{driver: haproxy, sites: all, socket: {pools or path.parent / "none.sock"}}}
    """
    path.write_text(textwrap.dedent(text))
    return path


def entry(site: str, port: int, key: str = "env: TSIG_KEY", extra: str = "") -> str:
    return (
        f"- {{driver: rfc2136, site: {site}, address: 127.0.0.1, port: {port}, zones: [{ZONE}],\n"
        f"   tsig: {{name: failover, key: {{{key}}}}}{extra}}}\n"
    )


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    members = {name: Address("127.0.0.1", free_port(), free_port()) for name in ("site-a", "site-b", "site-c")}
    with EtcdCluster(tmp_path_factory.mktemp("etcd"), members, quota_bytes=16 << 20) as cluster:
        yield cluster


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path / "acme.yaml", entry("site-a", free_port()))


def test_an_etcd_of_three_is_well_and_open_to_all(etcd: EtcdCluster, file: Path) -> None:
    code, document = doctor(file, "--etcd", ",".join(etcd.urls))
    assert [severity for severity, _ in found(document, "etcd member")] == ["ok"] * 3
    assert "16 MiB" in found(document, "etcd member")[0][1]
    assert found(document, "etcd majority") == [("ok", "3 of 3 members answer, and one of them may be lost")]
    assert found(document, "etcd members") == [("ok", "site-a, site-b, site-c")]
    assert [severity for severity, _ in found(document, "clock", "etcd")] == ["ok"] * 3
    assert found(document, "etcd rights") == [("warning", "authentication is off: whoever reaches it may write all")]
    assert found(document, "etcd compaction")[0][0] == "unknown"  # too young
    assert code == 1  # nobody answers for the zone


def test_the_clock_of_a_node_is_read_from_the_beats_that_move(etcd: EtcdCluster, file: Path) -> None:
    async def beat(forever: subprocess.Popen[str]) -> None:

        store = EtcdStore(etcd.urls)
        try:
            n = 0
            while forever.poll() is None:
                n += 1
                now = datetime.now(UTC).timestamp()
                for name, ahead_s in (("site-a", 0.0), ("site-b", 90.0)):
                    node = NodeDoc(name, name, (), "1", "run", n, now + ahead_s)
                    await store.txn(Txn((), (Put(Keys("acme").node(name), encode(node)),)))
                await asyncio.sleep(0.5)
        finally:
            await store.aclose()

    argv = [sys.executable, "-m", "controlplane.cli.main", "doctor", str(file), "--json", "--etcd", etcd.urls[0]]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as looking:
        run(beat(looking))
        assert looking.stdout is not None
        document = json.loads(looking.stdout.read())
    assert [severity for severity, _ in found(document, "clock", "node site-a")] == ["ok"]
    ((severity, detail),) = found(document, "clock", "node site-b")
    assert severity == "warning" and detail.startswith(("+89", "+90", "+91")), detail


def test_a_member_that_is_gone_and_one_more(etcd: EtcdCluster, file: Path) -> None:
    etcd.members["site-c"].kill()
    _, document = doctor(file, "--etcd", ",".join(etcd.urls))
    assert [severity for severity, _ in found(document, "etcd member")] == ["ok", "ok", "error"]
    assert found(document, "etcd majority")[0] == (
        "warning",
        "2 of 3 members answer; it does not survive the loss of one more",
    )
    etcd.members["site-b"].freeze()
    try:
        code, document = doctor(file, "--etcd", ",".join(etcd.urls))
    finally:
        etcd.members["site-b"].thaw()
        etcd.members["site-c"].start()
        etcd.ready()
    assert found(document, "etcd majority")[0] == ("error", "1 of 3 members answer")
    assert code == 1


def test_compaction_is_told_by_what_can_still_be_read(
    etcd: EtcdCluster, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> tuple[str, str]:
        config = read_config(file).config
        assert config is not None
        findings = run(etcd_parts.examine(config, etcd.urls, None, "", lambda: datetime.now(UTC).timestamp())).all
        ((severity, detail),) = [(f.severity, f.detail) for f in findings if f.what == "etcd compaction"]
        return severity, detail

    for n in range(20):
        etcd.etcdctl("put", "/x", str(n))
    revision = json.loads(etcd.etcdctl("get", "/x", "-w", "json").stdout)["header"]["revision"]
    monkeypatch.setattr(etcd_parts, "KEPT", 10)
    assert look() == ("warning", f"at revision {revision}, and keeps 10 or more")
    etcd.etcdctl("compaction", str(revision))
    assert look() == ("ok", f"at revision {revision}, and forgets old ones")


def test_too_few_endpoints_are_told_of(etcd: EtcdCluster, file: Path) -> None:
    _, document = doctor(file, "--etcd", etcd.urls[0])
    assert found(document, "etcd members") == [("warning", "has site-a, site-b, site-c; asked 1 endpoint(s)")]


def test_an_etcd_out_of_space_says_so(etcd: EtcdCluster, file: Path) -> None:
    for _ in range(40):  # 16 MiB are full after some sixteen of these
        done = subprocess.run(
            ["etcdctl", "--endpoints", etcd.urls[0], "put", "/full"],
            input="x" * (1 << 20),
            text=True,
            capture_output=True,
            env={**os.environ, "ETCDCTL_API": "3"},
            check=False,
        )
        if done.returncode:
            break
    assert "space" in done.stderr
    try:
        code, document = doctor(file, "--etcd", ",".join(etcd.urls))
    finally:
        etcd.etcdctl("alarm", "disarm")
    assert any(severity == "error" and "NOSPACE" in detail for severity, detail in found(document, "etcd member"))
    assert code == 1


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    made = Secured(tmp_path_factory.mktemp("secured"))
    with made.etcd:
        made.roles(*[word for name, roles in NODES.items() for word in ("--node", f"{name}={roles}")])
        yield made


def with_certificate(secured: Secured, name: str) -> tuple[str, ...]:
    files = secured.tls(name)
    certificate = ("--etcd-ca", str(files.ca), "--etcd-cert", str(files.cert), "--etcd-key", str(files.key))
    return ("--etcd", ",".join(secured.etcd.urls), *certificate)


@pytest.mark.parametrize(
    ("name", "severity", "detail"),
    [
        ("site-b", "ok", "has acme/agent/site-b, acme/controller, acme/node/site-b, acme/operator, acme/reader"),
        ("root", "warning", "is root: it may do all"),
        ("stranger", "error", "user name not found"),
    ],
)
def test_rights_are_those_of_the_certificates_name(
    secured: Secured, file: Path, name: str, severity: str, detail: str
) -> None:
    _, document = doctor(file, *with_certificate(secured, name))
    ((found_severity, found_detail),) = found(document, "etcd rights", name)
    assert found_severity == severity
    assert detail in found_detail
    certificates = found(document, "certificate")
    assert len(certificates) == 4  # ours, and the members'
    assert {each for each, _ in certificates} == {"ok"}
    assert "good for 82" in certificates[0][1]


def test_a_node_with_anothers_certificate_cannot_do_its_work(secured: Secured, file: Path) -> None:
    _, document = doctor(file, *with_certificate(secured, "cloud"), "--site", "site-a")
    ((severity, detail),) = found(document, "etcd rights")
    assert severity == "error"
    assert "cannot write /failover/acme/nodes/site-a" in detail


def test_a_certificate_of_another_authority_is_refused(secured: Secured, file: Path, tmp_path: Path) -> None:
    script(str(Path("examples/deploy/certificates.sh").absolute()), str(tmp_path / "other"), "site-a")
    other, ours = tmp_path / "other", secured.tls("site-a")
    code, document = doctor(
        *(file, "--etcd", ",".join(secured.etcd.urls), "--etcd-ca", str(ours.ca)),
        *("--etcd-cert", str(other / "site-a.crt"), "--etcd-key", str(other / "site-a.key")),
    )
    assert found(document, "certificate", "other")[0][0] == "error"
    assert code in (1, 4)


@pytest.fixture(scope="module")
def name_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bind, Knot, PowerDns]]:
    directory, ns = tmp_path_factory.mktemp("names"), {f"ns.{ZONE}": ["127.0.0.1"]}
    made = (
        Bind(directory / "bind", "127.0.0.1", free_port(), ZONE, ns=ns, key=KEY),
        Knot(directory / "knot", "127.0.0.1", free_port(), ZONE, ns={**ns, f"old.{ZONE}": ["127.0.0.9"]}, key=KEY),
        PowerDns(directory / "powerdns", "127.0.0.1", free_port(), ZONE, ns=ns, key=KEY),
    )
    try:
        for each in made:
            each.start()
        yield made
    finally:
        for each in made:
            each.stop()


def test_name_servers_that_are_well(name_servers: tuple[Bind, Knot, PowerDns], tmp_path: Path) -> None:
    for server in (name_servers[0], name_servers[2]):
        file = written(tmp_path / "acme.yaml", entry("site-a", server.port))
        code, document = doctor(file)
        assert [severity for severity, _ in found(document, "name server")] == ["ok"]
        assert "negatives kept 1 s" in found(document, "name server")[0][1]
        assert found(document, "NS set") == [("ok", "127.0.0.1:53")]
        assert found(document, "key") == [("ok", f"may write {ZONE}")]
        assert found(document, "clock") == [("ok", "within 2 s of ours")]
        assert document["ok"] is True
        assert code == 0


def test_a_name_server_beside_the_configuration_is_told_of(
    name_servers: tuple[Bind, Knot, PowerDns], tmp_path: Path
) -> None:
    _, document = doctor(written(tmp_path / "acme.yaml", entry("site-a", name_servers[1].port)))
    assert found(document, "NS set") == [("warning", "clients also ask 127.0.0.9:53, which nobody here writes to")]


def test_a_zone_whose_negatives_last_and_that_nobody_is_sent_to(tmp_path: Path) -> None:
    server = Bind(tmp_path / "bind", "127.0.0.1", free_port(), ZONE, ns={f"ns.{ZONE}": ["127.0.0.1"]}, key=KEY)
    server.directory.mkdir()
    soa = f"{ZONE}. 3600 IN SOA ns.{ZONE}. hostmaster.{ZONE}. 7 3600 600 86400 3600"
    server.file().write_text(f"{soa}\n{ZONE}. 3600 IN NS ns.{ZONE}.\nns.{ZONE}. 3600 IN A 127.0.0.9\n")
    server.start()
    try:
        code, document = doctor(written(tmp_path / "acme.yaml", entry("site-a", server.port)))
    finally:
        server.stop()
    assert found(document, "name server") == [("warning", "serial 7, negatives kept 3600 s")]
    assert found(document, "NS set") == [
        ("warning", "clients also ask 127.0.0.9:53, which nobody here writes to"),
        ("warning", f"127.0.0.1:{server.port} is not in it: no client asks there"),
    ]
    assert (code, document["ok"]) == (0, True)  # warnings alone are no errors


def test_keys_that_do_not_open(name_servers: tuple[Bind, Knot, PowerDns], tmp_path: Path) -> None:
    file = written(tmp_path / "acme.yaml", entry("site-a", name_servers[0].port))
    other = "b3RoZXIgc2VjcmV0IG9mIDMyIGJ5dGVzIHRvIGJlIHVzZWQh"
    code, document = doctor(file, TSIG_KEY=other)
    assert [severity for severity, _ in found(document, "key")] == ["error"]
    assert code == 1
    file = written(tmp_path / "acme.yaml", entry("site-a", name_servers[0].port, key="env: NOT_THERE"))
    code, document = doctor(file)
    assert [severity for severity, _ in found(document, "key")] == ["unknown"]  # it may be elsewhere
    assert code == 0
    code, document = doctor(file, "--site", "site-a")
    ((severity, detail),) = found(document, "key")
    assert (severity, detail) == ("error", "TSIG key failover: environment variable NOT_THERE is not set")
    assert code == 1
    _, document = doctor(file, "--site", "site-b")
    assert found(document, "key") == []  # site-b does not write there


def test_a_pool_with_its_backend_and_one_without(tmp_path_factory: pytest.TempPathFactory) -> None:
    tmp_path = tmp_path_factory.mktemp("pool")  # a short name: a socket's path has at most 107 bytes
    places = {"site-a": ("127.0.0.1", free_port()), "site-b": ("127.0.0.1", free_port())}
    listen = {"bk_www": ("127.0.0.1", free_port())}
    haproxy = HAProxy(tmp_path / "haproxy", listen, {"bk_www": places})
    haproxy.start()
    try:
        file = written(tmp_path / "acme.yaml", entry("site-a", free_port()), pools=str(haproxy.socket))
        _, document = doctor(file)
        assert found(document, "pool") == [("ok", "site-a, site-b"), ("ok", "may be written to")]
        file.write_text(file.read_text().replace("{backend: bk_www}", "{backend: bk_www, servers: {site-a: [a1]}}"))
        _, document = doctor(file)
        assert found(document, "pool", "bk_www")[0][0] == "error"
        file.write_text(file.read_text().replace("bk_www", "bk_other"))
        _, document = doctor(file)
        assert found(document, "pool", "bk_other") == [("error", "no such backend")]
        file.write_text(file.read_text().replace(str(haproxy.socket), str(haproxy.operator_socket)))
        _, document = doctor(file)
        assert found(document, "pool")[-1][0] == "error"  # its level is too low
        haproxy.freeze()
        _, document = doctor(file)
        assert found(document, "pool")[0][0] == "error"
    finally:
        haproxy.stop()


def test_where_nobody_answers_it_says_so(tmp_path: Path) -> None:
    file = written(tmp_path / "acme.yaml", entry("site-a", free_port()))
    code, document = doctor(file, "--etcd", f"http://127.0.0.1:{free_port()}")
    assert code == 4
    assert document["ok"] is None
    assert {check["severity"] for check in document["checks"]} <= {"error", "unknown"}


def test_people_get_a_line_for_each_check(name_servers: tuple[Bind, Knot, PowerDns], tmp_path: Path) -> None:
    file = written(tmp_path / "acme.yaml", entry("site-a", name_servers[0].port))
    done = CliRunner().invoke(app, ["doctor", str(file)], env={"TSIG_KEY": SECRET})
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert any(line.startswith("✔  name server") for line in lines), done.stdout
    assert lines[-1] == "0 wrong, 0 to look at, 2 not known, 4 fine"
