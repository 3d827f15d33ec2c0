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
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextvars import Context
from types import TracebackType
from typing import Any, TypeVar, TypeVarTuple, cast

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

STUCK_HANDLES = 20_000  # callbacks run without progress of time: something re-arms itself for ever
PROGRESS_S = 1e-6  # what counts as progress
CLOSE_S = 600.0  # virtual time that cancelled tasks get to end


class Stuck(RuntimeError):
    """Time does not get on: too many callbacks at one instant, or nothing left that could end a wait."""


class NodeLoop(asyncio.AbstractEventLoop):
    """One node's event loop: what tasks, futures, sleep, timeout, Event and Queue need, and nothing else.

    Sockets, signals, executors and subprocesses raise NotImplementedError. `time()` is the node's own
    monotonic clock: offset_s + rate * kernel time, in seconds. Get one from Kernel.loop().
    """

    def __init__(self, kernel: Kernel, name: str, offset_s: float, rate: float) -> None:
        self.name = name
        self.kernel = kernel
        self.alive = True
        self.paused = False
        self._offset_s = offset_s
        self._rate = rate
        self._held: list[asyncio.Handle] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._prune_at = 64
        self._named = 0

    def __repr__(self) -> str:
        return f"<NodeLoop {self.name} t={self.time():.3f}>"

    # --- faults ---

    def pause(self) -> None:
        """As SIGSTOP: nothing runs, and time goes on; what falls due is held back."""
        self.paused = True

    def resume(self) -> None:
        """As SIGCONT: what was held back runs now, in the order in which it fell due."""
        if self.paused and self.alive:
            self.paused = False
            held, self._held = self._held, []
            for handle in held:
                self.kernel._push(self.kernel.now, handle, self)

    def kill(self) -> None:
        """As SIGKILL: nothing of this node ever runs again, its `finally` blocks neither.

        Its tasks stay referenced, or garbage collection would run those blocks after death.
        """
        self.alive = False

    def is_closed(self) -> bool:
        """True once killed: nobody need deliver anything here."""
        return not self.alive

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def ask(self, question: Callable[[], T]) -> T:
        """Call something at once as if on this node, on its clock: to look at its state between runs."""
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            return question()
        finally:
            events._set_running_loop(before)

    # --- what asyncio asks of a loop ---

    def time(self) -> float:
        return self._offset_s + self._rate * self.kernel.now

    def get_debug(self) -> bool:
        return False

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self.kernel._push(self.kernel.now, handle, self)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.kernel._push(self._kernel_time(when), handle, self)
        return handle

    def _kernel_time(self, when: float) -> float:
        """The first kernel time at which time() >= when: a timer that fires one ulp early would re-arm itself
        at the same instant for ever."""
        at = max((when - self._offset_s) / self._rate, self.kernel.now)
        while self._offset_s + self._rate * at < when:
            at = math.nextafter(at, math.inf)
        return at

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """asyncio tells of each cancelled timer; the kernel skips it when its turn comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        if name is None:  # asyncio's own counter goes on from run to run
            self._named += 1
            name = f"{self.name}-{self._named}"
        task: asyncio.Task[T] = asyncio.Task(cast(Any, coro), loop=self, name=str(name), context=context)
        if len(self._tasks) >= self._prune_at:
            self._tasks = [each for each in self._tasks if not each.done() or _unseen(each)]
            self._prune_at = 2 * len(self._tasks) + 64
        self._tasks.append(task)
        return task

    def get_task_factory(self) -> None:
        return None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Called by asyncio for what nobody else can catch; raised at the end of the run."""
        error = context.get("exception")
        if not isinstance(error, BaseException):
            error = RuntimeError(str(context.get("message")))
        self.kernel._failed(self, str(context.get("message")), error)


class Kernel:
    """Runs the callbacks of all loops in the order of (time, time of asking). `now` is in seconds from 0."""

    def __init__(self, stuck_handles: int = STUCK_HANDLES) -> None:
        self.now = 0.0
        self.handles = 0  # how many callbacks ran, for benchmarks
        self._stuck_handles = stuck_handles
        self._heap: list[tuple[float, int, asyncio.Handle, NodeLoop]] = []
        self._seq = 0
        self._loops: dict[str, NodeLoop] = {}
        self._dead: list[NodeLoop] = []
        self._dropped: list[tuple[asyncio.Handle, NodeLoop]] = []
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
        self._heap = [entry for entry in self._heap if entry[3] is not self._stage]  # no more faults
        heapq.heapify(self._heap)
        dead = [node for node in (*self._dead, *self._loops.values()) if not node.alive]
        living = [node for node in self._loops.values() if node.alive]
        for node in living:
            node.resume()
        self._end(living)
        # What the dead still do when they are put away is nobody's business, but it must not be left to
        # garbage collection, which would complain somewhere else.
        for node in dead:
            node.alive = True
            node.resume()
        for handle, node in self._dropped:
            self._push(self.now, handle, node)
        try:
            self._end(dead, raising=False)
        finally:
            self._closed = True
            self._heap.clear()
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

    def _push(self, when: float, handle: asyncio.Handle, node: NodeLoop) -> None:
        self._seq += 1
        heapq.heappush(self._heap, (when, self._seq, handle, node))

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
        heap, pop = self._heap, heapq.heappop
        current: NodeLoop | None = None
        since, count = self.now, 0
        while heap and heap[0][0] <= until and (done is None or not done.done()):
            when, _, handle, node = pop(heap)
            if handle._cancelled:
                continue
            if not node.alive:
                self._dropped.append((handle, node))
                continue
            if node.paused:
                node._held.append(handle)
                continue
            if when > self.now:
                self.now = when
            count += 1
            if self.now - since >= PROGRESS_S:
                self.handles += count
                since, count = self.now, 0
            elif count > self._stuck_handles:
                self._push(when, handle, node)
                raise Stuck(f"{count} callbacks without progress at t={self.now:.6f}, on {node.name!r}: {handle!r}")
            if node is not current:
                events._set_running_loop(None if node is self._stage else node)
                current = node
            handle._run()
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
                if task is not done and _unseen(task):
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


def _unseen(task: asyncio.Task[Any]) -> bool:
    """Did the task end with an exception that nobody has retrieved?"""
    return task.done() and not task.cancelled() and bool(cast(Any, task)._log_traceback)
