"""Who is where in the lab: places, addresses, services. Documentation addresses only (RFC 5737)."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

SITES = ("site-a", "site-b", "site-c")  # each with etcd, failoverd, PowerDNS, HAProxy and web servers
WITNESS = "cloud"  # failoverd alone, without an agent: a fourth pair of eyes
NODES = (*SITES, WITNESS)
CLIENTS = "clients"

CLUSTER = "lab"
ZONE = "lab.example"
PREFIX_BITS = {**dict.fromkeys(SITES, 27), WITNESS: 27}
BASE = {"site-a": "198.51.100.0", "site-b": "198.51.100.32", "site-c": "198.51.100.64", WITNESS: "203.0.113.192"}

# Two client networks, one in each region, and the network of their resolver.
REGIONS = {"eu-west": "203.0.113.0/26", "eu-north": "203.0.113.64/26"}
SOURCES = {"eu-west": "203.0.113.10", "eu-north": "203.0.113.74"}
RESOLVER = "203.0.113.130"
ELSEWHERE = "203.0.113.131"  # a client of neither network: of the region that is the default
CLIENT_BITS = 26

# Of each site's network, the last byte above its base.
_NODE, _DNS, _EDGE, _FIRST_SERVICE, _NOBODY = 2, 3, 4, 10, 30

ETCD_PORT, PEER_PORT, DNS_PORT, API_PORT = 2379, 2380, 53, 8600


class Service(Struct, frozen=True):
    """`regions`: whose clients ask for it. server_name: of its certificate; "" = plain HTTP."""

    port: int = 8080
    regions: tuple[str, ...] = ("eu-west",)
    server_name: str = ""
    dns: bool = True

    def url(self, host: str) -> str:
        return f"{'https' if self.server_name else 'http'}://{host}:{self.port}"


# www is what everybody uses; the next four live at site-a, and are there to fail in four ways; hub is spread over
# all sites by HAProxy alone.
SERVICES: Mapping[str, Service] = {
    "www": Service(regions=("eu-west", "eu-north")),
    "shop": Service(),
    "search": Service(),
    "api": Service(),
    "login": Service(port=8443, server_name="login"),
    "hub": Service(dns=False),
}
POOLS = {"www": "bk_www", "hub": "bk_hub"}  # service -> its backend in HAProxy
EDGE_PORTS = {"www": 8080, "hub": 8081}  # where HAProxy listens for it


def _at(site: str, offset: int) -> str:
    network, _, last = BASE[site].rpartition(".")
    return f"{network}.{int(last) + offset}"


def node(site: str) -> str:
    """Where etcd and failoverd are."""
    return _at(site, _NODE)


def dns(site: str) -> str:
    return _at(site, _DNS)


def edge(site: str) -> str:
    """Where HAProxy listens."""
    return _at(site, _EDGE)


def web(site: str, service: str) -> str:
    return _at(site, _FIRST_SERVICE + list(SERVICES).index(service))


def nobody(site: str) -> str:
    """An address of the site that nothing has."""
    return _at(site, _NOBODY)


def site_of(address: str) -> str:
    """The site whose network has this address; "" = none of them."""
    network, _, last = address.rpartition(".")
    for site in SITES:
        base, _, first = BASE[site].rpartition(".")
        if network == base and int(first) <= int(last) < int(first) + 32:
            return site
    return ""


def name(service: str) -> str:
    """In DNS."""
    return f"{service}.{ZONE}"


def places() -> dict[str, tuple[str, ...]]:
    """Place -> its addresses with prefix length, for the network."""
    found: dict[str, tuple[str, ...]] = {WITNESS: (f"{node(WITNESS)}/{PREFIX_BITS[WITNESS]}",)}
    for site in SITES:
        addresses = [node(site), dns(site), edge(site), *(web(site, service) for service in SERVICES)]
        found[site] = tuple(f"{address}/{PREFIX_BITS[site]}" for address in addresses)
    found[CLIENTS] = tuple(f"{address}/{CLIENT_BITS}" for address in (*SOURCES.values(), RESOLVER, ELSEWHERE))
    return found


class Client(Struct, frozen=True):
    """Who asks for what. name: "<service>/<region>", who asks the resolver, or "<service>@<site>", who uses the
    HAProxy of that site. server_name: in its certificate; "" = the host."""

    name: str
    source: str
    url: str
    server_name: str = ""


EDGES = ("site-b", "site-c")  # whose HAProxy has clients


def clients() -> tuple[Client, ...]:
    found = []
    for service, spec in SERVICES.items():
        for region in spec.regions if spec.dns else ():
            found.append(Client(f"{service}/{region}", SOURCES[region], spec.url(name(service)), spec.server_name))
    for service, port in EDGE_PORTS.items():
        for site in EDGES:
            found.append(Client(f"{service}@{site}", SOURCES["eu-north"], f"http://{edge(site)}:{port}"))
    return tuple(found)


def endpoints(at: str) -> tuple[str, ...]:
    """etcd's members, for a client at a site: its own first, so that another site's death does not cut it off until
    it has noticed. The witness, which has none, begins with the last."""
    nearest = at if at in SITES else SITES[-1]
    return tuple(f"https://{node(site)}:{ETCD_PORT}" for site in sorted(SITES, key=lambda site: site != nearest))
