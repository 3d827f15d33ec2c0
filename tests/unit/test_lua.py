"""LUA records: what is rendered is read back as it was, and nothing else is."""

from __future__ import annotations

import pytest
from dns.rdatatype import RdataType
from hypothesis import given
from hypothesis import strategies as st

from controlplane.dns import lua
from controlplane.dns.notation import Lua, Plain
from controlplane.dns.update import Data
from controlplane.dns.zone import LUA, Row
from policies.topology import Region
from policies.world import Answer

REGIONS = {
    "eu": Region(countries=("FR", "NL"), networks=("203.0.113.0/24", "2001:db8::/32")),
    "lab": Region(networks=("203.0.113.128/25",)),
    "asia": Region(continents=("AS",)),
    "rest": Region(default=True),
}
V4 = st.ip_addresses(v=4).map(str)
ROWS = st.lists(
    st.tuples(st.sampled_from(sorted(REGIONS)), V4, st.integers(0, 100)), min_size=1, max_size=12, unique=True
)


def rows(*told: tuple[str, str, int]) -> list[Answer]:
    return [Answer(region, "A", address, "site", weight) for region, address, weight in told]


def order(answers: list[Answer] | tuple[Answer, ...]) -> list[tuple[str, str, str, int]]:
    return sorted((a.region, a.rtype, a.address, a.weight) for a in answers)


def test_the_text_is_the_one_that_is_documented() -> None:
    geo = lua.Geo(REGIONS)
    text = geo.render(rows(("eu", "192.0.2.1", 90), ("eu", "192.0.2.2", 10), ("rest", "192.0.2.2", 100)))
    assert text == (
        ";local r='rest' if netmask({'203.0.113.128/25'}) then r='lab' elseif netmask({'203.0.113.0/24'}) then r='eu' "
        "elseif netmask({'2001:db8::/32'}) then r='eu' elseif country({'FR','NL'}) then r='eu' "
        "elseif continent({'AS'}) then r='asia' end "
        "local t={['eu']={{90,'192.0.2.1'},{10,'192.0.2.2'}},['rest']={{100,'192.0.2.2'}}} "
        "return pickwrandom(t[r] or t['rest'])"
    )


def test_a_region_without_answers_gets_those_of_the_default_or_of_any_other() -> None:
    assert lua.Geo(REGIONS).render(rows(("eu", "192.0.2.1", 1))).endswith("t[r] or t['eu'])")
    assert lua.Geo({"world": Region(default=True)}).render(rows(("world", "192.0.2.1", 1))) == (
        ";local r='world' local t={['world']={{1,'192.0.2.1'}}} return pickwrandom(t[r] or t['world'])"
    )


@given(told=ROWS)
def test_what_is_rendered_is_read_back(told: list[tuple[str, str, int]]) -> None:
    geo = lua.Geo(REGIONS)
    text = geo.render(rows(*told))
    parsed = geo.parse(text, "A")
    assert parsed is not None
    assert order(parsed) == order(rows(*told))
    data = lua.to_rdata(RdataType.A, text)
    assert lua.from_rdata(data) == (RdataType.A, text)
    at = 2
    while at < len(data):
        end = at + 1 + data[at]
        # PowerDNS puts a blank between two strings.
        assert end == len(data) or data[end - 1 : end] in (b",", b" ")
        at = end


@given(told=ROWS, at=st.integers(0, 5000), letter=st.sampled_from("0'{}, x;"))
def test_a_text_that_was_changed_is_not_read_as_something_else(
    told: list[tuple[str, str, int]], at: int, letter: str
) -> None:
    geo = lua.Geo(REGIONS)
    text = geo.render(rows(*told))
    at %= len(text)
    changed = text[:at] + letter + text[at + 1 :]
    parsed = geo.parse(changed, "A")
    # Another weight or address is another answer, and told as such.
    assert parsed is None or geo.render(parsed) == changed


def test_another_configuration_of_the_regions_is_another_text() -> None:
    text = lua.Geo(REGIONS).render(rows(("eu", "192.0.2.1", 1)))
    assert lua.Geo({**REGIONS, "lab": Region(networks=("203.0.113.64/26",))}).parse(text, "A") is None


def test_too_many_networks_are_refused() -> None:
    many = Region(networks=tuple(f"10.{i >> 8}.{i & 255}.0/24" for i in range(4000)))
    with pytest.raises(ValueError, match="use fewer networks"):
        lua.Geo({"eu": many, "rest": Region(default=True)}).render(rows(("eu", "192.0.2.1", 1)))


def test_one_address_for_everybody_is_a_plain_record() -> None:
    notation = Lua(REGIONS)
    same = rows(*[(region, "192.0.2.1", 100) for region in REGIONS])
    (record,) = notation.records(same)
    assert record == Data(RdataType.A, bytes((192, 0, 2, 1)))
    assert order(notation.answers([Row(RdataType.A, 20, bytes((192, 0, 2, 1)))])) == order(same)
    for other in (same[:-1], [*same, *rows(("eu", "192.0.2.2", 0))], rows(*[(r, "192.0.2.1", 50) for r in REGIONS])):
        (record,) = notation.records(other)
        assert record.rtype == LUA


def test_what_somebody_else_wrote_reads_as_nothing_we_know() -> None:
    notation = Lua(REGIONS)
    ours = lua.to_rdata(RdataType.A, lua.Geo(REGIONS).render(rows(("eu", "192.0.2.1", 1))))
    plain = Row(RdataType.A, 20, bytes((192, 0, 2, 1)))
    for found in (
        [plain, Row(RdataType.A, 20, bytes((192, 0, 2, 2)))],
        [plain, Row(LUA, 20, ours)],
        [Row(LUA, 20, ours), Row(LUA, 20, ours)],
        [Row(LUA, 20, lua.to_rdata(RdataType.A, "ifurlup('https://www.example.org/')"))],
        [Row(LUA, 20, lua.to_rdata(RdataType.TXT, "'hello'"))],
        [Row(LUA, 20, b"\x00\x01\xffcut")],
        [Row(LUA, 20, b"")],
    ):
        told = notation.answers(found)
        assert told
        assert {a.weight for a in told} == {0}
    assert Plain("eu").answers([Row(RdataType.AAAA, 20, b"short")])[0].address == b"short".hex()
