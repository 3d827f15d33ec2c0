"""`failoverctl dev`, `break` and `heal`: a whole cluster on this machine, and a way to hurt it."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated

import aiohttp
import typer
from aiohttp import web

from controlplane.api.app import ListenError, serve
from controlplane.api.guard import guard, reply
from controlplane.cli.context import Code, Run, Stop, command
from controlplane.cli.dev_cluster import DevCluster, now_utc
from controlplane.cli.dev_config import Unfit, check_fit, faster, free_port, template, web_places
from controlplane.cli.discovery import Announcement, DiscoveryError, Running, announce, directory_path, find, taken
from controlplane.cli.files import read, unsound
from controlplane.config import Result, read_config
from controlplane.config.scalars import seconds
from controlplane.dns.verify import servers_of
from policies.timing import zone_of
from policies.topology import Config

READY_WITHIN_S = 20.0


def register(app: typer.Typer) -> None:
    command(app, "dev")(dev)
    command(app, "break")(break_)
    command(app, "heal")(heal)


def dev(
    run: Run,
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A configuration on loopback addresses.", show_default=False)
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Soak 6s, ramp steps 2s, hold 2s: for people who watch.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the name servers; 0 takes a free one.")] = 0,
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="Write what happens to this file as well.")] = None,
) -> None:
    """Run three sites and a witness in this process, until Ctrl-C.

    Each site has what it has in production (vantage, controller, agent, name server, API) and shares nothing with
    the others but the store, which is in memory. Real probes, real sockets, no root, nothing to install. In a second
    terminal failoverctl finds it by itself.

    \b
    Example:
      failoverctl dev --fast
      failoverctl break site-a
      failoverctl status --watch
    """
    if file and port:
        raise Stop(Code.USAGE, "--port is for the built-in configuration; FILE names its own ports")
    text = "" if file else template(*_ports(port), fast)
    result, text = read(file) if file else (read_config(text, "dev.yaml"), text)
    config = fit(result, str(file or "dev.yaml"))
    config = faster(config) if fast else config
    set_up_logging(log)
    try:
        asyncio.run(_serve(run, config, text, file, fast))
    except (OSError, ListenError, DiscoveryError) as error:
        raise Stop(Code.REFUSED, str(error)) from None


def fit(result: Result, name: str) -> Config:
    """A configuration that dev can run. Raises Stop with every problem of one that it cannot."""
    if result.config is None:
        raise unsound(result)
    try:
        check_fit(result.config)
    except Unfit as unfit:
        raise Stop(Code.REFUSED, f"{name}: {unfit}") from None
    return result.config


def _ports(wanted: int) -> tuple[int, int]:
    """Name servers, web services."""
    try:
        return free_port(wanted=wanted), free_port()
    except OSError as error:
        raise Stop(Code.REFUSED, f"port {wanted}: {error.strerror or error}; leave --port out for a free one") from None


def set_up_logging(path: Path | None, level: int = logging.INFO) -> None:
    """What happens, one line each, on stderr and into `path`."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if path is not None:
        try:
            handlers.append(logging.FileHandler(path, encoding="utf-8"))
        except OSError as error:
            raise Stop(Code.USAGE, f"--log {path}: {error.strerror}") from None
    logging.basicConfig(
        level=level, format="%(asctime)s.%(msecs)03d %(message)s", datefmt="%H:%M:%S", handlers=handlers
    )
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


async def _serve(run: Run, config: Config, text: str, file: Path | None, fast: bool) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)

    def failed(site: str, error: BaseException) -> None:
        logging.getLogger(__name__).error("%s ended: %s: %s", site, type(error).__name__, error)
        ended.set()

    async with running_cluster(config, text, file, failed) as (cluster, path):
        ready = await wait_until_served(cluster, ended)
        if ready is None:
            if not ended.is_set():
                raise OSError(f"nothing is served after {READY_WITHIN_S:g}s; what happened is above")
            return
        for line in _welcome(cluster, path, ready, fast):
            run.people.print(line)
        run.document({"cluster": config.cluster, "api": cluster.urls, "config": str(path)})
        await ended.wait()
        run.people.print("\nstopping; nothing is left behind")
        logging.disable(logging.WARNING)  # that each part ends is no news


@asynccontextmanager
async def running_cluster(
    config: Config, text: str, file: Path | None, failed: Callable[[str, BaseException], None]
) -> AsyncIterator[tuple[DevCluster, Path]]:
    """A cluster, announced so that others find it, and the path of its configuration; all of it ends with this."""
    there = next((r for r in find() if r.cluster == config.cluster), None)
    if there is not None:
        raise taken(there)  # before anything is started
    async with AsyncExitStack() as stack:
        cluster = DevCluster(config, failed)
        stack.push_async_callback(cluster.aclose)
        control = await serve(_control(cluster), "127.0.0.1", 0)
        stack.push_async_callback(control.aclose)
        await cluster.start()
        announced = announce(Running(config.cluster, os.getpid(), cluster.urls, now_utc(), control.url))
        stack.callback(announced.remove)
        yield cluster, file or _keep(stack, announced, text)


def _keep(stack: AsyncExitStack, announced: Announcement, text: str) -> Path:
    """The built-in configuration as a file, for `verify -f` and `whatif -f`; removed at the end."""
    path = directory_path() / f"{announced.running.cluster}.yaml"
    path.unlink(missing_ok=True)
    with open(path, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as out:
        out.write(text)
    stack.callback(path.unlink, missing_ok=True)
    return path


async def wait_until_served(cluster: DevCluster, ended: asyncio.Event) -> float | None:
    """Seconds until every service was decided and every name server agreed; None if it took too long."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() - began < READY_WITHIN_S and not ended.is_set():
        if all(verified(cluster, service) for service in cluster.config.services):
            return loop.time() - began
        await asyncio.sleep(0.05)
    return None


def verified(cluster: DevCluster, service: str) -> bool:
    """Does every name server of a site that lives answer the present generation?"""
    view = cluster.witness().view
    desired = view.desired.get(service)
    if desired is None:
        return False
    servers = {
        server
        for driver in cluster.config.dns
        if cluster.sites[driver.site].alive and zone_of(desired.name, driver.zones)
        for server in servers_of(driver)
    }
    agreed = {
        seen.server
        for doc in view.mirror.applied.values()
        for seen in doc.seen.get(service, ())
        if seen.agrees and seen.generation == desired.generation
    }
    return servers <= agreed


def _control(cluster: DevCluster) -> web.Application:
    """Breaks and heals; on a port of its own, because the API of a broken site is gone with it."""

    async def change(request: web.Request) -> web.Response:
        site, verb = request.match_info["site"], request.match_info["verb"]
        if site not in cluster.sites:
            return reply(
                {"ok": False, "error": f"there is no site {site!r}; there are {', '.join(cluster.sites)}"}, 404
            )
        before = cluster.sites[site].alive
        if verb == "break":
            await cluster.break_site(site)
        else:
            await cluster.heal_site(site)
        return reply(
            {"ok": True, "site": site, "alive": cluster.sites[site].alive, "changed": before != (verb == "heal")}
        )

    app = web.Application(middlewares=[guard])
    app.router.add_post("/v1/dev/{verb:break|heal}/{site}", change)
    return app


def _welcome(cluster: DevCluster, path: Path, ready_s: float, fast: bool) -> list[str]:
    config = cluster.config
    me = "failoverctl" if shutil.which("failoverctl") else sys.argv[0]
    servers = [server for driver in config.dns for server in servers_of(driver)]
    lines = [f"{config.cluster}: {len(config.sites)} sites in one process, serving after {ready_s:.1f}s"]
    for name, site in config.sites.items():
        web_at = ", ".join(f"http://{a}:{p}/" for a, p in web_places(config).get(name, ()))
        dns_at = ", ".join(server for d in config.dns if d.site == name for server in servers_of(d))
        lines.append(f"  {name:<8} {site.role:<8} {f'dns {dns_at}' if dns_at else '':<22} {web_at}".rstrip())
    named = next((s for s in config.services.values() if s.dns is not None), None)
    if servers and named is not None and named.dns is not None:
        host, _, port = servers[-1].rpartition(":")
        dig = f"dig @{host} -p {port} {named.dns.name}"
        web_port = next((p for places in web_places(config).values() for _, p in places), 80)
        lines += [
            "Ask it:",
            f"  {dig} +short",
            *(f"  {dig} +short +subnet={example}   # as a client in {r}" for r, example in _examples(config)),
            f"  curl -s http://$({dig} +short):{web_port}/",
            f"  {me} verify -f {path}",
        ]
    victim = next(iter(config.sites))
    lines += [
        "In a second terminal:",
        f"  {me} status --watch",
        f"  {me} break {victim}        # then: heal {victim}",
        f"  {me} whatif -f {path} --lose {victim}",
        _pace(config, fast),
        "Ctrl-C ends it; nothing is left behind.",
    ]
    return lines


def _pace(config: Config, fast: bool) -> str:
    failback = config.policy.failback
    pace = f"Soak {seconds(failback.soak_s)}, ramp steps {seconds(failback.step_s)}"
    return f"{pace}: shortened." if fast else f"{pace}; --fast shortens them."


def _examples(config: Config) -> list[tuple[str, str]]:
    return [
        (name, r.networks[0].split("/")[0].rpartition(".")[0] + ".1/32")
        for name, r in config.regions.items()
        if r.networks
    ]


Site = Annotated[str, typer.Argument(metavar="SITE", help="A site of the cluster that `failoverctl dev` runs here.")]


def break_(run: Run, site: Site) -> None:
    """Kill a site of a dev cluster: services, name server, vantage, agent and controller, without a clean-up.

    \b
    Example:
      failoverctl break site-a
      failoverctl status --watch
    """
    _change(run, "break", site)


def heal(run: Run, site: Site) -> None:
    """Start a broken site of a dev cluster anew, with empty memory.

    \b
    Example:
      failoverctl heal site-a
    """
    _change(run, "heal", site)


def _change(run: Run, verb: str, site: str) -> None:
    doc = run.wait(_post(f"{_control_url(run)}/v1/dev/{verb}/{site}"))
    if not doc.get("ok"):
        raise Stop(Code.REFUSED, str(doc.get("error", "refused")))
    run.document(doc)
    word = "broken" if verb == "break" else "alive"
    now = "" if doc["changed"] else " already"
    then = "  Watch: failoverctl status --watch" if doc["changed"] else ""
    run.people.print(f"{site} is {word}{now}.{then}")


def _control_url(run: Run) -> str:
    try:
        running = [r for r in find() if r.dev and (not run.api or set(run.api) & set(r.api))]
    except DiscoveryError as error:
        raise Stop(Code.UNKNOWN, str(error)) from None
    if not running:
        raise Stop(
            Code.UNKNOWN, "No dev cluster runs here. Only such a one can be broken: start it with failoverctl dev."
        )
    if len(running) > 1:
        names = "\n".join(f"  {r.cluster}: --api {','.join(r.api)}" for r in running)
        raise Stop(Code.USAGE, f"Several dev clusters run here; choose one:\n{names}")
    return running[0].dev


async def _post(url: str) -> dict[str, object]:
    try:
        async with aiohttp.ClientSession(trust_env=False) as session, session.post(url, json={}) as response:
            doc: dict[str, object] = await response.json()
            return doc
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Stop(Code.UNKNOWN, f"The dev cluster does not answer: {error}") from None
