"""The simulator as a world: whole scenarios, hours in seconds, and equal seeds give equal histories."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from pathlib import Path

from chaos.history import History
from chaos.scenario import Fault, Scenario
from chaos.worlds.sim import operator
from chaos.worlds.sim.clients import Clients, Connect
from chaos.worlds.sim.cluster import Cluster
from chaos.worlds.sim.faults import BEGIN, Faults
from chaos.worlds.sim.operator import Operating
from chaos.worlds.sim.resolvers import Reply, Resolver, resolvers_of
from chaos.worlds.world import Refused, Say
from controlplane.dns import DRIVERS
from controlplane.dns.server import endpoint, join
from controlplane.dns.verify import drivers_for
from policies.topology import Config


class SimWorld:
    """Implements World."""

    name = "sim"
    verbs = frozenset(BEGIN)

    def check(self, scenario: Scenario) -> list[str]:
        found = [f"{_where(scenario, fault)}: {why}" for fault in scenario.faults if (why := _problem(scenario, fault))]
        return [*found, *(f"{scenario.file}: {why}" for why in _clashes(scenario.config))]

    def play(self, scenario: Scenario, seed: int, say: Say) -> History:
        """Raises Refused too if the cluster never gets well without any fault."""
        problems = self.check(scenario)
        if problems:
            raise Refused(problems)
        began, started = datetime.now(UTC), time.monotonic()
        with Cluster(scenario.config, str(seed), scenario.transfer_s) as cluster:
            cluster.warm_up(say)
            operating = Operating(cluster.nodes, cluster.kernel, Path(scenario.file).parent)
            faults = Faults(cluster, scenario.faults, operating.run)
            clients = Clients(
                cluster.kernel,
                lambda: cluster.servers.config,
                _resolvers(cluster, scenario, seed),
                _connect(cluster, seed),
                cluster.recorder.say,
                lambda: cluster.recorder.now,
            )
            faults.schedule()
            clients.begin()
            cluster.run(scenario.duration_s)
            faults.heal()
            clients.end()
            records = tuple(cluster.history)
        return History(
            scenario=scenario.name,
            world=self.name,
            seed=seed,
            config=scenario.config,
            duration_s=scenario.duration_s,
            records=records,
            began=began.isoformat(timespec="seconds"),
            took_s=time.monotonic() - started,
        )


def _where(scenario: Scenario, fault: Fault) -> str:
    return f"{scenario.file}:{fault.line}:{fault.column}"


def _problem(scenario: Scenario, fault: Fault) -> str:
    """Why this world cannot do it; "" = it can."""
    if fault.verb not in BEGIN:
        return f'the simulator cannot do "{fault.verb}": play this scenario in the lab or in staging'
    if fault.verb == "operator":
        return "; ".join(operator.problems(fault.argv, scenario.config, Path(scenario.file).parent))
    if fault.verb in ("edit_zone", "dns_api_down"):
        return _no_server(scenario.config, fault)
    return ""


def _no_server(config: Config, fault: Fault) -> str:
    if fault.verb == "dns_api_down":
        there = any(driver.site == fault.site for driver in config.dns)
    else:
        dns = config.services[fault.service].dns
        there = dns is not None and any(driver.site == fault.site for driver in drivers_for(config, dns.name))
    return "" if there else f"{fault.site} has no name server for that; its configuration is drivers.dns"


def _clashes(config: Config) -> list[str]:
    """Name servers that could not be told apart."""
    seen: dict[str, str] = {}
    found = []
    for driver in config.dns:
        kind = DRIVERS[driver.driver]
        for text in kind.servers(kind.options_of(driver)) if not kind.in_process else ():
            address = join(*endpoint(text))
            other = seen.setdefault(address, driver.name)
            if other != driver.name:
                found.append(f"name servers {other} and {driver.name} are both at {address}: give each one of its own")
    return found


def _resolvers(cluster: Cluster, scenario: Scenario, seed: int) -> list[Resolver]:
    """Those of the scenario; each asks as a client of its region does."""
    rng = random.Random(f"{seed}/questions")
    regions = {region: region for region in scenario.config.regions}

    def servers(service: str) -> list[str]:
        return [server.name for _, server in cluster.servers.serving(service)]

    def ask(server: str, service: str, region: str) -> Reply | None:
        return cluster.servers.ask(server, service, region, cluster.services.site_of, rng)

    return resolvers_of(scenario.resolvers, regions, servers, ask, lambda: cluster.recorder.now, str(seed))


def _connect(cluster: Cluster, seed: int) -> Connect:
    rng = random.Random(f"{seed}/requests")
    return lambda service, site, region: cluster.services.connect(service, site, rng)
