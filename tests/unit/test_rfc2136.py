"""The rfc2136 driver against servers that do wrong, and what needs no server."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from dns.rdatatype import RdataType

from controlplane.dns.peer import TRANSFER_S
from controlplane.dns.rfc2136 import KIND, Options, Rfc2136Driver, Tsig, driver_for
from controlplane.drivers import Change, Driver, Fence, Result
from controlplane.sync import Pass, Sync
from policies.topology import Config, DnsDriver, Policy, Region
from policies.world import Answer, Desired
from probes.kinds.base import Secret
from tests.support import run

REGIONS = {"eu": Region(countries=("FR",)), "rest": Region(default=True)}
FENCE = Fence("5f0c2d", 2, "d-2.1")

Reply = Callable[[dns.message.Message, bytes], Awaitable[bytes]]


def entry(port: int, **options: object) -> DnsDriver:
    text = json.dumps({"address": "127.0.0.1", "port": port, **options})
    return DnsDriver("rfc2136", "dns-a", "site-a", ("example.org",), ("site-a",), 1.0, "freeze", (), text)


def config(regions: dict[str, Region] = REGIONS) -> Config:
    return Config("acme", 60.0, {}, regions, {}, Policy())


def change(name: str = "www.example.org", expect: Fence | None = None, fence: Fence = FENCE) -> Change:
    answers = (Answer("", "A", "192.0.2.1", "site-a", 1),)
    desired = Desired("www", fence.generation, {}, answers, {}, name=name, ttl_s=20, decision="d-2")
    return Change(desired, expect, fence)


def against(reply: Reply, body: Callable[[Rfc2136Driver], Awaitable[None]], **options: object) -> None:
    """`reply` makes what is sent back, framed, for each request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            writer.write(await reply(dns.message.from_wire(wire, keyring=False, ignore_trailing=True), wire))
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            port = server.sockets[0].getsockname()[1]
            await body(driver_for(entry(port, **options), config(), lambda: 0.0))
        finally:
            server.close()
            await server.wait_closed()

    run(main())


def framed(message: dns.message.Message) -> bytes:
    wire = message.to_wire()
    return len(wire).to_bytes(2, "big") + wire


def answer(query: dns.message.Message, rcode: int = 0) -> dns.message.Message:
    reply = dns.message.make_response(query)
    reply.flags |= dns.flags.AA
    reply.set_rcode(dns.rcode.Rcode.make(rcode))
    return reply


def soa(serial: int) -> dns.rrset.RRset:
    return dns.rrset.from_text("example.org.", 3600, "IN", "SOA", f"ns.example.org. h.example.org. {serial} 1 1 1 1")


# ---- servers that do wrong


@pytest.mark.parametrize(
    "junk",
    [b"", b"\x00", b"\x00\x05hello", b"\x00\x02", b"\x00\x0c" + bytes(12), bytes(100)],
    ids=["closed", "half a length", "junk", "cut short", "another id", "zeros"],
)
def test_junk_is_an_oserror(junk: bytes) -> None:
    async def reply(query: dns.message.Message, wire: bytes) -> bytes:
        return junk

    async def body(driver: Rfc2136Driver) -> None:
        for call in (driver.read(["www.example.org"]), driver.apply([change()]), driver.probe_write()):
            with pytest.raises(OSError):
                await call

    against(reply, body)


def test_an_endless_or_changing_transfer_is_an_oserror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controlplane.dns.peer.TRANSFER_BYTES", 100_000)
    row = dns.rrset.from_text("www.example.org.", 20, "IN", "A", "192.0.2.1")

    def transfer(*parts: list[dns.rrset.RRset]) -> Reply:
        async def reply(query: dns.message.Message, wire: bytes) -> bytes:
            if query.question[0].rdtype == RdataType.SOA:
                told = answer(query)
                told.answer.append(soa(1))
                return framed(told)
            messages = []
            for rows in parts:
                part = answer(query)
                part.answer.extend(rows)
                messages.append(framed(part))
            return b"".join(messages)

        return reply

    async def body(driver: Rfc2136Driver) -> None:
        with pytest.raises(OSError):
            await driver.read(["www.example.org"])

    against(transfer([soa(1)], *[[row]] * 3000), body)  # too much
    against(transfer([row], [soa(1)], [soa(1)]), body)  # does not begin with the SOA
    against(transfer([soa(1)], [row], [soa(2)]), body)  # ends with another one
    against(transfer([soa(1)], [row]), body)  # does not end

    async def good(driver: Rfc2136Driver) -> None:
        actual = (await driver.read(["www.example.org", "no.example.org"]))["www.example.org"]
        assert (actual.fence, actual.ttl_s, [a.address for a in actual.answers]) == (None, 20, ["192.0.2.1"])

    against(transfer([soa(1)], [row], [soa(1)]), good)


class SlowServer:
    """Of a zone over a slow line: one row in each message."""

    def __init__(self, between_s: float, messages: int) -> None:
        self._between_s = between_s
        row = dns.rrset.from_text("www.example.org.", 20, "IN", "A", "192.0.2.1")
        self._zone = [[soa(1)], *[[row]] * messages, [soa(1)]]
        self.serving: list[asyncio.Future[None]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.serving.append(ended)
        try:
            wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            query = dns.message.from_wire(wire)
            for rows in [[soa(1)]] if query.question[0].rdtype == RdataType.SOA else self._zone:
                part = answer(query)
                part.answer.extend(rows)
                writer.write(framed(part))
                await writer.drain()
                await asyncio.sleep(self._between_s)
        except OSError:
            pass
        finally:
            writer.close()
            ended.set_result(None)


def test_a_transfer_over_a_slow_line_may_take_its_time_and_one_that_stands_still_may_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert KIND.capabilities(Options("127.0.0.1")).patience_s > TRANSFER_S > 2

    async def read(between_s: float, messages: int) -> Pass:
        slow = SlowServer(between_s, messages)
        server = await asyncio.start_server(slow.serve, "127.0.0.1", 0)
        try:
            driver = driver_for(entry(server.sockets[0].getsockname()[1]), config(), lambda: 0.0)
            d = change().desired

            async def nothing() -> Mapping[str, Desired]:
                return {}

            # A deputy whose turn has not come: it only reads.
            return await Sync(driver, "run", 9, nothing, random.Random(0)).bring({"www": d}, "5f0c2d")
        finally:
            server.close()
            await server.wait_closed()
            await asyncio.gather(*slow.serving)

    assert run(read(0.2, 12)).applied["www"].reason == "left to the home agent for now"
    monkeypatch.setattr("controlplane.dns.peer.ASK_S", 0.1)
    assert run(read(0.5, 2)).applied["www"].reason.endswith("no answer within 0.1 s")
    monkeypatch.setattr("controlplane.dns.peer.ASK_S", 1.0)
    monkeypatch.setattr("controlplane.dns.peer.TRANSFER_S", 0.3)
    assert run(read(0.2, 5)).applied["www"].reason.endswith("no transfer of example.org within 0.3 s")


@pytest.mark.parametrize(
    ("rcode", "result", "word"),
    [
        ("REFUSED", Result.TERMINAL, "this key"),
        ("NOTAUTH", Result.TERMINAL, "served there"),
        ("NOTIMP", Result.TERMINAL, "UPDATE"),
        ("FORMERR", Result.TERMINAL, "FORMERR"),
        ("NOTZONE", Result.TERMINAL, "NOTZONE"),
        ("SERVFAIL", Result.TRANSIENT, "log"),
        ("NXRRSET", Result.FENCED, "somebody else"),
        ("YXRRSET", Result.FENCED, "somebody else"),
    ],
)
def test_every_code_has_a_result_and_a_reason(rcode: str, result: Result, word: str) -> None:
    async def reply(query: dns.message.Message, wire: bytes) -> bytes:
        return framed(answer(query, dns.rcode.from_text(rcode)))

    async def body(driver: Rfc2136Driver) -> None:
        got, reason = (await driver.apply([change()]))["www.example.org"]
        assert got is result
        assert word in reason
        with pytest.raises(OSError, match=rcode):
            await driver.probe_write()

    against(reply, body)


def test_an_unsigned_yes_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DNS_KEY", "c2VjcmV0c2VjcmV0c2VjcmV0")

    async def reply(query: dns.message.Message, wire: bytes) -> bytes:
        return framed(answer(query))

    async def body(driver: Rfc2136Driver) -> None:
        result, reason = (await driver.apply([change()]))["www.example.org"]
        assert result is Result.TERMINAL
        assert "not believed" in reason

    against(reply, body, tsig={"name": "failover", "key": {"env": "DNS_KEY"}})


# ---- what needs no server


def test_a_change_that_may_never_be_written_is_not_sent() -> None:
    async def main() -> None:
        driver = driver_for(entry(1), config(), lambda: 0.0)  # nobody listens there
        newer = Fence("5f0c2d", 9, "d-9.1")
        results = await driver.apply([change(expect=newer), change(name="www.example.net")])
        assert results["www.example.org"][0] is Result.FENCED
        assert results["www.example.net"] == (Result.TERMINAL, "www.example.net is in none of this driver's zones")
        with pytest.raises(OSError):
            await driver.apply([change()])

    run(main())


def test_a_secret_that_cannot_be_had_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    for secret, why in (
        (Secret(env="NO_SUCH_KEY"), "TSIG key k: environment variable NO_SUCH_KEY is not set"),
        (Secret(file="/nonexistent/key"), "TSIG key k: .*No such file"),
    ):
        with pytest.raises(ValueError, match=why):
            Tsig("k", secret).resolve()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "/key is empty"),
        (b"  \n", "/key is empty"),
        (b"\xff\xfe\x00\x80", "/key is not text in UTF-8"),
        (b"A" * (65 << 10), "/key has over 64 KiB: is that the secret?"),
        (b"not base64!", "its secret is not base64"),
        (b"c2Vjcm=V0", "its secret is not base64"),
        ("gehei\u00df".encode(), "its secret is not base64"),
    ],
)
def test_what_is_no_secret_is_refused_and_never_quoted(content: bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"^TSIG key k: ") as told:
        Tsig("k", Secret(file=str(file))).resolve()
    assert why in str(told.value)
    assert not content.strip() or content.decode("latin-1") not in str(told.value)


def test_an_empty_variable_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DNS_KEY", " ")
    with pytest.raises(ValueError, match="TSIG key k: environment variable DNS_KEY is empty"):
        Tsig("k", Secret(env="DNS_KEY")).resolve()


def test_a_secret_may_be_broken_into_lines(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("c2Vj\ncmV0\r\n")
    assert Tsig("k", Secret(file=str(tmp_path / "key"))).resolve().secret == b"secret"


@pytest.mark.parametrize("name", ["a..b", "x" * 70])
def test_a_key_whose_name_is_none_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DNS_KEY", "c2VjcmV0")
    with pytest.raises(ValueError, match="its name is no domain name"):
        Tsig(name, Secret(env="DNS_KEY")).resolve()


@pytest.mark.parametrize(
    ("options", "geo", "weights"),
    [
        (Options("127.0.0.1"), False, False),
        (Options("127.0.0.1", dialect="powerdns"), True, True),
        (Options("127.0.0.1", dialect="bind"), False, False),
        (Options("127.0.0.1", dialect="bind", views={"eu": Tsig("k", Secret(env="K"))}), True, False),
    ],
)
def test_what_each_dialect_can_express(options: Options, geo: bool, weights: bool) -> None:
    can = KIND.capabilities(options)
    assert (can.geo, can.weights, can.cas, can.expires, can.batch) == (geo, weights, True, False, 200)


def test_it_takes_other_regions_and_secrets_over_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DNS_KEY", "c2VjcmV0c2VjcmV0c2VjcmV0")

    async def main() -> None:
        one = entry(1, dialect="powerdns", tsig={"name": "failover", "key": {"env": "DNS_KEY"}})
        assert KIND.open is not None and KIND.open_deputy is not None
        driver: Driver = await KIND.open(one, config())
        assert isinstance(driver, Rfc2136Driver)
        before = driver.sides[0].notation
        assert await KIND.reconfigure(driver, one, config({"world": Region(default=True)}))
        assert driver.sides[0].notation is not before
        monkeypatch.delenv("DNS_KEY")
        after = driver.sides
        with pytest.raises(ValueError):
            await KIND.reconfigure(driver, one, config())
        assert driver.sides is after
        await driver.aclose()

    run(main())
