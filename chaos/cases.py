"""Random clusters: topologies and configurations that `read_config` accepts. Pure but for that it reads its own text.

Everything comes from the generator that is handed in: equal ones give equal configurations.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from controlplane.config import read_config
from policies.topology import Config

TRIES = 200
NAMES = ("www", "api", "shop", "search", "login", "mail")
REGIONS = ("west", "north", "rest")
ZONE = "example.org"
CHECKS = (
    {"http": {"port": 8080, "path": "/healthz"}},
    {"tcp": {"port": 443}},
    {"http": {"port": 80, "path": "/ready", "contains": "ok"}},
)
Document = dict[str, Any]


class Barren(RuntimeError):
    """No configuration could be made that the reader accepts; says what it refused last."""


def random_config(rng: random.Random) -> tuple[Config, Document, str]:
    """A configuration, the document that says it, and the file that it was read from."""
    return _accepted(lambda: _document(rng))


def changed_config(rng: random.Random, document: Document) -> tuple[Config, Document, str]:
    """Another configuration of the same cluster, as an operator might apply it."""

    def change() -> Document:
        other = deepcopy(document)
        for _ in range(rng.randint(1, 3)):
            rng.choice(CHANGES)(rng, other)
        return other

    return _accepted(change)


def _accepted(make: Callable[[], Document]) -> tuple[Config, Document, str]:
    why = ""
    for _ in range(TRIES):
        document = make()
        text = _text(document)
        result = read_config(text)
        if result.config is not None:
            return result.config, document, text
        why = "; ".join(problem.message for problem in result.errors[:3])
    raise Barren(f"no random configuration was accepted in {TRIES} tries: {why}")


def _text(document: Document) -> str:
    """A line for each site, service, driver, ...; what is inside is JSON, which is YAML."""
    lines: list[str] = []
    for key, value in document.items():
        if isinstance(value, dict):
            lines += [f"{key}:", *(f"  {name}: {json.dumps(inner)}" for name, inner in value.items())]
        else:
            lines.append(f"{key}: {json.dumps(value)}")
    return "\n".join(lines) + "\n"


# ---- a document


def _document(rng: random.Random) -> Document:
    sites = _sites(rng)
    serving = [name for name, site in sites.items() if site.get("role") != "witness"]
    regions = list(REGIONS[3 - rng.choice((1, 1, 2, 3)) :])
    document: Document = {
        "version": 1,
        "cluster": "fuzz",
        "target": "2m",
        "sites": sites,
        "regions": {name: _region(n, name) for n, name in enumerate(regions)},
        "store": {"members": _members(rng, sites)},
        "policy": _policy(rng, len(sites)),
        "services": _services(rng, sites, serving, regions),
        "drivers": {"dns": _servers(rng, serving, regions)},
        "vantage": {"references": _references(rng)},
    }
    if rng.random() < 0.4:
        document["drivers"]["pools"] = [{"driver": "haproxy", "sites": "all", "socket": "/run/haproxy/admin.sock"}]
        for name, spec in document["services"].items():
            if rng.random() < 0.7:
                spec["pools"] = {"backend": f"bk_{name}"}
    return document


def _sites(rng: random.Random) -> dict[str, Document]:
    """3 to 7, of which up to two are witnesses; mostly few, which is quicker and where there is least to spare."""
    total = rng.choice((3, 3, 3, 3, 3, 3, 4, 4, 4, 5, 5, 6, 7))
    witnesses = rng.choice((0, 1, 1, 2)) if total > 3 else rng.choice((0, 0, 1))
    sites: dict[str, Document] = {}
    for n in range(total - witnesses):
        where = {"lat": round(rng.uniform(36, 60), 2), "lon": round(rng.uniform(-9, 25), 2)}
        sites[f"site-{chr(97 + n)}"] = {"location": where, "capacity": rng.choice((200, 500, 800, 1000, 1000))}
    names = list(sites)
    for name in names[1:]:
        if rng.random() < 0.2:
            sites[name]["role"] = "backup"
    for name in names:
        if rng.random() < 0.15:
            sites[name]["checks"] = [{"tcp": {"host": f"198.51.{names.index(name)}.1", "port": 179}}]
    for n in range(witnesses):
        sites[f"witness-{chr(97 + n)}"] = {"role": "witness"}
    return sites


def _region(n: int, name: str) -> Document:
    where = {"lat": 40.0 + 8 * n, "lon": -5.0 + 10 * n}
    return (
        {"default": True, "location": where} if name == "rest" else {"networks": [f"10.{n}.0.0/16"], "location": where}
    )


def _members(rng: random.Random, sites: Mapping[str, Any]) -> list[str]:
    count = rng.choice((3, 5)) if len(sites) >= 5 else 3
    return sorted(rng.sample(list(sites), count))


def _policy(rng: random.Random, sites: int) -> Document:
    probe = {
        "interval": rng.choice(("500ms", "1s", "1s", "2s")),
        "fast_interval": rng.choice(("100ms", "200ms", "500ms")),
        "timeout": rng.choice(("1s", "1500ms", "2s")),
        "fall": rng.choice((2, 3, 3, 4)),
        "rise": rng.choice((2, 5, 5)),
    }
    return {
        "probe": probe,
        "quorum": {
            "share": rng.choice((0.51, 0.6, 0.6, 0.67, 1.0)),
            "min_vantages": rng.choice((2, 2, 2, 3)) if sites > 3 else 2,
        },
        "guards": {"max_utilisation": rng.choice((0.8, 0.9, 1.0))},
        "governor": {"share": rng.choice((0.5, 0.7, 0.7, 1.0))},
        "freshness": rng.choice(("2s", "3s", "3s", "5s")),
        "hold": rng.choice(("0s", "5s", "20s", "60s")),
        "failback": {
            "soak": rng.choice(("0s", "5s", "15s", "30s")),
            "ramp": rng.choice(([100], [10, 50, 100], [10, 50, 100], [25, 100])),
            "step": rng.choice(("0s", "5s", "15s", "30s")),
        },
    }


def _services(
    rng: random.Random, sites: Mapping[str, Document], serving: Sequence[str], regions: Sequence[str]
) -> dict[str, Document]:
    total = sum(sites[name]["capacity"] for name in serving) * rng.choice((0.2, 0.4, 0.6, 0.8, 1.1))
    count = rng.choice((1, 1, 1, 2, 2, 3, 6))
    return {
        name: _service(rng, n, name, sites, serving, regions, total / count) for n, name in enumerate(NAMES[:count])
    }


def _service(
    rng: random.Random,
    n: int,
    name: str,
    sites: Mapping[str, Document],
    serving: Sequence[str],
    regions: Sequence[str],
    demand: float,
) -> Document:
    here = sorted(rng.sample(list(serving), len(serving) if rng.random() < 0.7 else rng.randint(2, len(serving))))
    actives = [site for site in here if sites[site].get("role") != "backup"]
    spec: Document = {
        "endpoints": {site: _addresses(rng, n, list(sites).index(site)) for site in here},
        "demand": _demand(rng, regions, round(demand * rng.uniform(0.5, 1.5))),
        "priority": rng.choice((0, 0, 10)),
        "checks": rng.sample(CHECKS, rng.choice((1, 1, 2))),
        "dns": {"name": f"{name}.{ZONE}", "ttl": rng.choice(("5s", "5s", "10s", "20s"))},
        "steering": _steering(rng, actives),
    }
    if rng.random() < 0.15:
        spec["policy"] = {"failback": {"mode": "manual"}}
    if len(spec["checks"]) > 1 and rng.random() < 0.3:
        spec["at_least"] = 1
    return spec


def _addresses(rng: random.Random, service: int, site: int) -> list[str] | str:
    first = f"198.51.{site}.{10 + service}"
    if rng.random() < 0.15:
        return [first, f"2001:db8:{site}::{10 + service}"]
    return [first, f"198.51.{site}.{40 + service}"] if rng.random() < 0.1 else first


def _demand(rng: random.Random, regions: Sequence[str], amount: int) -> int | dict[str, int]:
    if rng.random() < 0.5:
        return amount
    return {region: round(amount * rng.choice((0.0, 0.3, 0.5, 1.0)) / len(regions)) for region in regions}


def _steering(rng: random.Random, actives: Sequence[str]) -> Document:
    mode = rng.choice(("priority", "nearest", "weighted"))
    if mode == "weighted":
        return {"mode": mode, "weights": {site: rng.choice((0, 1, 1, 2, 3)) for site in actives}}
    if mode == "priority" and rng.random() < 0.5:
        return {"mode": mode, "order": rng.sample(list(actives), len(actives))}
    return {"mode": mode}


def _servers(rng: random.Random, serving: Sequence[str], regions: Sequence[str]) -> list[Document]:
    """One name server each at some of the sites, of one kind; with a deputy, mostly."""
    homes = sorted(rng.sample(list(serving), len(serving) if rng.random() < 0.7 else 2))
    kind = rng.choice(("powerdns", "powerdns", "plain", "bind", "embedded"))
    return [_server(rng, kind, home, n, serving, regions) for n, home in enumerate(homes)]


def _server(
    rng: random.Random, kind: str, home: str, n: int, serving: Sequence[str], regions: Sequence[str]
) -> Document:
    address = f"198.18.{n}.53"
    key = {"name": "failover", "key": {"env": "TSIG_KEY"}}
    server: Document = {"site": home, "zones": [ZONE]}
    if kind == "embedded":
        return server | {"driver": "embedded", "listen": [f"{address}:53"]}
    deputies = [site for site in serving if site != home]
    writers = [home, *rng.sample(deputies, rng.choice((0, 1, 1, 1, 2)) if len(deputies) > 1 else 1)]
    server |= {"driver": "rfc2136", "address": address, "writers": writers, "dialect": kind}
    if kind == "bind":
        return server | {"views": {region: key | {"name": f"failover-{region}"} for region in regions}}
    return server | {"tsig": key}


def _references(rng: random.Random) -> list[Document]:
    return [{"tcp": {"host": f"192.0.2.{n + 1}", "port": 443}} for n in range(rng.choice((0, 0, 2)))]


# ---- changes


def _other_demand(rng: random.Random, document: Document) -> None:
    spec = rng.choice(list(document["services"].values()))
    spec["demand"] = _demand(rng, list(document["regions"]), rng.randint(10, 600))


def _other_steering(rng: random.Random, document: Document) -> None:
    spec = rng.choice(list(document["services"].values()))
    sites = document["sites"]
    spec["steering"] = _steering(rng, [s for s in spec["endpoints"] if sites[s].get("role") != "backup"])


def _other_policy(rng: random.Random, document: Document) -> None:
    key = rng.choice(("probe", "quorum", "failback", "hold", "freshness"))
    document["policy"][key] = _policy(rng, len(document["sites"]))[key]


def _other_capacity(rng: random.Random, document: Document) -> None:
    site = rng.choice([site for site in document["sites"].values() if "capacity" in site])
    site["capacity"] = rng.choice((100, 500, 1000, 2000))


def _other_ttl(rng: random.Random, document: Document) -> None:
    rng.choice(list(document["services"].values()))["dns"]["ttl"] = rng.choice(("5s", "10s", "30s"))


def _fewer_endpoints(rng: random.Random, document: Document) -> None:
    """A site is taken from a service."""
    spec = rng.choice(list(document["services"].values()))
    if len(spec["endpoints"]) > 2:
        spec["endpoints"].pop(rng.choice(list(spec["endpoints"])))
        spec["steering"] = {"mode": "nearest"}


def _wrong_address(rng: random.Random, document: Document) -> None:
    """Nothing is there."""
    spec = rng.choice(list(document["services"].values()))
    spec["endpoints"][rng.choice(list(spec["endpoints"]))] = f"198.51.100.{rng.randint(10, 200)}"


def _new_service(rng: random.Random, document: Document) -> None:
    """One whose machines are not there yet."""
    serving = [name for name, site in document["sites"].items() if site.get("role") != "witness"]
    document["services"]["new"] = _service(rng, 9, "new", document["sites"], serving, list(document["regions"]), 20.0)


CHANGES = (
    *(_other_demand, _other_steering, _other_policy, _other_capacity, _other_ttl),
    *(_fewer_endpoints, _wrong_address, _new_service),
)
