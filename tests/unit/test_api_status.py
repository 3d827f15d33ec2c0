"""The status document and its alarms, from pictures made by hand."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from controlplane.api.changes import differences
from controlplane.api.picture import Memory, Picture, ServicePicture
from controlplane.api.propagation import Arrival, Word
from controlplane.api.status import status_document
from controlplane.cli.output import make_console
from controlplane.cli.screens import status as screen
from controlplane.documents import AppliedDoc
from controlplane.view.evidence import Evidence
from policies.frame import frames
from policies.stage import stage
from policies.timing import worst_cases
from policies.topology import Config
from probes.target import Health
from tests.unit.policy_world import World, one_service

CONVERGED = Arrival("converged", (), 0.0, ())


def photograph(world: World, arrival: Arrival = CONVERGED, **more: Any) -> Picture:
    """What a node would see of this world."""
    config = world.config
    there = frames(config)
    services = {}
    for name, frame in there.items():
        slice_ = world.slice(frame)
        services[name] = ServicePicture(
            name, stage(frame, slice_), slice_.desired, arrival if slice_.desired else None, slice_.freeze, ()
        )
    picture = Picture(
        cluster="test",
        source={"node": "w", "site": "w", "age_s": 0.2, "current": True},
        config=config,
        frames=there,
        services=services,
        bounds=worst_cases(config),
        loss=Memory().loss(config, there, services),
        overrides=tuple(o for o, _ in world.overrides.values()),
        left_s={id_: left for id_, (_, left) in world.overrides.items()},
        nodes={"w": {"site": "w", "fresh": True, "unreadable": ""}},
        vantages={site: "silent" if site in world.silent else "ok" for site in config.sites},
        words=(),
        leader="w",
        token=7,
        rewound="",
        clock_suspect=False,
        unreadable={},
    )
    return replace(picture, **more)


def document(picture: Picture) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(status_document(picture))
    return found


def served() -> World:
    world = World(one_service())
    world.decide()
    return world


def names(picture: Picture) -> set[str]:
    return {alarm["name"] for alarm in document(picture)["alarms"]}


def test_all_is_well() -> None:
    doc = document(photograph(served()))
    assert doc["summary"] == {"state": "ok", "facts": ["1/1 services converged"]}
    assert doc["alarms"] == []
    assert doc["sites"]["a"]["load"] == 600 and doc["sites"]["a"]["usable"] == 900
    assert doc["sites"]["w"]["load"] is None and doc["sites"]["w"]["observed"] is None
    assert doc["n_plus"] == {"n": 1, "lost": ("a",), "drop": 0.0, "total": 600.0}
    assert doc["services"]["www"]["worst_case_s"] > 0


def test_before_anything_is_decided_nothing_is_claimed() -> None:
    www = document(photograph(World(one_service())))["services"]["www"]
    assert www["state"] == "propagating" and www["notes"] == ["not decided yet"]
    assert www["generation"] is None and www["shortfall"] is None and www["old_ttl_left_s"] is None


def test_without_a_configuration() -> None:
    picture = photograph(served(), config=None, services={}, frames={}, bounds={}, loss=None)
    doc = document(picture)
    assert doc["config_rev"] is None and doc["sites"] == {} and doc["summary"]["state"] == "unknown"
    assert names(picture) == {"no_configuration"}


def test_failing_over_until_it_has_arrived() -> None:
    world = served()
    world.dark("a")
    assert document(photograph(world))["summary"]["state"] == "failing over"
    world.decide()
    on_the_way = photograph(world, Arrival("propagating", (), 17.0, ("old TTL 17s left",)))
    doc = document(on_the_way)
    assert doc["summary"]["state"] == "failing over" and doc["services"]["www"]["notes"] == ["old TTL 17s left"]
    doc = document(photograph(world))
    assert doc["summary"]["state"] == "degraded" and "a failed" in doc["summary"]["facts"]
    assert doc["services"]["www"]["verdicts"]["a"] == "down"
    assert {a["subject"] for a in doc["alarms"] if a["name"] == "vantage_silent"} == {"a"}


def test_a_drain_is_a_note_and_both_states_are_shown() -> None:
    world = served()
    world.drain("a", for_s=6720)
    world.decide()
    doc = document(photograph(world))
    assert doc["sites"]["a"]["notes"] == ["◆ drain, 1h52m left"] and doc["sites"]["a"]["observed"] == "up"
    assert doc["services"]["www"]["standing"]["a"]["rule"] == "out"
    assert doc["services"]["www"]["overrides"] == ["ov-1"] == doc["services"]["www"]["in_force"]
    assert "1 drain" in doc["summary"]["facts"]


def test_a_lost_spare_is_an_alarm() -> None:
    world = World(one_service({"a": 1000.0, "b": 1000.0}))
    world.decide()
    world.dark("b")
    world.decide()
    alarm = next(a for a in document(photograph(world))["alarms"] if a["name"] == "n_plus")
    assert "losing a too would drop 600 of 600 (100%)" in alarm["remedy"]


def test_the_alarms_of_the_cluster() -> None:
    picture = photograph(
        served(),
        leader=None,
        source={"node": "w", "site": "w", "age_s": 7.0, "current": False},
        rewound="the store went back",
        clock_suspect=True,
        vantages={"a": "ok", "b": "blind", "c": "ok"},
        nodes={"old": {"site": "a", "fresh": True, "unreadable": "config/current: schema 9"}},
        words=(Word(AppliedDoc("a", "dns-a", "a", "r", 1, {}, {}, {}, unwritable="NOTAUTH"), 4.0, True),),
    )
    expected = "no_leader view_stale rewound clock_suspect unreadable vantage_blind vantage_silent unwritable"
    assert names(picture) == set(expected.split())
    assert all(a["remedy"] for a in document(picture)["alarms"])


def test_last_resort_and_shortfall() -> None:
    world = World(one_service({"a": 500.0, "b": 500.0}, 950.0))
    world.decide()
    world.drain("a", "b")
    world.decide()
    assert {"last_resort", "shortfall"} <= names(photograph(world))


def test_a_hard_out_that_never_empty_outranks() -> None:
    world = served()
    world.override("out", "a", "b", "c", hard=True)
    world.decide()
    assert "hard_out_ignored" in names(photograph(world))


def test_diverged_is_an_alarm() -> None:
    picture = photograph(served(), Arrival("diverged", (), 0.0, ("ns1: answers 192.0.2.99",)))
    alarm = next(a for a in document(picture)["alarms"] if a["name"] == "diverged")
    assert alarm["subject"] == "www" and "192.0.2.99" in alarm["remedy"]


def test_a_carrying_site_that_is_held_while_it_is_dead() -> None:
    world = served()
    world.silent.update({"b", "c"})
    world.lies[("w", "a")] = "down"
    world.lies[("a", "a")] = "up"
    world.decide()
    picture = photograph(world)
    www = picture.services["www"]
    assert document(picture)["services"]["www"]["verdicts"]["a"] == "held"
    for since_s, raised in ((59.0, False), (61.0, True)):
        said = Evidence(
            "w", "www@a/http:80/x", "a", Health.DOWN, "timeout", False, True, False, False, "", 0.5, since_s
        )
        seen = replace(picture, services={"www": replace(www, evidence=(said,))})
        assert ("held_while_down" in names(seen)) == raised


def test_warnings_of_probes_are_told_once_for_each_target() -> None:
    picture = photograph(served())
    www = picture.services["www"]
    said = [
        Evidence(v, "www@a/tls:443/x", "a", Health.UP, "", True, True, False, False, "6 days left", 0.5, None)
        for v in ("b", "c")
    ]
    seen = replace(picture, services={"www": replace(www, evidence=tuple(said))})
    assert [a["remedy"] for a in document(seen)["alarms"]] == ["6 days left"]


def drawn(doc: dict[str, Any], only: str = "") -> str:
    console = make_console(stderr=False)
    with console.capture() as capture:
        for part in screen(doc, True, only):
            console.print(part)
    return capture.get()


def test_the_screen_says_how_old_it_is() -> None:
    doc = document(photograph(served()))
    assert "0.2s old" in drawn(doc) and "STALE" not in drawn(doc)
    doc["source"]["age_s"] = 4.0
    assert "STALE" in drawn(doc) and "● up" in drawn(doc)
    doc["source"]["age_s"] = 11.0
    assert "? what follows is old" in drawn(doc) and "● up" not in drawn(doc) and "converged " not in drawn(doc)
    doc["source"]["age_s"] = None
    assert "? old" in drawn(doc) and "STALE" in drawn(doc) and "● up" not in drawn(doc)


def changed(before: Config | None, after: Config) -> dict[str, tuple[Any, Any]]:
    return {d["path"]: (d["before"], d["after"]) for d in differences(before, after)}


def test_differences() -> None:
    config = one_service()
    assert changed(config, replace(config, revision=5)) == {}
    assert changed(config, replace(config, target_s=30.0)) == {"target_s": (60, 30.0)}
    bigger = replace(config, sites=config.sites | {"a": replace(config.sites["a"], capacity=5.0)})
    assert changed(config, bigger) == {"sites.a.capacity": (1000.0, 5.0)}
    removed = changed(config, replace(config, services={}))
    assert list(removed) == ["services.www"] and removed["services.www"][1] is None
    assert "cluster" in changed(None, config)
