"""Large documents are stored compressed, and what is no document is refused."""

from __future__ import annotations

import zlib

import msgspec
import pytest

from controlplane.documents import MAX_BYTES, SQUEEZE_BYTES, OverrideTimers, decode, encode


def test_a_large_document_is_compressed_and_comes_back() -> None:
    large = OverrideTimers({f"ov-{n}": 1.5 for n in range(20_000)})
    value = encode(large)
    assert value == encode(large)
    assert len(value) < SQUEEZE_BYTES < len(msgspec.json.encode(large))
    assert decode(OverrideTimers, value) == large


def test_a_small_one_stays_readable() -> None:
    assert encode(OverrideTimers({"ov-1": 2.0})) == b'{"left_s":{"ov-1":2.0},"schema":1}'


@pytest.mark.parametrize(
    "value",
    [
        zlib.compress(b"{}" * 100)[:-3],
        b"\x78nonsense",
        zlib.compress(b" " * (MAX_BYTES + 1)),
    ],
    ids=["cut short", "damaged", "a bomb"],
)
def test_a_damaged_one_is_no_document(value: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(OverrideTimers, value)
