"""Load balancers looked at by somebody who does not run them: `verify` and `doctor`."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from controlplane.drivers import Driver, Place
from controlplane.pools import DRIVERS
from policies.topology import Config, PoolDriver


class NoDirectory(OSError):
    """No directory for temporary files."""


@asynccontextmanager
async def look_at(entry: PoolDriver, config: Config, site: str) -> AsyncIterator[Driver]:
    """A driver of its own, closed afterwards. What was applied last is kept by whoever writes and is not to be touched:
    this one has an empty directory. Raises OSError."""
    opener = DRIVERS[entry.driver].open_pool
    assert opener is not None
    try:
        nothing = tempfile.TemporaryDirectory(prefix="failover-", ignore_cleanup_errors=True)
    except OSError as error:
        raise NoDirectory(f"no directory for temporary files: {error.strerror or error}") from error
    with nothing as directory:
        driver = await opener(entry, config, Place(site, Path(directory)))
        try:
            yield driver
        finally:
            await driver.aclose()
