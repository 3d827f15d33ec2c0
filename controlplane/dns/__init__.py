"""The DNS drivers: one file, and one line in DRIVERS, for a new one."""

from __future__ import annotations

from controlplane.dns import embedded, rfc2136
from controlplane.drivers import Kind

DRIVERS: dict[str, Kind] = {
    "embedded": embedded.KIND,
    "rfc2136": rfc2136.KIND,
}
