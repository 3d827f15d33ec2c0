"""Thousands of targets: shards and transactions of a bounded size, and a judge that looks at what is new."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

import pytest
from msgspec.structs import replace

from chaos.worlds.loop import Kernel
from controlplane.documents import encode
from controlplane.reporter import SHARDS_BYTES
from controlplane.view.eyes import Eye
from probes.target import Beat, Health, Observation, Shard
from probes.vantage import SHARD_TARGETS
from tests.unit.test_reporter import World as ReporterWorld
from tests.unit.vantage_world import REFUSED, target
from tests.unit.vantage_world import World as VantageWorld


@pytest.fixture
def reporters() -> Iterator[ReporterWorld]:
    with Kernel() as kernel:
        yield ReporterWorld(kernel)


def test_many_targets_of_a_site_are_spread_over_shards_and_a_change_rewrites_one() -> None:
    targets = [target(site, f"s{n:04}", interval_s=60.0) for site in ("site-b", "site-c") for n in range(1000)]
    world = VantageWorld(targets)
    world.until(70)
    assert {shard.partition(".")[0] for shard in world.shards} == {"site-b", "site-c"}
    assert len(world.shards) == 2 * 1000 // SHARD_TARGETS
    assert max(len(rows) for rows in world.shards.values()) < 1.5 * SHARD_TARGETS
    rows = {id_: row for shard in world.shards.values() for id_, row in shard.items()}
    assert len(rows) == 2000 and all(row.health is Health.UP for row in rows.values())

    world.log.clear()
    world.says = lambda id_, at: REFUSED if id_ == "s0007@site-b" else replace(REFUSED, passed=True, reason="ok")
    world.until(140)
    touched = {str(what) for _, verb, what in world.log if verb == "put"}
    assert len(touched) == 1 and world.shards[touched.pop()]["s0007@site-b"].health is Health.DOWN


def test_a_site_that_shrinks_has_one_shard_again_and_the_others_are_emptied() -> None:
    targets = [target("site-b", f"s{n:04}") for n in range(250)]
    world = VantageWorld(targets)
    world.until(5)
    world.vantage.set_targets(targets[:50])
    world.until(10)
    assert set(world.shards["site-b"]) == {t.id for t in targets[:50]}
    assert [rows for shard, rows in world.shards.items() if shard != "site-b"] == [{}, {}, {}]


def test_no_transaction_outgrows_what_the_store_takes(reporters: ReporterWorld) -> None:
    long = "x" * 400
    shards = {
        f"site-b.{s:02}": tuple(Observation(f"{s}-{n}", Health.DOWN, long, False) for n in range(100))
        for s in range(40)
    }
    sent: list[int] = []
    inner = reporters.store.txn

    async def txn(txn):  # type: ignore[no-untyped-def]
        sent.append(sum(len(op.value) for op in txn.then))
        return await inner(txn)

    reporters.store.txn = txn  # type: ignore[method-assign]
    for name, observations in shards.items():
        reporters.put(name, observations)
    reporters.beats(until=20.0)
    reporters.kernel.run_for(10.0)
    assert set(reporters.usable()) == set(shards)
    assert len(sent) > 3 and max(sent) < SHARDS_BYTES + len(encode(reporters.stored())) + 1


def _said(shards: Mapping[str, Shard]) -> dict[str, Observation]:
    return {o.target: o for name in sorted(shards) for o in shards[name].observations}


def test_what_an_eye_knows_is_what_its_shards_say_however_they_came() -> None:
    """Against the plain way: all shards looked at each time."""
    rng = random.Random(7)
    eye, shards, numbers = Eye("site-b", "main"), dict[str, Shard](), dict[str, int]()
    plain: dict[str, Observation] = {}
    for step in range(400):
        name = f"site-a.{rng.randrange(4)}"
        ids = rng.sample(range(30), rng.randrange(8))  # also ids that another shard has as well
        rows = tuple(Observation(f"t{i:02}", rng.choice(list(Health)), "", True) for i in sorted(ids))
        numbers[name] = numbers.get(name, 0) + 1
        shards[name] = Shard("site-b", "r", numbers[name], rows)
        listed = {n: number for n, number in numbers.items() if rng.random() < 0.9}
        changed = eye.take(Beat("site-b", "r", step, listed, False, 0.0), shards, float(step))
        before, plain = plain, _said({n: shards[n] for n in listed})
        assert eye.observations == plain
        assert changed == {t for t in {*before, *plain} if before.get(t) != plain.get(t)}
        assert set(eye.changed_at) == set(plain)
