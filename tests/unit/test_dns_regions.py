"""Which region a client belongs to, and for how large a block of clients that holds."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.dns.regions import Client, Place, Regions
from policies.topology import Region

NETWORKS = {
    "eu": Region(networks=("10.0.0.0/8", "2001:db8::/32")),
    "lab": Region(networks=("10.1.0.0/16",)),
    "rest": Region(default=True),
}


def client(text: str) -> Client:
    network = ipaddress.ip_network(text)
    return Client(network.network_address, network.prefixlen)


@pytest.mark.parametrize(
    ("source", "subnet", "place"),
    [
        ("10.2.3.4", None, Place("eu", 0)),
        ("10.1.3.4", None, Place("lab", 0)),
        ("192.0.2.1", None, Place("rest", 0)),
        ("::ffff:10.1.0.9", None, Place("lab", 0)),
        ("2001:db8::9", None, Place("eu", 0)),
        ("fe80::1%eth0", None, Place("rest", 0)),
        # The client subnet wins; its scope ends where another answer would begin.
        ("192.0.2.1", "10.1.2.0/24", Place("lab", 16)),
        ("192.0.2.1", "10.128.0.0/16", Place("eu", 9)),
        ("192.0.2.1", "10.0.0.0/16", Place("eu", 16)),
        ("192.0.2.1", "2001:db8:1::/48", Place("eu", 32)),
        # A subnet that is larger than a network is not inside it: which of its clients asks is not known.
        ("192.0.2.1", "10.1.0.0/12", Place("eu", 16)),
        ("192.0.2.1", "8.0.0.0/6", Place("rest", 7)),
        # Outside everything known, the source address decides.
        ("10.1.0.1", "203.0.113.0/24", Place("lab", 1)),
        # No bits: the client does not want to be told apart.
        ("10.1.0.1", "0.0.0.0/0", Place("lab", 5)),
    ],
)
def test_longest_network(source: str, subnet: str | None, place: Place) -> None:
    if subnet == "10.1.0.0/12":
        at = Client(ipaddress.ip_address("10.1.0.0"), 12)
    else:
        at = client(subnet) if subnet else None  # type: ignore[assignment]
    assert Regions(NETWORKS).locate(source, at) == place


@given(st.integers(0, 2**32 - 1), st.integers(0, 32))
def test_every_client_within_the_scope_has_the_same_region(value: int, bits: int) -> None:
    regions = Regions(NETWORKS)
    base = ipaddress.ip_network((value, bits), strict=False)
    place = regions.locate("192.0.2.1", Client(base.network_address, bits))
    if place.scope >= bits:
        return
    block = ipaddress.ip_network((value, place.scope), strict=False)
    for address in (block.network_address, block.broadcast_address, ipaddress.ip_address(value)):
        assert regions.locate("192.0.2.1", Client(address, 32)).region == place.region


def test_one_region_needs_no_addresses() -> None:
    world = Regions({"world": Region(default=True)})
    assert world.locate("192.0.2.1", client("10.0.0.0/24")) == Place("world", 0)


def test_representatives_are_not_inside_a_longer_network_of_another_region() -> None:
    regions = Regions(
        {
            "a": Region(networks=("10.0.0.0/8", "172.16.0.0/12", "2001:db8::/32")),
            "b": Region(networks=("10.0.0.0/16",), default=True),
        }
    )
    found = regions.representatives("a", ("10.0.0.0/8", "172.16.0.0/12", "2001:db8::/32"))
    assert [(str(c.address), c.bits) for c in found] == [("172.16.0.0", 24), ("2001:db8::", 56)]


# ---- MaxMind files

COUNTRIES = {
    "127.0.1.0/24": {"country": {"iso_code": "FR"}, "continent": {"code": "EU"}},
    "127.0.2.0/24": {"registered_country": {"iso_code": "NL"}, "continent": {"code": "EU"}},
    "127.0.3.0/24": {"continent": {"code": "AS"}},
    "127.0.4.0/24": {"country": {"iso_code": "AS"}, "continent": {"code": "OC"}},
    "127.0.5.0/24": {"country": "nonsense"},
}


def write_mmdb(path: Path, records: dict[str, object]) -> str:
    """A small MaxMind file, IP version 6, 24 bit records (https://maxmind.github.io/MaxMind-DB/)."""
    nodes: list[list[int | None]] = [[None, None]]
    data, leaves = bytearray(), {}
    for text, record in records.items():
        network = ipaddress.ip_network(text)
        bits = f"{int(network.network_address):0128b}"[: network.prefixlen + 96]
        node = 0
        for bit in bits[:-1]:
            following = nodes[node][int(bit)]
            if following is None:
                nodes.append([None, None])
                following = nodes[node][int(bit)] = len(nodes) - 1
            node = following
        leaves[(node, int(bits[-1]))] = len(data)
        data += encode(record)
    tree = bytearray()
    for number, node_records in enumerate(nodes):
        for side, following in enumerate(node_records):
            leaf = leaves.get((number, side))
            value = following if leaf is None else len(nodes) + 16 + leaf
            tree += (len(nodes) if value is None else value).to_bytes(3, "big")
    meta = {
        "binary_format_major_version": uint16(2),
        "binary_format_minor_version": uint16(0),
        "build_epoch": bytes([8, 9 - 7]) + struct.pack("!Q", 1),
        "database_type": "GeoLite2-City",
        "description": {},
        "ip_version": uint16(6),
        "languages": [],
        "node_count": bytes([6 << 5 | 4]) + struct.pack("!I", len(nodes)),
        "record_size": uint16(24),
    }
    path.write_bytes(bytes(tree) + bytes(16) + bytes(data) + b"\xab\xcd\xefMaxMind.com" + encode(meta))
    return str(path)


def uint16(value: int) -> bytes:
    return bytes([5 << 5 | 2]) + struct.pack("!H", value)


def encode(value: object) -> bytes:
    if isinstance(value, str):
        raw = value.encode()
        head = bytes([2 << 5 | min(len(raw), 29)]) + (bytes([len(raw) - 29]) if len(raw) >= 29 else b"")
        return head + raw
    if isinstance(value, bytes):
        return value
    if isinstance(value, list):
        return bytes([len(value), 11 - 7]) + b"".join(encode(each) for each in value)
    assert isinstance(value, dict)
    return bytes([7 << 5 | len(value)]) + b"".join(encode(k) + encode(v) for k, v in value.items())


@pytest.mark.parametrize(
    ("source", "subnet", "place"),
    [
        ("127.0.1.9", None, Place("fr", 0)),
        ("127.0.2.9", None, Place("eu", 0)),
        ("127.0.3.9", None, Place("asia", 0)),
        ("127.0.4.9", None, Place("rest", 0)),  # American Samoa is not Asia
        ("127.0.5.9", None, Place("rest", 0)),
        ("192.0.2.1", None, Place("rest", 0)),
        ("192.0.2.1", "127.0.1.128/25", Place("fr", 24)),
        ("127.0.1.9", "127.0.6.0/24", Place("fr", 23)),  # not in the file: the source decides
        ("192.0.2.1", "127.0.3.0/30", Place("lab", 30)),  # a network wins over its country
    ],
)
def test_countries_and_continents(tmp_path: Path, source: str, subnet: str | None, place: Place) -> None:
    regions = Regions(
        {
            "fr": Region(countries=("FR",)),
            "eu": Region(countries=("DE",), continents=("EU",)),
            "asia": Region(continents=("AS",)),
            "lab": Region(networks=("127.0.3.0/30",)),
            "rest": Region(default=True),
        },
        write_mmdb(tmp_path / "geo.mmdb", dict(COUNTRIES)),
    )
    try:
        assert regions.locate(source, client(subnet) if subnet else None) == place
    finally:
        regions.close()


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        Regions({}, str(tmp_path / "none.mmdb"))
