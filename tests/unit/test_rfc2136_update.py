"""The UPDATE message that we write by hand is the one that dnspython reads."""

from __future__ import annotations

import dns.message
import dns.opcode
import dns.update
import pytest

from controlplane.dns.lua import to_rdata
from controlplane.dns.notation import NOWHERE, address_record
from controlplane.dns.update import Data, TooLong, Write, proof, question, request
from controlplane.drivers import Fence

OLD, NEW = Fence("5f0c2d", 1, "d-1.a-1"), Fence("5f0c2d", 2, "d-2.b-1")
LUA = 65402


def told(wire: bytes) -> tuple[list[str], list[str]]:
    """(prerequisites, updates)."""
    message = dns.message.from_wire(wire)
    assert isinstance(message, dns.update.UpdateMessage)
    assert message.opcode() == dns.opcode.UPDATE
    (zone,) = message.zone
    assert zone.to_text() == "example.org. IN SOA"
    return ([_text(rrset) for rrset in message.prerequisite], [_text(rrset) for rrset in message.update])


def _text(rrset: dns.rrset.RRset) -> str:
    kind = f" {dns.rdataclass.to_text(rrset.deleting)}" if rrset.deleting else ""
    return (
        " | ".join((rrset.to_text() if rrset else f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)}").split("\n"))
        + kind
    )


def test_a_write_is_a_compare_and_set() -> None:
    records = [address_record("192.0.2.1"), address_record("2001:db8::1")]
    first = Write("www.example.org", 20, None, OLD, records)
    second = Write("example.org", 7, OLD, NEW, [])
    before, after = told(request("example.org", [first, second], (1, 28)))
    assert before == [
        "_failover.www.example.org. TXT NONE",
        '_failover.example.org. 0 IN TXT "c=5f0c2d g=1 op=d-1.a-1"',
    ]
    assert after == [
        "_failover.www.example.org. TXT ANY",
        '_failover.www.example.org. 20 IN TXT "c=5f0c2d g=1 op=d-1.a-1"',
        "www.example.org. A ANY",
        "www.example.org. AAAA ANY",
        "www.example.org. 20 IN A 192.0.2.1",
        "www.example.org. 20 IN AAAA 2001:db8::1",
        "_failover.example.org. TXT ANY",
        '_failover.example.org. 7 IN TXT "c=5f0c2d g=2 op=d-2.b-1"',
        "example.org. A ANY",
        "example.org. AAAA ANY",
    ]


def test_a_question_and_a_proof_change_nothing() -> None:
    lua = Data(LUA, to_rdata(1, "''"))
    write = Write("a.www.example.org", 20, OLD, NEW, [address_record("192.0.2.1"), lua])
    before, after = told(question("example.org", [write], (1, 28, LUA)))
    assert after == []
    assert before == [
        '_failover.a.www.example.org. 0 IN TXT "c=5f0c2d g=2 op=d-2.b-1"',
        "a.www.example.org. AAAA NONE",
        "a.www.example.org. 0 IN A 192.0.2.1",
        "a.www.example.org. 0 IN TYPE65402 \\# 5 0001022727",
    ]
    before, after = told(proof("example.org", "www.example.org", NOWHERE))
    assert before == []
    assert after == [
        '_failover.www.example.org. 0 NONE TXT "can-it-be-written" NONE',
        "www.example.org. 0 NONE A 0.0.0.0 NONE",
        "www.example.org. 0 NONE AAAA :: NONE",
    ]


def test_two_hundred_names_fit_and_too_many_are_told() -> None:
    writes = [Write(f"service-{i}.example.org", 20, OLD, NEW, [address_record("192.0.2.1")]) for i in range(1000)]
    assert len(request("example.org", writes[:200], (1, 28, LUA))) < 60_000
    with pytest.raises(TooLong):
        request("example.org", writes, (1, 28, LUA))
