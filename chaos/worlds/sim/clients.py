"""Clients in virtual time: of every region and every service one behind each resolver, with one request a second.

They stand in no site: what a cut of a site from "clients" means for them, `connect` and the resolvers' `ask` know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from chaos.history import Asked, Served
from chaos.worlds.loop import Kernel
from chaos.worlds.sim.resolvers import Resolver
from chaos.worlds.world import Say
from policies.topology import Config

EVERY_S = 1.0

Connect = Callable[[str, str, str], str]  # (service, site, region) -> "" or an error word, at this instant


class Client:
    """One client, and what it had so far. waiting: requests that still wait for the resolver."""

    def __init__(self, service: str, resolver: Resolver) -> None:
        self.name = f"{service}@{resolver.name}"
        self.service, self.resolver = service, resolver
        self.last: tuple[str, str] | None = None  # site, error
        self.requests = self.failed = self.waiting = 0


class Clients:
    """All of them, on one timer: begin(), and end() once.

    now: seconds of the scenario, which records carry; the resolvers' clock too. A service that a new configuration
    brings gets clients; one that it takes away keeps them, as people keep asking.
    """

    def __init__(
        self,
        kernel: Kernel,
        config: Callable[[], Config],
        resolvers: Sequence[Resolver],
        connect: Connect,
        say: Say,
        now: Callable[[], float],
    ) -> None:
        self._kernel, self._config, self._resolvers = kernel, config, resolvers
        self._connect, self._say, self._now = connect, say, now
        self._read: Config | None = None
        self._clients: dict[str, Client] = {}
        self._going = False

    def begin(self) -> None:
        """The first request is now."""
        self._going = True
        self._request()

    def end(self) -> None:
        """No more requests; says what each client had in all."""
        self._going = False
        for client in self._clients.values():
            region = client.resolver.region
            self._say(
                Asked(
                    at=self._now(),
                    client=client.name,
                    service=client.service,
                    region=region,
                    requests=client.requests,
                    failed=client.failed,
                )
            )

    def _request(self) -> None:
        if not self._going:
            return
        self._kernel.at(self._kernel.now + EVERY_S, self._request)
        config = self._config()
        if config is not self._read:
            self._read = config
            self._add(config)
        now = self._now()
        for client in self._clients.values():
            told = client.resolver.look(client.service)
            if told.ready > now:  # so do those that come meanwhile
                client.waiting += 1
                continue
            site, error = told.site, told.error
            if not error:
                error = self._connect(client.service, site, client.resolver.region)
            made, client.waiting = client.waiting + 1, 0
            client.requests += made
            if error:
                client.failed += made
            if client.last != (site, error):
                client.last = (site, error)
                self._served(client, now, site, error)

    def _served(self, client: Client, now: float, site: str, error: str) -> None:
        resolver = client.resolver
        self._say(
            Served(
                at=now,
                client=client.name,
                service=client.service,
                region=resolver.region,
                site=site,
                error=error,
                resolver=resolver.kind,
            )
        )

    def _add(self, config: Config) -> None:
        for service, spec in config.services.items():
            if spec.dns is None:
                continue
            for resolver in self._resolvers:
                client = Client(service, resolver)
                self._clients.setdefault(client.name, client)
