"""The configuration that `failoverctl dev` runs, and what makes one fit to be run there."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

from msgspec import json
from msgspec.structs import replace

from controlplane.dns import DRIVERS
from policies.topology import Config, Failback, Policy

FAST = Failback(soak_s=6.0, ramp=(10, 50, 100), step_s=2.0)
FAST_HOLD_S = 2.0
SITES = ("127.0.1.1", "127.0.2.1", "127.0.3.1")

TEMPLATE = """\
# What `failoverctl dev` runs: three sites and a witness on loopback addresses. Copy it, change it, and run it:
#   failoverctl dev my.yaml
version: 1
cluster: dev
target: 60s
sites:
  site-a: {{country: FR, capacity: 1000}}
  site-b: {{country: NL, capacity: 800}}
  site-c: {{country: ES, capacity: 200, role: backup}}
  cloud: {{country: IE, role: witness}}       # a vantage and a controller, no traffic
regions:                                    # clients are told apart by their address
  eu-west: {{networks: [127.1.0.0/16], location: {{lat: 48.86, lon: 2.35}}}}
  eu-north: {{networks: [127.2.0.0/16], location: {{lat: 52.37, lon: 4.90}}}}
  rest: {{default: true, location: {{lat: 50.0, lon: 3.0}}}}
services:
  www:
    endpoints: {{site-a: 127.0.1.1, site-b: 127.0.2.1, site-c: 127.0.3.1}}
    demand: {{eu-west: 400, eu-north: 300}}
    steering: {{mode: nearest}}
    checks:
      - http: {{port: {web}, path: /healthz, contains: ok}}
    dns: {{name: www.dev.test, ttl: 5s}}
drivers:
  dns:
    - {{driver: embedded, site: site-a, zones: [dev.test], listen: ["127.0.1.1:{dns}"], ns: [ns1.dev.test]}}
    - {{driver: embedded, site: site-b, zones: [dev.test], listen: ["127.0.2.1:{dns}"], ns: [ns2.dev.test]}}
    - {{driver: embedded, site: site-c, zones: [dev.test], listen: ["127.0.3.1:{dns}"], ns: [ns3.dev.test]}}
"""


FAST_POLICY = """\
policy:                                     # --fast: for people who watch
  hold: 2s
  failback: {soak: 6s, step: 2s}
"""


class Unfit(Exception):
    """The configuration is right, but `dev` cannot run it; says why, and what would be right."""


def template(dns: int, web: int, fast: bool = False) -> str:
    """The built-in configuration, for these ports."""
    return TEMPLATE.format(dns=dns, web=web) + (FAST_POLICY if fast else "")


def free_port(addresses: Sequence[str] = SITES, wanted: int = 0) -> int:
    """A port that is free for UDP and TCP on all these addresses; `wanted` itself, if it is not 0.

    Raises OSError if the wanted one is taken. (Another process may still take it before we bind it.)
    """
    for _ in range(50):
        port = wanted or _any_port(addresses[0])
        try:
            for address in addresses:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    with socket.socket(socket.AF_INET, kind) as probe:
                        if kind == socket.SOCK_STREAM:
                            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                        probe.bind((address, port))
            return port
        except OSError:
            if wanted:
                raise
    raise OSError("no free port was found")


def _any_port(address: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def faster(config: Config) -> Config:
    """The same with a short soak, ramp and hold: for people who watch."""

    def fast(policy: Policy) -> Policy:
        return replace(policy, failback=replace(FAST, mode=policy.failback.mode), hold_s=FAST_HOLD_S)

    services = {name: replace(spec, policy=fast(spec.policy)) for name, spec in config.services.items()}
    return replace(config, services=services, policy=fast(config.policy))


def check_fit(config: Config) -> None:
    """Raises Unfit: dev plays every site on this machine, so every address has to be a loopback one."""
    for name, service in config.services.items():
        for site, addresses in service.endpoints.items():
            for address in addresses:
                if not ipaddress.ip_address(address).is_loopback:
                    raise Unfit(
                        f"services.{name}.endpoints.{site}: {address} is not a loopback address; "
                        "dev plays all sites on this machine, give each site one of its own, such as 127.0.1.1"
                    )
        for check in service.checks:
            if check.kind == "tls" or (check.kind == "http" and json.decode(check.options).get("tls")):
                raise Unfit(f"services.{name}.checks {check.name}: dev's demo services speak plain HTTP; leave tls out")
        if service.pools is not None:
            raise Unfit(f"services.{name}.pools: dev has no load balancers; leave pools out")
    for driver in config.dns:
        if not DRIVERS[driver.driver].in_process:
            raise Unfit(
                f"drivers.dns {driver.name}: dev writes to no server outside its own process, as {driver.driver} does; "
                f"use driver: {', '.join(name for name, kind in DRIVERS.items() if kind.in_process)}"
            )
    if config.pools:
        raise Unfit("drivers.pools: dev has no load balancers; leave them out")


def web_places(config: Config) -> dict[str, tuple[tuple[str, int], ...]]:
    """Site -> (address, port) of every demo web service that its checks look for."""
    places: dict[str, dict[tuple[str, int], None]] = {}
    for service in config.services.values():
        for check in service.checks:
            port = json.decode(check.options).get("port")
            for site, addresses in service.endpoints.items():
                if port and (not check.sites or site in check.sites):
                    for address in addresses:
                        places.setdefault(site, {})[(address, int(port))] = None
    return {site: tuple(where) for site, where in places.items()}
