"""The view: documents that cannot be read, stores that went back, and what is derived for agents and people."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from chaos.worlds.loop import Kernel
from controlplane.documents import Applied, AppliedDoc, GovernorDoc, encode
from controlplane.store import Delete, Txn
from controlplane.view.evidence import doubted_for_s, evidence, running_nodes
from controlplane.view.shares import ahead_shares
from policies.topology import Config
from policies.world import Answer
from probes.target import Health
from tests.unit.view_world import Fixture, desired


@pytest.fixture
def f() -> Iterator[Fixture]:
    with Kernel() as kernel:
        yield Fixture(kernel)


def test_unreadable_documents_keep_the_last_good_copy(f: Fixture) -> None:
    f.start()
    rev = f.put(f.keys.service("www"), encode(desired(1)))
    f.put(f.keys.service("www"), b'{"schema": 99}')
    f.kernel.run_for(1.0)
    assert f.view.desired["www"].generation == 1
    assert f.view.revisions[f.keys.service("www")] == rev, "so that no commit can overwrite what was not read"
    assert f.ask("may_lead") is False
    assert "schema 99" in f.view.mirror.nodes["n1"].unreadable
    f.put(f.keys.service("www"), encode(desired(2)))
    f.kernel.run_for(1.0)
    assert f.ask("may_lead") is True and f.view.mirror.nodes["n1"].unreadable == ""


def test_unknown_fields_are_kept_for_the_rewriter(f: Fixture) -> None:
    f.start()
    key = f.keys.service("www")
    f.put(key, encode(desired(1))[:-1] + b',"novel":[1,2]}')
    f.kernel.run_for(0.1)
    assert f.view.mirror.unknown[key] == {"novel": [1, 2]}


def test_compacted_takes_a_snapshot(f: Fixture) -> None:
    f.start()
    f.line.down = True
    f.kernel.run_for(1.0)
    f.put(f.keys.service("www"), encode(desired(1)))
    f.store.apply(Txn((), (Delete(f.keys.config),)))
    f.store.compact(f.store.rev)
    f.line.down = False
    f.kernel.run_for(2.0)
    assert f.ask("current") is True
    assert f.view.desired["www"].generation == 1 and f.view.config is None


def test_a_rewound_store_is_flagged_until_the_leader_wrote_it_down(f: Fixture) -> None:
    f.start()
    f.put(f.keys.service("www"), encode(desired(1)))
    backup = f.store.snapshot()
    f.put(f.keys.service("www"), encode(desired(2)))
    f.kernel.run_for(5.0)
    assert not f.slice().rewound
    f.store.restore(backup)
    f.kernel.run_for(2.0)
    assert f.ask("current") is True
    s = f.slice()
    assert s.rewound and s.desired == desired(1) and s.age_s <= 2.0
    f.put(f.keys.timers_governor, encode(GovernorDoc(rewound="restored")))
    assert f.slice().rewound
    f.put(f.keys.timers_governor, encode(GovernorDoc()))
    assert not f.slice().rewound, "unfreeze"


def test_a_leader_saw_a_higher_revision(f: Fixture) -> None:
    f.put(f.keys.timers_governor, encode(GovernorDoc(highest_rev=10_000)))
    f.start()
    assert f.slice().rewound


def test_a_fence_ahead_is_taken_from_what_agents_report(f: Fixture) -> None:
    f.start()
    f.put(f.keys.service("www"), encode(desired(4)))
    answers = (Answer("world", "A", "10.0.0.98", "b", 30), Answer("world", "A", "10.0.0.99", "c", 70))

    def report(generation: int) -> None:
        done = Applied(4, "ahead", ahead_generation=generation, ahead_answers=answers)
        f.put(f.keys.applied_by("a", "dns", "a"), encode(AppliedDoc("a", "dns", "a", "r", 1, {"www": done}, {}, {})))

    report(3)
    assert f.slice().ahead is None, "behind, by now"
    report(7)
    s = f.slice()
    assert s.rewound and s.ahead is not None
    assert (s.ahead.generation, s.ahead.shares) == (7, {"world": {"b": 30, "c": 70}})
    assert f.view.claimed_ahead() == ["www"]


def test_ahead_shares_add_up_and_prefer_ipv4() -> None:
    answers = [
        Answer("x", "A", "10.0.0.1", "a", 1),
        Answer("x", "A", "10.0.0.2", "a", 1),
        Answer("x", "A", "10.0.0.3", "b", 1),
        Answer("x", "AAAA", "2001:db8::1", "c", 100),
        Answer("y", "AAAA", "2001:db8::1", "c", 100),
    ]
    assert ahead_shares(answers) == {"x": {"a": 67, "b": 33}, "y": {"c": 100}}


def test_evidence_and_running_nodes(f: Fixture) -> None:
    f.start()
    f.report("b")
    f.kernel.run_for(1.0)
    f.report("b", Health.DOWN)
    f.kernel.run_for(2.0)
    found: list[object] = []

    def look() -> None:
        found.extend([evidence(f.view, "www"), doubted_for_s(f.view, "www", "a"), running_nodes(f.view)])

    f.node.call_soon(look)
    f.kernel.run_for(0.0)
    seen, doubt, nodes = found
    assert isinstance(seen, list) and isinstance(nodes, list)
    assert [(e.vantage, e.site, e.health, e.fresh, e.own) for e in seen] == [
        ("b", site, Health.DOWN, True, site == "b") for site in ("a", "b", "c")
    ]
    assert doubt == 2.0 and seen[0].since_s == 2.0 and 2.0 <= seen[0].age_s <= 2.5
    assert [node.node for node in nodes] == ["n1"]


def test_a_config_without_the_service_forgets_it(f: Fixture) -> None:
    f.start()
    bare: Config = replace(f.config, services={}, revision=2)
    f.put(f.keys.config, encode(bare))
    f.kernel.run_for(0.1)
    assert not f.view.frames
    with pytest.raises(KeyError):
        f.view.slice("www")
