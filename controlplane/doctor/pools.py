"""Load balancers as they are: does the socket of this machine answer, and has it the backends and servers?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from controlplane.doctor.finding import CALL_S, Findings
from controlplane.drivers import Driver
from controlplane.pools import DRIVERS
from controlplane.pools.look import NoDirectory, look_at
from policies.topology import Config, PoolDriver


async def examine(config: Config, site: str) -> Findings:
    """site: where this machine is; "" = wherever, so what is not here may be elsewhere."""
    found = Findings()
    for pool in config.pools:
        here = not site or site in pool.sites
        if not here or DRIVERS[pool.driver].open_pool is None:
            continue
        try:
            async with look_at(pool, config, site or pool.sites[0]) as driver:
                async with asyncio.timeout(2 * max(CALL_S, driver.capabilities.patience_s)):
                    await _pool(config, pool, driver, site, found)
        except NoDirectory as error:
            found.unknown("pool", pool.name, str(error), "make room in /tmp, or set TMPDIR", None)
        except TimeoutError:
            found.error("pool", pool.name, "no answer in time", "is it overloaded, or stopped?", False)
        except OSError as error:
            found.error("pool", pool.name, str(error), "can it be opened by this user?", None)
    return found


async def _pool(config: Config, pool: PoolDriver, driver: Driver, site: str, found: Findings) -> None:
    wanted = _wanted(config)
    try:
        actual = await driver.read(list(wanted))
    except FileNotFoundError as error:
        remedy = f"it is at {', '.join(pool.sites)}: ask there"
        if site:
            remedy = "start it, and see `socket` of the driver and `stats socket` of haproxy.cfg"
        (found.error if site else found.unknown)("pool", pool.name, str(error), remedy, False)
        return
    except (OSError, TimeoutError) as error:
        remedy = "does it run, and may this user open its socket?"
        found.error("pool", pool.name, str(error) or "no answer in time", remedy, False)
        return
    for backend, servers in wanted.items():
        there = {answer.address for answer in actual[backend].answers} if backend in actual else set()
        subject = f"{pool.name} {backend}"
        missing = sorted(set(servers) - there)
        if not there:
            found.error(
                "pool", subject, "no such backend", "see pools.backend of the service and the balancer's own file"
            )
        elif missing:
            remedy = "name the servers there after pools.servers of the service"
            found.error(
                "pool", subject, f"no server {', '.join(missing)}; there are {', '.join(sorted(there))}", remedy
            )
        else:
            found.ok("pool", subject, ", ".join(servers))
    await _level(pool, driver, found)


async def _level(pool: PoolDriver, driver: Driver, found: Findings) -> None:
    try:
        await driver.probe_write()
    except (OSError, TimeoutError) as error:
        found.error("pool", pool.name, str(error) or "no answer in time", "see the balancer's own file", True)
    else:
        found.ok("pool", pool.name, "may be written to")


def _wanted(config: Config) -> Mapping[str, list[str]]:
    """Backend -> its servers, in the order of the configuration."""
    found: dict[str, list[str]] = {}
    for service in config.services.values():
        if service.pools is not None:
            servers: Any = service.pools.servers
            found.setdefault(service.pools.backend, []).extend(name for names in servers.values() for name in names)
    return found
