"""The sample configurations of examples/deploy, in the real servers: they start, and the key can write what fails
over and nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.update
import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from chaos.worlds.servers.process import Process, accepts, free_port, program
from controlplane.config import read_config
from controlplane.dns.rfc2136 import open_driver
from controlplane.drivers import Actual, Change, Fence, Result
from policies.topology import Config, DnsDriver, Policy, Region
from policies.world import Answer, Desired
from tests.support import run

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"
ZONE = "lb.example.org"
# What is outside the key's rights: BIND says REFUSED; Knot answers as if it did not know the key (BADKEY).
DENIED = ("REFUSED", "PeerBadKey")
SECRET = "c2VjcmV0IG9mIDMyIGJ5dGVzIGZvciBhIFRTSUcga2V5ISE="


REGIONAL = (
    Answer("eu-west", "A", "198.51.100.10", "site-b", 100),
    Answer("rest", "A", "192.0.2.10", "site-a", 100),
)


def sample(name: str, directory: Path, replaced: Mapping[str, str]) -> Path:
    """A copy in `directory` with what a reader would put there himself. Everything in `replaced` has to occur."""
    text = (DEPLOY / name).read_text()
    for old, new in replaced.items():
        assert old in text, f"{name} has no {old!r}"
        text = text.replace(old, new)
    copy = directory / name
    copy.write_text(text)
    return copy


def check(*argv: str) -> str:
    done = subprocess.run((program(argv[0]), *argv[1:]), capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def zone_file(path: Path) -> Path:
    path.write_text((DEPLOY / f"{ZONE}.zone").read_text())
    return path


def countries(path: Path) -> Path:
    """127.0.1.0/24 is France."""
    writer = MMDBWriter(ip_version=6, database_type="GeoLite2-City", ipv4_compatible=True)
    writer.insert_network(IPSet([str(ip_network("127.0.1.0/24"))]), {"country": {"iso_code": "FR"}})
    writer.to_db_file(str(path))
    return path


@contextmanager
def running(name: str, argv: tuple[str, ...], directory: Path, ready: bytes) -> Iterator[None]:
    with Process(name, argv, directory) as process:
        process.ready(lambda: ready in process.log.read_bytes())
        yield


def update(port: int, key: str, change: str, secret: str = SECRET) -> str:
    """One signed UPDATE in nsupdate's words ("add NAME TTL TYPE RDATA" or "delete NAME TYPE"); its rcode."""
    message = dns.update.UpdateMessage(ZONE, keyring={f"{key}.": dns.tsig.Key(f"{key}.", secret, "hmac-sha256")})
    message.use_tsig(message.keyring, f"{key}.")
    verb, name, *rest = change.split()
    if verb == "add":
        ttl, rtype, *words = rest
        message.add(name, int(ttl), rtype, " ".join(words))
    else:
        message.delete(name, *rest)
    try:
        return dns.rcode.to_text(dns.query.udp(message, "127.0.0.1", timeout=5, port=port).rcode())
    except (dns.tsig.PeerError, dns.exception.FormError) as error:
        return type(error).__name__  # told so in a signed answer, or in one that is not signed


def addresses(port: int, name: str, source: str = "127.0.0.1") -> list[str]:
    query = dns.message.make_query(f"{name}.{ZONE}", "A")
    reply = dns.query.udp(query, "127.0.0.1", timeout=5, port=port, source=source)
    return [rdata.to_text() for rrset in reply.answer for rdata in rrset]


def writes_through_the_driver(port: int, answers: Sequence[Answer], **options: object) -> None:
    """What failoverd does there: prove that it may write, write, read back, write again."""
    settings = json.dumps({"address": "127.0.0.1", "port": port, **options})
    entry = DnsDriver("rfc2136", "site-a", "site-a", (ZONE,), ("site-a",), 1.0, "freeze", (), settings)
    regions = {"eu-west": Region(countries=("FR", "ES", "PT")), "rest": Region(default=True)}
    config = Config("acme", 60.0, {}, regions, {}, Policy())
    name = f"driven.{ZONE}"

    async def drive() -> list[Actual]:
        driver = await open_driver(entry, config)
        await driver.probe_write()
        seen, expect = [], None
        for generation in (1, 2):
            fence = Fence("5f0c2d", generation, f"d-{generation}.x-1")
            wanted = Desired("driven", generation, {}, tuple(answers), {}, name=name, ttl_s=20)
            assert await driver.apply([Change(wanted, expect, fence)]) == {name: (Result.DONE, "")}
            seen.append((await driver.read([name]))[name])
            expect = fence
        return seen

    first, second = run(drive())
    assert {(a.region, a.address) for a in first.answers} == {(a.region, a.address) for a in answers}
    assert first.fence is not None and second.fence is not None
    assert (first.fence.generation, second.fence.generation, second.ttl_s) == (1, 2, 20)


def secret(tmp_path: Path, name: str) -> dict[str, object]:
    """A key of that name, as the configuration names it."""
    (tmp_path / "tsig").write_text(SECRET + "\n")
    return {"name": name, "key": {"file": str(tmp_path / "tsig")}}


def soa_minimum(port: int) -> int:
    reply = dns.query.udp(dns.message.make_query(ZONE, "SOA"), "127.0.0.1", timeout=5, port=port)
    return int(reply.answer[0][0].minimum)


def writes_what_fails_over_and_nothing_else(port: int, key: str) -> None:
    assert soa_minimum(port) == 1
    assert update(port, key, "add www 20 A 192.0.2.10") == "NOERROR"
    assert update(port, key, "add www 20 AAAA 2001:db8::10") == "NOERROR"
    assert update(port, key, 'add _failover.www 20 TXT "c=x g=1 op=d-1"') == "NOERROR"
    assert update(port, key, "delete www AAAA") == "NOERROR"
    assert addresses(port, "www") == ["192.0.2.10"]
    assert update(port, key, "add @ 3600 NS elsewhere.example.") in DENIED
    assert update(port, key, "add www 20 CNAME elsewhere.example.") in DENIED
    assert update(port, key, "add @ 3600 SOA ns-a hostmaster 9 3600 600 86400 3600") in DENIED
    other = "b3RoZXIgc2VjcmV0IG9mIDMyIGJ5dGVzIHRvIGJlIHVzZWQh"
    assert update(port, key, "add www 20 A 192.0.2.66", secret=other) in ("PeerBadSignature", "FormError")
    assert addresses(port, "www") == ["192.0.2.10"]


def bind_here(directory: Path, port: int) -> dict[str, str]:
    """What a sample of BIND's has to have replaced to run in a directory."""
    return {
        "options {": f'options {{ pid-file none; session-keyfile "{directory}/session.key";',
        "listen-on { 198.51.100.1; }": f"listen-on port {port} {{ 127.0.0.1; }}",
        "/etc/bind": str(directory),
        "/var/cache/bind": str(directory),
        "/var/lib/bind": str(directory),
        "include": "controls { };\ninclude",
    }


def test_bind_has_a_view_for_each_region_and_keys_that_write_addresses_alone(tmp_path: Path) -> None:
    port = free_port()
    keys = tmp_path / "failover.keys"
    keys.write_text(
        "".join(
            f'key "failover-{view}" {{ algorithm hmac-sha256; secret "{SECRET}"; }};\n' for view in ("eu-west", "rest")
        )
    )
    for view in ("eu-west", "rest"):
        zone_file(tmp_path / f"{ZONE}.{view}.zone")
    countries(tmp_path / "GeoLite2-City.mmdb")
    conf = sample(
        "named.conf",
        tmp_path,
        bind_here(tmp_path, port) | {"/usr/share/GeoIP": str(tmp_path)},
    )
    check("named-checkconf", "-z", str(conf))
    with running("named", ("named", "-g", "-c", str(conf)), tmp_path, b" running\n"):
        writes_what_fails_over_and_nothing_else(port, "failover-rest")
        assert update(port, "failover-eu-west", "add www 20 A 198.51.100.10") == "NOERROR"
        assert addresses(port, "www", source="127.0.1.1") == ["198.51.100.10"]  # a client in France
        assert addresses(port, "www") == ["192.0.2.10"]
        views = {view: secret(tmp_path, f"failover-{view}") for view in ("eu-west", "rest")}
        writes_through_the_driver(port, REGIONAL, dialect="bind", views=views)
        assert addresses(port, "driven", source="127.0.1.1") == ["198.51.100.10"]
        assert addresses(port, "driven") == ["192.0.2.10"]


def test_bind_without_regions_has_one_zone_and_a_key_that_writes_addresses_alone(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "failover.keys").write_text(f'key "failover" {{ algorithm hmac-sha256; secret "{SECRET}"; }};\n')
    zone_file(tmp_path / f"{ZONE}.zone")
    conf = sample(
        "named-plain.conf",
        tmp_path,
        bind_here(tmp_path, port),
    )
    check("named-checkconf", "-z", str(conf))
    with running("named", ("named", "-g", "-c", str(conf)), tmp_path, b" running\n"):
        writes_what_fails_over_and_nothing_else(port, "failover")
        writes_through_the_driver(port, [Answer("", "A", "192.0.2.10", "site-a", 1)], tsig=secret(tmp_path, "failover"))


def test_knots_key_writes_addresses_alone(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "failover.conf").write_text(
        f"key:\n  - id: failover\n    algorithm: hmac-sha256\n    secret: {SECRET}\n"
    )
    zone_file(tmp_path / f"{ZONE}.zone")
    conf = sample(
        "knot.conf",
        tmp_path,
        {
            "/etc/knot": str(tmp_path),
            "/var/lib/knot": str(tmp_path),
            "/run/knot": str(tmp_path),
            "user: knot:knot": "udp-workers: 1",
            "198.51.100.1@53": f"127.0.0.1@{port}",
            "target: syslog": "target: stdout",
        },
    )
    check("knotc", "-c", str(conf), "conf-check")
    with running("knotd", ("knotd", "-c", str(conf)), tmp_path, b"loaded, serial"):
        writes_what_fails_over_and_nothing_else(port, "failover")
        writes_through_the_driver(port, [Answer("", "A", "192.0.2.10", "site-a", 1)], tsig=secret(tmp_path, "failover"))


def test_powerdns_takes_updates_of_its_zone_alone(tmp_path: Path) -> None:
    """PowerDNS knows keys for zones, not for types: a zone of its own is what keeps the key from the rest."""
    port = free_port()
    countries(tmp_path / "GeoLite2-City.mmdb")
    sample(
        "pdns.conf",
        tmp_path,
        {
            "/var/lib/powerdns": str(tmp_path),
            "/etc/powerdns": str(tmp_path),
            "/usr/share/GeoIP": str(tmp_path),
            "local-address=198.51.100.1": "local-address=127.0.0.1",
            "local-port=53": f"local-port={port}",
            "198.51.100.1/32,198.51.100.2/32": "127.0.0.0/8",
            "launch=": f"socket-dir={tmp_path}\nlaunch=",
        },
    )
    zone = zone_file(tmp_path / "zone")
    (tmp_path / "secret").write_text(SECRET + "\n")
    script = str(DEPLOY / "pdns-zone.sh")
    check(script, ZONE, str(zone), str(tmp_path / "secret"), str(tmp_path))
    assert "kept" in check(script, ZONE, str(zone), str(tmp_path / "secret"), str(tmp_path))
    argv = ("pdns_server", f"--config-dir={tmp_path}", "--daemon=no", "--guardian=no")
    check(*argv, "--config=check")
    with running("pdns", argv, tmp_path, b"Creating backend connection for TCP"):
        assert soa_minimum(port) == 1
        assert update(port, "failover", "add www 20 A 192.0.2.10") == "NOERROR"
        assert addresses(port, "www") == ["192.0.2.10"]
        writes_through_the_driver(port, REGIONAL, dialect="powerdns", tsig=secret(tmp_path, "failover"))
        assert addresses(port, "driven", source="127.0.1.1") == ["198.51.100.10"]  # a client in France
        assert addresses(port, "driven") == ["192.0.2.10"]
        assert update(port, "other", "add www 20 A 192.0.2.66") != "NOERROR"
        assert addresses(port, "www") == ["192.0.2.10"]


def test_haproxy_takes_its_configuration_and_answers_at_its_socket(tmp_path: Path) -> None:
    port = free_port()
    group = "haproxy"
    conf = sample(
        "haproxy.cfg",
        tmp_path,
        {
            "/run/haproxy": str(tmp_path),
            "/var/lib/failover": str(tmp_path),
            "chroot /var/lib/haproxy": "",
            "user haproxy": "" if os.geteuid() else "user haproxy",
            "group haproxy": "" if os.geteuid() else f"group {group}",
            "bind :80": f"bind 127.0.0.1:{port}",
            "# server site-c": "server site-c",
        },
    )
    check("haproxy", "-c", "-f", str(conf))
    with Process("haproxy", ("haproxy", "-W", "-f", str(conf)), tmp_path) as process:
        process.ready(lambda: accepts("127.0.0.1", port))
        argv = [program("socat"), "-", f"UNIX-CONNECT:{tmp_path}/admin.sock"]
        asked = "set server bk_www/site-a state drain; show servers state bk_www\n"
        said = subprocess.run(argv, input=asked, capture_output=True, text=True, timeout=10, check=True).stdout
    rows = re.findall(r"^\d+ bk_www \d+ (site-[abc]) \S+ \d+ (\d+) ", said, re.MULTILINE)
    # srv_admin_state: 8 = drained by hand (management guide 9.3, "show servers state")
    assert rows == [("site-a", "8"), ("site-b", "0"), ("site-c", "0")]


def test_etcd_takes_every_setting_and_asks_for_a_certificate(tmp_path: Path) -> None:
    """One member of the three: the two others are not there."""
    client, peer, pki = free_port(), free_port(), tmp_path / "tls"
    check(str(DEPLOY / "certificates.sh"), str(pki), "site-a=127.0.0.1", "root")
    others = "https://198.51.100.1:2380,site-b=https://198.51.100.2:2380,cloud=https://198.51.100.3:2380"
    replaced = {
        others: f"https://127.0.0.1:{peer}",
        "https://198.51.100.1:2380": f"https://127.0.0.1:{peer}",
        "https://198.51.100.1:2379": f"https://127.0.0.1:{client}",
        "/etc/etcd/tls": str(pki),
        "/var/lib/etcd": str(tmp_path),
    }
    lines = sample("etcd.default", tmp_path, replaced).read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if line.startswith("ETCD_"))
    ca, cert, key = (str(pki / name) for name in ("ca.crt", "root.crt", "root.key"))
    argv = (
        program("etcdctl"),
        "--endpoints",
        settings["ETCD_ADVERTISE_CLIENT_URLS"],
        "--cacert",
        ca,
        "endpoint",
        "health",
    )
    with Process("etcd", ("etcd",), tmp_path, env=settings) as process:
        process.ready(lambda: subprocess.run((*argv, "--cert", cert, "--key", key), check=False).returncode == 0)
        assert subprocess.run((*argv, "--command-timeout=1s"), check=False).returncode != 0
        log = process.log.read_text()
    assert "unrecognized" not in log
    assert all(f'variable-name":"{name}"' in log or name in log for name in settings)


def test_the_configuration_fits_its_target_and_has_one_warning() -> None:
    """The one that the guide tells of: with three vantages, a second loss leaves too few votes."""
    read = read_config(DEPLOY / "acme.yaml")
    assert read.ok and read.bounds["www"].fits
    told = [problem.message.partition(":")[0] for problem in read.problems]
    assert told == ["losing any one site leaves 2 voters, 2 needed"]


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    executable = tmp_path / "failoverd"
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    unit = sample("failoverd.service", tmp_path, {"/opt/failover/bin/failoverd": str(executable)})
    assert check("systemd-analyze", "verify", str(unit)) == ""


@pytest.mark.parametrize("script", sorted(path.name for path in DEPLOY.glob("*.sh")))
def test_every_script_is_plain_sh(script: str) -> None:
    path = DEPLOY / script
    assert path.read_text().startswith("#!/bin/sh\n")
    assert os.access(path, os.X_OK)
    assert check("sh", "-n", str(path)) == ""
