"""The file that says what a drill may break in a staging, and who measures: `<scenario>.staging.yaml`.

version: 1
cluster: acme-staging                    # whose name has to be typed before anything is broken
api: [http://10.0.1.11:8600, http://10.0.2.11:8600]
sites:
  site-a:
    toxiproxy: http://10.0.1.5:8474
    services: {www: www-a, login: [login-a-http, login-a-https]}    # service: what fronts it
    store: etcd-a                        # if others reach its member of the store through one
    dns: ns-a                            # if its name server is reached through one (TCP alone)
clients:
  - {service: www, region: eu-west, resolver: "10.0.9.53:53", url: "http://www.acme.test:8080/"}
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from controlplane.config import scalars
from controlplane.config.document import MAX_BYTES, Value, parse
from controlplane.config.problems import Log, Problem
from controlplane.config.readers import BAD, Field, Map, OneOrMany, Scalar, Seq, Table, Wrong
from controlplane.config.tables import REGION, SITE
from controlplane.dns.server import endpoint, join

PATIENCE_S = 2.0


class Place(Struct, frozen=True):
    """What stands before one site. url: of the toxiproxy's API. services: service -> its proxies."""

    url: str
    services: dict[str, tuple[str, ...]]
    store: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()

    @property
    def proxies(self) -> tuple[str, ...]:
        """All of them, in the order of the file."""
        every = [proxy for proxies in self.services.values() for proxy in proxies]
        return tuple(dict.fromkeys((*every, *self.store, *self.dns)))


class Measured(Struct, frozen=True, kw_only=True):
    """A client that asks once a second: it asks `resolver` ("address:port") for the URL's host, keeps what it is told
    for its TTL, connects to that address, and gets the URL. It fails if that is not done within patience_s, or if the
    answer's status is not 2xx or 3xx."""

    service: str
    region: str = ""  # "" = the default one; its client subnet is sent along, if the configuration tells one
    resolver: str
    url: str
    patience_s: float = PATIENCE_S
    ca: str = ""  # for https: a PEM file of whom to trust; "" = whom this machine trusts


class Staging(Struct, frozen=True, kw_only=True):
    cluster: str
    api: tuple[str, ...]
    sites: dict[str, Place]
    clients: tuple[Measured, ...]
    file: str = ""


class Read(Struct, frozen=True):
    """staging is None if there is any problem."""

    staging: Staging | None
    problems: tuple[Problem, ...]


def beside(scenario_file: pathlib.Path) -> pathlib.Path:
    """Where the staging file of a scenario is, unless another is named: blackout.yaml -> blackout.staging.yaml."""
    return scenario_file.with_suffix(".staging.yaml")


def _url(what: str, example: str, schemes: tuple[str, ...], bare: bool) -> Scalar:
    """bare: no path, and no trailing slash."""

    def read(value: Value) -> str:
        text = value if isinstance(value, str) else ""
        try:
            parts = urlsplit(text)
            good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        wrong = Wrong(f"expected {what} such as {example}, got {scalars.quote(value) if text else 'none'}")
        if not good or re.search(r"[\s\x00-\x1f]", text):
            raise wrong
        if "@" in parts.netloc:
            raise Wrong(f"a URL has a user in it; write it without, such as {example}")
        if bare and (parts.path.strip("/") or parts.query or parts.fragment):
            raise wrong
        return text.rstrip("/") if bare else text

    return Scalar(read, f"{what} such as {example}", {"type": "string", "format": "uri"}, empty="")


_PROXY = scalars.string("a proxy's name, of letters, digits and _ . : -", "[A-Za-z0-9_.:-]+", most=128)
_PROXIES = OneOrMany(_PROXY, "proxies")
_SERVICE = scalars.name("a service's name")
_API = _url("an API's address", "http://10.0.0.11:8600", ("http", "https"), bare=True)
_SITES = Table(
    {
        # toxiproxy speaks no TLS
        "toxiproxy": Field(_url("a toxiproxy's address", "http://10.0.1.5:8474", ("http",), bare=True)),
        "services": Field(Map(_SERVICE, _PROXIES, what="service: proxy"), {}),
        "store": Field(_PROXIES, ()),
        "dns": Field(_PROXIES, ()),
    }
)
_CLIENT = Table(
    {
        "service": Field(_SERVICE),
        "region": Field(REGION, ""),
        "resolver": Field(scalars.server()),
        "url": Field(_url("what to get", "http://www.acme.test:8080/", ("http", "https"), bare=False)),
        "patience": Field(scalars.duration(0.1, 30), PATIENCE_S),
        "ca": Field(scalars.string("a file"), ""),
    }
)
FILE = Table(
    {
        "version": Field(scalars.const(1)),
        "cluster": Field(scalars.name("a cluster's name")),
        "api": Field(OneOrMany(_API, "addresses")),
        "sites": Field(Map(SITE, _SITES, at_least=1, what="sites")),
        "clients": Field(Seq(_CLIENT, at_least=1, what="clients")),
    },
    extra="x-",
)


def read_staging(file: pathlib.Path) -> Read:
    """Never raises for what is in the file, nor for one that cannot be read: that is a problem like others."""
    log = Log(str(file))
    try:
        with file.open("rb") as opened:
            raw = opened.read(MAX_BYTES + 1)
    except OSError as error:
        why = f"cannot read the file: {(error.strerror or str(error)).lower()}"
        log.at_line(1, 1, f"{why}; it says which toxiproxy stands before each site (--staging FILE names another)")
        return Read(None, log.problems())
    root = parse(raw, log)
    if root is None:
        return Read(None, log.problems())
    data = FILE.read(root, (), log)
    assert data is not BAD, "parse() gives a mapping"
    staging = _build(data, file, log)
    return Read(None if log.broken(()) else staging, log.problems())


def _build(data: Mapping[str, Any], file: pathlib.Path, log: Log) -> Staging:
    sites = {
        name: Place(values["toxiproxy"], dict(values["services"]), values["store"], values["dns"])
        for name, values in data["sites"].items()
    }
    fronted: dict[tuple[str, str], str] = {}
    for name, place in sites.items():
        if not place.proxies:
            log.error(("sites", name), "no proxy is named, so nothing of this site can be broken; add services")
        for proxy, what in _fronts(place):
            other = fronted.setdefault((place.url, proxy), f"{what} of {name}")
            if other != f"{what} of {name}":
                log.error(("sites", name), f'proxy "{proxy}" fronts {other} and {what} of {name}; it needs one of each')
    known = {service for place in sites.values() for service in place.services}
    clients = []
    for index, values in enumerate(data["clients"]):
        ca = values["ca"] and str(file.parent / values["ca"])
        if values["service"] and values["service"] not in known:
            log.error(("clients", index, "service"), f'no site of this file fronts "{values["service"]}"')
        if ca and not pathlib.Path(ca).is_file():
            log.error(("clients", index, "ca"), f"there is no file {ca}")
        resolver = join(*endpoint(values["resolver"])) if values["resolver"] else ""
        url = values["url"]
        clients.append(
            Measured(
                service=values["service"],
                region=values["region"],
                resolver=resolver,
                url=url,
                patience_s=values["patience"],
                ca=ca,
            )
        )
    return Staging(cluster=data["cluster"], api=data["api"], sites=sites, clients=tuple(clients), file=str(file))


def _fronts(place: Place) -> Iterator[tuple[str, str]]:
    """(proxy, what it fronts), twice where it is named twice."""
    for service, proxies in place.services.items():
        yield from ((proxy, service) for proxy in proxies)
    yield from ((proxy, "the store") for proxy in place.store)
    yield from ((proxy, "the name server") for proxy in place.dns)
