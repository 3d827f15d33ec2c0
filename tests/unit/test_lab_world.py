"""What the lab plays of a scenario, what it refuses, and what it records of what others saw. No root needed."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trustme
from msgspec.structs import replace

from chaos.history import Answered, AnyRecord, Asked, Committed, Led, Pooled, Rewound, Served
from chaos.reading import read_scenario, shipped
from chaos.scenario import Fault, Resolvers, Scenario
from chaos.worlds.lab import adapt, layout, storewatch
from chaos.worlds.lab.deeds import VERBS
from chaos.worlds.lab.play import LabWorld
from chaos.worlds.lab.recorder import Recorder
from chaos.worlds.lab.site import Site
from chaos.worlds.lab.storewatch import KEYS, Event, StoreWatch
from chaos.worlds.world import Refused
from controlplane.config.reading import read_config
from controlplane.documents import DecisionDoc, LeaderDoc, encode
from policies.world import Carried, Desired, Slice


def _scenario(name: str = "site-dark") -> Scenario:
    found = read_scenario(shipped()[name]).scenario
    assert found is not None
    return found


def _adapted(scenario: Scenario, tmp_path: Path) -> Any:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca"))
    text = adapt.adapted(scenario.config, _scenario().config, tmp_path, tmp_path / "ca", tmp_path / "key")
    read = read_config(text)
    assert read.config is not None, read.problems
    return read.config


# ---- what it plays


def test_it_plays_the_scenarios_that_ship_for_it() -> None:
    mine = [name for name, file in shipped().items() if "config: config/lab.yaml" in file.read_text()]
    assert len(mine) >= 10
    assert [problem for name in mine for problem in LabWorld().check(_scenario(name))] == []


def test_what_is_played_is_the_scenarios_configuration_at_the_labs_addresses(tmp_path: Path) -> None:
    scenario = _scenario()
    config = _adapted(scenario, tmp_path)
    assert config.sites == scenario.config.sites
    assert config.policy == scenario.config.policy
    for name, spec in scenario.config.services.items():
        played = config.services[name]
        assert (played.demand, played.steering, played.policy) == (spec.demand, spec.steering, spec.policy)
        assert played.dns is not None and spec.dns is not None
        assert (played.dns.name, played.dns.ttl_s) == (layout.name(name), spec.dns.ttl_s)
        assert played.endpoints == {site: (layout.web(site, name),) for site in layout.SITES}
        assert [check.probe for check in played.checks] == [check.probe for check in spec.checks]
    assert [driver.writers for driver in config.dns] == [driver.writers for driver in scenario.config.dns]
    assert [json.loads(driver.options)["address"] for driver in config.dns] == [layout.dns(s) for s in layout.SITES]


def test_an_address_that_a_later_configuration_has_wrong_is_wrong_in_the_lab_too(tmp_path: Path) -> None:
    scenario = _scenario()
    shop = scenario.config.services["shop"]
    wrong = replace(shop, endpoints={**shop.endpoints, "site-b": ("198.51.100.99",)})
    config = replace(scenario.config, services={**scenario.config.services, "shop": wrong})
    played = _adapted(replace(scenario, config=config), tmp_path)
    assert played.services["shop"].endpoints["site-b"] == (layout.nobody("site-b"),)
    assert played.services["shop"].endpoints["site-a"] == (layout.web("site-a", "shop"),)


def test_every_region_has_a_client_of_every_service() -> None:
    clients = {client.name: client.source for client in adapt.clients(_scenario().config)}
    assert clients["shop/eu-north"] == layout.SOURCES["eu-north"]
    assert clients["www/rest"] == layout.ELSEWHERE
    assert len(clients) == 4 * 3


# ---- what it refuses


def _problems(**changes: Any) -> str:
    return "\n".join(LabWorld().check(replace(_scenario(), **changes)))


def _config(old: str, new: str) -> dict[str, Any]:
    text = _scenario().config_text.replace(old, new)
    config = read_config(text).config
    assert config is not None
    return {"config": config, "config_text": text}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"verb": "lie", "node": "site-a"}, ":7:3: the lab cannot do lie; it has cut,"),
        ({"verb": "loss", "message": "reply", "rate": 0.5}, ":7:3: the lab cannot single out one kind of message (rep"),
        ({"verb": "slow", "one": "site-a", "other": "*", "by_s": 1.0}, ":7:3: the lab cannot slow the network down"),
        ({"verb": "operator", "argv": ("drain", "site-x", "--reason", "r")}, ":7:3: failoverctl drain: "),
        ({"verb": "operator", "argv": ("dev",)}, ":7:3: no failoverctl command 'dev'"),
    ],
)
def test_a_fault_that_it_cannot_do_is_refused_with_its_place(fault: dict[str, Any], said: str) -> None:
    problems = _problems(faults=(Fault(at_s=1.0, line=7, column=3, **fault),))
    assert problems.startswith(f"{shipped()['site-dark']}{said}")


def test_all_that_does_not_fit_is_said_at_once_with_its_line() -> None:
    text = _scenario().config_text
    line = text.splitlines().index("  search:") + 1
    problems = _problems(**_config("  search:", "  blog:"))
    assert f"configuration, line {line}: blog is not a service of the lab, which has www, shop" in problems
    problems = _problems(**_config("eu-north", "far-away"))
    assert "far-away is not a region of the lab" in problems
    problems = _problems(**_config("site-c", "lyon"))
    assert "lyon is not a site of the lab" in problems
    assert "the lab's site-c is missing" in problems
    assert "the lab's store has the members site-a, site-b, site-c" in problems
    assert "the lab has one name server each at site-a, site-b, site-c" in problems
    problems = _problems(resolvers=Resolvers(stretch=1, stale=1), transfer_s=3.0)
    assert len(problems.splitlines()) == 2


def test_nothing_is_built_for_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    world = LabWorld()
    with pytest.raises(Refused, match="needs root, for network namespaces: run it with sudo"):
        world.play(_scenario(), 1, lambda _: None)
    assert world.directory is None


def test_it_says_which_verbs_it_has() -> None:
    assert LabWorld.verbs == set(VERBS)
    assert {"cut", "power_off", "store_rewind", "operator", "edit_zone"} <= LabWorld.verbs
    assert {"lie", "clock_step", "delay"} & LabWorld.verbs == set()


# ---- what it records


class FakeWatch:
    """Says what it is given."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.began: list[int] = []

    def take(self) -> list[Event]:
        found, self.events = self.events, []
        return found

    def begin(self, rev: int) -> None:
        self.began.append(rev)


class World:
    """A recorder over logs that a test writes. The scenario's zero is 1000 s ago, of the kernel's clock."""

    def __init__(self, tmp_path: Path, now: float) -> None:
        self.clients, self.poller = tmp_path / "clients.log", tmp_path / "poller.log"
        self.watch = FakeWatch()
        self.sites: dict[str, Any] = {}
        lab: Any = SimpleNamespace(clients=SimpleNamespace(log=self.clients), poller=SimpleNamespace(log=self.poller))
        lab.sites = self.sites
        self.said: list[AnyRecord] = []
        self.recorder = Recorder(lab, _scenario(), cast(StoreWatch, self.watch), self.said.append)
        self.recorder.zero = now

    def asked(self, *lines: dict[str, Any]) -> None:
        with self.clients.open("a") as log:
            log.writelines(json.dumps({"took": 0.01, **line}) + "\n" for line in lines)

    def answered(self, *lines: dict[str, Any]) -> None:
        with self.poller.open("a") as log:
            log.writelines(json.dumps(line) + "\n" for line in lines)

    def leads(self, rev: int, node: str, t: float) -> None:
        value = encode(LeaderDoc(node, "run")) if node else None
        self.watch.events.append(Event(t, rev, KEYS.leader, value))

    def decides(self, rev: int, node: str, token: int, t: float) -> None:
        desired = Desired(service="www", generation=rev, shares={}, answers=(), sites={}, token=token)
        slice_ = Slice(
            service="www", votes=b"", vantages=(), reasons={}, overrides={}, freeze="", age_s=0, desired=None
        )
        decision = DecisionDoc(
            f"d-{rev}", "n", "www", "", node, token, 1, slice_, Carried(room={}), desired, (), (), True
        )
        self.watch.events.append(Event(t, rev, KEYS.decision(decision.id), encode(decision)))

    def of(self, kind: type[AnyRecord]) -> list[Any]:
        return [record for record in self.recorder.finish() if isinstance(record, kind)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("time.monotonic", lambda: 1100.0)
    return World(tmp_path, 1000.0)


def _www(t: float, error: str = "", site: str = "site-a") -> dict[str, Any]:
    address = layout.web(site, "www")
    return {"t": t, "client": "www/eu-west", "address": address, "site": "" if error else site, "error": error}


def _served(records: Sequence[Served]) -> list[tuple[float, str, str]]:
    return [(record.at, record.site, record.error) for record in records if record.client == "www/eu-west"]


def test_a_request_that_hung_is_recorded_when_it_began(world: World) -> None:
    """It is known later than those that began after it."""
    world.asked(_www(1001), _www(1003), _www(1002, "timeout"))
    assert _served(world.of(Served)) == [(1, "site-a", ""), (2, "site-a", "timeout"), (3, "site-a", "")]


def test_a_client_is_recorded_when_something_changes_and_counted_always(world: World) -> None:
    world.asked(_www(999), _www(1001), _www(1002), _www(1003, "timeout"), _www(1004, site="site-b"), _www(1100))
    assert _served(world.of(Served)) == [(-1, "site-a", ""), (3, "site-a", "timeout"), (4, "site-b", "")]
    asked = {record.client: (record.requests, record.failed) for record in world.of(Asked)}
    assert asked["www/eu-west"] == (4, 1)
    assert asked["shop/rest"] == (0, 0)


def test_an_answer_is_the_sites_of_its_addresses(world: World) -> None:
    addresses = [layout.web("site-b", "www"), layout.web("site-a", "www")]
    line = {"t": 1001.5, "name": "www.lab.example", "server": "site-c", "region": "rest", "addresses": addresses}
    world.answered(line | {"generation": 4}, line | {"t": 1002, "addresses": [], "reachable": False})
    assert world.of(Answered) == [
        Answered(at=1.5, server="site-c", service="www", region="rest", sites=("site-a", "site-b"), generation=4),
        Answered(at=2.0, server="site-c", service="www", region="rest", sites=(), generation=None, reachable=False),
    ]


def test_a_load_balancer_is_recorded_when_its_weights_change(world: World, tmp_path: Path) -> None:
    said = (
        "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight\n"
        "3 bk_www 1 site-a 198.51.100.10 2 0 10\n3 bk_www 2 site-b 198.51.100.42 2 8 90\n\n"
    )
    site: Any = object.__new__(Site)
    site.haproxy = SimpleNamespace(alive=True, command=lambda _: said)
    world.sites.update({"site-a": site, "site-b": SimpleNamespace(haproxy=SimpleNamespace(alive=False))})
    world.recorder.zero = 1090.0
    world.recorder.pump()
    assert [(r.site, r.service, r.weights) for r in world.of(Pooled)] == [
        ("site-a", "www", {"site-a": 10, "site-b": 0})
    ]


def test_each_commit_has_who_held_the_leader_key_then(world: World) -> None:
    world.leads(5, "site-a", 1001)
    world.decides(6, "site-a", 5, 1002)
    world.leads(7, "", 1003)
    world.decides(8, "site-a", 5, 1003.5)
    world.leads(9, "site-b", 1004)
    world.decides(10, "site-a", 5, 1005)
    found = [(record.at, record.holder, record.holder_token) for record in world.of(Committed)]
    assert found == [(2, "site-a", 5), (3.5, "", 0), (5, "site-b", 9)]
    assert [(record.node, record.leading) for record in world.of(Led)] == [
        ("site-a", True),
        ("site-a", False),
        ("site-b", True),
    ]


def test_a_store_that_was_rewound_has_the_leader_of_then(world: World) -> None:
    world.leads(5, "site-a", 1001)
    world.leads(9, "site-b", 1002)
    world.recorder.rewind(3.0, 1.5, 7)
    assert world.watch.began == [8]
    world.decides(8, "site-a", 5, 1004)
    assert [(record.holder, record.holder_token) for record in world.of(Committed)] == [("site-a", 5)]
    assert [record.to for record in world.of(Rewound)] == [1.5]
    assert world.recorder.leader == "site-a"


def test_members_of_the_store_may_say_the_same_and_one_may_lag() -> None:
    class Said:
        def __init__(self, *revs: int) -> None:
            self.replies = [[Event(1.0, rev, "key", None)] for rev in revs]

        def take(self) -> list[list[Event]]:
            return self.replies

    watch = StoreWatch(cast(Any, None))
    watch._watchers = cast(Any, [Said(3, 4), Said(3), Said(3, 4, 7)])
    assert [event.rev for event in watch.take()] == [3, 4, 7]


def test_a_watch_reads_what_etcdctl_says() -> None:
    def kv(key: str, value: str, rev: int) -> dict[str, Any]:
        return {
            "key": base64.b64encode(key.encode()).decode(),
            "value": base64.b64encode(value.encode()).decode(),
            "mod_revision": rev,
        }

    watcher = storewatch._Watcher(cast(Any, None), cast(Any, SimpleNamespace(name="site-a")), 1)
    line = {"Header": {}, "Events": [{"kv": kv("a", "x", 4)}, {"type": 1, "kv": kv("b", "", 4)}], "CompactRevision": 0}
    watcher._heard(2.0, storewatch.read(json.dumps(line).encode()))
    assert watcher.take() == [[Event(2.0, 4, "a", b"x"), Event(2.0, 4, "b", None)]]
    assert watcher._rev == 5
    watcher._heard(3.0, storewatch.read(b'{"Header":{},"Events":[],"CompactRevision":9,"Canceled":true}'))
    assert watcher._rev == 9
