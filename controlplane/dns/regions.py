"""Which region a client belongs to: longest network, then country, then continent, then default (DESIGN 11)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any, Protocol

import maxminddb
from msgspec import Struct

from policies.topology import Region

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class GeoFile(Protocol):
    """What is needed of a MaxMind file's reader."""

    def get_with_prefix_len(self, ip_address: Address) -> tuple[Any, int]: ...

    def close(self) -> None: ...


class Client(Struct, frozen=True):
    """A client subnet as a resolver sends it (RFC 7871): the address and how many of its bits are known."""

    address: Address
    bits: int


class Place(Struct, frozen=True):
    """`scope`: the answer holds for the first `scope` bits of the client subnet's address (RFC 7871, 7.2.1)."""

    region: str
    scope: int


class _Node:
    """A node of the binary trie over networks; one trie per address family."""

    __slots__ = ("children", "region")

    def __init__(self) -> None:
        self.children: list[_Node | None] = [None, None]
        self.region = ""


class Regions:
    """Finds regions. `mmdb`: a MaxMind country or city file, "" = none. Raises OSError or
    maxminddb.InvalidDatabaseError for a file that cannot be read."""

    def __init__(self, regions: Mapping[str, Region], mmdb: str = "", geo: GeoFile | None = None) -> None:
        self.default = next((name for name, r in regions.items() if r.default), next(iter(regions), ""))
        self._tries = {4: _Node(), 6: _Node()}
        self._codes: dict[str, str] = {}
        for name, region in regions.items():
            # "c:" and "k:" keep the country AS (American Samoa) apart from the continent AS.
            self._codes |= {"c:" + code: name for code in region.countries}
            self._codes |= {"k:" + code: name for code in region.continents}
            for network in region.networks:
                self._insert(ipaddress.ip_network(network), name)
        self._geo: GeoFile | None = maxminddb.open_database(mmdb) if mmdb else geo

    def close(self) -> None:
        if self._geo is not None:
            self._geo.close()

    def locate(self, source: str, client: Client | None) -> Place:
        """`source`: the address the query came from; `client`: the client subnet that it carried, if any.

        The client subnet decides where it is inside a region's networks or known to the MaxMind file;
        everywhere else the source address does. Its scope is told either way, so that a resolver does not
        use this answer for clients of another region.
        """
        scope = 0
        if client is not None:
            region, scope = self._find(client.address, client.bits)
            if region:
                return Place(region, scope)
        address = ipaddress.ip_address(source.partition("%")[0])
        region, _ = self._find(address, address.max_prefixlen)
        return Place(region or self.default, scope)

    def representatives(self, region: str, networks: tuple[str, ...]) -> tuple[Client, ...]:
        """At most one IPv4 and one IPv6 client subnet of those networks that this finder puts in `region`."""
        found: dict[int, Client] = {}
        for text in networks:
            network = ipaddress.ip_network(text)
            bits = max(network.prefixlen, 24 if network.version == 4 else 56)
            client = Client(network.network_address, bits)
            if network.version not in found and self._find(client.address, bits)[0] == region:
                found[network.version] = client
        return tuple(found[version] for version in sorted(found))

    def _insert(self, network: ipaddress.IPv4Network | ipaddress.IPv6Network, region: str) -> None:
        node = self._tries[network.version]
        for bit in _bits(network.network_address, network.prefixlen):
            child = node.children[bit]
            if child is None:
                child = node.children[bit] = _Node()
            node = child
        node.region = region

    def _find(self, address: Address, known_bits: int) -> tuple[str, int]:
        """(region or "", scope in bits)."""
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address, known_bits = address.ipv4_mapped, max(known_bits - 96, 0)
        region, scope = self._network(address, known_bits)
        if region or self._geo is None:
            return region, scope
        try:
            record, prefix = self._geo.get_with_prefix_len(address)
        except ValueError:  # an IPv6 address and a file of IPv4 addresses
            return "", scope
        scope = max(scope, prefix)
        if not isinstance(record, Mapping):
            return "", scope
        country = _code(record, "country", "iso_code") or _code(record, "registered_country", "iso_code")
        continent = _code(record, "continent", "code")
        found = self._codes.get("c:" + country) or self._codes.get("k:" + continent)
        return found or self.default, scope

    def _network(self, address: Address, known_bits: int) -> tuple[str, int]:
        """The longest network around all of address/known_bits, and the depth at which the trie has nothing
        more to say about this address: the largest block with one answer."""
        node, region, depth = self._tries[address.version], "", 0
        for bit in _bits(address, address.max_prefixlen):
            if depth <= known_bits and node.region:
                region = node.region
            if node.children == [None, None]:
                return region, depth
            depth += 1
            child = node.children[bit]
            if child is None:
                return region, depth
            node = child
        return (node.region or region) if depth <= known_bits else region, depth


def _bits(address: Address, count: int) -> list[int]:
    value, width = int(address), address.max_prefixlen
    return [(value >> (width - 1 - i)) & 1 for i in range(count)]


def _code(record: Mapping[str, Any], key: str, inner: str) -> str:
    part = record.get(key)
    value = part.get(inner) if isinstance(part, Mapping) else None
    return value if isinstance(value, str) else ""
