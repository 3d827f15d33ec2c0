"""The simulated cluster's parts: what reaches what, the store's members, name servers, pools and processes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterator
from typing import TypeVar

import pytest
from msgspec.structs import replace

from chaos.history import Answered, Led, Pooled
from chaos.worlds.loop import Kernel
from chaos.worlds.sim.cluster import Cluster
from chaos.worlds.sim.members import Members
from chaos.worlds.sim.network import Network
from controlplane.store import Compacted, OutcomeUnknown, Put, Rewound, Txn, Unavailable
from policies.topology import Config, DnsDriver, PoolDriver, Pools
from tests.sim.setting import NAME, SITES, WITNESS, Story, config, settled

T = TypeVar("T")
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


# --- processes ------------------------------------------------------------------------------------------------


def test_a_process_that_two_faults_keep_down_starts_when_both_have_ended(story: Story) -> None:
    life = story.nodes["site-b"]
    off, dead = story.power_off("site-b"), story.kill("site-b")
    off()
    assert not story.running("site-b") and story.network.on("site-b")
    dead()
    assert story.running("site-b") and story.nodes["site-b"] is not life
    story.run(5.0)
    assert story.nodes["site-b"].view.synced, "it begins with nothing, and reads all"


def test_a_pause_ends_with_the_process(story: Story) -> None:
    first, second = story.pause("site-b"), story.pause("site-b")
    first()
    assert not story.running("site-b")
    up = story.kill("site-b")
    up()
    assert story.running("site-b")
    second()
    assert story.running("site-b")


def test_a_clean_restart_hands_leadership_over_and_a_kill_does_not(story: Story) -> None:
    first = story.leading()
    up = story.restart(first)
    assert story.run_until(lambda: story.leading() not in ("", first), 5.0) < 0.5
    story.run(5.0)
    up()
    story.run(5.0)
    second = story.leading()
    story.kill(second)
    assert story.run_until(lambda: story.leading() not in ("", second), 5.0) > 1.0
    ended = [record.node for record in story.records(Led, since=0.0) if not record.leading]
    assert ended == [first, second]


def test_a_clock_that_was_stepped_stays_so_through_a_restart(story: Story) -> None:
    before_s = story.nodes["site-b"].wall()
    story.steps["site-b"] += 60.0
    story.kill("site-b")()
    assert story.nodes["site-b"].wall() == before_s + 60.0


# --- name servers ---------------------------------------------------------------------------------------------


def inside(cfg: Config) -> Config:
    """With name servers that are part of each site's process."""
    servers = tuple(
        DnsDriver(
            driver="embedded",
            name=driver.name,
            site=driver.site,
            zones=driver.zones,
            writers=(driver.site,),
            apply_within_s=1.0,
            isolation="freeze",
            servers=(),
            options=f'{{"listen":["192.0.2.{n + 1}:53"]}}',
        )
        for n, driver in enumerate(cfg.dns)
    )
    return replace(cfg, dns=servers)


def answers(w: Cluster, server: str) -> list[tuple[bool, tuple[str, ...]]]:
    found = [r for r in w.history if isinstance(r, Answered) and r.server == server and r.at >= 0]
    return [(record.reachable, record.sites) for record in found]


def test_a_zone_on_disk_survives_its_machine_and_one_in_a_process_does_not() -> None:
    with settled(QUICK) as w:
        off = w.power_off("site-b")
        w.run(1.0)
        off()
        assert answers(w, "site-b") == [(False, ()), (True, ("site-a",))], "at once"
    with settled(inside(QUICK)) as w:
        w.kill("site-b")()
        assert answers(w, "site-b") == [(False, ())]
        w.run(5.0)
        assert answers(w, "site-b") == [(False, ()), (True, ("site-a",))], "when its agent has written it"


def test_servers_in_processes_may_listen_on_all_addresses_of_their_machines() -> None:
    everywhere = tuple(replace(d, options='{"listen":["0.0.0.0:53"]}') for d in inside(QUICK).dns)
    with settled(replace(QUICK, dns=everywhere)) as w:
        w.begin("stopped", "site-a", "www")
        w.run(10.0)
        assert w.all_serve("site-b") and len(w.serving()) == 3


def test_signatures_of_a_machine_whose_clock_is_wrong_are_refused() -> None:
    signed = tuple(
        replace(d, options=d.options[:-1] + ',"tsig":{"name":"failover","key":{"env":"TSIG_KEY"}}}') for d in QUICK.dns
    )
    with settled(replace(QUICK, dns=signed)) as w:
        w.steps["site-b"] = 400.0  # home of one server, and deputy of another
        w.begin("stopped", "site-a", "www")
        w.begin("down", "site-a")
        w.run(30.0)
        assert w.generations() == {"site-a": 1, "site-b": 2, "site-c": 2}
        w.steps["site-b"] = 0.0
        w.run(5.0)
        assert w.generations() == dict.fromkeys(SITES, 2)


def test_a_name_server_in_a_process_stands_still_with_it() -> None:
    with settled(inside(QUICK)) as w:
        go_on = w.pause("site-b")
        w.run(1.0)
        go_on()
        assert answers(w, "site-b") == [(False, ()), (True, ("site-a",))]


def test_secondaries_follow_after_the_transfer_and_are_asked_by_verification() -> None:
    with Cluster(QUICK, "1", transfer_s=3.0) as w:
        w.warm_up()
        w.services.stop("www", "site-a", "refuse")
        w.run(30.0)
        moved = {r.server: r.at for r in w.history if isinstance(r, Answered) and r.at > 0}
        assert set(moved) == {name for site in SITES for name in (site, f"{site}/2")}
        for site in SITES:
            assert moved[f"{site}/2"] - moved[site] == pytest.approx(3.0)
        checked = w.nodes["site-b"].agent.checkers
        assert len(checked) == 6 and all(checker.seen["www"].agrees for checker in checked.values())


def test_a_secondary_whose_site_was_dark_catches_up() -> None:
    with Cluster(QUICK, "1", transfer_s=1.0) as w:
        w.warm_up()
        off = w.power_off("site-c")
        w.services.stop("www", "site-a", "refuse")
        w.run(20.0)
        off()
        w.run(20.0)
        home = w.servers.of("www", "site-c")
        assert home is not None
        assert home.secondaries[0].read(NAME) == home.primary.read(NAME)
        assert answers(w, "site-c/2")[-1] == (True, ("site-b",))


# --- pools ----------------------------------------------------------------------------------------------------


def test_a_pool_is_told_and_keeps_what_it_was_told_through_restarts() -> None:
    www = QUICK.services["www"]
    pools = Pools("bk_www", {site: (f"{site}-1",) for site in SITES})
    driver = PoolDriver("haproxy", "haproxy", SITES, '{"socket":"/run/haproxy.sock"}')
    with settled(replace(QUICK, services={"www": replace(www, pools=pools)}, pools=(driver,))) as w:
        w.begin("stopped", "site-a", "www")
        w.run(10.0)
        told = w.records(Pooled)
        assert {record.site for record in told} == set(SITES)
        assert all(record.weights == {"site-a": 0, "site-b": 100, "site-c": 0} for record in told)
        w.power_off("site-c")()
        w.run(10.0)
        assert w.records(Pooled) == told, "nothing that was applied is applied again"
        assert w.disks["site-c", "haproxy"]["bk_www"].fence.generation == 2


# --- what nobody may overlook ---------------------------------------------------------------------------------


def test_a_bug_that_a_node_only_logs_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    with pytest.raises(BaseExceptionGroup, match="bugs that nodes have only logged"), settled(QUICK) as w:
        monkeypatch.setattr("controlplane.keeper.Keeper.step", broken)
        w.run(2.0)


def test_one_that_ends_a_node_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    with Story(QUICK) as w:
        w.warm_up()

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("controlplane.reporter.StoreReporter.beat", broken)
        with pytest.raises((ZeroDivisionError, BaseExceptionGroup)):
            w.run(2.0)
        monkeypatch.undo()


def test_calls_of_a_node_run_on_its_own_clock() -> None:
    with settled(QUICK) as w:
        times = {site: w.nodes[site].loop.ask(lambda: asyncio.get_running_loop().time()) for site in w.nodes}
        assert len(set(times.values())) == len(times) and WITNESS in times
        w.run(1000.0)
        later = {site: w.nodes[site].loop.time() - times[site] for site in w.nodes}
        assert len(set(later.values())) == 4 and all(abs(s - 1000.0) < 0.2 for s in later.values()), "they drift"
