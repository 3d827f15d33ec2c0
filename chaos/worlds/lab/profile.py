"""The lab's configuration file: the policy's defaults, but a short soak, ramp and hold; or the fast settings."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from chaos.worlds.lab import layout

TSIG_NAME = "failover"


class Profile(Struct, frozen=True):
    """Durations as the configuration file has them. probe: of `policy.probe`, "" = the defaults."""

    name: str
    ttl: str
    probe: str = ""
    soak: str = "6s"
    step: str = "2s"
    hold: str = "2s"


DEFAULTS = Profile("defaults", "20s")
FAST = Profile("fast", "5s", "{interval: 500ms, fast_interval: 100ms, timeout: 500ms}")

_HEAD = """\
# The lab of DESIGN 8: sites that die. Documentation addresses; times to come back are short, so that tests are.
version: 1
cluster: {cluster}
target: 60s
sites:
  site-a: {{country: FR, location: {{lat: 48.86, lon: 2.35}}, capacity: 1000}}
  site-b: {{country: NL, location: {{lat: 52.37, lon: 4.90}}, capacity: 1000}}
  site-c: {{country: ES, location: {{lat: 40.42, lon: -3.70}}, capacity: 1000}}
  cloud: {{country: IE, role: witness}}
store: {{members: [{members}]}}
regions:
  eu-west: {{networks: [{west}], location: {{lat: 47.22, lon: -1.55}}}}
  eu-north: {{networks: [{north}], location: {{lat: 53.55, lon: 9.99}}}}
  rest: {{default: true, location: {{lat: 48.86, lon: 2.35}}}}
policy:
  hold: {hold}
  failback: {{soak: {soak}, step: {step}}}
{probe}services:
"""


def text(profile: Profile, site_dir: Path, ca: Path, key: Path) -> str:
    """`site_dir`/<site>: each site's directory, with HAProxy's socket; `key`: the file of the TSIG key."""
    head = _HEAD.format(
        cluster=layout.CLUSTER,
        members=", ".join(layout.SITES),
        west=layout.REGIONS["eu-west"],
        north=layout.REGIONS["eu-north"],
        hold=profile.hold,
        soak=profile.soak,
        step=profile.step,
        probe=f"  probe: {profile.probe}\n" if profile.probe else "",
    )
    services = "".join(_service(name, spec, profile, ca) for name, spec in layout.SERVICES.items())
    return head + services + _drivers(site_dir, key)


def _service(name: str, spec: layout.Service, profile: Profile, ca: Path) -> str:
    endpoints = ", ".join(f"{site}: {layout.web(site, name)}" for site in layout.SITES)
    tls = f", tls: {{ca: {ca}, server_name: {spec.server_name}}}" if spec.server_name else ""
    lines = [
        f"  {name}:",
        f"    endpoints: {{{endpoints}}}",
        f"    checks: [{{http: {{port: {spec.port}, path: /healthz, contains: ok{tls}}}}}]",
        f"    {_STEERING.get(name, 'demand: 20')}",
    ]
    if spec.dns:
        lines.append(f"    dns: {{name: {layout.name(name)}, ttl: {profile.ttl}}}")
    if name in layout.POOLS:
        lines.append(f"    pools: {{backend: {layout.POOLS[name]}}}")
    return "\n".join([*lines, ""])


# Together under 70 % at any one site: the governor has no reason to look twice.
_STEERING = {
    "www": "demand: {eu-west: 300, eu-north: 300}\n    steering: {mode: nearest}",
    "hub": "demand: 100\n    steering: {mode: weighted, weights: {site-a: 2, site-b: 1, site-c: 1}}",
}


def _drivers(site_dir: Path, key: Path) -> str:
    lines = ["drivers:", "  dns:"]
    for home, deputy in zip(layout.SITES, (*layout.SITES[1:], layout.SITES[0]), strict=True):
        lines += [
            f"    - {{driver: rfc2136, dialect: powerdns, site: {home}, address: {layout.dns(home)},",
            f"       zones: [{layout.ZONE}], writers: [{home}, {deputy}],",
            f"       tsig: {{name: {TSIG_NAME}, key: {{file: {key}}}}}}}",
        ]
    lines.append("  pools:")
    for site in layout.SITES:
        socket = site_dir / site / "haproxy" / "admin.sock"
        lines.append(f"    - {{driver: haproxy, name: haproxy-{site}, sites: [{site}], socket: {socket}}}")
    return "\n".join([*lines, ""])
