"""The Prober port over coroutines: one task a probe. It alone keeps the time-out and turns errors into samples."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache

import msgspec
from msgspec import Struct

from probes.kinds import KINDS
from probes.kinds.base import Failed, Kind, Progress
from probes.kinds.sockets import explain
from probes.target import Cancel, Done, Sample, Target


def _wall_s() -> float:
    return datetime.now(tz=UTC).timestamp()


class KindProber:
    """Runs the probes of `kinds`. `wall_s` (seconds since 1970) is for the dates of certificates only."""

    def __init__(self, kinds: Mapping[str, Kind] = KINDS, wall_s: Callable[[], float] = _wall_s) -> None:
        self._kinds = kinds
        self._wall_s = wall_s
        self._running: dict[asyncio.Task[None], None] = {}  # a dict, for its order

    def start(self, target: Target, done: Done) -> Cancel:
        task = asyncio.get_running_loop().create_task(self._run(target, done))
        self._running[task] = None
        task.add_done_callback(self._ended)

        def cancel() -> None:
            task.cancel()

        return cancel

    async def aclose(self) -> None:
        """Cancel what is running, and wait until its sockets are closed."""
        tasks = list(self._running)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if not task.cancelled() and (err := task.exception()) is not None:
            raise err  # only `done` can have raised it: the loop's exception handler shows it

    async def _run(self, target: Target, done: Done) -> None:
        done(await self.sample(target))

    async def sample(self, target: Target) -> Sample:
        """One probe of `target`, in at most its time-out. Raises nothing but CancelledError."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        progress = Progress(self._wall_s)
        try:
            kind = self._kinds[target.kind]
            options = _options(kind.options, target.options)
            async with asyncio.timeout(target.timeout_s) as limit:
                sample = await kind.probe(target, options, progress)
        except Failed as err:
            sample = _failed(err, progress)
        except Exception as err:
            if isinstance(err, TimeoutError) and limit.expired():
                failed: Failed | None = Failed(f"timeout {progress.stage}")
            else:
                failed = explain(err) if isinstance(err, OSError) else None
            sample = _failed(failed, progress) if failed else _broken(err)
        return msgspec.structs.replace(sample, took_s=loop.time() - began)


@lru_cache(maxsize=65536)
def _options(type_: type[Struct], options: str) -> Struct:
    return msgspec.json.decode(options, type=type_)


def _failed(err: Failed, progress: Progress) -> Sample:
    answered = progress.answered if err.answered is None else err.answered
    return Sample(passed=False, answered=answered, reason=err.reason, took_s=0.0)


def _broken(err: Exception) -> Sample:
    reason = f"broken: {type(err).__name__}: {err}"[:200]
    return Sample(passed=False, answered=False, reason=reason, took_s=0.0, broken=True)
