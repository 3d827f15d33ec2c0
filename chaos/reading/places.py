"""The names in a scenario against its configuration: does the place exist, and can the fault have an effect there?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from chaos.scenario import CLIENTS, EVERYTHING, LEADER, STORE_LEADER, VERBS, Expect, Fault
from controlplane.config.problems import Log, known_or, listed
from controlplane.config.problems import Path as Place
from policies.topology import Config, Service

_PROCESSES = (LEADER, STORE_LEADER)


class Places:
    """folder: where the files are that command lines name."""

    def __init__(self, config: Config, folder: Path, log: Log) -> None:
        self._config = config
        self._folder = folder
        self._log = log
        self._serving = {site for service in config.services.values() for site in service.endpoints}

    def fault(self, fault: Fault, path: Place) -> None:
        """Report what a fault names that is not there. path: of its verb."""
        shape = VERBS[fault.verb].shape
        if shape == "ends":
            self._ends(fault, path)
        elif shape == "word":
            self._word(fault, path)
        elif fault.verb in ("loss", "delay", "slow") and fault.one:
            self._ends(fault, (*path, "between"))
        elif fault.verb in ("loss", "delay"):
            self._messages(fault, path)
        elif fault.verb == "lie":
            self._known(fault.node, (*path, "vantage"), self._config.sites, "vantage")
        elif fault.verb == "clock_step":
            self._known(fault.node, (*path, "node"), self._nodes(LEADER), "node")
        elif fault.verb == "edit_zone":
            self._edited(fault, path)
        elif fault.verb == "operator":
            self._operated(fault, path)
        elif shape == "map" and fault.service:
            self._endpoint(fault.service, fault.site, (*path, "service"), (*path, "site"))
            if fault.verb == "lag":
                self._copy(fault, path)

    def expectation(self, line: Expect, path: Place) -> None:
        """Report the services and sites of an expectation that nobody can ask for."""
        served: Counter[Place] = Counter()  # conditions of `serves` come one by one
        for condition in line.conditions:
            here = (*path, *(("never",) if condition.never else ()), condition.kind, condition.service)
            if not condition.service or not self._named(condition.service, here):
                continue
            for index, site in enumerate(condition.sites, served[here]):
                at = (*here, index) if self._log.given((*here, index)) else here
                self._endpoint(condition.service, site, here, at)
            served[here] += len(condition.sites)
        for name in line.outages:
            self._named(name, (*path, "outage", name))

    def _known(self, word: str, path: Place, known: Mapping[str, object], what: str) -> bool:
        return bool(word) and not self._log.broken(path) and known_or(self._log, path, word, known, what)

    def _nodes(self, *processes: str) -> Mapping[str, object]:
        return {**self._config.sites, **dict.fromkeys(processes)}

    def _ends(self, fault: Fault, path: Place) -> None:
        ends = (fault.one, fault.other)
        if not all(ends):
            return
        known = self._nodes(EVERYTHING, CLIENTS)
        found = [self._known(end, (*path, index), known, "site") for index, end in enumerate(ends)]
        if not all(found):
            return
        sites = [end for end in ends if end in self._config.sites]
        if not sites:
            self._log.error(path, f"one of the two ends must be a site; there are {', '.join(self._config.sites)}")
        elif ends[0] == ends[1]:
            self._log.error(path, f"a fault without effect: both ends are {ends[0]}")
        elif CLIENTS in ends and not self._asked(sites[0]):
            self._log.error(path, f"a fault without effect: clients ask nothing of {sites[0]}")

    def _asked(self, site: str) -> bool:
        """Do clients have any reason to go to a site: a service, or its name server?"""
        return site in self._serving or any(driver.site == site for driver in self._config.dns)

    def _word(self, fault: Fault, path: Place) -> None:
        if fault.verb == "power_off":
            self._known(fault.site, path, self._config.sites, "site")
        elif fault.verb == "dns_api_down":
            self._server(fault.site, path)
        else:
            known = self._known(fault.node, path, self._nodes(*_PROCESSES), "node")
            if known and fault.node == STORE_LEADER and not self._config.store_members:
                self._log.error(path, "the configuration has no store.members: the store has no leader")

    def _server(self, site: str, path: Place) -> bool:
        """Is there a name server at the site?"""
        if not self._known(site, path, self._config.sites, "site"):
            return False
        at = sorted({driver.site for driver in self._config.dns})
        if site not in at:
            self._log.error(path, f"{site} has no name server; " + _those(at, "there are some at", "there is none"))
            return False
        return True

    def _messages(self, fault: Fault, path: Place) -> None:
        here = (*path, "node")
        if not fault.node or not self._known(fault.node, here, self._nodes(LEADER), "node"):
            return
        writers = sorted({writer for driver in self._config.dns for writer in driver.writers})
        if fault.message == "dns_update" and fault.node != LEADER and fault.node not in writers:
            said = _those(writers, "those that write are", "nobody does")
            self._log.error(here, f"a fault without effect: {fault.node} writes no name server; {said}")

    def _service(self, name: str, path: Place) -> Service | None:
        if not name or self._log.broken(path) or not known_or(self._log, path, name, self._config.services, "service"):
            return None
        return self._config.services[name]

    def _named(self, name: str, path: Place, key: bool = True) -> bool:
        """Is it a service with a DNS name? Its key is at the path, or it is the value there."""
        if not known_or(self._log, path, name, self._config.services, "service", key=key):
            return False
        if self._config.services[name].dns is None:
            self._log.error(path, f"{name} has no dns.name: clients cannot ask for it", key=key)
            return False
        return True

    def _endpoint(self, name: str, site: str, service_path: Place, site_path: Place) -> bool:
        """Does the service have an endpoint at the site?"""
        service = self._config.services.get(name) or self._service(name, service_path)
        if not self._known(site, site_path, self._config.sites, "site") or service is None:
            return False
        if site in service.endpoints:
            return True
        where = _those(service.endpoints, "it has them at", "it has none")
        if self._config.sites[site].role == "witness":
            self._log.error(
                site_path, f"{site} is a witness, which serves nothing; {name} is at {listed(service.endpoints)}"
            )
        else:
            self._log.error(site_path, f"{name} has no endpoint at {site}; {where}")
        return False

    def _copy(self, fault: Fault, path: Place) -> None:
        service = self._config.services.get(fault.service)
        if service is None:
            return
        if service.data is None:
            with_data = [name for name, other in self._config.services.items() if other.data is not None]
            said = _those(with_data, "those that have are", "none has")
            self._log.error((*path, "service"), f"{fault.service} has no data that could lag; {said}")
        elif service.data.source == fault.site:
            self._log.error((*path, "site"), f"{fault.site} is the source of {fault.service}'s data: it cannot lag")

    def _edited(self, fault: Fault, path: Place) -> None:
        if fault.service and not self._log.broken((*path, "service")):
            self._named(fault.service, (*path, "service"), key=False)
        self._server(fault.site, (*path, "site"))
        if fault.other:
            self._endpoint(fault.service, fault.other, (*path, "service"), (*path, "serve"))

    def _operated(self, fault: Fault, path: Place) -> None:
        """Would failoverctl take the command line at all? One that is to fail may be wrong."""
        from chaos.worlds.sim.operator import problems  # all of the API and of failoverctl: only if there is a line

        if fault.argv and not fault.code:
            for problem in problems(fault.argv, self._config, self._folder):
                self._log.error(path, "; ".join(problem.splitlines()))


def _those(names: Iterable[str], some: str, none: str) -> str:
    found = list(names)
    return f"{some} {', '.join(found)}" if found else none
