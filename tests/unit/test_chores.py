"""What a leader does beside deciding: it ends overrides, keeps their timers, and sweeps what fell silent."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from chaos.worlds.loop import Kernel
from controlplane import chores
from controlplane.chores import Chores, silent_keys
from controlplane.documents import AppliedDoc, NodeDoc, OverridesRev, OverrideTimers, decode, encode
from controlplane.store import KV, Compare, Put, Txn
from tests.unit.test_journal import decision
from tests.unit.view_world import Fixture, override


class Case(Fixture):
    """A view with a leader's chores; `do` runs them once, as the leader with the token that stands in the store."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__(kernel)
        self.token = self.put(self.keys.leader, b'{"node":"n1","run":"x"}')
        nonces = iter(range(1000))
        self.chores = Chores(self.line, self.view, lambda: f"nonce-{next(nonces)}")
        self.start()

    def do(self) -> float:
        self.kernel.run_for(0.01)
        leading = (Compare(self.keys.leader, mod_rev=self.token),)
        due_s = self.kernel.run_until_complete(self.node.create_task(self.chores.run(leading)))
        self.kernel.run_for(0.01)
        return due_s

    def entry(self, key: str) -> KV | None:
        return self.kernel.run(self.store.get(key))

    def timers(self) -> dict[str, float]:
        found = self.entry(self.keys.timers_overrides)
        return decode(OverrideTimers, found.value).left_s if found else {}


@pytest.fixture
def c() -> Iterator[Case]:
    with Kernel() as kernel:
        yield Case(kernel)


def test_timers_are_written_at_once_and_then_each_minute(c: Case) -> None:
    assert c.do() > 1.0 and c.entry(c.keys.timers_overrides) is None, "nothing to time"
    c.put(c.keys.overrides_rev, encode(OverridesRev(3, "x")))
    c.put(c.keys.override("ov-1"), encode(override("ov-1", for_s=3600.0)))
    c.put(c.keys.override("ov-2"), encode(override("ov-2")))
    c.do()
    assert c.timers() == {"ov-1": pytest.approx(3600.0, abs=0.1)}, "one without an end has no timer"
    c.kernel.run_for(30.0)
    c.do()
    assert c.timers()["ov-1"] > 3599.0
    c.kernel.run_for(30.0)
    c.do()
    assert c.do() == pytest.approx(60.0, abs=1.0)
    assert c.timers()["ov-1"] == pytest.approx(3540.0, abs=0.2)


def test_what_is_over_is_deleted_under_the_revision(c: Case) -> None:
    c.put(c.keys.overrides_rev, encode(OverridesRev(3, "x"))[:-1] + b',"novel":1}')
    c.put(c.keys.override("ov-1"), encode(override("ov-1", for_s=10.0)))
    c.put(c.keys.override("ov-2"), encode(replace(override("ov-2", for_s=100.0), sites=("b",))))
    c.do()
    before = c.entry(c.keys.overrides_rev)
    c.kernel.run_for(11.0)
    c.do()
    assert c.entry(c.keys.override("ov-1")) is None and c.entry(c.keys.override("ov-2")) is not None
    after = c.entry(c.keys.overrides_rev)
    assert before and after and after.mod_rev > before.mod_rev, "a commit that was judged with it must not pass"
    assert decode(OverridesRev, after.value).next_id == 3 and b'"novel":1' in after.value
    assert list(c.timers()) == ["ov-2"]


def test_a_deposed_leader_deletes_nothing(c: Case) -> None:
    c.put(c.keys.overrides_rev, encode(OverridesRev(2, "x")))
    c.put(c.keys.override("ov-1"), encode(override("ov-1", for_s=10.0)))
    c.put(c.keys.leader, b'{"node":"n2","run":"y"}')
    c.kernel.run_for(11.0)
    assert c.do() == 1.0, "and tries again soon"
    assert c.entry(c.keys.override("ov-1")) is not None


def test_silent_vantages_and_nodes_are_swept_after_an_hour(c: Case) -> None:
    for site in ("b", "c"):
        c.report(site)
    c.put(c.keys.node("n2"), encode(NodeDoc("n2", "b", (), "1", "x", 1, c.wall)))
    for _ in range(37):
        c.kernel.run_for(100.0)
        c.beat("c", n=1000 + c.store.rev, shard=2)
    c.kernel.run_for(0.01)
    gone = [c.keys.node("n2"), c.keys.beat("b", "p"), c.keys.shard("b", "p", "all")]
    found: list[list[str]] = []
    c.node.call_soon(lambda: found.append(silent_keys(c.view, 3600.0)))
    c.kernel.run_for(0.0)
    assert found == [gone], "c beats, and its shard stands although it never changed"
    c.do()
    assert all(c.entry(key) is None for key in gone)
    assert "b/p" not in c.view.votes.eyes and "n2" not in c.view.mirror.nodes


def test_old_decisions_are_trimmed_oldest_first(c: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores, "KEPT_DECISIONS", 3)
    monkeypatch.setattr(chores, "SPARE_DECISIONS", 2)
    for n in (8, 9, 10, 11):
        c.store.apply(Txn((), (Put(c.keys.decision(f"d-{n}"), encode(decision(n))),)))
    c.do()
    assert len(c.view.mirror.decisions) == 4, "not for each one"
    c.store.apply(Txn((), (Put(c.keys.decision("d-12"), encode(decision(12))),)))
    c.kernel.run_for(61.0)
    c.do()
    assert sorted(c.view.mirror.decisions) == ["d-10", "d-11", "d-12"]
    assert c.view.mirror.last_decision == 12


def test_what_a_writer_reported_is_swept_when_all_of_its_shards_are_silent(c: Case) -> None:
    def report(writer: str, shard: int, n: int) -> None:
        doc = AppliedDoc(writer, "dns", writer, "r", n, {}, {}, {}, shard=shard)
        c.put(c.keys.applied_by(writer, writer, "dns", shard), encode(doc))

    for writer in ("b", "c"):
        for shard in (0, 1):
            report(writer, shard, 1)
    for n in range(37):
        c.kernel.run_for(100.0)
        report("c", 0, n)
    c.kernel.run_for(0.01)
    found: list[list[str]] = []
    c.node.call_soon(lambda: found.append(silent_keys(c.view, chores.SILENT_S)))
    c.kernel.run_for(0.0)
    assert found == [[c.keys.applied_by("b", "b", "dns", shard) for shard in (0, 1)]]
    c.do()
    assert c.entry(c.keys.applied_by("b", "b", "dns")) is None
    assert c.entry(c.keys.applied_by("c", "c", "dns", 1)) is not None, "a shard in which nothing happens"
