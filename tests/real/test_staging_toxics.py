"""What a client of a real toxiproxy meets under each verb, and that healing leaves nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.scenario import Fault
from chaos.worlds.servers.process import free_port
from chaos.worlds.servers.toxiproxy import ToxiproxyServer, Upstream
from chaos.worlds.staging.clients import Client
from chaos.worlds.staging.faults import deeds, heal, make, mine, places_of
from chaos.worlds.staging.file import Measured, Place, Staging
from chaos.worlds.staging.toxiproxy import Toxic, Toxiproxy, ToxiproxyError
from tests.real.failoverd_world import Web

HOST = "127.0.0.1"


class Fronted:
    """A web service behind a proxy."""

    def __init__(self, directory: Path) -> None:
        port, app = free_port(), free_port()
        self.web = Web(HOST, app)
        self.server = ToxiproxyServer(directory, "toxiproxy", {"www-a": Upstream(f"{HOST}:{port}", f"{HOST}:{app}")})
        self.server.start()
        spec = Measured(service="www", resolver=f"{HOST}:1", url=f"http://{HOST}:{port}/", patience_s=1.0)
        self.client = Client("www/world", spec, {HOST: "site-a"}, None)
        place = Place(self.server.url, {"www": ("www-a",)})
        self.staging = Staging(cluster="real", api=("http://127.0.0.1:1",), sites={"site-a": place}, clients=(spec,))
        self.toxiproxy = Toxiproxy(self.server.url)

    def meets(self) -> str:
        """What a client meets now: "" = all is well."""
        asyncio.run(self.client.request())
        return self.client.error

    def make(self, fault: Fault, index: int = 0) -> None:
        make(deeds(fault, index, self.staging))

    def heal(self, index: int) -> None:
        healing = heal(places_of(self.staging), mine(index))
        assert healing.left == ()

    def well(self) -> bool:
        proxy = self.toxiproxy.proxies()["www-a"]
        return proxy.enabled and not proxy.toxics

    def close(self) -> None:
        self.server.kill()
        self.web.close()


@pytest.fixture(scope="module")
def fronted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    found = Fronted(tmp_path_factory.mktemp("toxics"))
    try:
        yield found
    finally:
        found.close()


CUT = Fault(verb="cut", at_s=0, one="site-a", other="*")
REFUSE = Fault(verb="stop", at_s=0, service="www", site="site-a", how="refuse")


@pytest.mark.parametrize(
    ("fault", "meets"),
    [
        (CUT, "time-out"),
        (Fault(verb="cut", at_s=0, one="*", other="site-a"), "time-out"),
        (Fault(verb="loss", at_s=0, one="site-a", other="*", rate=1.0), "time-out"),
        (Fault(verb="slow", at_s=0, one="site-a", other="*", by_s=5.0), "time-out"),
        (Fault(verb="reset", at_s=0, service="www", site="site-a"), "ConnectionResetError"),
        (Fault(verb="stop", at_s=0, service="www", site="site-a", how="hang"), "time-out"),
        (REFUSE, "ConnectionRefusedError"),
    ],
    ids=lambda value: value.verb + value.how + value.one if isinstance(value, Fault) else "",
)
def test_a_client_meets_what_the_verb_says_and_nothing_of_it_stays(fronted: Fronted, fault: Fault, meets: str) -> None:
    assert fronted.meets() == "" and fronted.client.site == "site-a"
    fronted.make(fault)
    fronted.make(fault)  # what is there already stays as it is
    assert fronted.meets() == meets
    fronted.heal(0)
    assert fronted.meets() == "" and fronted.well()


def test_slow_and_bandwidth_delay_an_answer_that_still_comes(fronted: Fronted) -> None:
    for index, fault in enumerate(
        (
            Fault(verb="slow", at_s=0, service="www", site="site-a", by_s=0.4),
            Fault(verb="bandwidth", at_s=0, service="www", site="site-a", rate=0.2),  # 1 KB/s is the least
        )
    ):
        fronted.make(fault, index)
        began = time.monotonic()
        assert fronted.meets() == ""
        assert time.monotonic() - began >= (0.4 if index == 0 else 0.05)
        fronted.heal(index)
    assert fronted.well()


def test_a_proxy_that_two_faults_have_disabled_is_enabled_by_the_last(fronted: Fronted) -> None:
    fronted.make(REFUSE, 1)
    fronted.make(CUT, 2)
    fronted.make(REFUSE, 10)
    fronted.heal(1)
    fronted.heal(2)
    assert fronted.meets() == "ConnectionRefusedError"
    fronted.heal(10)
    assert fronted.meets() == "" and fronted.well()


def test_healing_leaves_what_others_did_and_says_what_is_disabled(fronted: Fronted) -> None:
    url = fronted.server.url
    fronted.toxiproxy.add("www-a", Toxic("somebody", "latency", attributes={"latency": 1, "jitter": 0}))
    fronted.toxiproxy.enable("www-a", False)
    try:
        fronted.make(CUT, 3)
        healing = heal(places_of(fronted.staging))
        assert healing.healed == (f"www-a at {url}",)
        remedy = f"""curl -X POST {url}/proxies/www-a -d '{{"enabled": true}}'"""
        assert healing.left == (f"www-a at {url} is disabled, and no drill did it: {remedy}",)
        assert [toxic.name for toxic in fronted.toxiproxy.proxies()["www-a"].toxics] == ["somebody"]
    finally:
        fronted.toxiproxy.enable("www-a", True)
        fronted.toxiproxy.remove("www-a", "somebody")
    assert heal(places_of(fronted.staging)).healed == ()


def test_errors_name_the_server_and_what_is_wrong(fronted: Fronted) -> None:
    url = fronted.server.url
    with pytest.raises(ToxiproxyError, match=f"toxiproxy {url} knows nothing of /proxies/none/toxics"):
        fronted.toxiproxy.add("none", Toxic("drill-0", "latency"))
    with pytest.raises(ToxiproxyError, match=f"toxiproxy {url} knows nothing of /proxies/none"):
        fronted.toxiproxy.enable("none", False)
    with pytest.raises(ToxiproxyError, match=f"toxiproxy {url} refuses post /proxies/www-a/toxics: .*toxic type"):
        fronted.toxiproxy.add("www-a", Toxic("drill-0", "nothing-like-it"))
    with pytest.raises(ToxiproxyError, match="does not answer: connection refused"):
        Toxiproxy("http://127.0.0.1:1").proxies()
    fronted.toxiproxy.remove("www-a", "never-there")
    assert fronted.toxiproxy.version() == "git"
