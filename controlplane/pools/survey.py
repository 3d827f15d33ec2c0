"""Asking the pools that can be reached from this very machine, for `verify`."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from controlplane.drivers import Actual, Driver, Place
from controlplane.pools import DRIVERS
from controlplane.sync import order
from policies.express import pooled
from policies.topology import Config, PoolDriver
from policies.world import Desired

Doc = dict[str, Any]
CALL_S = 2.0
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
    opener = DRIVERS[entry.driver].open_pool
    if opener is None or not entry.sites:
        return None, ELSEWHERE
    driver: Driver | None = None
    # What was applied last is kept by whoever writes: a look has a directory of its own, with nothing in it.
    with tempfile.TemporaryDirectory(prefix="failover-") as nothing:
        try:
            async with asyncio.timeout(CALL_S):
                driver = await opener(entry, config, Place(entry.sites[0], Path(nothing)))
                return await driver.read(backends), ""
        except (OSError, TimeoutError) as error:
            return None, f"{ELSEWHERE}: {error or type(error).__name__}"
        finally:
            if driver is not None:
                await driver.aclose()


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
