"""The verbs of a scenario, done to the lab. Each deed returns what heals it; None: there is nothing to heal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import dns.query
import dns.rcode
import dns.resolver
import dns.tsig
import dns.update

from chaos.history import Edited, Operated
from chaos.scenario import LEADER, STORE_LEADER, Fault, Scenario
from chaos.worlds.lab import adapt, layout
from chaos.worlds.lab.recorder import Recorder
from chaos.worlds.lab.storewatch import StoreWatch
from chaos.worlds.lab.web import Mode
from chaos.worlds.lab.world import Lab
from chaos.worlds.servers.process import Failed, Process, program
from chaos.worlds.sim.operator import problems
from controlplane.config.reading import read_config
from controlplane.dns.table import fence_name
from controlplane.drivers import Fence

Heal = Callable[[], object] | None

STOPPED = {"": Mode.REFUSE, "refuse": Mode.REFUSE, "hang": Mode.HANG, "error": Mode.ERROR}
NO_KEY = "nobody"  # the name of a key that no writer has
FOREIGN = "f0f0f0f0f0f0f0f0"  # an incarnation that is nobody's
ASK_S = 3.0


class Runs(Protocol):
    """A process that can be hurt."""

    @property
    def process(self) -> Process: ...
    def kill(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...
    def start(self) -> None: ...


class Deeds:
    """What one play does to a lab. running: commands of operators that have not ended."""

    def __init__(self, lab: Lab, scenario: Scenario, recorder: Recorder, watch: StoreWatch) -> None:
        self._lab, self._scenario, self._recorder, self._watch = lab, scenario, recorder, watch
        self._moods: dict[tuple[str, str], tuple[Mode, float]] = {}  # (site, service) -> how it is
        self._backups: dict[float, tuple[Path, int]] = {}  # moment -> file, and the store's revision then
        self._no_backup = ""
        self._frozen: set[str] = set()
        self.running: dict[int, tuple[tuple[str, ...], subprocess.Popen[str]]] = {}

    def begin(self, index: int, fault: Fault) -> Heal:
        """Do it. Raises OSError or Failed if it cannot be done."""
        return VERBS[fault.verb](self, index, fault)

    # ---- network

    def cut(self, _: int, fault: Fault) -> Heal:
        self._lab.network.cut(fault.one, fault.other)
        return lambda: self._lab.network.mend(fault.one, fault.other)

    def cut_one_way(self, _: int, fault: Fault) -> Heal:
        self._lab.network.cut_one_way(fault.one, fault.other)
        return lambda: self._lab.network.mend_one_way(fault.one, fault.other)

    def loss(self, _: int, fault: Fault) -> Heal:
        self._lab.network.lose(fault.one, fault.other, fault.rate)
        return lambda: self._lab.network.lose(fault.one, fault.other, 0.0)

    # ---- services

    def stop(self, _: int, fault: Fault) -> Heal:
        return self._mood(fault, STOPPED[fault.how], 0.0)

    def flaky(self, _: int, fault: Fault) -> Heal:
        return self._mood(fault, Mode.FLAKY, fault.rate)

    def slow(self, _: int, fault: Fault) -> Heal:
        return self._mood(fault, Mode.SLOW, fault.by_s)

    def reset(self, _: int, fault: Fault) -> Heal:
        return self._mood(fault, Mode.RESET, 0.0)

    def _mood(self, fault: Fault, mode: Mode, amount: float) -> Heal:
        where, site = (fault.site, fault.service), self._lab.sites[fault.site]

        def heal() -> None:
            self._moods.pop(where, None)
            if site.web.alive:
                site.tell(fault.service, Mode.OK)

        self._moods[where] = (mode, amount)
        if site.web.alive:
            site.tell(fault.service, mode, amount)
        return heal

    def power_off(self, _: int, fault: Fault) -> Heal:
        if fault.site == layout.WITNESS:
            failoverd = self._lab.failoverds[fault.site]
            self._lab.network.dark(fault.site)
            failoverd.kill()

            def light() -> None:
                self._lab.network.light(fault.site)
                failoverd.start()

            return light
        site = self._lab.sites[fault.site]

        def revive() -> None:
            site.revive()
            for (where, service), (mode, amount) in self._moods.items():
                if where == fault.site:
                    site.tell(service, mode, amount)

        site.die()
        return revive

    # ---- processes

    def _process(self, node: str) -> tuple[str, Runs]:
        """Its name, and what runs. Raises Failed: nobody leads."""
        if node == STORE_LEADER:
            member = self._lab.etcd.leader(ASK_S)
            return f"etcd of {member.name}", member
        name = self._recorder.leader if node == LEADER else node
        if not name:
            raise Failed("nobody leads")
        return name, self._lab.failoverds[name]

    def pause(self, _: int, fault: Fault) -> Heal:
        name, process = self._process(fault.node)

        def heal() -> None:
            self._frozen.discard(name)
            process.thaw()

        self._frozen.add(name)
        process.freeze()
        return heal

    def kill(self, _: int, fault: Fault) -> Heal:
        process = self._process(fault.node)[1]
        process.kill()

        def heal() -> None:
            if not process.process.alive:
                process.start()

        return heal

    def restart(self, _: int, fault: Fault) -> Heal:
        process = self._process(fault.node)[1]
        process.process.signal(signal.SIGTERM)  # it hands over what it has, and ends; nothing else waits for that

        def heal() -> None:
            process.process.stop(ASK_S)
            process.start()

        return heal

    # ---- store

    def store_down(self, _: int, fault: Fault) -> Heal:
        for member in self._lab.etcd.members.values():
            member.kill()

        def heal() -> None:
            for member in self._lab.etcd.members.values():
                if not member.alive:
                    member.start()
            self._watch.again()

        return heal

    def store_compact(self, _: int, fault: Fault) -> Heal:
        member = self._lab.etcd.leader(ASK_S)
        self._lab.etcd.etcdctl("compact", str(member.status()["header"]["revision"]), member=member)
        return None

    def back_up(self, moment: float) -> None:
        """The store as it is now, for a rewind to this moment. Without it there will be none."""
        try:
            self._back_up(moment)
        except Failed as error:
            self._no_backup = str(error)

    def _back_up(self, moment: float) -> None:
        file = self._lab.directory / f"backup-{moment:g}.db"
        file.unlink(missing_ok=True)
        member = self._lab.etcd.leader(ASK_S)
        rev = int(member.status()["header"]["revision"])
        self._lab.etcd.backup(file)
        self._backups[moment] = file, rev

    def store_rewind(self, _: int, fault: Fault) -> Heal:
        if fault.by_s not in self._backups:
            raise Failed(f"there is no backup: {self._no_backup}")
        file, rev = self._backups[fault.by_s]
        at = self._recorder.now()
        self._watch.end()
        self._lab.etcd.restore(file)
        self._recorder.rewind(at, fault.by_s, rev)
        return None

    # ---- name servers

    def dns_api_down(self, _: int, fault: Fault) -> Heal:
        server = self._lab.sites[fault.site].dns
        may_write = ("set-meta", server.zone, "TSIG-ALLOW-DNSUPDATE")
        server.util(*may_write, NO_KEY)  # read anew for each update
        return lambda: server.util(*may_write, server.key.name)

    def edit_zone(self, _: int, fault: Fault) -> Heal:
        """As somebody with nsupdate and the key would."""
        server, name = self._lab.sites[fault.site].dns, layout.name(fault.service)
        key = dns.tsig.Key(server.key.name, server.key.secret, server.key.algorithm)
        with self._lab.network.inside(fault.site):
            fence = self._fence(server.address, name)
            update = dns.update.UpdateMessage(server.zone, keyring=key)
            label = name.removesuffix(f".{server.zone}")
            for rtype in ("A", "AAAA", "TYPE65402"):  # PowerDNS' LUA records have no number of IANA's
                update.delete(label, rtype)
            update.add(label, 5, "A", layout.web(fault.other, fault.service))
            if fault.how in ("none", "manual", "foreign"):
                update.delete(fence_name(label), "TXT")
            text = _fenced(fence, fault.how)
            if text:
                update.add(fence_name(label), 5, "TXT", f'"{text}"')
            code = dns.query.tcp(update, server.address, timeout=ASK_S).rcode()
        if code != dns.rcode.NOERROR:
            raise Failed(f"{name} at {fault.site}: {dns.rcode.to_text(code)}")
        self._recorder.add(
            Edited(at=self._recorder.now(), server=fault.site, service=fault.service, manual=fault.how == "manual")
        )
        return None

    def _fence(self, address: str, name: str) -> Fence | None:
        query = dns.message.make_query(fence_name(name), "TXT")
        reply = dns.query.udp(query, address, timeout=ASK_S)
        texts = [b"".join(rdata.strings).decode() for rrset in reply.answer for rdata in rrset]
        return Fence.parse(texts[0]) if texts else None

    # ---- operators

    def operator(self, index: int, fault: Fault) -> Heal:
        argv = [*fault.argv]
        if "--yes" not in argv:
            argv.append("--yes")
        if argv[0] == "apply":
            argv = [self._translated(word) if word.endswith((".yaml", ".yml")) else word for word in argv]
        inside = [program("ip"), "netns", "exec", self._lab.network.namespace(self._asked())]
        process = subprocess.Popen(
            [program("setpriv"), "--pdeathsig", "KILL", *inside, sys.executable, "-m", "controlplane.cli.main", *argv],
            env={**os.environ, "FAILOVERCTL_API": f"http://127.0.0.1:{layout.API_PORT}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.running[index] = fault.argv, process
        return None

    def ended(self, *, all_of_them: bool = False) -> None:
        """Record the commands that have ended. all_of_them: what has not ended now is ended."""
        for index, (argv, process) in [*self.running.items()]:
            if all_of_them and process.poll() is None:
                process.kill()
                process.wait()
            if process.poll() is None:
                continue
            said = process.communicate()[0].strip().splitlines()
            del self.running[index]
            self._recorder.add(
                Operated(
                    at=min(self._recorder.now(), self._scenario.duration_s),
                    index=index,
                    argv=argv,
                    code=process.returncode,
                    said=said[-1].strip() if said else "",
                )
            )

    def _asked(self) -> str:
        """The node whose API an operator would go to: one that knows how things are, else any that runs."""
        running = [n for n, f in self._lab.failoverds.items() if f.process.alive and n not in self._frozen]
        for node in running:
            try:
                if self._lab.failoverds[node].get("/readyz")["ok"]:
                    return node
            except OSError:
                continue
        return running[0] if running else layout.SITES[0]

    def _translated(self, file: str) -> str:
        """A scenario's configuration file as the lab's."""
        config = read_config(Path(self._scenario.file).parent / file).config
        if config is None:
            raise Failed(f"{file} is no configuration")
        lab, path = self._lab, self._lab.directory / f"applied-{Path(file).name}"
        path.write_text(adapt.adapted(config, self._scenario.config, lab.site_dir, lab.pki / "ca.crt", lab.key))
        return str(path)


def _fenced(fence: Fence | None, how: str) -> str:
    """The text of the fence after an edit; "" = what stands there stays, or nothing does."""
    if how not in ("manual", "foreign"):
        return ""
    incarnation, generation = (fence.incarnation, fence.generation) if fence else (FOREIGN, 1)
    if how == "foreign":
        incarnation = FOREIGN
    return Fence(incarnation, generation, "manual-drill" if how == "manual" else "d-1-0.other-1").text()


VERBS: Mapping[str, Callable[[Deeds, int, Fault], Heal]] = {
    "cut": Deeds.cut,
    "cut_one_way": Deeds.cut_one_way,
    "loss": Deeds.loss,
    "slow": Deeds.slow,
    "stop": Deeds.stop,
    "flaky": Deeds.flaky,
    "reset": Deeds.reset,
    "power_off": Deeds.power_off,
    "pause": Deeds.pause,
    "kill": Deeds.kill,
    "restart": Deeds.restart,
    "store_down": Deeds.store_down,
    "store_compact": Deeds.store_compact,
    "store_rewind": Deeds.store_rewind,
    "dns_api_down": Deeds.dns_api_down,
    "edit_zone": Deeds.edit_zone,
    "operator": Deeds.operator,
}


def cannot(scenario: Scenario) -> list[tuple[Fault, str]]:
    """Which of its faults the lab cannot do, and why."""
    found = []
    for fault in scenario.faults:
        if fault.verb not in VERBS:
            found.append((fault, f"the lab cannot do {fault.verb}; it has {', '.join(VERBS)}"))
        elif fault.message:
            found.append((fault, f"the lab cannot single out one kind of message ({fault.message}); give two ends"))
        elif fault.verb == "slow" and not fault.service:
            found.append((fault, "the lab cannot slow the network down; give a service and a site"))
        elif fault.verb == "operator":
            commands = problems(fault.argv, scenario.config, Path(scenario.file).parent)
            found += [(fault, problem) for problem in commands]
    return found
