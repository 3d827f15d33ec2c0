"""failoverd: one site's node as a process (DESIGN 7). Settings, log, signals, systemd; what it does is node.py's."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import sys
import time
from contextlib import AsyncExitStack
from functools import partial
from importlib import metadata
from typing import Annotated

import typer

from controlplane.agent import log_note
from controlplane.alone import another_beats
from controlplane.api.app import ListenError, make_app, serve
from controlplane.logs import Redactor, set_up
from controlplane.node import Node
from controlplane.notify import Notifier
from controlplane.readiness import Readiness
from controlplane.reporter import Superseded
from controlplane.settings import ALL_ROLES, API, LISTEN, Given, Settings, SettingsError, faults_of, read_settings
from controlplane.signal import together
from controlplane.state_dir import StateDir, StateDirError
from controlplane.store import StoreError
from controlplane.store.etcd import EtcdStore
from controlplane.telemetry.environment import telemetry_from
from probes.kinds.prober import KindProber

log = logging.getLogger("controlplane.failoverd")  # also as __main__

HAND_OVER_S = 3.0  # patience with the store, for the leader's last word
STOP_S = 8.0  # for all of stopping; what is not closed by then is left to the kernel
USAGE = 2


class Process:
    """One failoverd: `run()` until it is told to end, or until a part fails. Returns the exit code."""

    def __init__(self, settings: Settings, redact: Redactor, notifier: Notifier) -> None:
        self._settings, self._redact, self._notifier = settings, redact, notifier
        self._stop = asyncio.Event()
        self._hangup = asyncio.Event()
        self._status = ""
        self._code = 0
        self.store = EtcdStore(settings.etcd, settings.credentials, rng=random.SystemRandom())
        wall = time.time  # noqa: TID251 - this is the port: the root hands the wall clock in
        self._telemetry = telemetry_from(os.environ, settings.site, settings.cluster, wall)
        self.node = Node(
            settings.site,
            settings.cluster,
            self.store,
            KindProber(),
            roles=settings.roles,
            wall=wall,
            rng=random.SystemRandom(),
            on_note=partial(log_note, usual=logging.INFO),  # a decision is followed through them
            state_dir=settings.state_dir,
            telemetry=self._telemetry,
        )

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._told_to_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._hangup.set)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.store.aclose)
            sent_log = self._telemetry.log_handler(self._redact)
            if sent_log is not None:
                logging.getLogger().addHandler(sent_log)
                stack.callback(logging.getLogger().removeHandler, sent_log)
            url = ""
            readiness = Readiness(self.node, self.store, len(self._settings.etcd), lambda: url, self._tell)
            if API in self._settings.roles:
                app = make_app(self.node, readiness.lacks)
                server = await serve(app, self._settings.host, self._settings.port)
                stack.push_async_callback(server.aclose)
                url = server.url
            self._welcome(url)
            self._notifier.ready()  # also without etcd: a site that boots alone must not wait for the others
            gc.freeze()  # what was imported lives as long as the process: it need not be looked at again
            try:
                await together(
                    self._until_stopped(),
                    self._run_node(),
                    readiness.run(),
                    self._follow_secrets(),
                    self._reload(),
                    self._ping(),
                )
            except Superseded as error:
                log.error("%s; each site has one failoverd, so this one ends", error)
                self._code = 1
            except Exception:
                log.exception("failoverd ends by a bug")
                self._code = 1
            if not self._stop.is_set():
                loop.call_later(STOP_S, self._give_up)
        return self._code

    async def _run_node(self) -> None:
        site = self._settings.site
        if await another_beats(self.store, self.node.view.keys.node(site)):
            raise Superseded(f"another failoverd of {site} runs, on this machine or on another one")
        await self.node.run()

    # --- signals

    def _told_to_stop(self, number: signal.Signals) -> None:
        if self._stop.is_set():
            os._exit(128 + number)  # asked twice: at once
        log.info("%s: stopping", number.name)
        self._stop.set()
        asyncio.get_running_loop().call_later(STOP_S, self._give_up)

    def _give_up(self) -> None:
        log.warning("not everything could be closed within %g s; left as it is", STOP_S)
        logging.shutdown()
        os._exit(self._code)

    async def _until_stopped(self) -> None:
        await self._stop.wait()
        self._notifier.stopping()
        try:
            async with asyncio.timeout(HAND_OVER_S):
                await self.node.stop()
        except TimeoutError:
            log.warning("leadership could not be handed over: the others will notice the silence")

    async def _reload(self) -> None:
        """SIGHUP: certificates and secrets are read again. What cannot be read leaves things as they are."""
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            self._notifier.reloading()
            files = self._settings.credentials
            faults = faults_of(files) if files else []  # a certificate may be there before its key is
            try:
                if not faults:
                    await self.store.reload()
            except (OSError, StoreError) as error:
                faults.append(str(error))
            faults += [f"driver {name} {fault}" for name, fault in (await self.node.reload()).items()]
            self._redact.learn(self.node.view.config)
            if faults:
                log.error("SIGHUP: not everything could be read again: %s", "; ".join(faults))
            else:
                log.info("SIGHUP: certificates and secrets were read again")
            self._notifier.ready()
            self._notifier.status(self._status)

    # --- small duties

    async def _ping(self) -> None:
        """From the event loop itself: one that hangs falls silent, and systemd starts another."""
        every_s = self._notifier.every_s
        while every_s is not None:
            self._notifier.notify()
            await asyncio.sleep(every_s)
        await asyncio.Event().wait()

    async def _follow_secrets(self) -> None:
        """The log must not quote what the configuration keeps secret."""
        news, known = self.node.view.news, None
        while True:
            count, config = news.count, self.node.view.config
            if config is not known:
                known = config
                self._redact.learn(config)
            await news.wait(60.0, count)

    def _tell(self, status: str) -> None:
        self._status = status
        self._notifier.status(status)

    def _welcome(self, url: str) -> None:
        s = self._settings
        where = f", API at {url}" if url else ""
        log.info(
            "failoverd %s, site %s of cluster %s (%s), etcd at %s%s, state in %s",
            metadata.version("failover-control-plane"),
            s.site,
            s.cluster,
            ", ".join(s.roles),
            ", ".join(s.etcd),
            where,
            s.state_dir,
        )


def start(settings: Settings) -> int:
    """Run a node with these settings. Returns the exit code."""
    try:
        state = StateDir(settings.state_dir)
    except StateDirError as error:
        print(f"failoverd: {error}", file=sys.stderr)
        return 1
    lines, redact = set_up(sys.stderr.fileno(), settings.log_format, settings.log_level, settings.site)
    notifier = Notifier()
    try:
        return asyncio.run(_run(settings, redact, notifier))
    except ListenError as error:
        log.error("%s", error)
        return 1
    except OSError as error:  # the journal; what else is opened later is tried again
        log.error("--state-dir %s: %s", settings.state_dir, error)
        return 1
    except Exception:
        log.exception("failoverd ends by a bug")
        return 1
    finally:
        lines.close()
        notifier.close()
        state.close()


async def _run(settings: Settings, redact: Redactor, notifier: Notifier) -> int:
    return await Process(settings, redact, notifier).run()


# --- the command line


def _flag(name: str, metavar: str, text: str) -> object:
    env = "FAILOVERD_" + name.removeprefix("--").replace("-", "_").upper()
    return typer.Option(name, metavar=metavar, envvar=env, show_default=False, help=text)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"failoverd {metadata.version('failover-control-plane')}")
        raise typer.Exit


Site = Annotated[str, _flag("--site", "NAME", "This node's site, as the configuration calls it.")]
Cluster = Annotated[str, _flag("--cluster", "NAME", "The cluster, as the configuration calls it.")]
Etcd = Annotated[
    str,
    _flag("--etcd", "URL,URL", "All members of etcd. Off this machine only https, and:"),
]
Ca = Annotated[str, _flag("--etcd-ca", "FILE", "Who signed etcd's certificates (PEM).")]
Cert = Annotated[str, _flag("--etcd-cert", "FILE", "This node's certificate (PEM); its CN is the etcd user.")]
Key = Annotated[str, _flag("--etcd-key", "FILE", "Its private key (PEM, without a password).")]
Roles = Annotated[str, _flag("--roles", "ROLE,ROLE", f"What this node does, of {', '.join(ALL_ROLES)}. Default: all.")]
Listen = Annotated[str, _flag("--listen", "ADDRESS:PORT", f"Where its API listens; loopback only. Default: {LISTEN}.")]
Directory = Annotated[
    str,
    _flag(
        "--state-dir",
        "DIR",
        "On local disk, its own: the journal, and what its pools were told last. Default: "
        "/var/lib/failover/CLUSTER as root, else ~/.local/state/failover/CLUSTER.",
    ),
]
Form = Annotated[
    str, _flag("--log-format", "FORMAT", "auto, human or json, on stderr. auto: human on a terminal, else json.")
]
Level = Annotated[str, _flag("--log-level", "LEVEL", "debug, info, warning or error. Default: info.")]
Version = Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")]


def failoverd(
    site: Site = "",
    cluster: Cluster = "",
    etcd: Etcd = "",
    etcd_ca: Ca = "",
    etcd_cert: Cert = "",
    etcd_key: Key = "",
    roles: Roles = "",
    listen: Listen = "",
    state_dir: Directory = "",
    log_format: Form = "",
    log_level: Level = "",
    version: Version = False,
) -> None:
    """Run one site's node: it looks at services, decides with the others, and keeps this site's DNS and pools right.

    All that nodes share is in etcd: the configuration too, which is applied once, from any of them. A node starts
    before etcd is there, and before there is a configuration, and says what it waits for: in its log, to systemd,
    and at http://127.0.0.1:8600/readyz. If etcd or this process goes away, DNS and load balancers keep serving the
    last good answer.

    \b
    Example, at each site (FAILOVERD_ETCD and the others can stand in the environment too):
      failoverd --site site-a --cluster acme --etcd https://198.51.100.1:2379,https://198.51.100.2:2379 \\
        --etcd-ca ca.pem --etcd-cert site-a.pem --etcd-key site-a.key
    and then, at one of them:
      failoverctl apply acme.yaml
      failoverctl status --watch

    \b
    Signals:
      SIGTERM, SIGINT  hand leadership over, end; a second one ends it at once
      SIGHUP           read certificates and secrets again
    """
    given = Given(
        site=site,
        cluster=cluster,
        roles=roles,
        etcd=etcd,
        etcd_ca=etcd_ca,
        etcd_cert=etcd_cert,
        etcd_key=etcd_key,
        listen=listen,
        state_dir=state_dir,
        log_format=log_format,
        log_level=log_level,
    )
    raise typer.Exit(start(_settings(given)))


def _settings(given: Given) -> Settings:
    """Raises typer.Exit, having said what is wrong."""
    try:
        return read_settings(given, os.environ, root=os.geteuid() == 0)
    except SettingsError as error:
        count = len(error.problems)
        print(f"failoverd: {count} problem{'s' * (count != 1)}; see failoverd --help", file=sys.stderr)
        for problem in error.problems:
            print(f"  {problem}", file=sys.stderr)
        raise typer.Exit(USAGE) from None


app = typer.Typer(
    name="failoverd",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(failoverd)


def main() -> None:
    """Entry point."""
    app()


if __name__ == "__main__":
    main()
