"""The simulated cluster's parts: processes, name servers and pools, and what nobody may overlook."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from chaos.history import Answered, Led, Pooled
from chaos.worlds.sim.cluster import Cluster
from policies.topology import Config, DnsDriver, PoolDriver, Pools
from tests.sim.setting import NAME, SITES, WITNESS, Story, config, settled

QUICK = config(soak_s=20.0, step_s=10.0, hold_s=5.0)


@pytest.fixture
def story() -> Iterator[Story]:
    with settled(QUICK) as w:
        yield w


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
