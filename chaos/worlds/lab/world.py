"""The whole lab: network, sites, witness, clients; started, broken, healed, measured."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from chaos.worlds.lab import layout, profile
from chaos.worlds.lab.net import Network
from chaos.worlds.lab.site import Failoverd, Part, Site
from chaos.worlds.servers.etcd import Address, EtcdCluster, Tls
from chaos.worlds.servers.process import Failed, Process, program
from chaos.worlds.servers.unbound import Unbound
from controlplane.config.reading import read_config
from controlplane.config.report import bound_document
from controlplane.documents import Keys

Doc = dict[str, Any]
ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "examples" / "deploy"
SETTLE_S = 60.0
ALL_VOTES = "up 3/3"  # the reason of a site that is ready: all but its own vantage have seen it well


class Lab:
    """`directory`: for everything that it writes; it is removed with the network. Needs root.

    After up() all of it runs, with a profile's configuration applied. Faults are healed by settle(). wipe() and begin()
    make a new cluster of it, which has another configuration.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self.pki = directory, directory / "pki"
        self.network = Network(layout.places(), directory)
        self.bounds: dict[str, Doc] = {}  # service -> what `check` computes
        self.named: dict[str, bool] = {}  # service of the configuration -> has it a DNS name?
        self._parts: list[Part] = []
        self._askers: list[Process] = []

    # ---- up and down

    def up(self, wanted: profile.Profile) -> None:
        self.build()
        self.begin(wanted.name, profile.text(wanted, self.site_dir, self.pki / "ca.crt", self.key))
        names = {service: 20 if service == "www" else 100 for service, spec in layout.SERVICES.items() if spec.dns}
        self.ask(layout.clients(), 100)
        self.poll(names, layout.SOURCES)

    def build(self) -> None:
        """All but failoverd, and whoever asks."""
        self.network.up()
        self._credentials()
        self._make()
        for site in self.sites.values():
            site.serve()
            site.haproxy.start()
            site.dns.start()
        self.etcd.start()
        self._roles()

    def begin(self, name: str, text: str) -> None:
        """Failoverd everywhere, with this configuration; returns when all agree. name: of its file."""
        for failoverd in self.failoverds.values():
            failoverd.start()
        self.apply(name, text)
        self.until(self.agreed, "all agree", SETTLE_S)

    def wipe(self) -> None:
        """Heal everything; end failoverd; and forget all that it wrote: in the store, in its journals, in name servers
        and load balancers."""
        for failoverd in self.failoverds.values():
            failoverd.kill()
            shutil.rmtree(failoverd.state_dir, ignore_errors=True)
        self.network.heal()
        for site in self.sites.values():
            site.dns.kill()
            site.dns.forget()
            site.haproxy.kill()
            site.revive(but=("failoverd",))
        self.etcd.ready()
        self.etcd.etcdctl("del", "--prefix", Keys(layout.CLUSTER).prefix, timeout="10s")

    def down(self) -> None:
        """Everything ends and is removed, in whatever state it is."""
        try:
            self.quiet()
            for part in self._parts:
                part.kill()
        finally:
            self.network.down()

    def _make(self) -> None:
        tls = {name: Tls(self.pki / "ca.crt", self.pki / f"{name}.crt", self.pki / f"{name}.key") for name in _NAMES}
        members = {
            site: Address(
                layout.node(site),
                layout.ETCD_PORT,
                layout.PEER_PORT,
                netns=self.network.namespace(site),
                tls=tls[site],
            )
            for site in layout.SITES
        }
        self.etcd = EtcdCluster(self.directory / "etcd", members, client_tls=tls["root"])
        tsig = self.key.read_text().strip()
        self.sites = {
            name: Site(name, self.site_dir / name, self.network, self.pki, tsig, self.etcd.members[name])
            for name in layout.SITES
        }
        witness = Failoverd(
            self.site_dir / layout.WITNESS, layout.WITNESS, "vantage,controller,api", self.pki, self.network
        )
        self.failoverds = {name: site.failoverd for name, site in self.sites.items()} | {layout.WITNESS: witness}
        servers = [layout.dns(site) for site in layout.SITES]
        self.resolver = Unbound(
            self.directory / "unbound",
            {layout.ZONE: servers},
            address=layout.RESOLVER,
            subnet_bits=layout.CLIENT_BITS,
            netns=self.network.namespace(layout.CLIENTS),
        )
        self._parts += [part for site in self.sites.values() for part in site.parts.values()]
        self._parts += [witness, self.resolver]
        self.resolver.start()

    @property
    def site_dir(self) -> Path:
        return self.directory / "sites"

    @property
    def key(self) -> Path:
        return self.pki / "tsig.key"

    def _credentials(self) -> None:
        nodes = [f"{site}={layout.node(site)}" for site in layout.NODES]
        web = ",".join(layout.web(site, "login") for site in layout.SITES)
        names = [*nodes, "root", f"login={web}", f"elsewhere={web}"]
        _run([str(DEPLOY / "certificates.sh"), str(self.pki), *names])
        self.key.write_text(_run([program("openssl"), "rand", "-base64", "32"]))

    def _roles(self) -> None:
        site, tls = layout.SITES[0], self.etcd.client_tls
        assert tls is not None
        env = {"ETCDCTL_ENDPOINTS": ",".join(layout.endpoints(site)), "ETCDCTL_CACERT": str(tls.ca)}
        env |= {"ETCDCTL_CERT": str(tls.cert), "ETCDCTL_KEY": str(tls.key)}
        argv = [str(DEPLOY / "etcd-roles.sh"), "--cluster", layout.CLUSTER]
        for name in layout.SITES:
            argv += ["--node", f"{name}=vantage,agent,controller,api,admin"]
        argv += ["--node", f"{layout.WITNESS}=vantage,controller,api"]
        self.run_in(site, ["sh", *argv], env=env)

    # ---- who asks

    def ask(self, clients: Sequence[layout.Client], every_ms: int) -> None:
        """Let these clients ask from now on, with a new log."""
        argv = [sys.executable, "-m", "chaos.worlds.lab.client", "--resolver", layout.RESOLVER]
        argv += ["--ca", str(self.pki / "ca.crt"), "--every", str(every_ms)]
        for client in clients:
            argv += ["--client", ",".join((client.name, client.source, client.url, client.server_name))]
        self.clients = self._asker("clients", argv)

    def poll(self, services: Mapping[str, int], sources: Mapping[str, str]) -> None:
        """Let the poller ask every name server from now on, with a new log. services: how often it asks, in
        milliseconds; sources: region -> the address that it asks from."""
        argv = [sys.executable, "-m", "chaos.worlds.lab.poller"]
        for service, every_ms in services.items():
            argv += ["--name", f"{layout.name(service)},{every_ms}"]
        for site in layout.SITES:
            argv += ["--server", f"{site}={layout.dns(site)}"]
        for region, source in sources.items():
            argv += ["--client", f"{region}={source}"]
        self.poller = self._asker("poller", argv)

    def _asker(self, name: str, argv: Sequence[str]) -> Process:
        inside = self.network.namespace(layout.CLIENTS)
        process = Process(name, argv, self.directory / f"asking-{len(self._askers)}", netns=inside)
        self._askers.append(process)
        process.start()
        return process

    def quiet(self) -> None:
        """Nobody asks any more."""
        for process in self._askers:
            process.kill()

    # ---- as an operator

    def run_in(
        self, place: str, argv: Sequence[str], *, env: Mapping[str, str] | None = None, within_s: float = 60.0
    ) -> str:
        """Run a command inside; its standard output. Raises Failed with what it said."""
        inside = [program("ip"), "netns", "exec", self.network.namespace(place)]
        return _run([*inside, *argv], env=env, within_s=within_s)

    def ctl(self, *argv: str, at: str = "site-b", within_s: float = 150.0) -> str:
        """failoverctl at a site; its standard output. Raises Failed."""
        env = {"FAILOVERCTL_API": f"http://127.0.0.1:{layout.API_PORT}"}
        command = [sys.executable, "-m", "controlplane.cli.main", *argv]
        return self.run_in(at, command, env=env, within_s=within_s)

    def apply(self, name: str, text: str, at: str = "site-b") -> None:
        """With `failoverctl apply`, as soon as somebody can take it. name: of the file."""
        file = self.directory / f"{name}.yaml"
        file.write_text(text)
        read = read_config(file)
        assert read.config is not None, read.problems
        self.bounds = {service: bound_document(bound) for service, bound in read.bounds.items()}
        self.named = {service: spec.dns is not None for service, spec in read.config.services.items()}
        self.until(lambda: self.failoverds[at].get("/readyz") is not None, f"an API at {at}")
        self.until(lambda: self.ctl("apply", str(file), "--yes", "--reason", "lab", at=at), "failoverctl apply")

    # ---- what is so

    def status(self, at: str = "") -> Doc:
        """The status document of a node, by default of the first that knows how things are. Raises OSError."""
        error: OSError = OSError("no failoverd runs")
        for node in [at] if at else layout.NODES:
            if self.failoverds[node].process.alive:
                try:
                    doc: Doc = self.failoverds[node].get("/v1/status")
                except OSError as failed:
                    error = failed
                    continue
                if at or (doc["source"]["current"] and len(doc["services"]) == len(self.named)):
                    return doc
                error = OSError(f"{node} does not know yet, or any more")
        raise error

    def until(self, holds: Callable[[], object], what: str, within_s: float = 30.0) -> float:
        """Wait for it; how long that took, in seconds. OSError and Failed are a no. Raises Failed."""
        began, error = time.monotonic(), ""
        while True:
            try:
                if holds():
                    return time.monotonic() - began
            except (OSError, Failed) as failed:
                error = f" ({failed})"
            if time.monotonic() - began > within_s:
                raise Failed(f"not within {within_s:g} s: {what}{error}\n{self.trouble()}")
            time.sleep(0.1)

    def trouble(self) -> str:
        """The ends of the logs that say what is going on."""
        parts = [f"--- {name}\n{failoverd.process.tail(12)}" for name, failoverd in self.failoverds.items()]
        try:
            doc = self.status()
        except OSError as error:
            return "\n".join([*parts, f"no status: {error}"])
        parts += [f"leader {doc['leader']}, {doc['summary']}"]
        parts += [f"{name}: {s['state']} {s['shares']} {s['notes']}" for name, s in doc["services"].items()]
        parts += [f"{alarm['name']} {alarm['subject']}: {alarm['remedy']}" for alarm in doc["alarms"]]
        return "\n".join(parts)

    def agreed(self) -> bool:
        """Everything runs, is seen well by all, and every name server answers what is wanted."""
        doc = self.status()
        services = doc["services"]
        return (
            doc["leader"] is not None
            and len(services) == len(self.named)
            and all(failoverd.get("/readyz")["ok"] for failoverd in self.failoverds.values())
            and all(site["vantage"] == "ok" for site in doc["sites"].values())
            and all(x["rule"] == "ready" for s in services.values() for x in s["standing"].values())
            and all(x["reason"] == ALL_VOTES for s in services.values() for x in s["standing"].values())
            and all(server["agrees"] for s in services.values() for server in s["servers"])
            and all(len(s["servers"]) == len(layout.SITES) for n, s in services.items() if self.named[n])
        )

    def heal(self) -> None:
        """End every fault, and start whatever does not run."""
        self.network.heal()
        for site in self.sites.values():
            site.revive()
        for failoverd in self.failoverds.values():
            failoverd.thaw()
            if not failoverd.process.alive:
                failoverd.start()

    def settle(self) -> None:
        """Heal, and wait until all is well again and no resolver holds an older answer. Raises Failed."""
        self.heal()
        self.until(lambda: self.agreed() and self._converged(), "all is well", SETTLE_S)

    def _converged(self) -> bool:
        doc = self.status()
        return not doc["overrides"] and all(s["state"] == "converged" for s in doc["services"].values())

    # ---- who leads

    def lead_from(self, site: str) -> None:
        """Move our leader and etcd's to `site`."""
        others = [failoverd for name, failoverd in self.failoverds.items() if name != site]
        if self.status()["leader"] != site:
            for failoverd in others:
                failoverd.stop()
            self.until(lambda: self.status(site)["leader"] == site, f"{site} leads")
            for failoverd in others:
                failoverd.start()
        leader, wanted = self.etcd.leader(), self.etcd.members[site]
        if leader is not wanted:
            self.etcd.etcdctl("move-leader", f"{wanted.status()['header']['member_id']:x}", member=leader)
        self.until(self.agreed, "all is well with the new leaders", SETTLE_S)


_NAMES = (*layout.NODES, "root")


def _run(argv: Sequence[str], *, env: Mapping[str, str] | None = None, within_s: float = 60.0) -> str:
    done = subprocess.run(
        argv, capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=within_s, check=False
    )
    if done.returncode:
        raise Failed(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
