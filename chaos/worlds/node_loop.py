"""One node's event loop on a Kernel: what asyncio's tasks, futures and timers ask of a loop, in virtual time."""

from __future__ import annotations

import asyncio
import heapq
import math
from asyncio import events
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple, cast

if TYPE_CHECKING:
    from chaos.worlds.loop import Kernel

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class Due(asyncio.TimerHandle):
    """A callback that waits for its turn. Leaner than asyncio's own: there are hundreds of thousands a second."""

    __slots__ = ("_seq",)
    _callback: Callable[..., object]
    _context: Context
    _loop: NodeLoop

    def __init__(
        self,
        when: float,
        seq: int,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        loop: NodeLoop,
        context: Context | None,
    ) -> None:  # not asyncio's, which looks for debugging aids
        self._when, self._seq = when, seq
        self._callback, self._args = callback, args
        self._loop = loop
        self._context = copy_context() if context is None else context
        self._cancelled = False

    def __repr__(self) -> str:
        return f"<{'cancelled ' if self._cancelled else ''}{self._callback!r} on {self._loop.name!r}>"

    def cancel(self) -> None:
        """The kernel skips it when its turn comes."""
        self._cancelled = True
        self._callback, self._args = _nothing, ()  # what it would have called may go


class NodeLoop(asyncio.AbstractEventLoop):
    """One node's event loop: what tasks, futures, sleep, timeout, Event and Queue need, and nothing else.

    Sockets, signals and subprocesses raise NotImplementedError; work for another thread is done at once, in no time.
    `time()` is the node's own monotonic clock: offset_s + rate * kernel time, in seconds. Get one from Kernel.loop().
    """

    create_future: Callable[[], asyncio.Future[Any]]

    def __init__(self, kernel: Kernel, name: str, offset_s: float, rate: float) -> None:
        self.name = name
        self.kernel = kernel
        self.alive = True
        self.paused = False
        self._offset_s = offset_s
        self._rate = rate
        self._runs = True  # alive and not paused
        self._held: list[Due] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._prune_at = 64
        self._named = 0
        self.create_future = partial(asyncio.Future, loop=self)

    def __repr__(self) -> str:
        return f"<NodeLoop {self.name} t={self.time():.3f}>"

    # --- faults ---

    def pause(self) -> None:
        """As SIGSTOP: nothing runs, and time goes on; what falls due is held back."""
        self.paused = True
        self._runs = False

    def resume(self) -> None:
        """As SIGCONT: what was held back runs now, in the order in which it fell due."""
        if self.paused and self.alive:
            self.paused, self._runs = False, True
            held, self._held = self._held, []
            for due in held:
                self.kernel._again(due)

    def kill(self) -> None:
        """As SIGKILL: nothing of this node ever runs again, its `finally` blocks neither.

        Its tasks stay referenced, or garbage collection would run those blocks after death.
        """
        self.alive = self._runs = False

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
        kernel = self.kernel
        kernel._seq = seq = kernel._seq + 1
        due = Due(kernel.now, seq, callback, args, self, context)
        kernel._ready.append(due)
        return due

    def call_soon_threadsafe(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._schedule(self._offset_s + self._rate * self.kernel.now + delay, callback, args, context)

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._schedule(when, callback, args, context)

    def _schedule(
        self, when: float, callback: Callable[..., object], args: tuple[Any, ...], context: Context | None
    ) -> Due:
        # The first kernel time at which time() >= when: a timer that fires one ulp early would re-arm itself at the
        # same instant for ever.
        kernel, offset_s, rate = self.kernel, self._offset_s, self._rate
        at = (when - offset_s) / rate
        if at < kernel.now:
            at = kernel.now
        while offset_s + rate * at < when:
            at += max(math.ulp(at), math.ulp(when) / 2)
        kernel._seq = seq = kernel._seq + 1
        due = Due(when, seq, callback, args, self, context)
        heapq.heappush(kernel._heap, (at, seq, due))
        return due

    def run_in_executor(self, executor: object, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """No thread: what it returns or raises is there by the next callback."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

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
            self._tasks = [each for each in self._tasks if not each.done() or unseen(each)]
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


def unseen(task: asyncio.Task[Any]) -> bool:
    """Did the task end with an exception that nobody has retrieved?"""
    return task.done() and not task.cancelled() and bool(cast(Any, task)._log_traceback)


def _nothing() -> None:
    """Instead of what was cancelled."""
