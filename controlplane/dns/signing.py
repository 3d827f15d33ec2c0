"""TSIG (RFC 8945): one request signed, its replies checked. dnspython does the cryptography; the clock is a port."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from typing import Any

import dns.exception
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.tsig
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.TSIG import TSIG

from controlplane.dns.wire import Malformed, Message

FUDGE_S = 300  # by how much two clocks may differ (RFC 8945, 10)

Wall = Callable[[], float]  # seconds since 1970
# dnspython has no types for these.
_sign: Callable[..., Any] = dns.tsig.sign
_validate: Callable[..., Any] = dns.tsig.validate
_tsig: Callable[..., TSIG] = TSIG


class Rejected(ConnectionError):
    """The server answered, and not with what was asked for. terminal: it will not next time either, until somebody
    has put something right."""

    def __init__(self, reason: str, terminal: bool = True) -> None:
        super().__init__(reason)
        self.terminal = terminal


def key_of(name: str, secret: str, algorithm: str) -> dns.tsig.Key:
    """secret: base64. Raises ValueError."""
    try:
        owner = dns.name.from_text(name)
    except dns.exception.DNSException as error:
        raise ValueError(f"TSIG key {name}: its name is no domain name ({error})") from error
    try:
        raw = base64.b64decode("".join(secret.split()), validate=True)
    except ValueError as error:
        raise ValueError(f"TSIG key {name}: its secret is not base64 ({error})") from error
    if not raw:
        raise ValueError(f"TSIG key {name}: its secret is empty")
    return dns.tsig.Key(owner, raw, algorithm)


class Conversation:
    """One request and the messages that answer it. key None: nothing is signed, nothing is checked."""

    def __init__(self, key: dns.tsig.Key | None, wall: Wall) -> None:
        self._key, self._wall = key, wall
        self._mac = b""
        self._context: Any = None  # of a stream, after its first message

    def sign(self, wire: bytes) -> bytes:
        """The request, with its signature."""
        if self._key is None:
            return wire
        ident = int.from_bytes(wire[:2], "big")
        blank = _tsig(
            dns.rdataclass.ANY, RdataType.TSIG, self._key.algorithm, 0, FUDGE_S, b"", ident, dns.rcode.NOERROR, b""
        )
        signed, _ = _sign(wire, self._key, blank, int(self._wall()), b"")
        self._mac = signed.mac
        rdata: bytes = signed.to_wire()
        owner = self._key.name.to_wire()
        assert owner is not None
        count = int.from_bytes(wire[10:12], "big") + 1  # of additional records
        record = struct.pack("!HHIH", RdataType.TSIG, dns.rdataclass.ANY, 0, len(rdata)) + rdata
        return wire[:10] + count.to_bytes(2, "big") + wire[12:] + owner + record

    def check(self, message: Message, stream: bool = False) -> bool:
        """Is it signed, or need it not be? stream: it is one of several messages, of which the first and the last
        have to be signed, and the others count for the next signature (RFC 8945, 5.3.1). Raises Rejected: the server
        did not take our signature, or the reply's is wrong."""
        if self._key is None:
            return True
        if message.tsig is None:
            if self._context is not None:
                self._context.update(message.wire)
            return False
        record = message.tsig
        name = self._key.name.to_text(omit_final_dot=True)
        try:
            rdata = dns.rdata.from_wire(dns.rdataclass.ANY, RdataType.TSIG, record.rdata, 0, len(record.rdata))
            self._context = _validate(
                message.wire,
                self._key,
                dns.name.from_text(record.name),
                rdata,
                int(self._wall()),
                self._mac,
                record.at,
                self._context,
                stream,
            )
        except dns.tsig.PeerBadTime as error:
            other = getattr(rdata, "other", b"")
            off = f" by {int.from_bytes(other, 'big') - self._wall():+.0f} s" if len(other) == 6 else ""
            raise Rejected(f"BADTIME: the server's clock differs from ours{off}: set both with NTP") from error
        except dns.tsig.BadTime as error:
            raise Rejected("the reply's time differs from ours: set both clocks with NTP") from error
        except (dns.tsig.PeerBadKey, dns.tsig.PeerBadSignature) as error:
            # Knot says BADKEY also of a key that it knows, for what none of the zone's ACLs allows it.
            reason = (
                "its name, secret or algorithm is another there, or the server's ACL does not let it do this (update "
                "and transfer, these names and types, from this address)"
            )
            raise Rejected(f"the server does not take TSIG key {name}: {reason}") from error
        except (dns.tsig.PeerError, dns.tsig.BadKey, dns.tsig.BadAlgorithm, dns.tsig.BadSignature) as error:
            raise Rejected(f"a reply whose signature with TSIG key {name} is wrong") from error
        except dns.exception.DNSException as error:
            raise Malformed("a signature that cannot be read") from error
        return True
