"""What each driver of a site is to be brought to, and what each name server is to answer."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

from controlplane.lens import Lens
from controlplane.routes import Routes
from policies.world import Desired


class Aims:
    """Each second each driver and each server is looked at, and desired are many: what depends on them and on the
    routes alone is worked out once for all news. What is returned never changes: other aims are another mapping.

    `find`: the newest desired known, by service."""

    def __init__(self, find: Callable[[], dict[str, Desired]]) -> None:
        self._find = find
        self._routes: Routes | None = None
        self._news: int | None = None
        self._known: dict[Hashable, dict[str, Desired]] = {}

    def at(self, news: int | None, routes: Routes | None) -> Aims:
        """As of now. news: rises with each change of desired; None: they may be others each time."""
        if news is None or news != self._news or routes is not self._routes:
            self._news, self._routes, self._known = news, routes, {}
        return self

    def in_zones(self) -> dict[str, Desired]:
        """Of services with a DNS name that is theirs."""
        return self._recall("", self._find_in_zones)

    def of_driver(self, name: str, pool: bool, lens: Lens) -> dict[str, Desired]:
        return self._recall((name, lens), lambda: self._find_of_driver(name, pool, lens))

    def of_server(self, server: str) -> dict[str, Desired]:
        return self._recall(("server", server), lambda: self._find_of_server(server))

    def _recall(self, what: Hashable, find: Callable[[], dict[str, Desired]]) -> dict[str, Desired]:
        if what not in self._known:
            self._known[what] = find()
        return self._known[what]

    def _find_in_zones(self) -> dict[str, Desired]:
        desired = self._find()
        return {service: d for service, d in desired.items() if d.name and not self._inherited(d, desired)}

    def _inherited(self, old: Desired, desired: Mapping[str, Desired]) -> bool:
        """Has the configuration given this name to another service, which answers for it by now? Two that write
        the same name would take each other for a store that was rewound."""
        heir = self._routes.owners.get(old.name, old.service) if self._routes else old.service
        return heir != old.service and heir in desired and desired[heir].name == old.name

    def _find_of_driver(self, name: str, pool: bool, lens: Lens) -> dict[str, Desired]:
        routes = self._routes
        if routes is None:
            return {}
        if pool:
            return _one_a_name(lens.all(self._find()))
        return lens.all({s: d for s, d in self.in_zones().items() if name in routes.of(d.name)[0]})

    def _find_of_server(self, server: str) -> dict[str, Desired]:
        routes = self._routes
        lens = routes.lens_of(server) if routes else None
        if routes is None or lens is None:  # without a lens there is nothing to ask it
            return {}
        return lens.all({s: d for s, d in self.in_zones().items() if server in routes.of(d.name)[1]})


def _one_a_name(wanted: Mapping[str, Desired]) -> dict[str, Desired]:
    """Two services with one backend would take each other for a store that was rewound: `check` refuses them, and
    the first in the alphabet has it."""
    first: dict[str, str] = {}
    for service in sorted(wanted):
        first.setdefault(wanted[service].name, service)
    return {service: d for service, d in wanted.items() if first[d.name] == service}
