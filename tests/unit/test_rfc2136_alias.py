"""A CNAME that stands where addresses should: taken away, and only where one was seen."""

from __future__ import annotations

from collections.abc import Sequence

import dns.message
import dns.rcode
import pytest
from dns.rdatatype import CNAME

from controlplane.dns.notation import Plain, address_record
from controlplane.dns.peer import Peer
from controlplane.dns.rfc2136 import Side
from controlplane.dns.update import Write, request
from controlplane.dns.zone import Contents, Row
from controlplane.drivers import Fence, Result
from tests.support import run

FENCE = Fence("5f0c2d", 1, "d-1.a-1")
ZONE = "example.org"


def write(number: int, alias: bool = False) -> Write:
    return Write(f"n{number}.example.org", 20, None, FENCE, [address_record("192.0.2.1")], alias)


def types_deleted(wire: bytes) -> list[str]:
    message = dns.message.from_wire(wire)
    rows = [rrset for rrset in message.sections[2] if rrset.deleting == dns.rdataclass.ANY]
    return [f"{rrset.name.labels[0].decode()} {dns.rdatatype.to_text(rrset.rdtype)}" for rrset in rows]


def test_cnames_are_deleted_only_where_one_was_seen() -> None:
    found = types_deleted(request(ZONE, [write(1), write(2, alias=True)], Plain.types))
    assert found == ["_failover TXT", "n1 A", "n1 AAAA", "_failover TXT", "n2 A", "n2 AAAA", "n2 CNAME"]


def test_a_cname_is_seen_and_gone_once_it_was_written_over() -> None:
    contents = Contents()
    contents.rows["n1.example.org"] = [Row(CNAME, 300, b"\x00")]
    assert contents.alias("n1.example.org") and not contents.alias("n2.example.org")
    assert [a.rtype for a in Plain().answers(contents.rows["n1.example.org"])] == ["CNAME"]
    contents.put(write(1, alias=True), Plain.types)
    assert not contents.alias("n1.example.org")
    assert [a.rtype for a in Plain().answers(contents.rows["n1.example.org"])] == ["A"]


def test_who_may_not_delete_cnames_still_writes_the_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """BIND refuses the whole message for one record that its update-policy does not grant (RFC 2136, 3.3)."""
    side = Side("", Peer("127.0.0.1", 1, None, lambda: 0.0), [ZONE], Plain())

    async def update(message: bytes, writes: Sequence[Write]) -> int:
        refused = any("CNAME" in each for each in types_deleted(message))
        return int(dns.rcode.REFUSED if refused else dns.rcode.NOERROR)

    monkeypatch.setattr(side.zones[ZONE], "update", update)
    results = run(side.write(ZONE, [write(n, alias=n == 7) for n in range(20)]))
    bad = {name: why for name, (result, why) in results.items() if result is not Result.DONE}
    assert list(bad) == ["n7.example.org"]
    assert results["n7.example.org"][0] is Result.TERMINAL
    assert bad["n7.example.org"].endswith("; a CNAME at n7.example.org is in the way: remove it")
    assert len(results) == 20
