"""Helpers shared by the tests."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run one async test on a real event loop; warnings about forgotten tasks become failures."""
    return asyncio.run(main, debug=False)
