"""Taking a piece of the product out while a scenario is played, and putting it back."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

ROOMS = ("probes", "policies", "controlplane", "chaos")


class Reached:
    """How often what took the piece's place was used."""

    def __init__(self) -> None:
        self.times = 0


Off = Callable[[], AbstractContextManager[Reached]]


@contextmanager
def swapped(owner: Any, name: str, make: Callable[[Any], Any]) -> Iterator[Reached]:
    """Until the end `owner.name` (of a module or class) is make(what it was). KeyError: there is no such piece."""
    reached = Reached()
    before = vars(owner)[name]
    setattr(owner, name, _counted(make(before), reached))
    try:
        yield reached
    finally:
        setattr(owner, name, before)


@contextmanager
def everywhere(function: Any, make: Callable[[Any], Any]) -> Iterator[Reached]:
    """The same for a function, in every module that has it under its name."""
    reached = Reached()
    name, after = function.__name__, _counted(make(function), reached)
    places = [m for key, m in sorted(sys.modules.items()) if key.split(".")[0] in ROOMS]
    places = [module for module in places if vars(module).get(name) is function]
    if not places:
        raise KeyError(name)
    for module in places:
        setattr(module, name, after)
    try:
        yield reached
    finally:
        for module in places:
            setattr(module, name, function)


def _counted(after: Any, reached: Reached) -> Any:
    if isinstance(after, property):
        assert after.fget is not None
        return property(_counted(after.fget, reached))
    if not callable(after):
        reached.times = 1  # a number: whether it is looked at cannot be seen
        return after

    @functools.wraps(after)
    def counting(*args: Any, **named: Any) -> Any:
        reached.times += 1
        return after(*args, **named)

    return counting
