"""DNS messages read without objects, and signed: the same as dnspython says, and never more than an OSError."""

from __future__ import annotations

import base64
import contextlib
import time

import dns.message
import dns.name
import dns.rrset
import dns.tsig
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.dns.signing import Conversation, Rejected, key_of
from controlplane.dns.wire import Malformed, parse

WALL = time.time  # noqa: TID251 - dnspython compares it with this clock
SECRET = base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
KEY = key_of("failover", SECRET, "hmac-sha256")
KEYRING = {dns.name.from_text("failover"): KEY}
LABELS = st.lists(st.sampled_from(["www", "WWW", "_failover", "example", "a", "x" * 63]), max_size=3)


def answer(*owners: str) -> dns.message.Message:
    query = dns.message.make_query("example.org", "AXFR", id=7)
    message = dns.message.make_response(query)
    for i, owner in enumerate(owners):
        message.answer.append(dns.rrset.from_text(owner, 20 + i, "IN", "A", f"192.0.2.{i}"))
        message.answer.append(dns.rrset.from_text(f"_failover.{owner}", 20, "IN", "TXT", '"c=a g=1 op=d-1.x"'))
    return message


@given(names=st.lists(LABELS, min_size=1, max_size=20))
def test_it_reads_what_dnspython_writes(names: list[list[str]]) -> None:
    owners = [".".join([*labels, "example.org."]) for labels in names]
    message = parse(answer(*owners).to_wire())
    assert (message.id, message.response, message.rcode) == (7, True, 0)
    expected = [(f"{prefix}{owner[:-1].lower()}") for owner in owners for prefix in ("", "_failover.")]
    assert [record.name for record in message.answer] == expected
    assert [record.rdata for record in message.answer[::2]] == [bytes((192, 0, 2, i)) for i in range(len(owners))]
    assert {record.rdata for record in message.answer[1::2]} == {b"\x10c=a g=1 op=d-1.x"}


@given(data=st.binary(max_size=200))
def test_garbage_is_malformed_or_a_message(data: bytes) -> None:
    with contextlib.suppress(Malformed):
        assert parse(data).wire == data


@given(at=st.integers(0, 400), value=st.integers(0, 255), cut=st.integers(0, 400))
def test_a_damaged_message_is_malformed_or_a_message(at: int, value: int, cut: int) -> None:
    wire = bytearray(answer("www.example.org.", "a.www.example.org.").to_wire())
    wire[at % len(wire)] = value
    with contextlib.suppress(Malformed):
        assert parse(bytes(wire[: max(cut, 12)])).wire


def test_pointers_that_go_round_are_malformed() -> None:
    head = bytes.fromhex("000784000000000100000000")
    for name in (b"\xc0\x0c", b"\xc0\x0e\xc0\x0c", b"\x01a\xc0\x0c"):
        with pytest.raises(Malformed):
            parse(head + name + bytes(10))


# ---- signatures


def signed_reply(request: bytes, *, key: dns.tsig.Key = KEY) -> bytes:
    query = dns.message.from_wire(request, keyring=KEYRING)
    reply = dns.message.make_response(query)
    reply.use_tsig({dns.name.from_text("failover"): key})
    return reply.to_wire()


def start() -> tuple[Conversation, bytes]:
    conversation = Conversation(KEY, WALL)
    return conversation, conversation.sign(dns.message.make_query("example.org", "SOA", id=7).to_wire())


def test_dnspython_accepts_our_signature_and_we_accept_its() -> None:
    conversation, request = start()
    assert dns.message.from_wire(request, keyring=KEYRING).had_tsig
    assert conversation.check(parse(signed_reply(request)))


def test_a_reply_that_was_tampered_with_or_signed_by_another_is_refused() -> None:
    conversation, request = start()
    wire = bytearray(signed_reply(request))
    wire[3] ^= 1  # NOERROR becomes FORMERR
    with pytest.raises(Rejected, match="signature"):
        conversation.check(parse(bytes(wire)))
    other = key_of("failover", base64.b64encode(b"another").decode(), "hmac-sha256")
    with pytest.raises(Rejected, match="signature"):
        conversation.check(parse(signed_reply(request, key=other)))


def test_a_reply_to_another_request_is_refused() -> None:
    conversation, _ = start()
    query = dns.message.make_query("example.org", "A", id=7)
    query.use_tsig(KEYRING)
    with pytest.raises(Rejected, match="signature"):
        conversation.check(parse(signed_reply(query.to_wire())))


def test_an_unsigned_reply_is_said_to_be_unsigned() -> None:
    conversation, request = start()
    reply = dns.message.make_response(dns.message.from_wire(request, keyring=KEYRING))
    reply.tsig = None
    assert not conversation.check(parse(reply.to_wire()))
    assert Conversation(None, lambda: 0.0).check(parse(reply.to_wire()))


def test_a_clock_of_ours_that_is_off_is_named() -> None:
    _, request = start()
    late = Conversation(KEY, lambda: 0.0)
    late.sign(dns.message.make_query("example.org", "SOA", id=7).to_wire())
    with pytest.raises(Rejected):
        late.check(parse(signed_reply(request)))


def test_a_secret_that_is_not_base64_is_refused() -> None:
    with pytest.raises(ValueError, match="TSIG key failover: its secret is not base64"):
        key_of("failover", "not base64 at all!", "hmac-sha256")
