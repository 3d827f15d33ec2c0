"""A failoverd that freezes itself (SIGSTOP) at one step, as a machine does whose power saving or hypervisor strikes.

python tests/real/frozen_node.py STEP FILE [failoverd's arguments]

STEP is {commit,apply}-{before,sent,replied}; it freezes once, when FILE exists, and removes it.
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from controlplane import failoverd
from controlplane.drivers import Change, Driver, Result
from controlplane.node import Node, open_real
from controlplane.store import Txn, TxnResult
from controlplane.store.etcd import EtcdStore
from policies.topology import Config, DnsDriver

T = TypeVar("T")
STEPS = tuple(f"{what}-{when}" for what in ("commit", "apply") for when in ("before", "sent", "replied"))
ON_ITS_WAY_S = 0.3  # until what was sent has arrived: this whole process waits, so nothing is received meanwhile


def _freeze(armed: Path) -> None:
    armed.unlink()
    os.kill(os.getpid(), signal.SIGSTOP)


def _due(what: str, step: str, armed: Path) -> bool:
    return step.startswith(what) and armed.exists()


def _hold() -> None:
    time.sleep(ON_ITS_WAY_S)


async def _stepped(what: str, step: str, armed: Path, call: Callable[[], Awaitable[T]]) -> T:
    when = step.rpartition("-")[2]
    if not _due(what, step, armed):
        return await call()
    if when == "before":
        _freeze(armed)
        return await call()
    if when == "sent":
        task = asyncio.ensure_future(call())
        for _ in range(20):
            await asyncio.sleep(0)
        _hold()
        _freeze(armed)
        return await task
    result = await call()
    _freeze(armed)
    return result


class Store(EtcdStore):
    """Freezes around a commit of something desired."""

    step, armed = "", Path()

    async def txn(self, txn: Txn) -> TxnResult:
        call = functools.partial(super().txn, txn)
        if not any("/desired/" in op.key for op in txn.then):
            return await call()
        return await _stepped("commit", self.step, self.armed, call)


async def _open(step: str, armed: Path, site: str, entry: DnsDriver, config: Config) -> Driver | None:
    driver: Any = await open_real(site, entry, config)
    if driver is None or entry.site != site:
        return driver
    apply = driver.apply

    async def frozen(changes: Sequence[Change]) -> Mapping[str, tuple[Result, str]]:
        return await _stepped("apply", step, armed, lambda: apply(changes))

    driver.apply = frozen
    return driver


def main() -> None:
    Store.step, Store.armed = sys.argv[1], Path(sys.argv[2])
    assert Store.step in STEPS, f"{Store.step} is none of {STEPS}"
    failoverd.EtcdStore = Store
    failoverd.Node = functools.partial(Node, open_driver=functools.partial(_open, Store.step, Store.armed))
    sys.argv[1:3] = []
    failoverd.main()


if __name__ == "__main__":
    main()
