"""What lies between a node and the name servers: its drivers, and the questions that it asks."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence

import dns.message

from chaos.worlds.loop import Kernel
from chaos.worlds.sim.dns import NameServer, NameServers
from chaos.worlds.sim.messages import Messages
from chaos.worlds.sim.network import Network, Path, resent_s
from controlplane.dns import DRIVERS
from controlplane.dns.ask import Ask
from controlplane.dns.signing import FUDGE_S
from controlplane.drivers import Actual, Capabilities, Change, Result
from policies.topology import Config, DnsDriver

PATIENCE_S = 1.8  # of a driver with a server that does not reply (dns/peer.py)
ASK_S = 2.0  # of a question: over UDP, again, and over TCP


class SimDriver:
    """The Driver port: a writer at `site`, and the name server of an entry of the configuration (None: nothing is
    where that says), with the network between them. clocks: by how much each site's wall clock is wrong, seconds."""

    def __init__(
        self,
        entry: DnsDriver,
        site: str,
        home: NameServer | None,
        servers: NameServers,
        network: Network,
        messages: Messages,
        kernel: Kernel,
        clocks: Mapping[str, float],
        rng: random.Random,
    ) -> None:
        kind = DRIVERS[entry.driver]
        options = kind.options_of(entry)
        self.name = entry.name
        self.capabilities: Capabilities = kind.capabilities(options)
        self._signed = bool(getattr(options, "tsig", None) or getattr(options, "views", None))
        self._site, self._home, self._where = site, home, entry.site
        self._servers, self._network, self._messages = servers, network, messages
        self._kernel, self._clocks, self._rng = kernel, clocks, rng
        if home is not None and home.inside:
            home.opened += 1

    async def read(self, names: Sequence[str]) -> Mapping[str, Actual]:
        home, rtt_s = await self._reach()
        await asyncio.sleep(rtt_s)
        found = ((name, home.primary.read(name)) for name in names)
        return {name: actual for name, actual in found if actual is not None}

    async def apply(self, changes: Sequence[Change]) -> Mapping[str, tuple[Result, str]]:
        home, rtt_s = await self._reach(back=False)
        results: dict[str, tuple[Result, str]] = {}
        late_s = 0.0
        if self._messages.rules:
            late_s = self._messages.late_s("dns_update", self._site)
            if self._messages.lost("dns_update", self._site, self._rng):
                await self._silent()
        if late_s:
            # It is on its way, whatever becomes of its sender.
            self._kernel.at(self._kernel.now + late_s, self._arrive, home, changes, results)
        if late_s + rtt_s >= PATIENCE_S:
            await self._silent()
        await asyncio.sleep(late_s + rtt_s / 2)
        if not late_s:
            self._arrive(home, changes, results)
        if not self._path().back:
            await self._silent()
        await asyncio.sleep(rtt_s / 2)
        return results

    async def probe_write(self) -> None:
        home, rtt_s = await self._reach()
        await asyncio.sleep(rtt_s)
        if home.refusing:
            raise ConnectionError(f"update {home.primary.zones[0]}: REFUSED")

    async def aclose(self) -> None:
        home = self._home
        if home is not None and home.inside:
            home.opened -= 1
            if not home.opened:
                self._servers.died(home.site)

    def _arrive(self, home: NameServer, changes: Sequence[Change], results: dict[str, tuple[Result, str]]) -> None:
        if self._path().there and self._servers.answers(home, home.primary):
            for change in changes:
                results[change.desired.name] = self._servers.receive(self._site, home, change)

    def _path(self) -> Path:
        return self._network.path(self._site, self._where)

    async def _reach(self, back: bool = True) -> tuple[NameServer, float]:
        """The server, and how long a request to it takes. Raises OSError or TimeoutError."""
        path, home = self._path(), self._home
        if home is None or not path.there or (back and not path.back):
            await self._silent()
        assert home is not None
        if not self._servers.answers(home, home.primary):
            await asyncio.sleep(path.rtt_s)
            raise ConnectionRefusedError(f"the name server of {self._where} does not run")
        rtt_s = path.rtt_s + (resent_s(path.loss, self._rng) if path.loss else 0.0)
        if rtt_s >= PATIENCE_S:
            await self._silent()
        if self._signed and abs(self._clocks[self._site] - self._clocks[self._where]) > FUDGE_S:
            await asyncio.sleep(rtt_s)
            raise ConnectionError(f"the name server of {self._where} refuses the signature: BADTIME")
        return home, rtt_s

    async def _silent(self) -> None:
        await asyncio.sleep(PATIENCE_S)
        raise TimeoutError(f"the name server of {self._where} does not answer")


def open_driver(
    entry: DnsDriver,
    site: str,
    servers: NameServers,
    network: Network,
    messages: Messages,
    kernel: Kernel,
    clocks: Mapping[str, float],
    rng: random.Random,
) -> SimDriver | None:
    """None where `site` cannot write it: it is inside its home's process."""
    if DRIVERS[entry.driver].in_process and entry.site != site:
        return None
    return SimDriver(entry, site, servers.home(entry), servers, network, messages, kernel, clocks, rng)


def asker(site: str, source: str, servers: NameServers, network: Network, rng: random.Random) -> Ask:
    """The questions of a node at `site`, which come from the address `source`."""

    async def ask(server: str, query: dns.message.Message) -> dns.message.Message:
        found = servers.at(server, site)
        path = network.path(site, found[0].site) if found else None
        if found is None or path is None or not path.works:
            await asyncio.sleep(ASK_S)
            raise TimeoutError(f"{server} does not answer")
        took_s = path.rtt_s + (resent_s(path.loss, rng) if path.loss else 0.0)
        if took_s >= ASK_S:
            await asyncio.sleep(ASK_S)
            raise TimeoutError(f"{server} does not answer")
        await asyncio.sleep(took_s)
        if not servers.answers(*found):
            raise ConnectionRefusedError(f"{server} refuses connections")
        view = _view(query, servers.config)
        if not view:
            return found[1].reply(query, source)
        plain = dns.message.QueryMessage(id=0)  # the server here knows no keys, and would refuse a signed one
        plain.flags, plain.question, plain.opt = query.flags, query.question, query.opt
        reply = found[1].reply(plain, f"region {view}")
        if not reply.had_tsig:
            reply.use_tsig(query.keyring)
        return reply

    return ask


def _view(query: dns.message.Message, config: Config) -> str:
    """The region of the view that the question's key opens; "" = it has no key."""
    if not query.keyring:
        return ""
    name = query.keyring.name.to_text(omit_final_dot=True)
    for driver in config.dns:
        kind = DRIVERS[driver.driver]
        for region, tsig in getattr(kind.options_of(driver), "views", {}).items():
            if tsig.name == name:
                return str(region)
    return ""
