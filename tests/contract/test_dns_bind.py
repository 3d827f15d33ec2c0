"""BIND passes the contract of all DNS drivers: with one zone, and with a view for each region."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from chaos.worlds.servers.bind import Bind, View
from chaos.worlds.servers.nameserver import Key
from chaos.worlds.servers.process import free_port
from controlplane.api.survey import verified
from controlplane.dns.ask import ask
from controlplane.dns.verify import by_server, probes_for, verify
from controlplane.documents import Seen
from controlplane.drivers import Actual, Driver, Fence, Result
from controlplane.sync import differs
from policies.topology import Config, Dns, Region, Service
from policies.world import Answer, Desired
from tests.contract.dns_world import INCARNATION, Backend, Writer, by_region, change, desired
from tests.contract.geo_contract import GeoContract
from tests.contract.rfc2136_contract import Rfc2136Contract
from tests.contract.rfc2136_world import KEY, NS, READER, VIEW_KEYS, ZONE, Rfc2136Backend
from tests.support import run


class TestBind(Rfc2136Contract):
    running: Bind

    @classmethod
    def build(cls, directory: Path) -> Bind:
        return Bind(directory, "127.0.0.1", free_port(), ZONE, ns=NS, key=KEY, reader=READER)


class TestViews(GeoContract, Rfc2136Contract):
    dialect = "bind"
    running: Bind

    @classmethod
    def build(cls, directory: Path) -> Bind:
        views = {"eu": View(VIEW_KEYS["eu"], ("127.0.1.0/24",)), "rest": View(VIEW_KEYS["rest"], ("any",))}
        return Bind(directory, "127.0.0.1", free_port(), ZONE, ns=NS, views=views)

    def test_a_half_written_set_of_views_is_finished(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            writer = Writer(driver, "a")
            old, new = _apart(backend, 1), _apart(backend, 2)
            await writer.bring(old)
            await backend.edit_view("eu", VIEW_KEYS["eu"], new.name, Actual(change(new, None).fence, 20, new.answers))
            assert (await backend.told("eu", new.name, "A"), await backend.told("rest", new.name, "A")) == (
                ["192.0.2.2"],
                ["198.51.100.1"],
            )
            # A writer that still believes in the old generation must not win in either of them.
            stale = Writer(driver, "stale")
            first = await stale.bring(old)
            assert first.applied["www"].result == "fenced"
            second = await stale.bring(old)
            assert (second.applied["www"].result, second.applied["www"].ahead_generation) == ("ahead", 2)
            assert await backend.told("eu", new.name, "A") == ["192.0.2.2"]
            fresh = Writer(await backend.driver(), "b")
            assert (await fresh.bring(new)).applied["www"].result == "ok"
            assert await backend.told("rest", new.name, "A") == ["198.51.100.2"]
            assert (await writer.bring(new)).applied["www"].result == "ok"

        self.case(body)

    def test_one_view_of_somebody_else_stops_them_all_until_it_is_adopted(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            writer = Writer(driver, "a")
            old, new = _apart(backend, 1), _apart(backend, 2)
            await writer.bring(old)
            theirs, by_hand = Fence("theirs", 7, "d-7.1"), Fence(INCARNATION, 1, "manual-ana")
            for fence, word in ((theirs, "foreign"), (by_hand, "manual")):
                await backend.edit_view("rest", VIEW_KEYS["rest"], new.name, Actual(fence, 20, old.answers))
                await writer.bring(new)
                assert (await writer.bring(new)).applied["www"].result == word
                assert await backend.told("eu", new.name, "A") == ["192.0.2.1"]
                assert await backend.told("rest", new.name, "A") == ["198.51.100.1"]
            await backend.edit_view("rest", VIEW_KEYS["rest"], new.name, Actual(theirs, 20, old.answers))
            done = await writer.bring(new, adopted=["theirs"])
            assert done.applied["www"].result == "ok"
            assert await backend.told("rest", new.name, "A") == ["198.51.100.2"]

        self.case(body)

    def test_views_that_answer_alike_but_whose_fences_disagree_are_put_right(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            d = _apart(backend, 3)
            c = change(d, None)
            assert (await driver.apply([c]))[d.name][0] is Result.DONE
            other = Fence(INCARNATION, 3, "d-3.another")
            await backend.edit_view("eu", VIEW_KEYS["eu"], d.name, Actual(other, 20, d.answers))
            assert differs(d, (await driver.read([d.name]))[d.name])
            done = await Writer(driver, "a").bring(d)
            assert [note.kind for note in done.notes] == ["repaired"]
            assert not differs(d, (await driver.read([d.name]))[d.name])

        self.case(body)

    def test_verify_asks_each_view_with_its_key(self) -> None:
        """BIND sends a client subnet back with scope 0, and does not look at it."""

        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            networks = {"eu": Region(networks=("203.0.113.0/24",)), "rest": Region(networks=("198.51.100.0/24",))}
            by_subnet = probes_for(networks)
            entry = backend.entry_with()
            config = replace(backend.config, regions=networks, dns=(entry,))
            with_keys = by_server(config, by_subnet)[backend.server]
            assert [(p.region, p.key is not None) for p in with_keys] == [("", False), ("eu", True), ("rest", True)]
            gone = {region: {"name": key.name, "key": {"file": "/none"}} for region, key in VIEW_KEYS.items()}
            options = json.loads(entry.options) | {"views": gone}
            blind = replace(config, dns=(replace(entry, options=json.dumps(options)),))
            without = by_server(blind, by_subnet)[backend.server]
            assert [(p.region, p.key) for p in without] == [("", None), ("eu", None), ("rest", None)]

            d = _apart(backend, 1)
            c = change(d, None)
            assert (await driver.apply([c]))[d.name][0] is Result.DONE
            for probes in (with_keys, without):
                seen = (await verify(ask, backend.server, [d], INCARNATION, probes))["www"]
                assert seen == Seen(backend.server, 1, True), probes

            async def surveyed(config: Config, ok: bool | None, eu: bool | None) -> str:
                spec = Service({}, {}, (), config.policy, 60.0, dns=Dns(d.name))
                known = replace(config, services={"www": spec})
                doc = await verified(known, (), {"www": d}, INCARNATION)
                assert (doc["ok"], doc["regions"]) == (ok, {"eu": eu, "rest": eu})
                (line,) = doc["services"]["www"]["servers"]
                assert ("eu" in line["answers"], "eu" in line["not_asked"]) == (eu is not None, eu is None)
                return str(line["reason"])

            await surveyed(config, True, True)
            await surveyed(blind, True, None)

            # The view of our own address stays right: only who asks in the other one sees what is wrong there.
            wrong = Actual(c.fence, 20, (Answer("eu", "A", "198.51.100.1", "site-0", 1),))
            await backend.edit_view("eu", VIEW_KEYS["eu"], d.name, wrong)
            told = (await verify(ask, backend.server, [d], INCARNATION, with_keys))["www"]
            assert told == Seen(backend.server, 1, False, "A for eu: answers 198.51.100.1")
            assert await surveyed(config, False, False) == "A for eu: answers 198.51.100.1"
            await surveyed(blind, True, None)

            # ... and so does a view that was left behind.
            left = Actual(Fence(INCARNATION, 0, "d-0.1"), 20, d.answers)
            await backend.edit_view("eu", VIEW_KEYS["eu"], d.name, left)
            told = (await verify(ask, backend.server, [d], INCARNATION, with_keys))["www"]
            assert told == Seen(backend.server, 0, False, "eu: still generation 0")

            stranger = backend.entry_with(views={**VIEW_KEYS, "eu": Key(VIEW_KEYS["eu"].name, READER.secret)})
            probes = by_server(replace(config, dns=(stranger,)), by_subnet)[backend.server]
            told = (await verify(ask, backend.server, [d], INCARNATION, probes))["www"]
            assert told.generation is None and told.reason.startswith("TSIG key k-eu: ")
            print(f"\nBIND, a view's key with another secret: {told.reason}")

        self.case(body)

    def test_a_wrong_key_of_one_view_is_named(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            d = _apart(backend, 1)
            for wrong in (Key(VIEW_KEYS["eu"].name, READER.secret), READER):
                other = backend.driver_with(views={**VIEW_KEYS, "eu": wrong})
                with pytest.raises(OSError, match="key"):
                    await other.probe_write()
                with pytest.raises(OSError, match="key"):
                    await other.read([d.name])
            assert await driver.read([d.name]) == {}

        self.case(body)


def _apart(backend: Backend, generation: int) -> Desired:
    told = {"eu": {f"192.0.2.{generation}": 1}, "rest": {f"198.51.100.{generation}": 1}}
    return by_region(backend, generation, told)


class TestJournal:
    def test_a_zone_file_that_does_not_fit_its_journal(self, tmp_path: Path) -> None:
        """Somebody restores or edits the file of a zone that is written to: BIND does not load it."""
        server = Bind(tmp_path, "127.0.0.1", free_port(), ZONE, ns=NS, key=KEY)
        server.start()

        async def main() -> None:
            backend = Rfc2136Backend(server, "plain", tmp_path)
            driver = await backend.driver()
            writer, d = Writer(driver, "a"), desired(backend, 1, "192.0.2.1")
            assert (await writer.bring(d)).applied["www"].result == "ok"
            server.kill()
            file = server.file()
            before = file.read_text()
            file.write_text(re.sub(r" 1 3600 600", " 90 3600 600", before))
            server.start()
            done = await writer.bring(d)
            assert done.applied["www"].result == "transient"
            assert "SERVFAIL" in done.applied["www"].reason
            with pytest.raises(OSError, match="SERVFAIL"):
                await driver.probe_write()
            print(f"\nBIND, journal and zone file disagree: {done.applied['www'].reason}")
            server.kill()
            file.write_text(before)
            server.start()
            assert not differs(d, (await driver.read([d.name]))[d.name])  # nothing was lost
            newer = desired(backend, 2, "192.0.2.2")
            assert (await writer.bring(newer)).applied["www"].result == "ok"

        try:
            run(main())
        finally:
            server.stop()
