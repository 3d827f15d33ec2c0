"""What the contract of DNS drivers is tested with: a Backend, things to write into it, and an agent's side of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from controlplane.dns.ask import ask
from controlplane.dns.questions import Probe
from controlplane.dns.verify import verify
from controlplane.documents import Seen
from controlplane.drivers import Actual, Capabilities, Change, Driver, Fence, Result
from controlplane.sync import Pass, Sync
from policies.world import Answer, Desired
from tests.support import run

INCARNATION = "5f0c2d"


class Backend(Protocol):
    """One running name server.

    regions: what an answer may be for, the default one last; ("",) = it cannot tell clients apart."""

    zone: str  # names are put below it; each backend has one of its own
    server: str  # "address:port"
    keeps: bool  # what was written outlives a restart
    atomic: bool  # a name is changed as a whole
    regions: tuple[str, ...]
    weights: bool

    async def driver(self) -> Driver:
        """A writer of its own; closed by the test."""
        ...

    async def restart(self) -> None: ...

    async def kill(self) -> None:
        """-9, and start it again."""
        ...

    async def edit(self, name: str, actual: Actual | None) -> None:
        """By hand, as an operator with an editor would; None removes the name and its fence."""
        ...

    async def told(self, region: str, name: str, rtype: str) -> list[str]:
        """The addresses that a client of that region is given. Only where it has regions."""
        ...

    async def aclose(self) -> None: ...


def desired(
    backend: Backend,
    generation: int,
    *addresses: str,
    label: str = "www",
    decision: str = "",
    ttl_s: int = 20,
) -> Desired:
    """One site for each address, the same in every region; equal weights."""
    return by_region(
        backend,
        generation,
        {region: dict.fromkeys(addresses, 100) for region in backend.regions},
        label=label,
        decision=decision,
        ttl_s=ttl_s,
    )


def by_region(
    backend: Backend,
    generation: int,
    told: Mapping[str, Mapping[str, int]],
    *,
    label: str = "www",
    decision: str = "",
    ttl_s: int = 20,
) -> Desired:
    """told: region -> address -> weight; where there are no weights, each is 1."""
    answers = tuple(
        Answer(region, "AAAA" if ":" in a else "A", a, f"site-{i}", weight if backend.weights else 1)
        for region, mine in told.items()
        for i, (a, weight) in enumerate(mine.items())
    )
    return Desired(
        service=label,
        generation=generation,
        shares={region: {"site-0": 100} for region in told},
        answers=answers,
        sites={},
        name=f"{label}.{backend.zone}",
        ttl_s=ttl_s,
        decision=decision or f"d-{generation}",
    )


def change(d: Desired, expect: Fence | None, nonce: str = "1", incarnation: str = INCARNATION) -> Change:
    return Change(d, expect, Fence(incarnation, d.generation, f"{d.decision}.{nonce}"))


class Lossy:
    """Does what it is told, and loses the reply."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.name = driver.name
        self.capabilities: Capabilities = driver.capabilities
        self.lose = 1
        self.applied = 0

    async def read(self, names: Sequence[str]) -> Mapping[str, Actual]:
        return await self.driver.read(names)

    async def apply(self, changes: Sequence[Change]) -> Mapping[str, tuple[Result, str]]:
        self.applied += 1
        results = await self.driver.apply(changes)
        if self.lose:
            self.lose -= 1
            raise TimeoutError("the reply was lost")
        return results

    async def probe_write(self) -> None:
        await self.driver.probe_write()

    async def aclose(self) -> None:
        await self.driver.aclose()


class Writer:
    """An agent's side of one driver: `known` is what a linearizable read of the store would show it."""

    def __init__(self, driver: Driver, name: str, known: Sequence[Desired] = (), turn: int = 0) -> None:
        self.driver = driver
        self.known = {d.service: d for d in known}
        self.sync = Sync(driver, name, turn, self._reread, random.Random(name))

    async def _reread(self) -> Mapping[str, Desired]:
        return self.known

    async def bring(self, *wanted: Desired, incarnation: str = INCARNATION, adopted: Sequence[str] = ()) -> Pass:
        for d in wanted:
            self.known.setdefault(d.service, d)
        return await self.sync.bring({d.service: d for d in wanted}, incarnation, adopted, 1 if adopted else 0)

    async def settle(self, *wanted: Desired) -> Pass:
        """Passes until all is done: on a busy machine a server may not answer in time."""
        for _ in range(30):
            done = await self.bring(*wanted)
            if {said.result for said in done.applied.values()} == {"ok"}:
                return done
            await asyncio.sleep(min(done.wake_in_s, 0.5))
        raise AssertionError({said.reason for said in done.applied.values()})


class OnBackend:
    """`open` gives a Backend, of a name server or of a pool; each case has one of its own, and a driver on it."""

    async def open(self) -> Any:
        raise NotImplementedError

    def case(self, body: Callable[[Any, Driver], Awaitable[None]]) -> None:
        async def main() -> None:
            backend = await self.open()
            try:
                driver = await backend.driver()
                try:
                    await body(backend, driver)
                finally:
                    await driver.aclose()
            finally:
                await backend.aclose()

        run(main())


async def seen(backend: Backend, d: Desired) -> Seen:
    """What the server says to a client, compared with desired."""
    answers = await verify(ask, backend.server, [d], INCARNATION, [Probe("", None)])
    return answers[d.service]
