"""What operators change in the store: once, or not at all, or said to be unknown."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest
from msgspec.structs import replace

from chaos.worlds.faulty_store import FaultyStore
from chaos.worlds.loop import Kernel
from controlplane.documents import GovernorDoc, Keys, NodeDoc, OverridesRev, decode, encode
from controlplane.operator import Operator, Refused, Unknown
from controlplane.store import Put, Txn
from controlplane.store.memory import MemoryStore
from policies.topology import Config, Override
from tests.unit.policy_world import one_service

T = TypeVar("T")
CONFIG = one_service()
DRAIN = Override("", "out", False, "drain", ("a",), (), "ana", "switch firmware", "2026-03-02T14:05:00Z", 0, 7200.0)
FREEZE = replace(DRAIN, verb="freeze", command="freeze", sites=(), for_s=None)


def test_keys_know_their_cluster() -> None:
    assert Keys("acme").cluster == "acme" and Keys("acme").past_config(3) == "/failover/acme/config/history/3"


class Desk:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.keys = Keys("test")
        self.store = MemoryStore()
        self.line = FaultyStore(self.store, random.Random(1))
        self.operator = Operator(self.line, self.keys, random.Random(2))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.kernel.run(work)

    def read(self, key: str) -> bytes | None:
        entry = self.kernel.run(self.store.get(key))
        return entry.value if entry else None

    def config(self) -> Config:
        value = self.read(self.keys.config)
        assert value is not None
        return decode(Config, value)

    def rev(self) -> int:
        """The revision of the overrides, as preflight saw them."""
        entry = self.kernel.run(self.store.get(self.keys.overrides_rev))
        return entry.mod_rev if entry else 0

    def add(self, draft: Override = DRAIN) -> Override:
        return self.run(self.operator.add_override(draft, self.rev()))


@pytest.fixture
def desk() -> Iterator[Desk]:
    with Kernel() as kernel:
        yield Desk(kernel)


def test_the_first_apply_founds_the_cluster(desk: Desk) -> None:
    first = desk.run(desk.operator.apply_config(CONFIG, []))
    incarnation = desk.read(desk.keys.incarnation)
    assert first.bootstrapped and incarnation and len(incarnation) == 16
    second = desk.run(desk.operator.apply_config(CONFIG, [], expect=1))
    assert not second.bootstrapped and desk.read(desk.keys.incarnation) == incarnation
    assert (first.config.revision, second.config.revision, desk.config().revision) == (1, 2, 2)
    history = desk.read(desk.keys.config_history + "1")
    assert history is not None and decode(Config, history) == first.config


def test_apply_is_refused_for_nodes_too_old_and_for_news_in_between(desk: Desk) -> None:
    old = NodeDoc("n7", "a", (), "0.0.1", "r", 1, 0.0, reads_schema=0)
    with pytest.raises(Refused, match="n7"):
        desk.run(desk.operator.apply_config(CONFIG, [old]))
    assert desk.read(desk.keys.config) is None
    desk.run(desk.operator.apply_config(CONFIG, [], expect=0))
    with pytest.raises(Refused, match="revision 1 is in force"):
        desk.run(desk.operator.apply_config(CONFIG, [], expect=0))


def test_two_applies_at_once_one_wins(desk: Desk) -> None:
    async def both() -> tuple[object, ...]:
        other = replace(CONFIG, target_s=30.0)
        return await asyncio.gather(
            desk.operator.apply_config(CONFIG, []),
            desk.operator.apply_config(other, []),
            return_exceptions=True,
        )

    outcomes = desk.run(both())
    assert sorted(isinstance(outcome, Refused) for outcome in outcomes) == [False, True]
    assert desk.config().revision == 1


def test_overrides_are_numbered_and_move_the_revision(desk: Desk) -> None:
    first, second = desk.add(), desk.add(replace(DRAIN, sites=("b",)))
    assert (first.id, first.order, second.id, second.order) == ("ov-1", 1, "ov-2", 2)
    assert first.op and first.op != second.op
    stored = desk.read(desk.keys.override("ov-1"))
    assert stored is not None and decode(Override, stored) == first
    rev = desk.read(desk.keys.overrides_rev)
    assert rev is not None and decode(OverridesRev, rev) == OverridesRev(3, second.op)


def test_an_override_judged_on_others_is_refused(desk: Desk) -> None:
    seen = desk.rev()
    desk.add()
    with pytest.raises(Refused, match="changed"):
        desk.run(desk.operator.add_override(DRAIN, seen))
    assert desk.read(desk.keys.override("ov-2")) is None


def test_a_lost_reply_is_looked_for(desk: Desk) -> None:
    desk.line.lose_replies(1, applied=True)
    assert desk.add().id == "ov-1"
    desk.line.lose_replies(1, applied=False)
    with pytest.raises(Unknown):
        desk.add()
    assert desk.read(desk.keys.override("ov-2")) is None
    assert desk.add().id == "ov-2", "a repeat makes no second override"


def test_what_the_store_said_is_passed_on(desk: Desk) -> None:
    """It may say what to do: "etcd is out of space (alarm NOSPACE): compact, ..."."""
    desk.line.lose_replies(1, applied=False)
    with pytest.raises(Unknown, match=r"^no reply; the store does not show whether it is in force$"):
        desk.add()


def test_cancel_is_all_or_none(desk: Desk) -> None:
    desk.add()
    desk.add()
    with pytest.raises(Refused, match="no override ov-9"):
        desk.run(desk.operator.cancel_overrides(["ov-1", "ov-9"]))
    before = desk.rev()
    desk.run(desk.operator.cancel_overrides(["ov-1", "ov-2"], before))
    assert desk.read(desk.keys.override("ov-1")) is None and desk.read(desk.keys.override("ov-2")) is None
    assert desk.rev() > before
    with pytest.raises(Refused, match="changed"):
        desk.run(desk.operator.cancel_overrides(["ov-1"], before))
    assert desk.add().id == "ov-3", "numbers are not used again"


def test_unfreeze_ends_freezes_and_the_wait_after_a_rewind(desk: Desk) -> None:
    with pytest.raises(Refused, match="nothing is frozen"):
        desk.run(desk.operator.unfreeze())
    desk.add()
    desk.add(FREEZE)
    governor = encode(GovernorDoc(5.0, 6.0, "restored", 77))[:-1] + b',"novel":1}'
    desk.store.apply(Txn((), (Put(desk.keys.timers_governor, governor),)))
    assert desk.run(desk.operator.unfreeze()) == ("ov-2", "rewound")
    assert desk.read(desk.keys.override("ov-1")) is not None and desk.read(desk.keys.override("ov-2")) is None
    value = desk.read(desk.keys.timers_governor)
    assert value is not None and b'"novel":1' in value
    assert decode(GovernorDoc, value) == GovernorDoc(5.0, 6.0, "", 77)


def test_one_override_takes_the_place_of_another_at_once(desk: Desk) -> None:
    desk.add()
    new = desk.run(desk.operator.add_override(replace(DRAIN, for_s=60.0), desk.rev(), replaces=["ov-1"]))
    assert new.id == "ov-2" and desk.read(desk.keys.override("ov-1")) is None
    with pytest.raises(Refused, match="changed"):
        desk.run(desk.operator.add_override(DRAIN, desk.rev() - 1, replaces=["ov-2"]))
    assert desk.read(desk.keys.override("ov-2")) is not None


def test_unfreeze_ends_only_what_its_plan_showed(desk: Desk) -> None:
    desk.add(FREEZE)
    planned = desk.rev()
    desk.add(replace(FREEZE, services=("www",)))
    with pytest.raises(Refused, match="changed"):
        desk.run(desk.operator.unfreeze(["ov-1"], "", planned))
    assert desk.read(desk.keys.override("ov-1")) is not None
    desk.store.apply(Txn((), (Put(desk.keys.timers_governor, encode(GovernorDoc(rewound="restored"))),)))
    with pytest.raises(Refused, match="changed"):
        desk.run(desk.operator.unfreeze(["ov-1", "ov-2"], "", desk.rev()))
    assert desk.run(desk.operator.unfreeze(["ov-1", "ov-2"], "restored", desk.rev())) == ("ov-1", "ov-2", "rewound")


def test_the_end_of_a_wait_is_found_after_a_lost_reply(desk: Desk) -> None:
    """Also where no override was ever made: the write is known by a nonce of its own."""
    desk.store.apply(Txn((), (Put(desk.keys.timers_governor, encode(GovernorDoc(rewound="restored"))),)))
    desk.line.lose_replies(1, applied=True)
    assert desk.run(desk.operator.unfreeze([], "restored", 0)) == ("rewound",)
    assert desk.rev() > 0


def test_a_configuration_of_the_past(desk: Desk) -> None:
    first = desk.run(desk.operator.apply_config(CONFIG, [])).config
    desk.run(desk.operator.apply_config(replace(CONFIG, target_s=30.0), []))
    assert desk.run(desk.operator.config_of(1)) == first
    assert desk.run(desk.operator.config_of(7)) is None
    desk.store.apply(Txn((), (Put(desk.keys.past_config(7), b'{"schema": 9}'),)))
    assert desk.run(desk.operator.config_of(7)) is None, "what a newer version wrote"
