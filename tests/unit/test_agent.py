"""Agents on a virtual clock: what they write, what they leave alone, and what they say of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from controlplane.dns.embedded import EmbeddedDriver
from controlplane.documents import Seen
from controlplane.drivers import Actual, Fence
from tests.unit.agent_world import CONFIG, NAME, SITES, World, address, driver_of, virtual, want


def test_new_desired_is_written_at_once_verified_and_reported() -> None:
    async def body(world: World) -> None:
        for site in SITES:
            world.start(site)
        await world.decide(want(1))
        await asyncio.sleep(0.05)
        assert [world.generation(site) for site in SITES] == [1, 1, 1]
        await asyncio.sleep(1.5)
        document = world.document("site-a", "site-a")
        assert document is not None
        assert document.services["www"].result == "ok"
        assert document.seen["www"] == tuple(Seen(address(site), 1, True) for site in SITES)
        assert (document.old_ttl_left_s, document.unwritable) == ({}, "")
        await world.decide(want(2))
        await asyncio.sleep(0.05)
        assert [world.generation(site) for site in SITES] == [2, 2, 2]
        await asyncio.sleep(0.6)
        document = world.document("site-a", "site-a")
        assert document is not None
        assert 19 < document.old_ttl_left_s["www"] <= 20
        assert [seen.generation for seen in document.seen["www"]] == [2, 2, 2]
        await asyncio.sleep(22)
        document = world.document("site-a", "site-a")
        assert document is not None
        assert document.old_ttl_left_s == {}

    virtual(body)


def test_documents_are_refreshed_though_nothing_happens_and_rarely() -> None:
    async def body(world: World) -> None:
        world.start("site-c")
        await world.decide(want(1))
        await asyncio.sleep(5)
        first = world.document("site-c", "site-c")
        await asyncio.sleep(30)
        later = world.document("site-c", "site-c")
        assert first is not None
        assert later is not None
        assert 2 <= later.n - first.n <= 6  # one each ten seconds, and the others' servers stay silent
        assert replace(later, n=0) == replace(first, n=0)

    virtual(body)


def test_a_deputy_writes_for_a_dead_agent_after_two_seconds() -> None:
    async def body(world: World) -> None:
        world.start("site-b")
        await world.decide(want(1))
        await asyncio.sleep(1.9)
        assert [world.generation(site) for site in SITES] == [None, 1, None]
        await asyncio.sleep(0.2)
        assert [world.generation(site) for site in SITES] == [1, 1, None]
        await asyncio.sleep(0.5)
        document = world.document("site-a", "site-b")
        assert document is not None
        assert document.services["www"].result == "ok"

    virtual(body)


def test_cut_off_from_the_store_nothing_is_touched() -> None:
    async def body(world: World) -> None:
        source = world.start("site-a")
        await world.decide(want(1))
        await asyncio.sleep(1)
        source.current = False
        source.desired["www"] = want(2)  # whatever it may believe
        source.news.set()
        server = world.servers["site-a"]
        assert server is not None
        server.table.edit(NAME, Actual(Fence("inc", 1, "d-1.x"), 20, want(66).answers))
        await asyncio.sleep(60)
        actual = server.table.read(NAME)
        assert actual is not None
        assert actual.answers == want(66).answers
        source.desired["www"] = want(1)
        source.news.set()
        source.current = True
        await asyncio.sleep(1.3)
        actual = server.table.read(NAME)
        assert actual is not None
        assert actual.answers == want(1).answers

    virtual(body)


def test_the_first_read_after_a_cut_is_linearizable() -> None:
    async def body(world: World) -> None:
        source = world.start("site-c")
        await world.decide(want(1))
        await asyncio.sleep(1)
        assert world.store.ranges == 1
        source.current = False
        await asyncio.sleep(1)
        await world.decide(want(2), unseen_by="site-c")
        world.store.away = True
        source.current = True  # its view still shows generation 1
        await asyncio.sleep(2)
        assert world.generation("site-c") == 1
        world.store.away = False
        await asyncio.sleep(0.5)
        assert world.generation("site-c") == 2

    virtual(body)


def test_a_paused_agent_that_wakes_up_with_old_news_does_no_harm() -> None:
    async def body(world: World) -> None:
        world.start("site-a")
        await world.decide(want(1))
        await asyncio.sleep(1)
        await world.stop("site-a")
        world.start("site-b")
        await world.decide(want(2), unseen_by="site-a")
        await asyncio.sleep(2.5)
        assert world.generation("site-a") == 2
        late = world.start("site-a")
        late.desired = {"www": want(1)}
        await asyncio.sleep(2)
        assert world.generation("site-a") == 2
        document = world.document("site-a", "site-a")
        assert document is not None
        assert document.services["www"].generation == 2

    virtual(body)


def test_a_rewound_store_is_reported_as_ahead_until_the_leader_takes_over() -> None:
    async def body(world: World) -> None:
        source = world.start("site-c")
        await world.decide(want(1))
        await asyncio.sleep(1)
        backup = world.store.snapshot()
        await world.decide(want(2))
        await asyncio.sleep(10)
        world.store.restore(backup)
        source.desired = {"www": want(1)}
        source.news.set()
        await asyncio.sleep(2)
        assert world.generation("site-c") == 2
        document = world.document("site-c", "site-c")
        assert document is not None
        said = document.services["www"]
        assert (said.result, said.ahead_generation, said.ahead_answers) == ("ahead", 2, want(2).answers)
        await world.decide(want(3))
        await asyncio.sleep(1)
        assert world.generation("site-c") == 3
        assert [n.kind for n in world.notes["site-c"] if n.kind in ("alarm", "cleared")] == ["alarm", "cleared"]

    virtual(body)


def test_a_server_that_was_restarted_empty_is_filled_within_a_second() -> None:
    async def body(world: World) -> None:
        world.start("site-c")
        await world.decide(want(1))
        await asyncio.sleep(5)
        world.servers["site-c"] = None
        await asyncio.sleep(1.3)
        document = world.document("site-c", "site-c")
        assert document is not None
        assert document.services["www"].result == "transient"
        await asyncio.sleep(22)
        document = world.document("site-c", "site-c")
        assert document is not None
        assert document.seen["www"][-1] == Seen(address("site-c"), None, False, "no answer")
        world.servers["site-c"] = world.server()
        await asyncio.sleep(1.3)
        assert world.generation("site-c") == 1

    virtual(body)


def test_a_driver_that_hangs_delays_no_other() -> None:
    class Hanging(EmbeddedDriver):
        async def read(self, names: object) -> Mapping[str, Actual]:
            await asyncio.sleep(3600)
            return {}

    async def body(world: World) -> None:
        slow = Hanging("dns-site-a", lambda: None)
        world.start("site-a", {"dns-site-a": slow, "dns-site-b": world.driver("site-b")})
        await world.decide(want(1))
        await asyncio.sleep(2.1)
        assert world.generation("site-b") == 1  # as its deputy
        await asyncio.sleep(1)
        document = world.document("site-a", "site-a")
        assert document is not None
        assert document.services["www"].reason.startswith("read: ")

    virtual(body)


def test_a_bug_in_a_driver_is_an_alarm_and_not_the_end() -> None:
    class Buggy(EmbeddedDriver):
        async def read(self, names: object) -> Mapping[str, Actual]:
            raise KeyError("bug")

    async def body(world: World) -> None:
        world.start("site-a", {"dns-site-a": Buggy("dns-site-a", lambda: None), "dns-site-b": world.driver("site-b")})
        await world.decide(want(1))
        await asyncio.sleep(3)
        assert world.generation("site-b") == 1
        bugs = [n for n in world.notes["site-a"] if n.text == "terminal: bug: KeyError('bug')"]
        assert [(n.kind, n.service, n.subject) for n in bugs] == [("alarm", "www", "dns-site-a")]
        document = world.document("site-a", "site-a")
        assert document is not None
        assert (document.services["www"].result, document.services["www"].reason) == (
            "terminal",
            "bug: KeyError('bug')",
        )

    virtual(body)


class ReadOnly(EmbeddedDriver):
    refuse = True

    async def probe_write(self) -> None:
        if self.refuse:
            raise PermissionError("NOTAUTH")


def test_one_name_that_is_left_alone_does_not_stop_the_proof_that_the_others_could_be_written() -> None:
    async def body(world: World) -> None:
        driver = ReadOnly("dns-site-c", lambda: world.servers["site-c"])
        driver.refuse = False
        world.start("site-c", {"dns-site-c": driver})
        await world.decide(want(1))
        await asyncio.sleep(2)
        server = world.servers["site-c"]
        assert server is not None
        server.table.edit(NAME, Actual(Fence("inc", 1, "manual-ana"), 20, want(66).answers))
        driver.refuse = True
        await asyncio.sleep(33)
        document = world.document("site-c", "site-c")
        assert document is not None and document.services["www"].result == "manual"
        assert document.unwritable == "NOTAUTH"

    virtual(body)


def test_a_driver_that_would_not_take_writes_is_unwritable() -> None:
    async def body(world: World) -> None:
        driver = ReadOnly("dns-site-c", lambda: world.servers["site-c"])
        world.start("site-c", {"dns-site-c": driver})
        await world.decide(want(1))
        await asyncio.sleep(2)
        document = world.document("site-c", "site-c")
        assert document is not None
        assert document.unwritable == "NOTAUTH"
        driver.refuse = False
        await asyncio.sleep(31)
        document = world.document("site-c", "site-c")
        assert document is not None
        assert document.unwritable == ""
        kinds = [n.kind for n in world.notes["site-c"] if n.subject == "dns-site-c" and n.kind != "applied"]
        assert kinds == ["alarm", "cleared"]

    virtual(body)


class Deaf(EmbeddedDriver):
    """Reads fail while `reason` is set."""

    reason = ""

    async def read(self, names: Sequence[str]) -> Mapping[str, Actual]:
        if self.reason:
            raise OSError(self.reason)
        return await super().read(names)


def test_a_driver_that_fails_for_seconds_is_an_alarm_and_one_that_stumbles_is_not() -> None:
    """A wrong key, a zone that is not loaded: nobody waits for the next proof of a write."""

    async def body(world: World) -> None:
        driver = Deaf("dns-site-c", lambda: world.servers["site-c"])
        world.start("site-c", {"dns-site-c": driver})
        await world.decide(want(1))
        await asyncio.sleep(3)
        for reason, for_s in (("reset", 3.0), ("BADKEY: does the server know TSIG key failover?", 7.5)):
            driver.reason = reason
            await asyncio.sleep(for_s)
            document = world.document("site-c", "site-c")
            assert document is not None
            assert document.unwritable == ("read: " + reason if for_s > 5 else "")
            driver.reason = ""
            await asyncio.sleep(2)
        document = world.document("site-c", "site-c")
        assert document is not None and document.unwritable == ""
        said = [(n.kind, n.text) for n in world.notes["site-c"] if n.subject == "dns-site-c" and n.kind != "applied"]
        text = "unwritable (at site-c): read: BADKEY: does the server know TSIG key failover?"
        assert said == [("alarm", text), ("cleared", text)]

    virtual(body)


def test_an_edited_zone_is_put_right_and_journaled() -> None:
    async def body(world: World) -> None:
        world.start("site-c")
        await world.decide(want(1))
        await asyncio.sleep(3)
        server = world.servers["site-c"]
        assert server is not None
        actual = server.table.read(NAME)
        assert actual is not None
        server.table.edit(NAME, Actual(actual.fence, 20, want(66).answers))
        await asyncio.sleep(1.1)
        actual = server.table.read(NAME)
        assert actual is not None
        assert actual.answers == want(1).answers
        assert "repaired" in [n.kind for n in world.notes["site-c"]]

    virtual(body)


def test_another_configuration_changes_drivers_and_servers() -> None:
    async def body(world: World) -> None:
        source = world.start("site-a")
        await world.decide(want(1))
        await asyncio.sleep(2.5)
        agent = world.agents["site-a"]
        assert (list(agent.keepers), len(agent.checkers)) == (["dns-site-a", "dns-site-b"], 3)
        source.config = replace(CONFIG, dns=(driver_of("site-b"), driver_of("site-a")), revision=2)
        source.news.set()
        await asyncio.sleep(1)
        assert (list(agent.keepers), len(agent.checkers)) == (["dns-site-a"], 2)
        await world.decide(want(2))
        await asyncio.sleep(0.1)
        assert [world.generation(site) for site in SITES] == [2, 1, None]

    virtual(body)


def test_equal_runs_have_equal_histories() -> None:
    histories: list[list[object]] = []
    for _ in range(2):

        async def body(world: World) -> None:
            for site in SITES:
                world.start(site)
            world.servers["site-b"] = None
            for generation in range(1, 4):
                await world.decide(want(generation))
                await asyncio.sleep(2.7)
            world.servers["site-b"] = world.server()
            await asyncio.sleep(5)
            histories.append([world.notes, world.store.snapshot()])

        virtual(body)
    assert histories[0] == histories[1]


def test_many_names() -> None:
    async def body(world: World) -> None:
        world.start("site-c")
        many = [want(1, service=f"s{i}") for i in range(250)]
        for start in range(0, 250, 50):
            await world.decide(*many[start : start + 50])
        await asyncio.sleep(1)
        server = world.servers["site-c"]
        assert server is not None
        assert len(server.table.records) == 250

    virtual(body)
