"""The Driver port: one thing outside that can be brought to what is desired (a name server, a pool)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from policies.world import Answer, Desired


class Fence(Struct, frozen=True):
    """Stands beside each name as TXT `_failover.<name>` = "c=<incarnation> g=<generation> op=<id>" (4.8).

    `op` begins with the decision's id ("d-1042.9f3c"), or with "manual" for a fix made by hand.
    """

    incarnation: str
    generation: int
    op: str

    @property
    def decision(self) -> str:
        return self.op.partition(".")[0]

    @property
    def manual(self) -> bool:
        return self.op.startswith("manual")

    def text(self) -> str:
        return f"c={self.incarnation} g={self.generation} op={self.op}"

    @classmethod
    def parse(cls, text: str) -> Fence | None:
        """None for what is not a fence."""
        match = _FENCE.fullmatch(text)
        return cls(match[1], int(match[2]), match[3]) if match else None


_FENCE = re.compile(r"c=(\S{1,64}) g=(\d{1,18}) op=(\S{1,120})")


class Actual(Struct, frozen=True):
    """What a driver reads back for one name. fence None: never written by us."""

    fence: Fence | None
    ttl_s: int
    answers: tuple[Answer, ...]


class Change(Struct, frozen=True):
    """Bring `desired.name` to desired, if the fence there still is `expect` (None = there is none)."""

    desired: Desired
    expect: Fence | None
    fence: Fence


class Result(StrEnum):
    DONE = "ok"
    FENCED = "fenced"  # somebody newer wrote: re-read desired
    TRANSIENT = "transient"  # try again
    TERMINAL = "terminal"  # alarm, and again in 10 s


class Capabilities(Struct, frozen=True):
    geo: bool  # different answers for different regions
    weights: bool
    cas: bool  # compare-and-set on the fence
    expires: bool  # its effect expires by itself (isolation: withdraw)
    batch: int  # names a write may hold


class Driver(Protocol):
    """Every call may raise OSError or TimeoutError (transient); nothing else is expected."""

    name: str
    capabilities: Capabilities

    async def read(self, names: Sequence[str]) -> Mapping[str, Actual]:
        """What is there now; names that are not there are left out."""
        ...

    async def apply(self, changes: Sequence[Change]) -> Mapping[str, tuple[Result, str]]:
        """By name: the result and its reason."""
        ...

    async def probe_write(self) -> None:
        """Prove that a write would be accepted, without changing anything; raises if not."""
        ...

    async def aclose(self) -> None: ...
