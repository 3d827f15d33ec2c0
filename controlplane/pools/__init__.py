"""The load-balancer drivers: one file, and one line in DRIVERS, for a new one."""

from __future__ import annotations

from controlplane.drivers import Kind
from controlplane.pools import haproxy

DRIVERS: dict[str, Kind] = {
    "haproxy": haproxy.KIND,
}
