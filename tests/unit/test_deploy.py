"""examples/deploy without servers: certificates, the rights that the code needs, settings that failoverd takes."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
from pathlib import Path

import pytest
import typer

from chaos.worlds.servers.process import program
from controlplane.config import read_config
from controlplane.documents import Keys
from controlplane.failoverd import app
from controlplane.settings import Given, read_settings

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"
KEYS = Keys("acme")


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program("openssl")
    return subprocess.run((str(DEPLOY / name), *arguments), capture_output=True, text=True, timeout=60, check=False)


def settings_in(name: str) -> dict[str, str]:
    lines = (DEPLOY / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


# ---- certificates.sh


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("certificates") / "pki"
    done = script("certificates.sh", str(directory), "site-a=127.0.0.1,::1", "root")
    assert done.returncode == 0, done.stderr
    return directory


def test_keys_are_readable_by_their_owner_alone(pki: Path) -> None:
    assert sorted(path.name for path in pki.iterdir()) == [
        *("ca.crt", "ca.key", "root.crt", "root.key", "site-a.crt", "site-a.key"),
    ]
    modes = {path.name: path.stat().st_mode & 0o777 for path in pki.iterdir()}
    assert {mode for name, mode in modes.items() if name.endswith(".key")} == {0o600}
    assert pki.stat().st_mode & 0o777 == 0o700


def test_what_is_there_is_kept_and_names_can_be_added(pki: Path) -> None:
    before = {path.name: path.read_bytes() for path in pki.iterdir()}
    done = script("certificates.sh", str(pki), "site-a=127.0.0.1", "site-z=127.0.0.9")
    assert done.returncode == 0, done.stderr
    assert f"kept {pki}/site-a.crt, notAfter=" in done.stdout
    after = {path.name: path.read_bytes() for path in pki.iterdir()}
    assert {name: after.pop(name) for name in ("site-z.crt", "site-z.key")}
    assert after == before
    for name in ("site-z.crt", "site-z.key"):
        (pki / name).unlink()


def test_certificates_are_strictly_valid_and_serve_their_purpose(pki: Path) -> None:
    def verify(name: str, purpose: str) -> bool:
        argv = (program("openssl"), "verify", "-x509_strict", "-CAfile", str(pki / "ca.crt"), "-purpose", purpose)
        return subprocess.run((*argv, str(pki / name)), capture_output=True, check=False).returncode == 0

    assert [verify("site-a.crt", purpose) for purpose in ("sslserver", "sslclient")] == [True, True]
    assert [verify("root.crt", purpose) for purpose in ("sslserver", "sslclient")] == [False, True]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(pki / "ca.crt")
    context.load_cert_chain(pki / "site-a.crt", pki / "site-a.key")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "certificates.sh DIRECTORY NAME"),
        (("x", "Site A"), "not a node's name: 'Site A'"),
        (("x", "-a"), "not a node's name"),
        (("x", "site-a="), "no address after"),
        (("x", "site-a=host.example"), "not an IP address: 'host.example'"),
        (("x", "ca"), "the authority's own"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    named = tuple(str(tmp_path / "x") if word == "x" else word for word in arguments)
    done = script("certificates.sh", *named)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_half_there_pair_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "site-a.key").write_text("precious")
    done = script("certificates.sh", str(tmp_path), "site-a=127.0.0.1")
    assert done.returncode == 1
    assert "is there without" in done.stderr
    assert (tmp_path / "site-a.key").read_text() == "precious"


# ---- etcd-roles.sh


def rights(**nodes: str) -> dict[str, tuple[set[str], set[str]]]:
    """By node: what it may read, and what it may write. Keys that end in / stand for all below."""
    words = [word for node, roles in nodes.items() for word in ("--node", f"{node.replace('_', '-')}={roles}")]
    done = script("etcd-roles.sh", "--dry-run", "--cluster", "acme", *words)
    assert done.returncode == 0, done.stderr
    roles: dict[str, list[tuple[str, str]]] = {}
    users: dict[str, tuple[set[str], set[str]]] = {}
    for line in done.stdout.splitlines():
        if grant := re.fullmatch(r"etcdctl role grant-permission (\S+) (\S+) (\S+?)( --prefix=true)?", line):
            assert grant[3].endswith("/") == bool(grant[4])
            roles.setdefault(grant[1], []).append((grant[2], grant[3]))
        elif given := re.fullmatch(r"etcdctl user grant-role (\S+) (\S+)", line):
            reads, writes = users.setdefault(given[1], (set(), set()))
            for kind, key in roles.get(given[2], ()):
                reads.add(key)
                if kind == "readwrite":
                    writes.add(key)
    assert done.stdout.splitlines()[-1] == "etcdctl auth enable"
    return users


def may(writes: set[str], key: str) -> bool:
    return key in writes or any(key.startswith(prefix) for prefix in writes if prefix.endswith("/"))


# What each role writes: every Put and Delete of the code.
WRITES = {
    "vantage": [KEYS.beat("here", "main"), KEYS.shard("here", "main", "www")],
    "agent": [KEYS.applied_by("here", "there", "rfc2136-there"), KEYS.applied_by("here", "here", "haproxy", 3)],
    "controller": [
        *(KEYS.leader, KEYS.leader_beat, KEYS.service("www"), KEYS.decision("d-1")),
        *(KEYS.timers_governor, KEYS.timers_overrides, KEYS.overrides_rev, KEYS.override("ov-1")),
        *(KEYS.node("there"), KEYS.beat("there", "main"), KEYS.applied_by("there", "here", "x")),  # swept
    ],
    "api": [KEYS.overrides_rev, KEYS.override("ov-1"), KEYS.timers_governor],
    "admin": [KEYS.config, KEYS.past_config(7), KEYS.incarnation, KEYS.adopted],
}


@pytest.mark.parametrize("role", list(WRITES))
def test_each_role_may_write_what_its_code_writes(role: str) -> None:
    reads, writes = rights(here=role)["here"]
    assert KEYS.prefix in reads
    assert may(writes, KEYS.node("here"))
    assert [key for key in WRITES[role] if not may(writes, key)] == []
    others = {key for other, keys in WRITES.items() if other != role for key in keys} - set(WRITES[role])
    shared = {"controller": {*WRITES["vantage"], *WRITES["agent"]}}.get(role, set())  # the sweep
    assert {key for key in others if may(writes, key)} == shared


def test_no_key_of_the_store_is_forgotten() -> None:
    """A new kind of key needs a role that writes it."""
    _, writes = rights(here="vantage,agent,controller,api,admin")["here"]
    texts = [value for value in vars(KEYS).values() if value not in (KEYS.cluster, KEYS.prefix)]
    assert [text for text in texts if not may(writes, text)] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--cluster", "acme"), "etcd-roles.sh [--dry-run]"),
        (("--cluster", "a/b", "--node", "site-a=api"), "not a name: 'a/b'"),
        (("--cluster", "acme", "--node", "site-a=boss"), "unknown role 'boss' of 'site-a'"),
        (("--cluster", "acme", "--node", "site-a"), "which roles has 'site-a'?"),
        (("--cluster", "acme", "--node", "root=api"), "root is etcd's administrator"),
        (("--cluster", "acme", "--remove", "root"), "root stays"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: tuple[str, ...], said: str) -> None:
    done = script("etcd-roles.sh", "--dry-run", *arguments)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert done.stdout == ""


# ---- settings


def test_failoverd_takes_the_sample_environment(pki: Path) -> None:
    sample = settings_in("failoverd.env")
    flags = {p.envvar for p in typer.main.get_command(app).params if p.envvar}
    assert set(sample) <= flags
    given = {name.removeprefix("FAILOVERD_").lower(): value for name, value in sample.items()}
    given = {key: value.replace("/etc/failover/tls", str(pki)) for key, value in given.items()}
    settings = read_settings(Given(**given), {}, root=False)
    assert (settings.site, settings.cluster, len(settings.etcd)) == ("site-a", "acme", 3)
    unit = (DEPLOY / "failoverd.service").read_text()
    assert "StateDirectory=failover\n" in unit
    assert sample["FAILOVERD_STATE_DIR"] == "/var/lib/failover"


def test_all_samples_speak_of_the_same_places() -> None:
    etcd, node = settings_in("etcd.default"), settings_in("failoverd.env")
    members = dict(entry.split("=") for entry in etcd["ETCD_INITIAL_CLUSTER"].split(","))
    assert [url.replace(":2380", ":2379") for url in members.values()] == node["FAILOVERD_ETCD"].split(",")
    assert members[etcd["ETCD_NAME"]] == etcd["ETCD_LISTEN_PEER_URLS"]
    assert etcd["ETCD_LISTEN_CLIENT_URLS"] in node["FAILOVERD_ETCD"]


CONFIGURATION = """\
version: 1
cluster: acme
sites: {site-a: {country: FR, capacity: 1}, site-b: {country: NL, capacity: 1}, cloud: {country: IE, role: witness}}
store: {members: [site-a, site-b, cloud]}
regions: {eu-west: {countries: [FR, ES, PT]}, rest: {default: true}}
services:
  www:
    endpoints: {site-a: 192.0.2.10, site-b: 198.51.100.10}
    checks: [{tcp: {port: 80}}]
    dns: {name: www.lb.example.org}
drivers:
  dns:
"""


@pytest.mark.parametrize("name", ["named.conf", "knot.conf", "pdns.conf"])
def test_what_a_sample_says_of_the_configuration_is_sound(name: str) -> None:
    comments = [re.sub(r"^(#|//) ?", "", line) for line in (DEPLOY / name).read_text().splitlines() if line[:1] in "#/"]
    text = "\n".join(comments)
    start = text.index("- {driver: rfc2136")
    entry = text[start : text.index("\n\n", start)]
    indented = "\n".join(f"    {line.strip()}" for line in entry.splitlines())
    result = read_config(CONFIGURATION + indented + "\n")
    assert result.config is not None, [str(problem) for problem in result.problems]
    assert [driver.zones for driver in result.config.dns] == [("lb.example.org",)]


def test_the_image_is_made_of_the_package_alone() -> None:
    lines = (DEPLOY.parents[1] / ".containerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    assert {path for path in kept if not (DEPLOY.parents[1] / path).exists()} <= {"build/wheels"}
    assert kept >= {"pyproject.toml", "constraints.txt", "README.md", "probes", "policies", "controlplane", "chaos"}
    assert os.access(DEPLOY / "image.sh", os.X_OK)
