"""The view: documents that cannot be read, stores that went back, and what is derived for agents and people."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from chaos.worlds.loop import Kernel
from controlplane.dns.notation import odd
from controlplane.documents import SCHEMA, AdoptedDoc, Applied, AppliedDoc, GovernorDoc, LeaderDoc, decode, encode
from controlplane.fence import encode_with
from controlplane.store import Delete, Txn
from controlplane.view.evidence import doubted_for_s, evidence, running_nodes
from controlplane.view.shares import ahead_shares
from policies.decide import decide_service
from policies.topology import Config
from policies.world import Answer, Carried, Desired
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
        f.put(f.keys.applied_by("a", "a", "dns"), encode(AppliedDoc("a", "dns", "a", "r", 1, {"www": done}, {}, {})))

    report(3)
    assert f.slice().ahead is None, "behind, by now"
    report(7)
    assert f.slice().rewound and f.slice().ahead is None, "another may know better"
    f.kernel.run_for(1.5)
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
    assert ahead_shares(answers, {}) == {"x": {"a": 67, "b": 33}, "y": {"c": 100}}


def test_addresses_that_were_read_from_a_name_server_are_those_of_sites() -> None:
    """The DNS does not say which site an address is at, and reads what it cannot make out as rows of weight 0."""
    home = {"10.0.0.1": "a", "10.0.0.2": "b", "2001:db8::1": "c"}
    knot = (Answer("", "A", "10.0.0.1", "", 1), Answer("", "A", "10.0.0.2", "", 1), Answer("", "A", "10.9.9.9", "", 1))
    assert ahead_shares(knot, home) == {"": {"a": 50, "b": 50}}, "of an address that nobody knows there is no site"
    views = (Answer("eu", "A", "10.0.0.2", "", 1), Answer("rest", "A", "10.0.0.1", "", 1), odd("TXT", "disagree"))
    assert ahead_shares(views, home) == {"eu": {"b": 100}, "rest": {"a": 100}}
    lua = (Answer("eu", "A", "10.0.0.1", "", 30), Answer("eu", "A", "10.0.0.2", "", 70), odd("A", "pickrandom(x)"))
    assert ahead_shares(lua, home) == {"eu": {"a": 30, "b": 70}}
    assert ahead_shares((odd("A", "ifurlup(x)"), odd("LUA", "y"), Answer("", "A", "10.9.9.9", "", 1)), home) == {}
    family = (Answer("", "A", "10.9.9.9", "", 1), Answer("", "AAAA", "2001:db8::1", "", 1))
    assert ahead_shares(family, home) == {"": {"c": 100}}, "the family of which something is known"


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


def test_every_document_says_its_schema_also_one_that_leaves_defaults_out() -> None:
    plain = Desired("www", 1, {}, (), {})
    value = encode(plain)
    assert json.loads(value)["schema"] == SCHEMA and decode(Desired, value) == plain
    future = replace(plain, schema=SCHEMA + 1)
    assert json.loads(encode(future))["schema"] == SCHEMA + 1
    assert json.loads(encode(LeaderDoc("n1", "r")))["schema"] == SCHEMA


def test_a_large_document_is_carried_along_as_a_small_one(f: Fixture) -> None:
    f.start()
    key, large = f.keys.service("www"), replace(desired(3), overrides=tuple(f"ov-{n}" for n in range(40_000)))
    assert len(encode(large)) < len(encode_with(large, {"novel": 1})), "what is large is stored as a zlib stream"
    f.put(key, encode(large))
    f.kernel.run_for(0.1)
    assert f.view.desired["www"] == large and not f.view.mirror.unknown
    f.put(key, encode_with(large, {"novel": 1}))
    f.kernel.run_for(0.1)
    assert f.view.desired["www"] == large and f.view.mirror.unknown[key] == {"novel": 1}
    assert not f.view.mirror.unreadable


def ahead(answers: tuple[Answer, ...], generation: int = 7) -> Applied:
    return Applied(4, "ahead", ahead_generation=generation, ahead_answers=answers)


def report(f: Fixture, site: str, driver: str, done: Applied, shard: int = 0, n: int = 1, run: str = "r") -> None:
    doc = AppliedDoc(site, driver, site, run, n, {f"s{shard}": Applied(1, "ok"), "www": done}, {}, {}, shard=shard)
    f.put(f.keys.applied_by(site, site, driver, shard), encode(doc))
    f.kernel.run_for(1.5)


def test_what_is_served_where_regions_cannot_be_told_apart(f: Fixture) -> None:
    f.start()
    f.put(f.keys.service("www"), encode(desired(4)))
    pool = (
        Answer("", "SERVER", "a1", "a", 30),
        Answer("", "SERVER", "b1", "b", 90),
        Answer("", "SERVER", "c1", "c", 0),
    )
    report(f, "a", "lb", ahead(pool))
    taken = f.slice().ahead
    assert taken is not None and taken.shares == {"world": {"a": 25, "b": 75}}
    report(f, "a", "plain", ahead((Answer("", "A", "10.0.0.98", "b", 100),)))
    taken = f.slice().ahead
    assert taken is not None and taken.shares == {"world": {"b": 100}}, "a name server knows better than a pool"
    report(f, "b", "geo", ahead((Answer("world", "A", "10.0.0.99", "c", 100),)))
    taken = f.slice().ahead
    assert taken is not None and (taken.generation, taken.shares) == (7, {"world": {"c": 100}})
    report(f, "a", "lb", ahead(pool, generation=9))
    taken = f.slice().ahead
    assert taken is not None and (taken.generation, taken.shares) == (9, {"world": {"a": 25, "b": 75}})
    for site, driver in (("a", "lb"), ("a", "plain"), ("b", "geo")):
        report(f, site, driver, Applied(9, "ok"))
    assert f.slice().ahead is None and f.view.claimed_ahead() == []


def test_what_a_name_server_serves_is_told_by_configuration_and_desired(f: Fixture) -> None:
    f.start()
    f.put(f.keys.service("www"), encode(desired(4)))  # 10.0.0.97 is served for a, and configured no more
    mine = next(iter(f.config.services["www"].endpoints["b"]))
    report(f, "a", "knot", ahead((Answer("", "A", mine, "", 1), Answer("", "A", "10.0.0.97", "", 1))))
    taken = f.slice().ahead
    assert taken is not None and taken.shares == {"world": {"a": 50, "b": 50}}
    report(f, "a", "knot", ahead((Answer("", "A", "10.9.9.9", "", 1), odd("A", "pickrandom(x)"))))
    taken = f.slice().ahead
    assert taken is not None and (taken.generation, taken.shares) == (7, {})


def test_above_a_generation_of_which_nothing_can_be_made_out_all_stays_as_this_store_has_it(f: Fixture) -> None:
    f.start()
    f.put(f.keys.service("www"), encode(desired(4)))
    report(f, "a", "pdns", ahead((odd("A", "ifurlup(x)"),)))
    for site in f.config.sites:
        f.report(site)
    f.kernel.run_for(0.5)
    step = decide_service(f.view.frames["www"], f.slice(), Carried({}))
    assert step.desired is not None
    assert (step.desired.generation, step.desired.shares) == (8, {"world": {"a": 100}})
    assert [event.reason for event in step.events if event.rule == "rewound"] == [
        "took over generation 7 as it is served (by which sites cannot be told: what this store has goes on)"
    ]


def test_shards_of_a_writer_are_one_word(f: Fixture) -> None:
    f.start()
    fine = Applied(4, "ok")
    report(f, "a", "dns", fine, shard=0, n=1)
    report(f, "a", "dns", replace(fine, generation=5), shard=1, n=2)
    (word,) = f.view.words.all()
    assert (word.document.site, word.document.driver, word.document.writer) == ("a", "dns", "a")
    assert set(word.document.services) == {"s0", "s1", "www"}
    assert word.document.services["www"].generation == 5, "the newer of two, while services move between shards"
    report(f, "a", "dns", replace(fine, generation=6), shard=0, n=1, run="another")
    (word,) = f.view.words.all()
    assert set(word.document.services) == {"s0", "www"}, "what a former process said counts no more"
    assert word.document.services["www"].generation == 6
    f.put(f.keys.applied_by("a", "a", "other"), encode(AppliedDoc("a", "other", "a", "r", 1, {}, {}, {})))
    f.kernel.run_for(0.01)
    assert [w.document.driver for w in f.view.words.all()] == ["dns", "other"]


def test_adopted_incarnations_are_news(f: Fixture) -> None:
    f.start()
    assert (f.view.adopted, f.view.adoption) == ((), 0)
    before = f.view.news.count
    rev = f.put(f.keys.adopted, encode(AdoptedDoc(("x", "y"))))
    f.kernel.run_for(0.01)
    assert (f.view.adopted, f.view.adoption) == (("x", "y"), rev) and f.view.news.count > before
