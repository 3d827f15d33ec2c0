"""The status document and its alarms, from pictures made by hand."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec.structs import replace

from controlplane.api.changes import differences
from controlplane.api.picture import Failover, Loss, Memory, Picture, ServicePicture, failovers
from controlplane.api.propagation import Arrival, Word
from controlplane.api.status import status_document
from controlplane.cli.configuration import shown
from controlplane.cli.output import make_console
from controlplane.cli.screens import status as screen
from controlplane.documents import AppliedDoc, Seen
from controlplane.journal import Incident
from controlplane.view.evidence import Evidence
from policies.frame import frames
from policies.stage import stage
from policies.timing import worst_cases
from policies.topology import Check, Config, DnsDriver
from probes.target import Health
from tests.unit.policy_world import World, one_service, with_failback

CONVERGED = Arrival("converged", (), 0.0, ())
LEFT = Failover("www", ("a",), 8.1, 32.4, 5.1, 0.0, 0.2, 1, 2, 3, 17.0)


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
        config_age_s=60.0,
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
    on_the_way = photograph(world, Arrival("propagating", (), 17.0, ("old TTL 17s left",)), failovers=(LEFT,))
    doc = document(on_the_way)
    assert doc["summary"]["state"] == "failing over" and doc["services"]["www"]["notes"] == ["old TTL 17s left"]
    text = drawn(doc)
    assert "✖ FAILING OVER  www left a; 8.1s of at most 32.4s" in text
    assert "  detect 5.1 ✔  decide 0.0 ✔  apply …  verify 1/3  old TTL 17s left" in text
    verified = replace(LEFT, servers_agree=2, decide_s=None, old_ttl_left_s=0.0)
    assert "  detect 5.1 ✔  apply 0.2 ✔  verify 2/3 ✔\n" in drawn(document(photograph(world, failovers=(verified,))))
    doc = document(photograph(world))
    assert doc["summary"]["state"] == "degraded" and "a failed" in doc["summary"]["facts"]
    assert doc["services"]["www"]["verdicts"]["a"] == "down"
    assert {a["subject"] for a in doc["alarms"] if a["name"] == "vantage_silent"} == {"a"}


def test_a_failover_goes_on_until_it_arrived_or_its_bound_is_over() -> None:
    world = served()
    world.dark("a")
    world.decide()
    on_the_way = Arrival("propagating", (Seen("ns1", 2, True), Seen("ns2", None, False)), 3.0, ("old TTL 3s left",))
    incident = Incident("inc-2", "www", ("a",), "d-2", 2, "at", (), detect_s=5.0, decide_s=0.01, apply_s=0.2)

    def going(arrival: Arrival, age_s: float) -> list[Failover]:
        picture = photograph(world, arrival)
        return list(failovers(picture.services, picture.bounds, {"www": (incident, age_s)}))

    (found,) = going(on_the_way, 1.0)
    assert (found.since_s, found.servers_agree, found.servers_reachable, found.servers) == (6.0, 1, 1, 2)
    assert going(CONVERGED, 1.0) == [] == going(on_the_way, 60.0), "a server that comes back later is no failover"
    world.heal("a")
    assert document(photograph(world, on_the_way))["summary"]["state"] == "degraded"


def test_frozen_on_a_failed_site() -> None:
    world = served()
    world.freeze()
    world.decide()
    world.dark("a")
    world.decide()
    picture = photograph(world)
    doc = document(picture)
    assert doc["summary"]["state"] == "frozen" and doc["summary"]["facts"][0] == "www would leave a"
    assert "✖ FROZEN  www would leave a" in drawn(doc)
    alarm = next(a for a in doc["alarms"] if a["name"] == "frozen_on_failed")
    assert alarm["subject"] == "www@a" and "failoverctl unfreeze" in alarm["remedy"]
    assert "would leave a, but is frozen" in doc["services"]["www"]["notes"]


def notes_of(world: World, **more: Any) -> list[str]:
    picture = photograph(world)
    www = replace(picture.services["www"], **more)
    found: list[str] = document(replace(picture, services={"www": www}))["services"]["www"]["notes"]
    return found


def test_notes_say_how_long_a_site_still_waits() -> None:
    world = World(one_service(policy=with_failback(mode="manual", soak_s=30.0, step_s=20.0)))
    world.decide()
    world.dark("a")
    world.run(5)
    world.heal("a")
    world.run(10)
    assert notes_of(world) == ["a soak, 20s left"]
    world.run(25)
    assert notes_of(world) == ["a waits for failback"]
    world.override("in", "a")
    world.decide()
    assert notes_of(world)[-1] == "a ramp 10%, next step in 20s"
    www = photograph(world).services["www"].desired
    assert www is not None
    held = replace(www, refused="hold", hold_left_s=60.0)
    assert notes_of(world, desired=held, age_s=20.0)[0] == "next move waits 40s (hold)"
    assert not [n for n in notes_of(world, desired=held, age_s=61.0) if "hold" in n], "it is over"


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


def test_a_spare_of_nothing_is_an_alarm_in_words_that_make_sense() -> None:
    lost = Loss(1, (), 600.0, 600.0)
    alarm = next(a for a in document(photograph(served(), loss=lost))["alarms"] if a["name"] == "n_plus")
    assert alarm["remedy"].startswith("no site is left to lose; 600 of 600 (100%) has no room")


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


def driver(site: str, *deputies: str) -> DnsDriver:
    listen = {"a": "127.0.4.1:53", "b": "127.0.5.1:53"}[site]
    address, port = listen.split(":")
    kind, options = (
        ("rfc2136", {"address": address, "port": int(port)}) if deputies else ("embedded", {"listen": [listen]})
    )
    return DnsDriver(kind, f"dns-{site}", site, ("org",), (site, *deputies), 2.0, "freeze", (), json.dumps(options))


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


def test_differences_name_checks_and_decode_options() -> None:
    config = one_service()
    www = config.services["www"]
    check = www.checks[0]
    more = Check("tcp", "tcp:9", '{"port":9}', check.probe)
    longer = replace(config, services={"www": replace(www, checks=(more, *www.checks))})
    assert changed(config, longer) == {
        "services.www.checks.tcp:9": (None, {**msgspec.to_builtins(more), "options": {"port": 9}})
    }
    other = replace(longer, services={"www": replace(www, checks=(replace(more, options='{"port":10}'), *www.checks))})
    assert changed(longer, other) == {"services.www.checks.tcp:9.options.port": (9, 10)}
    before, after = (replace(config, dns=(replace(driver("a"), options=o),)) for o in ('{"ecs":true}', '{"ecs":false}'))
    assert changed(before, after) == {"dns.dns-a.options.ecs": (True, False)}


def test_a_long_list_shows_what_came_and_what_went() -> None:
    zones = [f"zone-{n}.example.org" for n in range(40)]
    text = shown(zones, [*zones[1:], "new.example.org"]).plain
    assert text == "- zone-0.example.org + new.example.org"
    assert shown([10, 50, 100], [10, 100]).plain == "[10, 50, 100] -> [10, 100]"
    before, after = shown("x" * 200 + "old", "x" * 200 + "new").plain.split(" -> ")
    assert before != after and len(before) <= 100
    assert shown(None, 5).plain == "+ 5" and shown(5, None).plain == "- 5"
