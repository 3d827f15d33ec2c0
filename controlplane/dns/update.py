"""The UPDATE message (RFC 2136) that is a compare-and-set on fences (DESIGN 4.8).

Written by hand: two hundred names through dnspython's objects hold the event loop for 40 ms, this way for 2.
"""

from __future__ import annotations

import secrets
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dns.opcode import UPDATE
from dns.rdataclass import ANY, IN, NONE
from dns.rdatatype import CNAME, SOA, TXT
from msgspec import Struct

from controlplane.dns.table import fence_name
from controlplane.drivers import Fence

MAX_BYTES = 60_000  # of one message: leaves room for the signature
_FIXED = struct.Struct("!HHIH")
_ZONE = b"\xc0\x0c"  # a pointer to the first name of a message, which is the zone's


class TooLong(Exception):
    """The message does not fit: send fewer names at once."""


class Data(NamedTuple):
    """A record without its name. `rdata`: as on the wire, nothing compressed."""

    rtype: int
    rdata: bytes


class Write(Struct, frozen=True):
    """Put `records` and `fence` at `name`, if the fence there still is `expect`. alias: a CNAME was seen there, to be
    taken away. (Never on suspicion: who may not write CNAMEs would be refused the whole message.)"""

    name: str
    ttl_s: int
    expect: Fence | None
    fence: Fence
    records: Sequence[Data]
    alias: bool = False


def fence_rdata(fence: Fence) -> bytes:
    """One character-string. A fence is at most 212 bytes long (drivers.py)."""
    text = fence.text().encode("ascii")
    return bytes((len(text),)) + text


def request(zone: str, writes: Sequence[Write], types: Sequence[int]) -> bytes:
    """All of them or none. types: every record of these at each name is replaced. Raises TooLong."""
    conditions, changes = [], []
    for write in writes:
        name, fence = _owner(write.name, zone), _owner(fence_name(write.name), zone)
        if write.expect is None:
            conditions.append(_record(fence, TXT, NONE))
        else:
            conditions.append(_record(fence, TXT, IN, 0, fence_rdata(write.expect)))
        changes += [_record(fence, TXT, ANY), _record(fence, TXT, IN, write.ttl_s, fence_rdata(write.fence))]
        changes += [_record(name, rtype, ANY) for rtype in ((*types, CNAME) if write.alias else types)]
        changes += [_record(name, rtype, IN, write.ttl_s, rdata) for rtype, rdata in write.records]
    return _message(zone, conditions, changes)


def question(zone: str, writes: Iterable[Write], types: Sequence[int]) -> bytes:
    """Changes nothing: does the zone hold exactly what these have written, TTLs aside? Raises TooLong."""
    conditions = []
    for write in writes:
        name, fence = _owner(write.name, zone), _owner(fence_name(write.name), zone)
        conditions.append(_record(fence, TXT, IN, 0, fence_rdata(write.fence)))
        conditions += [_record(name, rtype, NONE) for rtype in types if all(r.rtype != rtype for r in write.records)]
        conditions += [_record(name, rtype, IN, 0, rdata) for rtype, rdata in write.records]
    return _message(zone, conditions, [])


def proof(zone: str, name: str, nothing: Sequence[Data]) -> bytes:
    """Changes nothing, and is refused wherever a write would be: takes away records that are not there.

    A prerequisite alone would prove nothing: BIND's `update-policy` is asked for each record that is to change, and
    only after the prerequisites (RFC 2136, 3.3). name: a name that is written, so that its own permissions count;
    nothing: a record of each type that is written, none of which is ever there."""
    text = b"can-it-be-written"
    changes = [_record(_owner(fence_name(name), zone), TXT, NONE, 0, bytes((len(text),)) + text)]
    changes += [_record(_owner(name, zone), rtype, NONE, 0, rdata) for rtype, rdata in nothing]
    return _message(zone, [], changes)


def _owner(name: str, zone: str) -> bytes:
    """A name in the zone; ends with a pointer to the zone's own."""
    labels = name.removesuffix(zone).rstrip(".")
    return (_labels(labels) if labels else b"") + _ZONE


def _labels(text: str) -> bytes:
    return b"".join(bytes((len(label),)) + label for label in text.encode("ascii").split(b"."))


def _record(owner: bytes, rtype: int, rclass: int, ttl_s: int = 0, rdata: bytes = b"") -> bytes:
    return owner + _FIXED.pack(rtype, rclass, ttl_s, len(rdata)) + rdata


def _message(zone: str, conditions: Sequence[bytes], changes: Sequence[bytes]) -> bytes:
    head = struct.pack("!HHHHHH", secrets.randbelow(1 << 16), UPDATE << 11, 1, len(conditions), len(changes), 0)
    wire = b"".join((head, _labels(zone), b"\0", struct.pack("!HH", SOA, IN), *conditions, *changes))
    if len(wire) > MAX_BYTES:
        raise TooLong
    return wire
