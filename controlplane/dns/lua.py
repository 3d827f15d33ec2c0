"""PowerDNS LUA records: answers by region and weight, in one canonical text that can be read back.

    ;local r='rest' if netmask({'203.0.113.0/24'}) then r='eu' elseif country({'FR','NL'}) then r='eu' end
    local t={['eu']={{90,'192.0.2.1'},{10,'192.0.2.2'}},['rest']={{100,'192.0.2.2'}}}
    return pickwrandom(t[r] or t['rest'])

It finds regions as dns/regions.py does: longest network, then country, then continent, then default. But where a
resolver sends a client subnet, PowerDNS looks at that alone (https://doc.powerdns.com/authoritative/lua-records/).
Health checks of PowerDNS' own are not used: after a start they answer at random until the first one is done.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence

from policies.topology import Region
from policies.world import Answer

MAX_BYTES = 40_000  # of one record's text; a message has 65,535
_STRING = 255  # bytes in one character-string (RFC 1035, 3.3.14)
_TABLE = re.compile(r" local t=\{(.*)\} return ")
_REGION = re.compile(r"\['([^']*)'\]=\{((?:\{\d{1,18},'[0-9a-f.:]+'\},?)*)\}")
_ROW = re.compile(r"\{(\d+),'([^']+)'\}")


class Geo:
    """Renders and reads records for these regions."""

    def __init__(self, regions: Mapping[str, Region]) -> None:
        self.names = tuple(sorted(regions))
        self.default = next((name for name, r in regions.items() if r.default), next(iter(regions), ""))
        self._where = _where(regions, self.default)

    def render(self, rows: Sequence[Answer]) -> str:
        """rows: of one type, at least one. Raises ValueError if the text is too long."""
        by_region: dict[str, list[tuple[str, int]]] = {}
        for row in rows:
            by_region.setdefault(row.region, []).append((row.address, row.weight))
        table = ",".join(
            f"['{region}']={{{','.join(f'{{{weight},{_quoted(address)}}}' for address, weight in sorted(mine))}}}"
            for region, mine in sorted(by_region.items())
        )
        # Never empty outranks the region.
        other = self.default if self.default in by_region else min(by_region)
        text = f";local r='{self.default}'{self._where} local t={{{table}}} return pickwrandom(t[r] or t['{other}'])"
        if len(text) > MAX_BYTES:
            raise ValueError(f"a LUA record of {len(text)} bytes, at most {MAX_BYTES} fit: use fewer networks")
        return text

    def parse(self, text: str, rtype: str) -> tuple[Answer, ...] | None:
        """The rows that this text was rendered from; None for any other text."""
        table = _TABLE.search(text)
        if table is None:
            return None
        rows = tuple(
            Answer(region, rtype, address, "", int(weight))
            for region, mine in _REGION.findall(table[1])
            for weight, address in _ROW.findall(mine)
        )
        return rows if rows and self.render(rows) == text else None


def _where(regions: Mapping[str, Region], default: str) -> str:
    """The conditions, most specific first: the first that holds decides."""
    tests: list[tuple[str, str]] = []  # condition, region
    networks = [(ipaddress.ip_network(n), name) for name, region in regions.items() for n in region.networks]
    groups: dict[tuple[int, int, str], list[str]] = {}
    for network, name in sorted(networks, key=lambda pair: (str(pair[0]), pair[1])):
        groups.setdefault((network.version, -network.prefixlen, name), []).append(str(network))
    tests += [(f"netmask({_list(group)})", name) for (_, _, name), group in sorted(groups.items())]
    tests += [(f"country({_list(r.countries)})", name) for name, r in sorted(regions.items()) if r.countries]
    tests += [(f"continent({_list(r.continents)})", name) for name, r in sorted(regions.items()) if r.continents]
    if not tests:
        return ""
    return " " + " else".join(f"if {test} then r='{name}'" for test, name in tests) + " end"


def _list(texts: Sequence[str]) -> str:
    return "{" + ",".join(_quoted(text) for text in sorted(texts)) + "}"


def _quoted(text: str) -> str:
    return f"'{text}'"


# ---- on the wire: a type, and character-strings


def to_rdata(rtype: int, text: str) -> bytes:
    """PowerDNS puts a blank between two strings, so each ends where a blank changes nothing: after a comma or a
    blank. Our own texts have one often enough."""
    data = text.encode("ascii")
    strings = []
    while data:
        end = len(data)
        if end > _STRING:
            end = max(data.rfind(b",", 0, _STRING), data.rfind(b" ", 0, _STRING)) + 1
            assert end > 0, "a word of over 255 bytes"
        strings.append(bytes((end,)) + data[:end])
        data = data[end:]
    return rtype.to_bytes(2, "big") + b"".join(strings)


def from_rdata(rdata: bytes) -> tuple[int, str]:
    """(type, text). A broken one has a text that is no canonical one."""
    at, parts = 2, []
    while at < len(rdata):
        parts.append(rdata[at + 1 : at + 1 + rdata[at]])
        at += 1 + rdata[at]
    return int.from_bytes(rdata[:2], "big"), b"".join(parts).decode("latin-1")
