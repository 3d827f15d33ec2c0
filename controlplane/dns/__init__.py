"""The DNS drivers: one file, and one line in DRIVERS, for a new one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from controlplane.dns import embedded
from controlplane.drivers import Driver
from policies.topology import Config, DnsDriver

# Name in the configuration -> opens the driver at its home site, with what has to run there.
DRIVERS: dict[str, Callable[[DnsDriver, Config], Awaitable[Driver]]] = {
    "embedded": embedded.open_driver,
}
