"""The simulated network and store: what reaches what, who of the members leads, and what becomes of calls."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Iterator

import pytest

from chaos.worlds.loop import Kernel
from chaos.worlds.sim.members import Members
from chaos.worlds.sim.network import Network
from controlplane.store import Compacted, OutcomeUnknown, Put, Rewound, Txn, Unavailable
from tests.sim.setting import Story, config, settled

QUICK = config(soak_s=20.0, step_s=10.0, hold_s=5.0)
ENDS = ("a", "b", "c")


def unheard() -> None:
    """Nobody wants to know."""


# --- the network ----------------------------------------------------------------------------------------------


def test_two_cuts_of_one_link_end_it_only_when_both_have_ended() -> None:
    network = Network(ENDS, "1", unheard)
    one, other = network.cut("a", "*"), network.cut("a", "b")
    one()
    assert not network.path("a", "b").works and network.path("a", "c").works
    other()
    assert network.path("a", "b").works


def test_everything_is_all_but_the_other_end_and_clients_too() -> None:
    network = Network(ENDS, "1", unheard)
    heal = network.cut("*", "a")
    assert not any(network.path("a", end).works for end in ("b", "c", "clients", "outside"))
    assert network.path("a", "a").works and network.path("b", "c").works and network.path("b", "clients").works
    heal()
    network.cut("a", "b", both=False)
    path = network.path("a", "b")
    assert (path.there, path.back) == (False, True)
    assert (network.path("b", "a").there, network.path("b", "a").back) == (True, False)


def test_losses_and_delays_add_up() -> None:
    network = Network(ENDS, "1", unheard)
    before_s = network.path("a", "b").rtt_s
    heal = [network.lose("a", "b", 0.5), network.lose("*", "b", 0.5), network.slow("b", "a", 0.1)]
    path = network.path("a", "b")
    assert path.loss == pytest.approx(1 - 0.5**4) and path.rtt_s == pytest.approx(before_s + 0.2)
    for undo in heal:
        undo()
    assert network.path("a", "b").loss == 0.0 and network.path("a", "b").rtt_s == before_s


# --- the store's members --------------------------------------------------------------------------------------


class Five:
    """Five members, with a kernel under them."""

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.network = Network(tuple("abcdef"), "1", lambda: self.members.look())
        self.members = Members(tuple("abcde"), self.network, self.kernel, random.Random("1"), unheard)
        self.members.leader = "a"

    def usable(self) -> str:
        """From where."""
        return "".join(site for site in "abcdef" if self.members.way(site) is not None)


@pytest.fixture
def five() -> Iterator[Five]:
    found = Five()
    with found.kernel:
        yield found


def test_who_is_cut_from_the_majority_cannot_use_the_store(five: Five) -> None:
    assert five.usable() == "abcdef"
    heal = five.network.cut("b", "*")
    assert five.usable() == "acdef"
    heal()
    halves = [five.network.cut(one, other) for one in "ab" for other in "cdef"]
    assert five.usable() == "", "the leader has lost its majority"
    five.kernel.run_for(3.0)
    assert five.usable() == "cdef" and five.members.leader in "cde"
    for undo in halves:
        undo()
    assert five.usable() == "abcdef"


def test_calls_stall_until_another_leader_is_elected_and_without_a_majority_for_ever(five: Five) -> None:
    heal = [five.members.kill("a")]
    assert five.usable() == ""
    five.kernel.run_for(1.5)
    assert five.usable() == ""
    five.kernel.run_for(1.0)
    assert five.usable() == "abcdef", "a site whose own member is dead uses another one"
    heal += [five.members.kill("b"), five.network.power_off("c")]
    five.kernel.run_for(60.0)
    assert five.usable() == ""
    heal[0]()
    five.kernel.run_for(3.0)
    assert five.usable() == "abdef"


def test_a_leader_that_is_heard_too_late_is_not_followed(five: Five) -> None:
    five.network.slow("a", "*", 0.6)
    five.kernel.run_for(3.0)
    assert five.members.leader != "a" and five.usable() == "abcdef"


# --- lines to the store ---------------------------------------------------------------------------------------


class Ended:
    """What became of a call on a node's line."""

    def __init__(self, w: Story, node: str, call: Awaitable[object]) -> None:
        self.value: object = None

        async def wait() -> None:
            try:
                self.value = await call
            except Exception as error:
                self.value = error

        self.task = w.nodes[node].loop.create_task(wait())


def put(key: str) -> Txn:
    return Txn((), (Put(key, b"x"),))


@pytest.fixture
def story() -> Iterator[Story]:
    with settled(QUICK) as w:
        yield w


def test_a_transaction_of_a_site_that_is_cut_has_an_unknown_outcome_and_may_land_late(story: Story) -> None:
    line = story.nodes["site-b"].line
    heal = story.network.cut("site-b", "*")
    sent, read = Ended(story, "site-b", line.txn(put("/x"))), Ended(story, "site-b", line.get("/x"))
    story.run(1.2)
    assert isinstance(sent.value, OutcomeUnknown) and read.value is None
    heal()
    story.run(0.5)
    assert story.entry("/x") == b"x" and read.value is not None
    heal = story.network.cut("site-b", "*")
    Ended(story, "site-b", line.txn(put("/y")))
    lost = Ended(story, "site-b", line.get("/x"))
    story.run(14.0)
    assert isinstance(lost.value, Unavailable)
    heal()
    story.run(1.0)
    assert story.entry("/y") is None, "the connection was given up"


def test_a_store_that_refuses_was_sent_nothing(story: Story) -> None:
    line = story.nodes["site-b"].line
    up = story.members.refuse()
    sent = Ended(story, "site-b", line.txn(put("/x")))
    story.run(11.0)
    assert isinstance(sent.value, Unavailable)
    up()
    story.run(1.0)
    assert story.entry("/x") is None


def test_replies_that_are_lost_leave_the_outcome_unknown(story: Story) -> None:
    line = story.nodes["site-b"].line
    story.messages.lose("reply", "site-b", 1.0)
    sent = Ended(story, "site-b", line.txn(put("/x")))
    story.run(1.1)
    assert isinstance(sent.value, OutcomeUnknown) and story.entry("/x") == b"x"


def test_replies_that_are_late_come_when_nobody_waits_any_more(story: Story) -> None:
    line = story.nodes["site-b"].line
    story.messages.delay("reply", "site-b", 2.0)
    sent = Ended(story, "site-b", line.txn(put("/x")))
    story.run(1.1)
    assert isinstance(sent.value, OutcomeUnknown) and story.entry("/x") == b"x"


def test_requests_that_are_lost_do_too_and_reads_are_sent_again(story: Story) -> None:
    line = story.nodes["site-b"].line
    heal = story.messages.lose("store", "site-b", 1.0)
    sent, read = Ended(story, "site-b", line.txn(put("/x"))), Ended(story, "site-b", line.get("/x"))
    story.run(0.9)
    assert sent.value is read.value is None and not read.task.done()
    story.run(0.3)
    assert isinstance(sent.value, OutcomeUnknown) and read.task.done()
    heal()
    story.run(20.0)
    assert story.entry("/x") is None


def test_a_watch_that_lags_delivers_late_and_in_order(story: Story) -> None:
    line, seen = story.nodes["site-b"].line, list[tuple[float, str]]()

    async def look() -> None:
        async for batch in line.watch("/x", story.store.rev + 1):
            seen.extend((story.kernel.now - began, event.key) for event in batch.events)

    story.nodes["site-b"].loop.create_task(look())
    story.run(0.1)
    began = story.kernel.now
    heal = story.messages.delay("watch", "site-b", 2.0)
    story.store.apply(put("/x/1"))
    story.run(1.0)
    heal()
    story.store.apply(put("/x/2"))
    story.run(0.5)
    assert seen == []
    story.run(1.0)
    assert [key for _, key in seen] == ["/x/1", "/x/2"] and all(2.0 <= at < 2.1 for at, _ in seen)
    story.store.apply(put("/x/3"))
    story.run(0.1)
    assert [key for _, key in seen][2:] == ["/x/3"]


def test_a_watch_ends_with_the_history_that_it_was_on(story: Story) -> None:
    line = story.nodes["site-b"].line
    ended: list[Exception] = []

    async def look(from_rev: int) -> None:
        try:
            async for _ in line.watch("/x", from_rev):
                pass
        except (Rewound, Compacted, Unavailable) as error:
            ended.append(error)

    def run(from_rev: int) -> None:
        story.nodes["site-b"].loop.create_task(look(from_rev))
        story.run(0.1)

    run(story.store.rev + 5)
    backup = story.store.snapshot()
    run(story.store.rev + 1)
    story.restore(backup, 0.0)
    story.run(0.1)
    story.store.compact(story.store.rev)
    run(1)
    run(story.store.rev + 1)
    story.network.cut("site-b", "*")
    story.run(11.0)
    assert [type(error) for error in ended] == [Rewound, Rewound, Compacted, Unavailable]
