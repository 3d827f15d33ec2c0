"""The setting of the simulated stories: three sites with one service and a name server each, and a witness."""

from __future__ import annotations

from policies.topology import (
    Check,
    Config,
    Dns,
    DnsDriver,
    Failback,
    Policy,
    ProbePolicy,
    Region,
    Service,
    Site,
)

SITES = ("site-a", "site-b", "site-c")
WITNESS = "witness"
ADDRESS = {"site-a": "192.0.2.10", "site-b": "198.51.100.10", "site-c": "203.0.113.10"}
SERVER = {"site-a": "192.0.2.53", "site-b": "198.51.100.53", "site-c": "203.0.113.53"}
NAME = "www.example.org"
EPOCH = 1_700_000_000.0
HOP_S = 0.004
SKEW = {"site-a": (7.0, 1.0), "site-b": (1000.0, 1.0001), "site-c": (0.5, 0.9999), WITNESS: (333.0, 1.00005)}


def config(soak_s: float = 300.0, step_s: float = 60.0, hold_s: float = 60.0) -> Config:
    """One service at three sites, all of it at site-a; each site's name server may be written by the next site too."""
    policy = Policy(failback=Failback(soak_s=soak_s, step_s=step_s), hold_s=hold_s)
    www = Service(
        endpoints={site: (ADDRESS[site],) for site in SITES},
        demand={"world": 500.0},
        checks=(Check("http", "http:8080", "{}", ProbePolicy()),),
        policy=policy,
        target_s=60.0,
        dns=Dns(NAME, 20),
    )
    servers = tuple(
        DnsDriver(
            driver="embedded",
            name=f"embedded-{site}",
            site=site,
            zones=("example.org",),
            writers=(site, SITES[(n + 1) % len(SITES)]),
            apply_within_s=1.0,
            isolation="freeze",
            servers=(),
            options=f'{{"listen":["{SERVER[site]}:53"]}}',
        )
        for n, site in enumerate(SITES)
    )
    sites = {site: Site(capacity=1000.0) for site in SITES}
    sites[WITNESS] = Site(capacity=0.0, role="witness")
    return Config("sim", 60.0, sites, {"world": Region(default=True)}, {"www": www}, policy, dns=servers)
