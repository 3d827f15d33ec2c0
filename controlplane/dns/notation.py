"""How answers are written as records of one name, and read back from them: plain addresses, or LUA records."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Protocol

from dns.rdatatype import RdataType

from controlplane.dns import lua
from controlplane.dns.update import Data
from controlplane.dns.zone import LUA, Row
from policies.topology import Region
from policies.world import Answer

FAMILIES = {"A": RdataType.A, "AAAA": RdataType.AAAA}
WHOLE = 100  # the weight of a region's only answer


class Notation(Protocol):
    """types: every type that a write replaces. nothing: a record of each, such as is never written."""

    types: tuple[int, ...]
    nothing: tuple[Data, ...]

    def records(self, answers: Sequence[Answer]) -> list[Data]:
        """Raises ValueError: they cannot be written."""
        ...

    def answers(self, rows: Sequence[Row]) -> tuple[Answer, ...]:
        """What `records` was given, if these are its records. Anything else reads as something else."""
        ...


def address_record(address: str) -> Data:
    packed = ipaddress.ip_address(address).packed
    return Data(RdataType.A if len(packed) == 4 else RdataType.AAAA, packed)


def address_in(row: Row) -> tuple[str, str]:
    """(type, address) of an A or AAAA record."""
    rtype = "A" if row.rtype == RdataType.A else "AAAA"
    try:
        return rtype, str(ipaddress.ip_address(row.rdata))
    except ValueError:
        return rtype, row.rdata.hex()


NOWHERE = (address_record("0.0.0.0"), address_record("::"))


def odd(rtype: str, text: str) -> Answer:
    """Something that we did not write, so that it differs from all that is desired. Nobody is sent there."""
    return Answer("", rtype, text[:200], "", 0)


def aliases(rows: Sequence[Row]) -> tuple[Answer, ...]:
    """What stands in the way of any address."""
    return tuple(odd("CNAME", "") for row in rows if row.rtype == RdataType.CNAME)


class Plain:
    """One answer for everybody who asks here, all addresses alike. region: whom it is for; "" = everybody."""

    types: tuple[int, ...] = (RdataType.A, RdataType.AAAA)
    nothing: tuple[Data, ...] = NOWHERE

    def __init__(self, region: str = "") -> None:
        self.region = region

    def records(self, answers: Sequence[Answer]) -> list[Data]:
        return [address_record(a.address) for a in answers if a.region == self.region]

    def answers(self, rows: Sequence[Row]) -> tuple[Answer, ...]:
        found = [address_in(row) for row in rows if row.rtype in self.types]
        return (*(Answer(self.region, rtype, address, "", 1) for rtype, address in found), *aliases(rows))


class Lua:
    """PowerDNS: a LUA record for each address family, by region and weight. Where everybody is told the same single
    address it is a plain record: that needs neither Lua nor a MaxMind file to be answered."""

    types: tuple[int, ...] = (RdataType.A, RdataType.AAAA, LUA)
    nothing: tuple[Data, ...] = (*NOWHERE, Data(LUA, lua.to_rdata(RdataType.A, "''")))

    def __init__(self, regions: Mapping[str, Region]) -> None:
        self._geo = lua.Geo(regions)

    def records(self, answers: Sequence[Answer]) -> list[Data]:
        records = []
        for rtype, number in FAMILIES.items():
            rows = [a for a in answers if a.rtype == rtype]
            if rows and self._same(rows):
                records.append(address_record(rows[0].address))
            elif rows:
                records.append(Data(LUA, lua.to_rdata(number, self._geo.render(rows))))
        return records

    def _same(self, rows: Sequence[Answer]) -> bool:
        told = sorted((a.region, a.weight) for a in rows)
        return len({a.address for a in rows}) == 1 and told == [(region, WHOLE) for region in self._geo.names]

    def answers(self, rows: Sequence[Row]) -> tuple[Answer, ...]:
        found: list[Answer] = []
        for rtype, number in FAMILIES.items():
            plain = [address_in(row) for row in rows if row.rtype == number]
            scripts = [text for n, text in (lua.from_rdata(r.rdata) for r in rows if r.rtype == LUA) if n == number]
            parsed = self._geo.parse(scripts[0], rtype) if len(scripts) == 1 and not plain else None
            if parsed is not None:
                found += parsed
            elif len(plain) == 1 and not scripts:
                found += [Answer(region, rtype, plain[0][1], "", WHOLE) for region in self._geo.names]
            else:
                found += [odd(rtype, address) for _, address in plain] + [odd(rtype, text) for text in scripts]
        others = [lua.from_rdata(row.rdata) for row in rows if row.rtype == LUA]
        return (*found, *(odd("LUA", text) for n, text in others if n not in FAMILIES.values()), *aliases(rows))
