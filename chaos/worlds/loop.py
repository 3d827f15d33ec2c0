"""A deterministic event loop in virtual time: one kernel, one loop object for each simulated node.

    with Kernel() as kernel:
        node = kernel.loop("site-a")
        task = node.create_task(main())
        kernel.at(5.0, node.pause)
        kernel.run_until(60.0)

Nothing here reads a wall clock or opens a socket: what a node's code waits for, other nodes or timers must
bring about. Equal programs give equal histories.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import sys
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar, TypeVarTuple, cast

from chaos.worlds.node_loop import Due, NodeLoop, unseen

__all__ = ["Kernel", "NodeLoop", "Stuck"]
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STUCK_HANDLES = 20_000  # callbacks run without progress of time: something re-arms itself for ever
PROGRESS_S = 1e-6  # what counts as progress
CLOSE_S = 600.0  # virtual time that cancelled tasks get to end


class Stuck(RuntimeError):
    """Time does not get on: too many callbacks at one instant, or nothing left that could end a wait."""


class Kernel:
    """Runs the callbacks of all loops in the order of (time, time of asking). `now` is in seconds from 0."""

    def __init__(self, stuck_handles: int = STUCK_HANDLES) -> None:
        self.now = 0.0
        self.handles = 0  # how many callbacks ran, for benchmarks
        self._stuck_handles = stuck_handles
        self._heap: list[tuple[float, int, Due]] = []
        self._ready: deque[Due] = deque()  # asked for at `now`, in order; what is in the heap for `now` may go before
        self._seq = 0
        self._loops: dict[str, NodeLoop] = {}
        self._dead: list[NodeLoop] = []
        self._dropped: list[Due] = []
        self._generators: list[tuple[AsyncGenerator[Any, Any], NodeLoop]] = []
        self._errors: list[BaseException] = []
        self._closed = False
        self._stage = self.loop("")

    def loop(self, name: str, offset_s: float = 0.0, rate: float = 1.0) -> NodeLoop:
        """The living node of that name, or a new one (with an empty memory, if its predecessor was killed).

        offset_s and rate (over 0) are the skew of a new node's monotonic clock.
        """
        node = self._loops.get(name)
        if node is not None and node.alive:
            return node
        if node is not None:
            self._dead.append(node)
        # typeshed calls every method of AbstractEventLoop abstract; at run time those left out just raise.
        node = cast(NodeLoop, cast(Any, NodeLoop)(self, name, offset_s, rate))
        self._loops[name] = node
        return node

    def at(self, when: float, callback: Callable[[*Ts], object], *args: *Ts) -> asyncio.TimerHandle:
        """Run `callback` at kernel time `when`, on no node: for scripts of faults."""
        return self._stage.call_at(when, callback, *args)

    def run_until(self, when: float) -> None:
        """Run all that falls due up to `when`, that instant included; then it is `when`.

        Raises what no task or callback handled (several: as a group), or Stuck.
        """
        self._drive(when, None)
        self.now = max(self.now, when)

    def run_for(self, duration_s: float) -> None:
        self.run_until(self.now + duration_s)

    def run_until_complete(self, future: asyncio.Future[T]) -> T:
        """Run until a task or future is done, and return its result. Raises like run_until."""
        self._drive(math.inf, future)
        if not future.done():
            raise Stuck(f"nothing left to run at t={self.now:.3f}, and {future!r} is not done")
        return future.result()

    def run(self, main: Coroutine[Any, Any, T], node: str = "main") -> T:
        """Run one coroutine on a node to its end."""
        return self.run_until_complete(self.loop(node).create_task(main))

    def close(self) -> None:
        """Cancel every task, of killed nodes too, and run them to their end. Raises like run_until."""
        if self._closed:
            return
        self._heap = [entry for entry in self._heap if entry[2]._loop is not self._stage]  # no more faults
        heapq.heapify(self._heap)
        self._ready = deque(due for due in self._ready if due._loop is not self._stage)
        dead = [node for node in (*self._dead, *self._loops.values()) if not node.alive]
        living = [node for node in self._loops.values() if node.alive]
        for node in living:
            node.resume()
        self._end(living)
        # What the dead still do when they are put away is nobody's business, but it must not be left to
        # garbage collection, which would complain somewhere else.
        for node in dead:
            node.alive = True
            node._runs = not node.paused
            node.resume()
        for due in self._dropped:
            self._again(due)
        try:
            self._end(dead, raising=False)
        finally:
            self._closed = True
            self._heap.clear()
            self._ready.clear()
            self._dropped.clear()

    def __enter__(self) -> Kernel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except BaseException as late:
            if error is None:
                raise
            error.add_note(f"and while closing: {late!r}")

    # --- inside ---

    def _again(self, due: Due) -> None:
        """What fell due earlier and could not run: now, after all that is due already."""
        self._seq = due._seq = self._seq + 1
        self._ready.append(due)

    def _failed(self, node: NodeLoop, message: str, error: BaseException) -> None:
        if not self._closed:
            error.add_note(f"on node {node.name!r} at t={self.now:.6f}: {message}")
            self._errors.append(error)

    def _drive(self, until: float, done: asyncio.Future[Any] | None) -> None:
        if events._get_running_loop() is not None:
            raise RuntimeError("another event loop is running")
        if self._closed:
            raise RuntimeError("the kernel is closed")
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=self._keep_generator, finalizer=None)
        try:
            self._turn(until, done)
        finally:
            events._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)
        self._raise_errors(done)

    def _turn(self, until: float, done: asyncio.Future[Any] | None) -> None:
        heap, ready, pop = self._heap, self._ready, heapq.heappop
        current: NodeLoop | None = None
        now = since = self.now
        count = 0
        while done is None or not done.done():
            if ready and (not heap or heap[0][0] > now or heap[0][1] > ready[0]._seq):
                when, due = now, ready.popleft()
            elif heap and heap[0][0] <= until:
                when, _, due = pop(heap)
            else:
                break
            if due._cancelled:
                continue
            node = due._loop
            if not node._runs:
                (node._held if node.alive else self._dropped).append(due)
                continue
            count += 1
            if when > now:
                self.now = now = when
                if when - since >= PROGRESS_S:
                    self.handles += count
                    since, count = when, 0
            if count > self._stuck_handles:
                ready.appendleft(due)
                raise Stuck(f"{count} callbacks without progress at t={self.now:.6f}, on {node.name!r}: {due!r}")
            if node is not current:
                events._set_running_loop(None if node is self._stage else node)
                current = node
            try:
                due._context.run(due._callback, *due._args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                self._failed(node, f"exception in {due!r}", error)
        self.handles += count

    def _keep_generator(self, generator: AsyncGenerator[Any, Any]) -> None:
        """An abandoned async generator is finalised in close(), never by garbage collection: that would run
        code of a node outside its turn."""
        if len(self._generators) % 64 == 63:
            self._generators = [each for each in self._generators if _unfinished(each[0])]
        self._generators.append((generator, cast(NodeLoop, asyncio.get_running_loop())))

    def _raise_errors(self, done: asyncio.Future[Any] | None) -> None:
        for node in (*self._dead, *self._loops.values()):
            for task in node._tasks:
                if task is not done and unseen(task):
                    error = task.exception()
                    assert error is not None
                    self._failed(node, f"nobody looked at the exception of {task.get_name()}", error)
        errors, self._errors = self._errors, []
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup("unhandled in the simulation", errors)

    def _end(self, nodes: list[NodeLoop], raising: bool = True) -> None:
        """Cancel the nodes' tasks until all have ended, then finalise their async generators."""
        deadline = self.now + CLOSE_S
        finalised = False
        while True:
            left = [task for node in nodes for task in node._tasks if not task.done()]
            if self.now > deadline:
                raise Stuck(f"will not end: {', '.join(task.get_name() for task in left)}")
            if not left:
                if finalised:
                    return
                finalised = True
                for generator, node in self._generators:
                    if node in nodes and _unfinished(generator):
                        node.create_task(_finalise(generator))
            for task in left:
                task.cancel()
            try:
                self.run_for(10.0)
            except (Exception, BaseExceptionGroup):
                if raising:
                    raise


async def _finalise(generator: AsyncGenerator[Any, Any]) -> None:
    await generator.aclose()


def _unfinished(generator: AsyncGenerator[Any, Any]) -> bool:
    return cast(Any, generator).ag_frame is not None
