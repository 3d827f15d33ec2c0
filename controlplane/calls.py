"""Calls of a driver, each with the patience that it has. A bug that one name brings out must not cost the other 199:
a call that ends in one is made again by halves."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from controlplane.drivers import Actual, Change, Driver, Result
from controlplane.patience import Patience

log = logging.getLogger(__name__)

ENOUGH = 3  # names that fail alone: then it is the driver that is broken, and the rest is not tried
Item = TypeVar("Item")
Found = TypeVar("Found")


class Calls:
    """Of one driver, or one that takes its place. A bug is logged when it is news."""

    def __init__(self) -> None:
        self._logged = ""

    async def read(self, driver: Driver, names: Sequence[str]) -> tuple[dict[str, Actual], dict[str, str]]:
        """What is there, and by name why that cannot be told: "bug: ...". Raises OSError or TimeoutError."""
        bugs: list[tuple[str, str]] = []
        return await self._by_halves(driver, driver.read, names, bugs), dict(bugs)

    async def apply(self, driver: Driver, changes: Sequence[Change]) -> dict[str, tuple[Result, str]]:
        """By name: the result and its reason. Raises OSError or TimeoutError."""
        bugs: list[tuple[Change, str]] = []
        results = await self._by_halves(driver, driver.apply, changes, bugs)
        return results | {change.desired.name: (Result.TERMINAL, why) for change, why in bugs}

    async def _by_halves(
        self,
        driver: Driver,
        call: Callable[[Sequence[Item]], Awaitable[Mapping[str, Found]]],
        items: Sequence[Item],
        bugs: list[tuple[Item, str]],
    ) -> dict[str, Found]:
        """Adds to `bugs` what could not be done at all."""
        try:
            with Patience(driver.capabilities.patience_s):
                return dict(await call(items))
        except (OSError, TimeoutError):
            raise
        except Exception as error:
            why = bug(error)
            if why != self._logged:
                self._logged = why
                log.exception("%s: %s", driver.name, why)
        if len(items) == 1 or len(bugs) >= ENOUGH:
            bugs += [(item, why) for item in items]
            return {}
        middle = len(items) // 2
        first = await self._by_halves(driver, call, items[:middle], bugs)
        if len(bugs) >= ENOUGH:
            bugs += [(item, why) for item in items[middle:]]
            return first
        return first | await self._by_halves(driver, call, items[middle:], bugs)


def bug(error: Exception) -> str:
    return f"bug: {error!r}"[:500]


def say(what: str, error: BaseException) -> str:
    cut_off = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
    return f"{what}: {str(error) or cut_off}"
