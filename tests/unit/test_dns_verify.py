"""Asking name servers themselves: what agrees, what does not, and what nobody says."""

from __future__ import annotations

import json

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from msgspec.structs import replace

from chaos.worlds.loop import Kernel
from controlplane.dns.embedded import EmbeddedServer
from controlplane.dns.regions import Regions
from controlplane.dns.table import Zone
from controlplane.dns.verify import (
    Reading,
    authoritative,
    by_server,
    drivers_for,
    probes_for,
    servers_of,
    survey,
    verify,
)
from controlplane.documents import Seen
from controlplane.drivers import Actual, Fence
from controlplane.routes import Routes
from policies.topology import Config, Dns, DnsDriver, Policy, Region, Service
from policies.world import Answer, Desired

REGIONS = {
    "eu": Region(networks=("10.0.0.0/8", "2001:db8::/32")),
    "asia": Region(countries=("JP",)),
    "rest": Region(default=True),
}
SERVER = "127.0.1.1:5300"
DESIRED = Desired(
    service="www",
    generation=7,
    shares={},
    answers=(
        Answer("eu", "A", "192.0.2.1", "site-a", 100),
        Answer("asia", "A", "192.0.2.2", "site-b", 100),
        Answer("rest", "A", "192.0.2.3", "site-b", 100),
        Answer("rest", "A", "192.0.2.4", "site-c", 0),
    ),
    sites={},
    name="www.example.org",
    ttl_s=20,
    decision="d-7",
)
FENCE = Fence("inc", 7, "d-7.1")
VIEWS = json.dumps(
    {
        "address": "127.0.1.1",
        "port": 5300,
        "dialect": "bind",
        "views": {region: {"name": f"k{i}", "key": {"env": "DNS_KEY"}} for i, region in enumerate(REGIONS)},
    }
)


class Direct:
    """The Ask port without sockets: servers by address, asked from one source address."""

    def __init__(self, **servers: EmbeddedServer) -> None:
        self.servers = {SERVER: servers["a"]} if "a" in servers else {}
        self.asked: list[str] = []

    async def __call__(self, server: str, query: dns.message.Message) -> dns.message.Message:
        self.asked.append(f"{server} {query.question[0]}")
        if server not in self.servers:
            raise TimeoutError(f"no answer from {server}")
        reply = self.servers[server].answer(query.to_wire(), "192.0.2.99")
        assert reply is not None
        return dns.message.from_wire(reply)


def server(actual: Actual | None, ecs: bool = True) -> EmbeddedServer:
    one = EmbeddedServer([Zone("example.org", {})], Regions(REGIONS), ecs=ecs)
    one.table.edit("other.example.org", Actual(FENCE, 20, ()))
    if actual is not None:
        one.table.edit("www.example.org", actual)
    return one


def check(actual: Actual | None, desired: Desired = DESIRED, ecs: bool = True) -> Seen:
    ask = Direct(a=server(actual, ecs))
    with Kernel() as kernel:
        return kernel.run(verify(ask, SERVER, [desired], "inc", probes_for(REGIONS)))["www"]


def edited(*answers: Answer, fence: Fence = FENCE, ttl_s: int = 20) -> Actual:
    return Actual(fence, ttl_s, answers)


def test_what_is_desired_agrees() -> None:
    assert check(Actual(FENCE, 20, DESIRED.answers)) == Seen(SERVER, 7, True)
    assert check(Actual(FENCE, 5, DESIRED.answers)) == Seen(SERVER, 7, True)


def test_probes_ask_for_each_region_that_has_networks_in_each_family() -> None:
    probes = [(p.region, str(p.client.address) if p.client else "") for p in probes_for(REGIONS)]
    assert probes == [("", ""), ("eu", "10.0.0.0"), ("eu", "2001:db8::")]


@pytest.mark.parametrize(
    ("actual", "generation", "reason"),
    [
        (None, 0, "no fence"),
        (edited(fence=Fence("inc", 6, "d-6.1")), 6, "still generation 6"),
        (edited(fence=Fence("inc", 8, "d-8.1")), 8, "ahead: c=inc g=8 op=d-8.1"),
        (edited(fence=Fence("inc", 7, "d-6.1")), 7, "ahead: c=inc g=7 op=d-6.1"),
        (edited(fence=Fence("other", 7, "d-7.1")), 7, "foreign: c=other g=7 op=d-7.1"),
        (edited(fence=Fence("inc", 7, "manual-ana")), 7, "manual: c=inc g=7 op=manual-ana"),
        (edited(), 7, "A for us: no answer"),
        (edited(Answer("rest", "A", "192.0.2.66", "x", 1)), 7, "A for us: answers 192.0.2.66"),
        (edited(Answer("rest", "A", "192.0.2.4", "site-c", 1)), 7, "A for us: answers 192.0.2.4"),
        (edited(*DESIRED.answers, ttl_s=30), 7, "A for us: TTL 30 s, desired 20 s"),
        # Right for us, wrong for clients of another region.
        (
            edited(Answer("eu", "A", "192.0.2.3", "site-b", 1), Answer("rest", "A", "192.0.2.3", "site-b", 1)),
            7,
            "A for eu: answers 192.0.2.3",
        ),
        (
            edited(*DESIRED.answers, Answer("rest", "AAAA", "2001:db8::66", "x", 1)),
            7,
            "AAAA for us: answers 2001:db8::66",
        ),
    ],
)
def test_what_is_not_desired_does_not_agree(actual: Actual | None, generation: int, reason: str) -> None:
    assert check(actual) == Seen(SERVER, generation, False, reason)


def test_a_server_without_client_subnets_may_give_any_regions_answer() -> None:
    assert check(Actual(FENCE, 20, DESIRED.answers), ecs=False) == Seen(SERVER, 7, True)


def test_a_client_subnet_that_comes_back_unread_says_nothing_of_its_region() -> None:
    """BIND 9.18 sends it back with scope 0, whoever asks. Where the server is known to look at it, scope 0 means that
    everybody is told the same."""
    held = server(Actual(FENCE, 20, DESIRED.answers), ecs=False)

    async def ask(_: str, query: dns.message.Message) -> dns.message.Message:
        reply = await Direct(a=held)(SERVER, query)
        reply.use_edns(0, options=[o for o in query.options if isinstance(o, dns.edns.ECSOption)])
        return reply

    bind = config(replace(A, driver="rfc2136", servers=(), options=VIEWS.replace("DNS_KEY", "NO_SUCH_KEY")))
    heeds = config(replace(A, servers=()))
    for each, agrees, missing in ((bind, True, ("eu", "asia", "rest")), (heeds, False, ("asia", "rest"))):
        probes = by_server(each, probes_for(REGIONS))
        with Kernel() as kernel:
            seen = kernel.run(verify(ask, SERVER, [DESIRED], "inc", probes[SERVER]))["www"]
            (reading,) = kernel.run(survey(each, ask, probes=probes))
        assert (seen.agrees, seen.reason) == (agrees, "" if agrees else "A for eu: answers 192.0.2.3")
        assert reading.not_asked == missing


def test_only_who_writes_a_view_is_given_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DNS_KEY", "c2VjcmV0")
    each = config(replace(A, driver="rfc2136", options=VIEWS))
    for site, keyed in (("", ["eu", "asia", "rest"]), ("site-a", ["eu", "asia", "rest"]), ("site-b", [])):
        probes = by_server(each, probes_for(REGIONS), site=site)
        assert [p.region for p in probes[SERVER] if p.key] == keyed
        # A further server of the same zone need not know these keys.
        assert [p.region for p in probes["192.0.2.53:53"]] == ["", "eu", "eu"]


def test_a_view_is_asked_with_the_secret_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = Routes(config(replace(A, driver="rfc2136", options=VIEWS)), "site-a", {}, probes_for(REGIONS))
    secrets = []
    for secret in ("c2VjcmV0", "b3RoZXI="):
        monkeypatch.setenv("DNS_KEY", secret)
        routes.reread_keys()
        secrets += [p.key.secret for p in routes.probes[SERVER] if p.key and p.region == "eu"]
    assert secrets == [b"secret", b"other"]


@pytest.mark.parametrize(("signed", "reason"), [(False, "TSIG key k0: NOERROR, not signed with it"), (True, "")])
def test_a_view_has_to_prove_that_it_was_opened(signed: bool, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DNS_KEY", "c2VjcmV0")
    held = server(Actual(FENCE, 20, tuple(replace(a, region="rest") for a in DESIRED.answers[:1])), ecs=False)
    d = replace(DESIRED, answers=tuple(replace(DESIRED.answers[0], region=region) for region in REGIONS))

    async def ask(_: str, query: dns.message.Message) -> dns.message.Message:
        plain = dns.message.make_query(query.question[0].name, query.question[0].rdtype, id=query.id)
        reply = await Direct(a=held)(SERVER, plain)
        reply.tsig = query.tsig if signed else None
        return reply

    probes = by_server(config(replace(A, driver="rfc2136", options=VIEWS)), probes_for(REGIONS))[SERVER]
    with Kernel() as kernel:
        seen = kernel.run(verify(ask, SERVER, [d], "inc", probes))["www"]
    assert (seen.agrees, seen.reason) == (signed, reason)


def test_addresses_are_compared_as_addresses() -> None:
    desired = replace(DESIRED, answers=(Answer("rest", "AAAA", "2001:DB8:0::1", "a", 100),))
    assert check(Actual(FENCE, 20, desired.answers), desired).agrees


def test_a_server_that_is_not_ready_is_as_good_as_silent() -> None:
    empty = EmbeddedServer([Zone("example.org", {})], Regions(REGIONS))
    with Kernel() as kernel:
        seen = kernel.run(verify(Direct(a=empty), SERVER, [DESIRED], "inc", probes_for(REGIONS)))
    assert seen["www"] == Seen(SERVER, None, False, "SERVFAIL")


def test_a_server_that_is_silent_is_not_asked_about_everything() -> None:
    ask = Direct()
    many = [replace(DESIRED, service=f"s{i}") for i in range(100)]
    with Kernel() as kernel:
        seen = kernel.run(verify(ask, SERVER, many, "inc", probes_for(REGIONS)))
    assert {(s.generation, s.agrees, s.reason) for s in seen.values()} == {(None, False, f"no answer from {SERVER}")}
    assert len(ask.asked) <= 16


def test_an_answer_without_authority_does_not_count() -> None:
    async def cache(server: str, query: dns.message.Message) -> dns.message.Message:
        return dns.message.make_response(query)

    with Kernel() as kernel:
        seen = kernel.run(verify(cache, SERVER, [DESIRED], "inc", probes_for(REGIONS)))
    assert seen["www"] == Seen(SERVER, None, False, "not authoritative")


# ---- which servers, and the survey


def driver(site: str, zones: tuple[str, ...], options: str, *more: str, kind: str = "embedded") -> DnsDriver:
    return DnsDriver(kind, f"{kind}-{site}-{zones[0]}", site, zones, (site,), 1.0, "freeze", more, options)


A = driver("site-a", ("example.org",), f'{{"listen": ["{SERVER}"]}}', "192.0.2.53", "2001:db8::53")
A_LONG = driver("site-a", ("www.example.org",), '{"address": "192.0.2.54"}', kind="rfc2136")
B = driver("site-b", ("example.org",), '{"address": "192.0.2.55", "port": 5353}', kind="rfc2136")


def config(*drivers: DnsDriver) -> Config:
    service = Service({"site-a": ("192.0.2.1",)}, {}, (), Policy(), 60.0, dns=Dns("www.example.org"))
    inner = replace(service, dns=None)
    return Config("acme", 60.0, {}, REGIONS, {"www": service, "inner": inner}, Policy(), dns=drivers)


def test_servers_of_drivers() -> None:
    assert servers_of(A) == (SERVER, "192.0.2.53:53", "[2001:db8::53]:53")
    assert servers_of(B) == ("192.0.2.55:5353",)


def test_at_each_site_the_longest_zone_writes_a_name() -> None:
    everything = config(A, A_LONG, B)
    assert drivers_for(everything, "www.example.org") == (A_LONG, B)
    assert drivers_for(everything, "api.example.org") == (A, B)
    assert drivers_for(everything, "example.net") == ()
    assert authoritative(everything, "www.example.org") == ("192.0.2.54:53", "192.0.2.55:5353")


def test_a_survey_needs_nothing_but_the_configuration() -> None:
    ask = Direct(a=server(Actual(FENCE, 20, DESIRED.answers)))
    with Kernel() as kernel:
        readings = kernel.run(survey(config(A, B), ask))
    first = readings[0]
    assert first == Reading(
        SERVER,
        "www",
        True,
        generation=7,
        incarnation="inc",
        op="d-7.1",
        ttl_s=20,
        answers={"": ("192.0.2.3",), "eu": ("192.0.2.1",)},
        not_asked=("asia", "rest"),
    )
    assert [(r.server, r.reachable) for r in readings[1:]] == [
        ("192.0.2.53:53", False),
        ("[2001:db8::53]:53", False),
        ("192.0.2.55:5353", False),
    ]
    with Kernel() as kernel:
        assert kernel.run(survey(config(A), ask, ["inner"])) == ()


def test_a_survey_says_what_it_cannot_find() -> None:
    with Kernel() as kernel:
        reading = kernel.run(survey(config(A), Direct(a=server(None))))[0]
    assert (reading.reachable, reading.generation, reading.ttl_s, reading.reason) == (True, None, None, "no fence")
    assert reading.answers == {"": (), "eu": ()}
