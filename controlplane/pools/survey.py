"""Asking the pools that can be reached from this very machine, for `verify`."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from controlplane.drivers import Actual
from controlplane.pools import DRIVERS
from controlplane.pools.look import NoDirectory, look_at
from controlplane.sync import order
from policies.express import pooled
from policies.topology import Config, PoolDriver
from policies.world import Desired

Doc = dict[str, Any]
ELSEWHERE = "not reachable from here"


async def pools_asked(
    config: Config, services: Collection[str] = (), desired: Mapping[str, Desired] | None = None
) -> dict[str, list[Doc]]:
    """Service -> [{driver, backend, reachable, agrees, servers: {NAME: weight}, reason}], one line for each driver.

    A load balancer listens only on its own machine, and which site that is it does not say: it agrees if it has what
    the pool of one of its sites is to have. agrees None: not known. Never raises for what a pool does."""
    wanted = {
        name: spec.pools.backend
        for name, spec in config.services.items()
        if spec.pools is not None and (not services or name in services)
    }
    found: dict[str, list[Doc]] = {name: [] for name in wanted}
    for entry in config.pools if wanted else ():
        actual, reason = await _read(entry, config, sorted(set(wanted.values())))
        for name, backend in wanted.items():
            found[name].append(_line(config, entry, name, backend, actual, reason, (desired or {}).get(name)))
    return found


async def _read(entry: PoolDriver, config: Config, backends: list[str]) -> tuple[Mapping[str, Actual] | None, str]:
    if DRIVERS[entry.driver].open_pool is None or not entry.sites:
        return None, ELSEWHERE
    try:
        async with look_at(entry, config, entry.sites[0]) as driver, asyncio.timeout(driver.capabilities.patience_s):
            return await driver.read(backends), ""
    except NoDirectory as error:
        return None, str(error)
    except (OSError, TimeoutError) as error:
        return None, f"{ELSEWHERE}: {error or 'no answer in time'}"


def _line(
    config: Config,
    entry: PoolDriver,
    service: str,
    backend: str,
    read: Mapping[str, Actual] | None,
    reason: str,
    desired: Desired | None,
) -> Doc:
    actual = read.get(backend) if read is not None else None
    line: Doc = {
        "driver": entry.name,
        "backend": backend,
        "reachable": read is not None,
        "agrees": None,
        "servers": {a.address: a.weight for a in actual.answers} if actual else {},
        "reason": reason,
    }
    if read is None:
        return line
    if actual is None:
        return line | {"agrees": False, "reason": f"no backend {backend}"}
    if desired is not None:
        might = [told for site in entry.sites if (told := pooled(config, site, desired)) is not None]
        good = any(order(told.answers) == order(actual.answers) for told in might)
        return line | {"agrees": good, "reason": "" if good else "not the weights of any of its sites"}
    full = any(a.weight > 0 for a in actual.answers)
    return line | {"agrees": full, "reason": "" if full else "every server is drained"}
