"""What a drill in staging records beside its clients: what each name server answers, and what the control plane did.

Name servers are asked directly, as `failoverctl verify` does; decisions, who led, and configurations come from the API.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from chaos.history import Answered, Committed, Configured, Led
from chaos.worlds.world import Say
from controlplane.cli.client import ApiError, Client, Unreachable
from controlplane.dns.ask import ask
from controlplane.dns.questions import Probe
from controlplane.dns.regions import Regions
from controlplane.dns.server import endpoint
from controlplane.dns.verify import Reading, by_server, geo_file, probes_for, servers_of, survey
from controlplane.documents import DecisionDoc
from policies.topology import Config

Doc = dict[str, Any]
LOOK_S = 0.5  # between two looks at the name servers
API_S = 3.0  # patience with one request
AGAIN_S = 0.5  # before a stream that ended is opened again
Clock = Callable[[], float]


class NameServers:
    """Asks every authoritative server of the configuration about every service, again and again. Each site's are asked
    by themselves: one that is silent delays no other."""

    def __init__(self, config: Config, incarnation: str, clock: Clock, say: Say) -> None:
        """Blocks while secrets and a MaxMind file are read."""
        self._config, self._incarnation, self._clock, self._say = config, incarnation, clock, say
        self._probes: Mapping[str, Sequence[Probe]] = by_server(config, probes_for(config.regions, geo_file(config)))
        self._names = server_names(config)
        self._places = sites_by_address(config)
        self._here = {server: region_here(config, server) for server in self._names}
        self._known: dict[tuple[str, str, str], Answered] = {}
        self._of_site = [
            msgspec.structs.replace(config, dns=tuple(driver for driver in config.dns if driver.site == site))
            for site in dict.fromkeys(driver.site for driver in config.dns)
        ]

    async def run(self) -> None:
        await asyncio.gather(*(self._run(of_site) for of_site in self._of_site))

    async def look(self) -> None:
        """Ask all of them once."""
        await asyncio.gather(*(self._look(of_site) for of_site in self._of_site))

    async def _run(self, of_site: Config) -> None:
        while True:
            at = self._clock()
            torn = await self._look(of_site)
            await asyncio.sleep(0.0 if torn else max(0.05, LOOK_S - (self._clock() - at)))

    async def _look(self, of_site: Config) -> bool:
        """True: something changed between the question for its fence and those for its addresses; look again."""
        at = self._clock()
        readings = await survey(of_site, ask, probes=self._probes)
        news = [reading for reading in readings if any(self._new(record) for record in self._answers(reading, at))]
        if not news:
            return False
        again = {(r.server, r.service): r for r in await survey(of_site, ask, probes=self._probes)}
        whole = [reading for reading in news if _same(reading, again[reading.server, reading.service])]
        for record in (record for reading in whole for record in self._answers(reading, at)):
            new = self._new(record)
            if new is not None:
                self._known[new.server, new.service, new.region] = new
                self._say(new)
        return len(whole) < len(news)

    def _new(self, record: Answered) -> Answered | None:
        """What is to be recorded; None: it is known."""
        before = self._known.get((record.server, record.service, record.region))
        if before is None:
            return record
        if before.generation == record.generation is not None:
            # Of several addresses PowerDNS tells one, by lot: those of one generation are told together.
            record = msgspec.structs.replace(record, sites=tuple(sorted({*before.sites, *record.sites})))
        return None if msgspec.structs.replace(before, at=record.at) == record else record

    def _answers(self, reading: Reading, at: float) -> Iterator[Answered]:
        """One for each region of which the answer is known: where everybody is told the same, that is all of them."""
        ours = reading.generation if reading.incarnation == self._incarnation else None
        places = self._places[reading.service]
        for region in self._config.regions:
            if region in reading.not_asked and region != self._here[reading.server]:
                continue
            addresses = reading.answers.get(region, reading.answers.get("", ()))
            yield Answered(
                at=at,
                server=self._names[reading.server],
                service=reading.service,
                region=region,
                sites=tuple(sorted({places.get(address, address) for address in addresses})),
                generation=ours,
                reachable=reading.reachable,
            )


def _same(one: Reading, other: Reading) -> bool:
    """Of the same writing: what was asked between the two fences belongs to it."""
    return (one.incarnation, one.generation) == (other.incarnation, other.generation)


def server_names(config: Config) -> dict[str, str]:
    """ "address:port" of each name server -> its site's name; "<site>/2" for the second of a site."""
    found: dict[str, str] = {}
    for driver in config.dns:
        for server in servers_of(driver):
            if server not in found:
                count = sum(name.partition("/")[0] == driver.site for name in found.values())
                found[server] = f"{driver.site}/{count + 1}" if count else driver.site
    return found


def region_here(config: Config, server: str) -> str:
    """The region from which this machine asks a name server: that of the address by which it reaches it."""
    host, port = endpoint(server)
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, port))  # sends nothing
        except OSError:
            return ""
        source: str = probe.getsockname()[0]
    finder = Regions(config.regions, geo_file(config))
    try:
        return finder.locate(source, None).region
    finally:
        finder.close()


def sites_by_address(config: Config) -> dict[str, dict[str, str]]:
    """service -> address -> site."""
    return {
        name: {str(ipaddress.ip_address(a)): site for site, every in service.endpoints.items() for a in every}
        for name, service in config.services.items()
    }


class ControlPlane:
    """Follows the events of every API: whichever tells of a decision first. A decision is recorded with whoever held
    the leader key at its revision, as the node that tells saw it; of decisions that no node saw as they were made,
    nobody is known to have held it."""

    def __init__(self, api: Sequence[str], clock: Clock, say: Say) -> None:
        self._api, self._clock, self._say = api, clock, say
        self._waiting: dict[str, float] = {}  # decisions without a known holder -> when they were heard of
        self._done: set[str] = set()
        self._leader: tuple[str, int] = ("", 0)
        self._revision = 0
        self._after = ""

    async def begin(self) -> tuple[Config, str]:
        """Record how things are: the configuration, who leads, and the decisions that are in force (which are taken at
        their word as to who made them). Returns the configuration and the incarnation. Raises Unreachable, ApiError,
        msgspec.ValidationError."""
        async with Client(self._api, API_S) as client:
            status, doc = await client.get("/v1/status"), await client.get("/v1/config")
            config = msgspec.convert(doc["config"], Config)
            self._after = status["decision"] or ""
            self._configured(config)
            self._led(status)
            ids = sorted({desired["decision"] for desired in doc["desired"].values() if desired["decision"]})
            for id_ in sorted(ids, key=lambda i: int(i.removeprefix("d-"))):
                decision = await self._record(client, id_)
                if decision is not None:
                    self._commit(decision, self._clock(), decision.node, decision.token)
        return config, str(doc["incarnation"])

    async def run(self) -> None:
        await asyncio.gather(*(self._follow(url) for url in self._api))

    async def end(self) -> None:
        """Record what is still without a known holder: nobody's."""
        async with Client(self._api, API_S) as client:
            for id_, at in list(self._waiting.items()):
                decision = await self._record(client, id_)
                if decision is not None and id_ not in self._done:
                    self._commit(decision, at, "", 0)

    async def _follow(self, url: str) -> None:
        while True:
            path = f"/v1/events?after={self._after}" if self._after else "/v1/events"
            try:
                async with Client([url], API_S) as client, aclosing(client.events(path)) as events:
                    async for _, event in events:
                        await self._take(client, event)
            except (Unreachable, ApiError):
                pass  # away, or broken by this very drill: the others tell; it is asked again
            await asyncio.sleep(AGAIN_S)

    async def _take(self, client: Client, event: Doc) -> None:
        if event["type"] == "status":
            if event["source"]["current"]:
                self._led(event)
            if (event["config_rev"] or 0) > self._revision:
                config = msgspec.convert((await client.get("/v1/config"))["config"], Config)
                if config.revision > self._revision:  # others may have told of it meanwhile
                    self._configured(config)
        elif event["type"] == "decision" and event["decision"] not in self._done:
            id_, at = event["decision"], self._waiting.setdefault(event["decision"], self._clock())
            holder = event.get("holder")
            if holder is None:
                return
            decision = await self._record(client, id_)
            if decision is not None and id_ not in self._done:
                self._commit(decision, at, holder, event["holder_token"])

    async def _record(self, client: Client, id_: str) -> DecisionDoc | None:
        """None: it is not to be had from there."""
        try:
            return msgspec.convert((await client.get(f"/v1/decisions/{id_}/record"))["record"], DecisionDoc)
        except (Unreachable, ApiError):
            return None

    def _commit(self, decision: DecisionDoc, at: float, holder: str, token: int) -> None:
        self._done.add(decision.id)
        self._waiting.pop(decision.id, None)
        self._say(Committed(at=at, decision=decision, holder=holder, holder_token=token))

    def _led(self, status: Doc) -> None:
        """As the API says it: nobody here can look into a node."""
        now = (status["leader"] or "", status["token"] or 0)
        if now[0] and now[1] > self._leader[1]:
            before, self._leader = self._leader, now
            at = self._clock()
            if before[0]:
                self._say(Led(at=at, node=before[0], leading=False, why=f"{now[0]} leads"))
            self._say(Led(at=at, node=now[0], leading=True, why=f"token {now[1]}"))

    def _configured(self, config: Config) -> None:
        self._revision = config.revision
        self._say(Configured(at=self._clock(), config=config))
