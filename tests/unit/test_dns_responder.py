"""One message in, at most one out: what the embedded name server answers, and what it survives."""

from __future__ import annotations

from collections.abc import Sequence

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import pytest
from dns.rdatatype import RdataType
from hypothesis import given
from hypothesis import strategies as st

from controlplane.dns.regions import Regions
from controlplane.dns.responder import Responder
from controlplane.dns.table import Table, Zone
from controlplane.drivers import Actual, Fence
from policies.topology import Region
from policies.world import Answer

SOURCE = "127.0.0.1"
FENCE = Fence("inc", 7, "d-7.1")
ZONES = (
    Zone("example.org", {"ns.example.org": ("127.0.1.1", "::1"), "ns.elsewhere.net": ("192.0.2.53",)}),
    Zone("sub.example.org", {"ns.sub.example.org": ("127.0.1.1",)}),
)
REGIONS = {"eu": Region(networks=("10.0.0.0/8",)), "rest": Region(default=True)}


def rows(region: str, rtype: str, **sites: tuple[int, tuple[str, ...]]) -> tuple[Answer, ...]:
    return tuple(Answer(region, rtype, a, site, w) for site, (w, addresses) in sites.items() for a in addresses)


def responder(ecs: bool = True, expected: tuple[str, ...] = ()) -> Responder:
    table = Table(ZONES, expected)
    www = rows("eu", "A", a=(50, ("192.0.2.1", "192.0.2.2"))) + rows("rest", "A", b=(100, ("192.0.2.3",)))
    table.edit("www.example.org", Actual(FENCE, 20, www + rows("rest", "AAAA", b=(100, ("2001:db8::3",)))))
    table.edit("a.b.example.org", Actual(FENCE, 20, rows("rest", "A", b=(100, ("192.0.2.4",)))))
    table.edit("*.wild.example.org", Actual(FENCE, 20, rows("rest", "A", b=(100, ("192.0.2.5",)))))
    table.edit("x.sub.example.org", Actual(FENCE, 20, rows("rest", "A", b=(100, ("192.0.2.6",)))))
    many = rows("rest", "A", b=(100, tuple(f"192.0.2.{i}" for i in range(100))))
    table.edit("many.example.org", Actual(FENCE, 20, many))
    table.edit("example.org", Actual(FENCE, 20, rows("rest", "A", b=(100, ("192.0.2.7",)))))
    return Responder(table, Regions(REGIONS), ecs)


def query(name: str, rtype: str = "A", subnet: str = "", **more: object) -> dns.message.Message:
    options = [dns.edns.ECSOption.from_text(subnet)] if subnet else []
    more.setdefault("use_edns", 0)
    return dns.message.make_query(name, rtype, options=options, **more)  # type: ignore[arg-type]


def answer(
    q: dns.message.Message, server: Responder | None = None, source: str = SOURCE, tcp: bool = False
) -> dns.message.Message:
    wire = (server or responder()).respond(q.to_wire(), source, tcp)
    assert wire is not None
    return dns.message.from_wire(wire)


def texts(sets: Sequence[object]) -> list[str]:
    return [line for rrset in sets for line in str(rrset).splitlines()]


@pytest.mark.parametrize(
    ("name", "rtype", "rcode", "records"),
    [
        ("www.example.org", "A", "NOERROR", ["192.0.2.3"]),
        ("WWW.Example.ORG", "A", "NOERROR", ["192.0.2.3"]),
        ("www.example.org", "AAAA", "NOERROR", ["2001:db8::3"]),
        ("www.example.org", "TXT", "NOERROR", []),
        ("www.example.org", "MX", "NOERROR", []),
        ("www.example.org", "CNAME", "NOERROR", []),
        ("_failover.www.example.org", "TXT", "NOERROR", ['"c=inc g=7 op=d-7.1"']),
        ("_failover.www.example.org", "A", "NOERROR", []),
        ("_failover.example.org", "TXT", "NOERROR", ['"c=inc g=7 op=d-7.1"']),
        ("_failover.nothing.example.org", "TXT", "NXDOMAIN", []),
        ("nothing.example.org", "A", "NXDOMAIN", []),
        ("below.www.example.org", "A", "NXDOMAIN", []),
        ("b.example.org", "A", "NOERROR", []),  # nothing but a name below it
        ("wild.example.org", "A", "NOERROR", []),
        ("any.thing.wild.example.org", "A", "NOERROR", ["192.0.2.5"]),
        ("*.wild.example.org", "A", "NOERROR", ["192.0.2.5"]),
        ("any.wild.example.org", "TXT", "NOERROR", []),
        ("_failover.*.wild.example.org", "TXT", "NOERROR", ['"c=inc g=7 op=d-7.1"']),
        ("_failover.any.wild.example.org", "TXT", "NOERROR", []),
        ("x.sub.example.org", "A", "NOERROR", ["192.0.2.6"]),
        ("y.sub.example.org", "A", "NXDOMAIN", []),
        ("example.org", "A", "NOERROR", ["192.0.2.7"]),
        ("example.org", "NS", "NOERROR", ["ns.example.org.", "ns.elsewhere.net."]),
        ("sub.example.org", "NS", "NOERROR", ["ns.sub.example.org."]),
        ("ns.example.org", "A", "NOERROR", ["127.0.1.1"]),
        ("ns.example.org", "AAAA", "NOERROR", ["::1"]),
        ("ns.sub.example.org", "AAAA", "NOERROR", []),
        ("www.example.org", "ANY", "NOERROR", ["192.0.2.3"]),
        ("ns.elsewhere.net", "A", "REFUSED", []),
        ("org", "NS", "REFUSED", []),
        (".", "NS", "REFUSED", []),
        ("notexample.org", "A", "REFUSED", []),
        ("example.org", "AXFR", "REFUSED", []),
        ("example.org", "IXFR", "REFUSED", []),
        ("example.org", "MAILB", "NOTIMP", []),
        (r"a\.b.example.org", "A", "NXDOMAIN", []),
        (r"\000\255.example.org", "A", "NXDOMAIN", []),
    ],
)
def test_answers(name: str, rtype: str, rcode: str, records: list[str]) -> None:
    reply = answer(query(name, rtype))
    assert dns.rcode.to_text(reply.rcode()) == rcode
    assert [line.split(None, 4)[4] for line in texts(reply.answer)] == records
    negative = rcode == "NXDOMAIN" or (rcode == "NOERROR" and not records)
    assert bool(reply.flags & dns.flags.AA) == (rcode in ("NOERROR", "NXDOMAIN"))
    assert [rrset.rdtype for rrset in reply.authority] == ([RdataType.SOA] if negative else [])


def test_negative_answers_are_cached_for_one_second() -> None:
    soa = answer(query("nothing.example.org")).authority[0]
    assert (soa.ttl, soa[0].minimum) == (1, 1)
    assert soa.name == dns.name.from_text("example.org")
    assert answer(query("y.sub.example.org")).authority[0].name == dns.name.from_text("sub.example.org")


def test_the_serial_rises_with_every_generation_and_survives_a_restart() -> None:
    server = responder()
    before = answer(query("example.org", "SOA"), server).answer[0][0].serial
    server.table.edit("www.example.org", Actual(Fence("inc", 8, "d-8.1"), 20, ()))
    assert answer(query("example.org", "SOA"), server).answer[0][0].serial == before + 1
    assert answer(query("example.org", "SOA")).answer[0][0].serial == before


def test_glue_goes_along_with_ns() -> None:
    reply = answer(query("example.org", "NS"))
    assert [(str(r.name), r.rdtype.name) for r in reply.additional] == [
        ("ns.example.org.", "A"),
        ("ns.example.org.", "AAAA"),
    ]


def test_the_case_of_the_question_comes_back() -> None:
    wire = responder().respond(query("wWw.eXample.oRg").to_wire(), SOURCE)
    assert wire is not None
    assert wire.count(b"\x03wWw\x07eXample\x03oRg") == 1  # in the question, and the answer points there
    reply = dns.message.from_wire(wire)
    assert str(reply.answer[0].name) == "wWw.eXample.oRg."


# ---- never empty, never too early


def test_an_empty_server_fails_instead_of_denying() -> None:
    server = Responder(Table(ZONES), Regions(REGIONS))
    for name, rtype in (("www.example.org", "A"), ("example.org", "SOA"), ("_failover.www.example.org", "TXT")):
        reply = answer(query(name, rtype), server)
        assert reply.rcode() == dns.rcode.SERVFAIL
        assert not reply.flags & dns.flags.AA
    assert answer(query("elsewhere.net"), server).rcode() == dns.rcode.REFUSED


def test_a_name_that_is_still_to_be_written_fails_too() -> None:
    server = responder(expected=("new.example.org", "*.more.example.org", "www.example.org"))
    for name in ("new.example.org", "_failover.new.example.org", "x.more.example.org"):
        assert answer(query(name), server).rcode() == dns.rcode.SERVFAIL
    assert answer(query("other.example.org"), server).rcode() == dns.rcode.NXDOMAIN
    assert answer(query("more.example.org"), server).rcode() == dns.rcode.NOERROR
    assert answer(query("www.example.org"), server).answer


def test_a_region_without_answers_gets_those_of_the_default_one_and_then_any() -> None:
    server = responder()
    assert texts(answer(query("www.example.org", "AAAA", "10.0.0.0/8"), server).answer)[0].endswith("db8::3")
    server.table.edit("only.example.org", Actual(FENCE, 20, rows("gone", "A", z=(1, ("192.0.2.9",)))))
    assert texts(answer(query("only.example.org"), server).answer)[0].endswith("192.0.2.9")


# ---- regions and weights


def test_the_client_subnet_decides_and_comes_back_with_its_scope() -> None:
    reply = answer(query("www.example.org", subnet="10.1.2.0/24"))
    assert sorted(rdata.address for rdata in reply.answer[0]) == ["192.0.2.1", "192.0.2.2"]
    assert [option.to_text() for option in reply.options] == ["ECS 10.1.2.0/24 scope/8"]
    reply = answer(query("www.example.org", subnet="0.0.0.0/0"), source="10.9.9.9")
    assert len(reply.answer[0]) == 2
    assert [option.to_text() for option in reply.options] == ["ECS 0.0.0.0/0 scope/0"]


def test_ecs_false_neither_uses_it_nor_sends_it_back() -> None:
    reply = answer(query("www.example.org", subnet="10.1.2.0/24"), responder(ecs=False))
    assert [rdata.address for rdata in reply.answer[0]] == ["192.0.2.3"]
    assert list(reply.options) == []


@pytest.mark.parametrize(
    "raw",
    [
        b"\x00\x01\x18\x18\x0a\x00\x00",  # a scope in a query
        b"\x00\x01\x18\x00\x0a\x00",  # too few address bytes
        b"\x00\x01\x04\x00\x0f",  # bits beyond the prefix
        b"\x00\x03\x00\x00",  # unknown family
        b"\x00\x01\x21\x00\x0a\x00\x00\x00\x00",  # 33 bits
    ],
)
def test_a_malformed_client_subnet_is_a_format_error(raw: bytes) -> None:
    q = dns.message.make_query("www.example.org", "A", use_edns=0)
    q.use_edns(0, options=[dns.edns.GenericOption(dns.edns.OptionType.ECS, raw)])
    assert answer(q).rcode() == dns.rcode.FORMERR


def test_weights_are_kept_exactly_and_turns_are_spread() -> None:
    server = responder()
    sites = rows("rest", "A", a=(50, ("192.0.2.1",)), b=(30, ("192.0.2.2",)), c=(20, ("192.0.2.3",)))
    server.table.edit("w.example.org", Actual(FENCE, 20, sites))
    told = [answer(query("w.example.org"), server).answer[0][0].address[-1] for _ in range(20)]
    assert "".join(told[:10]) == "".join(told[10:])
    assert [told[:10].count(x) for x in "123"] == [5, 3, 2]
    assert "111" not in "".join(told)


def test_a_site_answers_with_all_its_addresses_and_their_weights_add_up() -> None:
    server = responder()
    sites = rows("rest", "A", a=(25, ("192.0.2.1", "192.0.2.2")), b=(50, ("192.0.2.3",)), c=(0, ("192.0.2.4",)))
    server.table.edit("w.example.org", Actual(FENCE, 20, sites))
    sizes = [len(answer(query("w.example.org"), server).answer[0]) for _ in range(4)]
    assert sizes == [2, 1, 2, 1]
    server.table.edit("w.example.org", Actual(FENCE, 20, sites[:2]))
    first = [answer(query("w.example.org"), server).answer[0][0].address for _ in range(4)]
    assert first in (["192.0.2.1", "192.0.2.2"] * 2, ["192.0.2.2", "192.0.2.1"] * 2)


# ---- EDNS and sizes


def test_without_edns_there_is_none_in_the_answer() -> None:
    reply = answer(query("www.example.org", use_edns=False))
    assert reply.edns == -1


def test_edns_version_and_do() -> None:
    reply = answer(query("www.example.org", use_edns=1))
    assert (reply.rcode(), reply.edns, reply.answer) == (dns.rcode.BADVERS, 0, [])
    reply = answer(query("www.example.org", want_dnssec=True))
    assert reply.ednsflags & dns.flags.DO
    assert reply.payload == 1232


@pytest.mark.parametrize(
    ("edns", "payload", "limit"), [(False, 0, 512), (0, 100, 512), (0, 1000, 1000), (0, 65535, 1232)]
)
def test_truncation(edns: object, payload: int, limit: int) -> None:
    q = query("many.example.org", use_edns=edns, payload=payload or 1232)
    server = responder()
    wire = server.respond(q.to_wire(), SOURCE)
    assert wire is not None
    reply = dns.message.from_wire(wire)
    assert len(wire) <= limit
    assert reply.flags & dns.flags.TC
    assert len(reply.answer) == 0
    whole = server.respond(q.to_wire(), SOURCE, tcp=True)
    assert whole is not None
    assert len(dns.message.from_wire(whole).answer[0]) == 100


def test_padding_is_not_a_way_to_get_more_bytes() -> None:
    q = query("www.example.org")
    q.use_edns(0, options=[dns.edns.GenericOption(dns.edns.OptionType.PADDING, b"")])
    wire = responder().respond(q.to_wire(), SOURCE)
    assert wire is not None
    assert len(wire) < 100


# ---- what is not a proper query


@pytest.mark.parametrize("opcode", [1, 2, 3, 4, 5, 6, 15])
def test_other_opcodes(opcode: int) -> None:
    wire = bytearray(query("www.example.org").to_wire())
    wire[2] = wire[2] & 0x87 | opcode << 3
    reply = responder().respond(bytes(wire), SOURCE)
    assert reply is not None
    assert len(reply) == 12
    assert (reply[:2], reply[3] & 15, (reply[2] >> 3) & 15) == (bytes(wire[:2]), 4, opcode)


def test_no_or_two_questions() -> None:
    none, two = query("www.example.org"), query("www.example.org")
    none.question = []
    two.question = two.question + query("a.b.example.org").question
    for q in (none, two):
        assert answer(q).rcode() == dns.rcode.FORMERR


def test_other_classes_and_signed_queries() -> None:
    chaos = dns.message.make_query("version.bind", "TXT", "CH")
    assert answer(chaos).rcode() == dns.rcode.REFUSED
    signed = query("www.example.org")
    signed.use_tsig({dns.name.from_text("key."): b"secret"})
    assert answer(signed).rcode() == dns.rcode.NOTAUTH


def test_a_response_is_never_answered() -> None:
    server = responder()
    q = query("www.example.org").to_wire()
    reply = server.respond(q, SOURCE)
    assert reply is not None
    assert server.respond(reply, SOURCE) is None
    assert server.respond(q[:2] + bytes([q[2] | 0x80]) + q[3:], SOURCE) is None


SERVER = responder()
QUERIES = [
    query("www.example.org", subnet="10.0.0.0/8").to_wire(),
    query("nothing.example.org", "TXT").to_wire(),
    query("any.wild.example.org", "ANY").to_wire(),
    query("example.org", "NS", use_edns=False).to_wire(),
]


def check(wire: bytes) -> None:
    reply = SERVER.respond(wire, SOURCE)
    if len(wire) < 12 or wire[2] & 0x80:
        assert reply is None
        return
    assert reply is not None
    assert reply[:2] == wire[:2]
    assert reply[2] & 0x80
    parsed = dns.message.from_wire(reply)
    # Only an answer to a good question may be longer than what was sent (plus the OPT that is owed).
    if parsed.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        assert len(reply) <= max(len(wire), 12) + 11
    assert len(reply) <= 1232


@given(st.binary(max_size=600))
def test_random_bytes(wire: bytes) -> None:
    check(wire)


@given(st.sampled_from(QUERIES), st.data())
def test_mutated_queries(wire: bytes, data: st.DataObject) -> None:
    mutated = bytearray(wire)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        kind = data.draw(st.sampled_from(["set", "cut", "insert", "repeat"]))
        if kind == "set":
            mutated[at] = data.draw(st.integers(0, 255))
        elif kind == "insert":
            mutated[at:at] = data.draw(st.binary(min_size=1, max_size=8))
        elif kind == "repeat":
            mutated += mutated[at:]
        elif at:
            del mutated[at:]
    check(bytes(mutated))


def test_a_bug_is_a_servfail_not_a_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    server = responder()
    monkeypatch.setattr(server.table, "find", lambda name: 1 / 0)
    assert answer(query("www.example.org"), server).rcode() == dns.rcode.SERVFAIL


def test_taking_another_configuration_over_keeps_what_was_written() -> None:
    server = responder()
    server.table.configure([Zone("example.org", {"ns2.example.org": ("127.0.2.1",)})])
    assert answer(query("www.example.org"), server).answer
    assert answer(query("ns.example.org"), server).rcode() == dns.rcode.NXDOMAIN
    assert answer(query("ns2.example.org"), server).answer
    assert answer(query("x.sub.example.org"), server).answer  # now a name of the zone around it
