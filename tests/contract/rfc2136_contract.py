"""What holds on every server that is written by UPDATE messages: keys, clocks, permissions, what stands in the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.rdata
import dns.update
import pytest
from dns.rdataclass import IN
from dns.rdatatype import RdataType
from dns.rdtypes.ANY.TXT import TXT

from chaos.worlds.servers.nameserver import Key, NameServer
from controlplane.dns.notation import Lua, Plain
from controlplane.dns.peer import Peer
from controlplane.dns.signing import Rejected
from controlplane.dns.table import fence_name
from controlplane.dns.wire import Message
from controlplane.documents import Seen
from controlplane.drivers import Actual, Change, Driver, Result
from controlplane.sync import differs
from tests.contract.dns_contract import DnsContract
from tests.contract.dns_world import INCARNATION, Backend, Writer, by_region, change, desired, seen
from tests.contract.rfc2136_world import KEY, READER, VIEW_KEYS, WALL, ZONE, Rfc2136Backend


class Rfc2136Contract(DnsContract):
    """A test class says in `build` which server it is about; that runs for all of its tests."""

    dialect = "plain"
    running: NameServer
    directory: Path

    @classmethod
    def build(cls, directory: Path) -> NameServer:
        raise NotImplementedError

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        directory = tmp_path_factory.mktemp(cls.__name__)
        server = cls.build(directory)
        server.start()
        cls.running, cls.directory = server, directory
        yield
        server.stop()

    async def open(self) -> Rfc2136Backend:
        return Rfc2136Backend(self.running, self.dialect, self.directory)

    def test_a_fence_that_is_none_is_told_and_left_alone(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            mine = f"c={INCARNATION}".encode()
            for number, text in enumerate(
                (b"v=spf1 -all", mine + b" g=000 op=d-0-x", mine + b" g=0 op=caf\xe9", mine + b"  g=0 op=d-0-x")
            ):
                d = desired(backend, 1, "192.0.2.1", label=f"none{number}")
                await _replace(backend, fence_name(d.name), TXT(IN, RdataType.TXT, [text]))
                writer = Writer(driver, "a")
                done = await writer.bring(d)
                assert done.applied[d.service].result == "terminal"
                assert done.applied[d.service].reason == f"TXT _failover.{d.name} is not a fence: remove it"
                assert [note.kind for note in done.notes] == ["alarm"]
                assert (await seen(backend, d)).reason.endswith("no fence")

        self.case(body)

    def test_a_generation_far_beyond_any_is_told_and_left_alone(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            writer = Writer(driver, "a")
            d = desired(backend, 1, "192.0.2.1")
            assert (await writer.bring(d)).applied["www"].result == "ok"
            text = f"c={INCARNATION} g=999999999999999999 op=d-903-x"
            await _replace(backend, fence_name(d.name), TXT(IN, RdataType.TXT, [text]))
            said = (await writer.bring(d)).applied["www"]
            assert (said.result, said.ahead_generation) == ("terminal", 0), said
            assert said.reason.startswith(f"TXT _failover.{d.name} says {text}"), said
            assert said.reason.endswith("remove it")
            assert "implausible" in (await seen(backend, d)).reason
            await _replace(backend, fence_name(d.name))
            assert (await writer.bring(d)).applied["www"].result == "ok"
            assert await seen(backend, d) == Seen(backend.server, 1, True)

        self.case(body)

    def test_a_fence_may_hold_any_character_that_can_be_typed(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            d = desired(backend, 1, "192.0.2.1")
            text = f"c={INCARNATION} g=0 op=d-0-" + "".join(map(chr, range(0x21, 0x7F)))
            await _replace(backend, fence_name(d.name), TXT(IN, RdataType.TXT, [text]))
            assert (await Writer(driver, "a").bring(d)).applied["www"].result == "ok"

        self.case(body)

    def test_a_cname_put_there_by_hand_is_taken_away(self) -> None:
        """No server takes an address beside one (RFC 2136, 3.4.2.2)."""

        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            writer = Writer(driver, "a")
            many = [desired(backend, 1, "192.0.2.1", label=f"alias{i}") for i in range(3)]
            await writer.settle(*many)
            d = many[1]
            await _replace(backend, d.name, dns.rdata.from_text(IN, RdataType.CNAME, f"ns.{ZONE}."))
            done = await writer.bring(*many)
            assert [(note.kind, note.service) for note in done.notes] == [("repaired", d.service)]
            assert await seen(backend, d) == Seen(backend.server, 1, True)
            assert (await writer.bring(*many)).notes == ()

            # ... and at a name that was not ours yet.
            new = desired(backend, 1, "192.0.2.1", label="before")
            await _replace(backend, new.name, dns.rdata.from_text(IN, RdataType.CNAME, f"ns.{ZONE}."))
            assert (await Writer(driver, "b").bring(new)).applied[new.service].result == "ok"
            assert await seen(backend, new) == Seen(backend.server, 1, True)

        self.case(body)

    def test_ttls_that_differ_are_an_edit(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            writer = Writer(driver, "a")
            d = desired(backend, 1, "192.0.2.1", "2001:db8::1", ttl_s=20)
            await writer.bring(d)
            update = dns.update.UpdateMessage(ZONE)
            update.replace(f"{d.name}.", 7, "AAAA", "2001:db8::1")
            await backend.send(update, VIEW_KEYS["eu"] if backend.dialect == "bind" else KEY)
            done = await writer.bring(d)
            assert [note.kind for note in done.notes] == ["repaired"]
            assert not differs(d, (await driver.read([d.name]))[d.name])

        self.case(body)

    def test_a_wrong_secret_is_refused_and_the_reason_names_the_key(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            d = desired(backend, 1, "192.0.2.1")
            for wrong in (Key(KEY.name, READER.secret), Key("nobody", KEY.secret)):
                if backend.dialect == "bind":
                    continue  # there the key is what finds the view: see TestViews
                other = backend.driver_with(key=wrong)
                with pytest.raises(OSError, match="key"):
                    await other.probe_write()
                with pytest.raises(OSError, match="key"):
                    await other.read([d.name])
                assert "key" in await _refused(other, change(d, None))
            assert await driver.read([d.name]) == {}

        self.case(body)

    def test_a_clock_that_is_off_by_ten_minutes_is_named(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            d = desired(backend, 1, "192.0.2.1")
            await Writer(driver, "a").bring(d)
            for off_s in (600.0, -600.0):
                late = backend.driver_with(wall=lambda off_s=off_s: WALL() + off_s)
                with pytest.raises(Rejected, match="clock"):
                    await late.probe_write()
                done = await Writer(late, "late").bring(desired(backend, 2, "192.0.2.2"))
                assert done.applied["www"].result == "transient"
                assert "clock" in done.applied["www"].reason
                fence = (await driver.read([d.name]))[d.name].fence
                reason = await _refused(late, change(desired(backend, 2, "192.0.2.2"), fence))
                print(f"\n{type(self).__name__}: clock off by {off_s:+g} s: {reason}")
                assert "clock" in reason
            assert not differs(d, (await driver.read([d.name]))[d.name])

        self.case(body)

    def test_that_it_may_not_write_is_noticed_before_it_has_to(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            d = desired(backend, 1, "192.0.2.1")
            await Writer(driver, "a").bring(d)
            before = (await driver.read([d.name]))[d.name]
            await driver.probe_write()
            if backend.dialect != "bind":
                reader = backend.driver_with(key=READER)
                assert (await reader.read([d.name]))[d.name] == before
                with pytest.raises(Rejected) as told:
                    await reader.probe_write()
                print(f"\n{type(self).__name__}: {told.value}")
                assert (await reader.apply([change(desired(backend, 2, "192.0.2.2"), before.fence)]))[d.name][
                    0
                ] is Result.TERMINAL
            assert (await driver.read([d.name]))[d.name] == before

        self.case(body)

    def test_a_server_that_hangs_or_is_gone_costs_bounded_time(self) -> None:
        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            d = desired(backend, 1, "192.0.2.1")
            for stop, go in (
                (backend.running.freeze, backend.running.thaw),
                (backend.running.kill, backend.running.start),
            ):
                stop()
                try:
                    async with asyncio.timeout(10):
                        with pytest.raises(OSError):
                            await driver.probe_write()
                        done = await Writer(driver, "a").bring(d)
                    assert done.applied["www"].result == "transient"
                finally:
                    go()
            assert (await Writer(driver, "a").bring(d)).applied["www"].result == "ok"

        self.case(body)

    def test_what_we_wrote_is_read_back_without_a_transfer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        transfers: list[str] = []
        transfer = Peer.transfer

        async def counted(peer: Peer, zone: str, take: Callable[[Message], None]) -> None:
            transfers.append(zone)
            await transfer(peer, zone, take)

        monkeypatch.setattr(Peer, "transfer", counted)

        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            writer = Writer(driver, "a")
            await writer.bring(desired(backend, 1, "192.0.2.1", "2001:db8::1"))
            first = len(transfers)
            assert first == (len(VIEW_KEYS) if backend.dialect == "bind" else 1)
            for generation, addresses in ((2, ["192.0.2.2"]), (3, ["192.0.2.2", "192.0.2.3", "2001:db8::3"])):
                d = desired(backend, generation, *addresses)
                assert (await writer.bring(d)).applied["www"].result == "ok"
                assert (await writer.bring(d)).notes == ()
            assert len(transfers) == first
            # Somebody else's change is none of ours, whatever came before it.
            other = desired(backend, 3, "198.51.100.66")
            await backend.edit(other.name, Actual(change(d, None).fence, 20, other.answers))
            assert [note.kind for note in (await writer.bring(d)).notes] == ["repaired"]
            assert len(transfers) > first
            assert not differs(d, (await driver.read([d.name]))[d.name])

        self.case(body)

    @pytest.mark.timeout(120)
    def test_measured(self) -> None:
        """Prints: a change until a client is told, and 1,000 names moved."""

        async def body(backend: Backend, driver: Driver) -> None:
            assert isinstance(backend, Rfc2136Backend)
            region = backend.regions[-1]
            fence, took_ms = None, []
            for generation in range(1, 31):
                address = f"192.0.2.{generation}"
                told = {
                    r: {address: 60, "192.0.2.200": 40} if backend.weights else {address: 1} for r in backend.regions
                }
                c = change(by_region(backend, generation, told), fence)
                begun = time.perf_counter()
                assert (await driver.apply([c]))[c.desired.name][0] is Result.DONE
                while address not in (seen := await backend.told(region, c.desired.name, "A")):
                    assert set(seen) <= {f"192.0.2.{generation - 1}", "192.0.2.200"}
                took_ms.append(1000 * (time.perf_counter() - begun))
                fence = c.fence
            took_ms.sort()
            many = [desired(backend, 1, "192.0.2.1", "192.0.2.2", label=f"m{i}") for i in range(1000)]
            again = [desired(backend, 2, "192.0.2.2", "192.0.2.3", label=f"m{i}") for i in range(1000)]
            writer, spent_s = Writer(driver, "a"), []
            for wanted in (many, again, again):
                begun = time.perf_counter()
                await writer.settle(*wanted)
                spent_s.append(time.perf_counter() - begun)
            print(
                f"\n{type(self).__name__}: change to told {took_ms[15]:.1f}/{took_ms[-1]:.1f} ms (p50/worst of 30); "
                f"1,000 names: written {spent_s[0]:.2f} s, moved {spent_s[1]:.2f} s, read back {spent_s[2]:.3f} s"
            )

        self.case(body)


async def _refused(driver: Driver, wrong: Change) -> str:
    """Why a write was refused for good. Views are read before they are written: that may be refused already."""
    try:
        result, reason = (await driver.apply([wrong]))[wrong.desired.name]
    except Rejected as error:
        result, reason = Result.TERMINAL if error.terminal else Result.TRANSIENT, str(error)
    assert result is Result.TERMINAL
    return reason


async def _replace(backend: Rfc2136Backend, name: str, *records: dns.rdata.Rdata) -> None:
    """By hand: everything at this name, in all views."""
    for key in VIEW_KEYS.values() if backend.dialect == "bind" else [KEY]:
        gone, put = dns.update.UpdateMessage(ZONE), dns.update.UpdateMessage(ZONE)
        for rtype in (RdataType.TXT, *(Lua.types if backend.dialect == "powerdns" else Plain.types)):
            gone.delete(name + ".", rtype)  # of type ANY nothing is deleted by PowerDNS 4.7
        for record in records:
            put.add(name + ".", 20, record)
        for update in (gone, put) if records else (gone,):
            await backend.send(update, key)
