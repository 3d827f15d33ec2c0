"""The zone's own NS set, servers that only it names, and regions of which an address is known."""

from __future__ import annotations

import asyncio
from pathlib import Path

import dns.message
import dns.rrset
import pytest
from msgspec.structs import replace

from chaos.worlds.loop import Kernel
from controlplane.api.survey import verified
from controlplane.dns.embedded import EmbeddedServer
from controlplane.dns.nameservers import NsSet, beside, ns_set
from controlplane.dns.regions import Regions
from controlplane.dns.table import Zone
from controlplane.dns.verify import geo_file, probes_for
from controlplane.drivers import Actual, Fence
from policies.topology import Config, Region
from policies.world import Answer
from tests.support import run
from tests.unit.agent_world import CONFIG, NAME, REGIONS, World, address, driver_of, virtual, want
from tests.unit.test_dns_regions import write_mmdb

ZONE = "example.org"


def server(ns: dict[str, tuple[str, ...]], silent: bool = False) -> EmbeddedServer:
    one = EmbeddedServer([Zone(ZONE, ns)], Regions(REGIONS), expected=(NAME,))
    if not silent:
        one.table.edit(NAME, Actual(Fence("inc", 1, "d-1.x"), 20, want(1).answers))
    return one


class Net:
    """Servers by "address:port"."""

    def __init__(self, **servers: EmbeddedServer) -> None:
        self.servers = {name.replace("_", ".").replace("p", ":"): each for name, each in servers.items()}
        self.asked: list[str] = []

    async def __call__(self, server: str, query: dns.message.Message) -> dns.message.Message:
        self.asked.append(server)
        if server not in self.servers:
            raise TimeoutError("no answer")
        reply = self.servers[server].answer(query.to_wire(), "192.0.2.99")
        assert reply is not None
        return dns.message.from_wire(reply)


def put(net: Net, where: str, one: EmbeddedServer) -> Net:
    net.servers[where] = one
    return net


NS = {"ns1.example.org": ("127.0.1.1",), "ns2.example.org": ("192.0.2.54", "2001:db8::54"), "ns.other.net": ()}


def test_the_first_server_that_answers_tells_the_set_with_the_addresses_inside_the_zone() -> None:
    net = put(put(Net(), "a", server(NS, silent=True)), "b", server(NS))
    found = run(ns_set(net, ZONE, ["dead", "a", "b"]))
    assert set(found.servers) == {"127.0.1.1:53", "192.0.2.54:53", "[2001:db8::54]:53"}
    assert (found.unknown, found.reason) == (("ns.other.net",), "")


def test_nobody_tells() -> None:
    assert run(ns_set(Net(), ZONE, [])).reason == "no server to ask"
    assert run(ns_set(Net(), ZONE, ["x"])) == NsSet(reason="x: no answer")


def test_who_is_configured_at_an_address_is_not_beside() -> None:
    net = put(Net(), address("site-a"), server(NS))
    assert run(beside(net, CONFIG, ZONE))[0] == ("192.0.2.54:53", "[2001:db8::54]:53")
    named = replace(CONFIG, dns=(replace(driver_of("site-a"), servers=("192.0.2.54", "2001:db8:0::54")),))
    assert run(beside(net, named, ZONE))[0] == ()


class Secondary(World):
    """A fourth server, which the zone names and the configuration does not; it gets its records by transfer."""

    def __init__(self) -> None:
        super().__init__()
        self.secondary = server({}, silent=True)

    def server(self) -> EmbeddedServer:
        return EmbeddedServer(
            [Zone(ZONE, {"ns1.example.org": ("127.0.1.1",), "ns4.example.org": ("203.0.113.53",)})],
            Regions(REGIONS),
            expected=(NAME,),
        )

    async def ask(self, server: str, query: dns.message.Message) -> dns.message.Message:
        if server != "203.0.113.53:53":
            return await super().ask(server, query)
        await asyncio.sleep(0.001)
        reply = self.secondary.answer(query.to_wire(), "127.0.0.1")
        assert reply is not None
        return dns.message.from_wire(reply)


def test_a_secondary_that_only_the_zone_names_is_asked_and_is_late_until_its_transfer() -> None:
    async def main() -> None:
        world = Secondary()
        try:
            world.start("site-a")
            await world.decide(want(1))
            world.secondary.table.edit(NAME, Actual(Fence("inc", 1, "d-1.x"), 20, want(1).answers))
            await asyncio.sleep(8)
            assert set(world.agents["site-a"].checkers) == {
                *(address(site) for site in ("site-a", "site-b", "site-c")),
                "203.0.113.53:53",
            }

            def seen() -> dict[str, int | None]:
                document = world.document("site-a", "site-a")
                assert document is not None
                return {s.server: s.generation if s.agrees else -1 for s in document.seen["www"]}

            assert seen()["203.0.113.53:53"] == 1
            await world.decide(want(2))
            await asyncio.sleep(2)
            assert seen()[address("site-a")] == 2 and seen()["203.0.113.53:53"] == -1
            world.secondary.table.edit(NAME, Actual(Fence("inc", 2, "d-2.x"), 20, want(2).answers))
            await asyncio.sleep(2)
            assert seen()["203.0.113.53:53"] == 2
        finally:
            for site in list(world.tasks):
                await world.stop(site)

    with Kernel() as kernel:
        kernel.run(main())


def test_what_a_driver_cannot_express_is_neither_written_nor_missed() -> None:
    """The same service at a name server with regions and at one without."""

    async def body(world: World) -> None:
        regions = {"eu": Region(networks=("10.0.0.0/8",)), "rest": Region(default=True)}
        plain = '{"address": "127.0.1.1", "port": 5300}'
        entry = replace(driver_of("site-a"), driver="rfc2136", options=plain)
        source = world.start("site-a", {"dns-site-a": world.driver("site-a")})
        source.config = replace(CONFIG, regions=regions, dns=(entry, driver_of("site-b"), driver_of("site-c")))
        answers = (Answer("eu", "A", "192.0.2.1", "site-a", 100), Answer("rest", "A", "192.0.2.2", "site-b", 100))
        await world.decide(replace(want(1), answers=answers))
        await asyncio.sleep(2)
        table = world.servers["site-a"]
        assert table is not None
        actual = table.table.read(NAME)
        assert actual is not None
        assert [(a.region, a.address, a.weight) for a in actual.answers] == [("", "192.0.2.1", 1), ("", "192.0.2.2", 1)]
        document = world.document("site-a", "site-a")
        assert document is not None
        seen = {s.server: s.agrees for s in document.seen["www"]}
        assert document.services["www"].result == "ok" and seen[address("site-a")] is True

    virtual(body)


COUNTRIES = {"eu": Region(countries=("FR",)), "asia": Region(countries=("JP",)), "rest": Region(default=True)}


def with_file(tmp_path: Path) -> Config:
    records: dict[str, object] = {
        "127.0.1.0/24": {"country": {"iso_code": "FR"}},
        "127.0.3.0/24": {"country": {"iso_code": "FR"}},
        "2001:db8:1::/48": {"country": {"iso_code": "FR"}},
        "127.0.9.0/28": {"country": {"iso_code": "US"}},
    }
    mmdb = write_mmdb(tmp_path / "geo.mmdb", records)
    entry = replace(driver_of("site-a"), options=f'{{"listen": ["{address("site-a")}"], "mmdb": "{mmdb}"}}')
    return replace(CONFIG, regions=COUNTRIES, dns=(entry,))


def test_a_region_of_countries_is_asked_from_an_address_in_the_geo_file(tmp_path: Path) -> None:
    config = with_file(tmp_path)
    probes = probes_for(config.regions, geo_file(config))
    found = {(p.region, str(p.client.address)): p.client.bits for p in probes if p.client}
    assert set(found) == {("eu", "127.0.1.0"), ("eu", "2001:db8:1::"), ("rest", "127.0.9.0")}
    assert (found["eu", "127.0.1.0"], found["rest", "127.0.9.0"]) == (24, 28)


def test_a_geo_file_that_cannot_be_read_is_no_reason_not_to_ask(tmp_path: Path) -> None:
    (tmp_path / "junk.mmdb").write_bytes(b"junk" * 100)
    for name in ("junk.mmdb", "missing.mmdb"):
        assert [p.region for p in probes_for(COUNTRIES, str(tmp_path / name))] == [""]


def test_verify_says_of_which_regions_and_servers_nothing_is_known(tmp_path: Path) -> None:
    config = with_file(tmp_path)
    first = EmbeddedServer([Zone(ZONE, NS)], Regions(COUNTRIES, geo_file(config)), expected=(NAME,))
    d = replace(want(1), answers=(Answer("eu", "A", "192.0.2.1", "site-a", 100),))
    held = Actual(Fence("inc", 1, f"{d.stamp}.x"), 20, d.answers)
    first.table.edit(NAME, held)
    second = server(NS)
    second.table.edit(NAME, held)
    net = put(put(Net(), address("site-a"), first), "192.0.2.54:53", second)
    doc = run(verified(config, (), {"www": d}, "inc", net))
    assert doc["ok"] is True and doc["regions"] == {"eu": True, "asia": None, "rest": True}
    assert doc["zones"][ZONE]["unknown"] == ["ns.other.net"]
    servers = {line["server"]: line["agrees"] for line in doc["services"]["www"]["servers"]}
    assert servers == {address("site-a"): True, "192.0.2.54:53": True, "[2001:db8::54]:53": None}
    assert doc["services"]["www"]["pools"] == []


@pytest.mark.parametrize(("agrees", "expected"), [(True, None), (False, False)])
def test_a_load_balancer_cannot_vouch_for_name_servers_that_are_silent(
    agrees: bool, expected: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def pools(*_: object) -> dict[str, list[dict[str, object]]]:
        return {"www": [{"agrees": agrees}]}

    monkeypatch.setattr("controlplane.api.survey.pools_asked", pools)
    doc = run(verified(CONFIG, (), {"www": want(1)}, "inc", Net()))
    assert (doc["ok"], doc["reachable"]) == (expected, 0)
