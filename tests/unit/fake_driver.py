"""A driver over a dict, that does wrong what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from controlplane.dns.fencing import refusal
from controlplane.drivers import Actual, Capabilities, Change, Result


class FakeDriver:
    """Names in a dict; what it is told to do wrong it does once."""

    name = "fake-site-a"

    def __init__(self, batch: int = 200) -> None:
        self.capabilities = Capabilities(geo=True, weights=True, cas=True, expires=False, batch=batch)
        self.names: dict[str, Actual] = {}
        self.fail: list[str] = []  # read | write | lost | terminal | transient | ignored | hang | race
        self.writes: list[list[str]] = []
        self.rival: Actual | None = None

    async def read(self, names: Sequence[str]) -> Mapping[str, Actual]:
        if "read" in self.fail:
            self.fail.remove("read")
            raise ConnectionRefusedError("refused")
        return {name: self.names[name] for name in names if name in self.names}

    async def apply(self, changes: Sequence[Change]) -> Mapping[str, tuple[Result, str]]:
        self.writes.append([change.desired.name for change in changes])
        fault = self.fail.pop(0) if self.fail else ""
        if fault == "write":
            raise ConnectionResetError("reset")
        if fault in ("terminal", "transient"):
            return {c.desired.name: (Result(fault), "NOTAUTH") for c in changes}
        if fault == "hang":
            await asyncio.sleep(3600)
        if fault == "race" and self.rival is not None:
            self.names[changes[0].desired.name] = self.rival
        results: dict[str, tuple[Result, str]] = {}
        for change in changes:
            held = self.names.get(change.desired.name)
            if (held.fence if held else None) != change.expect or refusal(change):
                results[change.desired.name] = (Result.FENCED, "NXRRSET")
                continue
            d = change.desired
            if fault == "ignored":
                self.names[d.name] = Actual(change.fence, 3600, d.answers)
            else:
                self.names[d.name] = Actual(change.fence, d.ttl_s, d.answers)
            results[d.name] = (Result.DONE, "")
        if fault == "lost":
            raise TimeoutError
        return results

    async def probe_write(self) -> None:
        pass

    async def aclose(self) -> None:
        pass
