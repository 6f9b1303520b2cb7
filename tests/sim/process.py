"""A process of the simulated machine: an event loop of its own over the one virtual loop, which can die at any moment.

All that a node's code does goes through the loop that it was given: callbacks, timers, tasks, work on threads. Here
each of them runs only while the process lives, so that `kill` is as sudden as SIGKILL: no task is cancelled, no
`finally` runs, no callback comes any more. What was in memory is unreachable from then on.

What always holds: while code of the process runs, the process is the running loop, so that asyncio's own parts
(timeout, gather) belong to it, too. What is handed to a thread runs a moment later, whole, and its result is told a
moment after that: the process may die before, between and after the two.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio import events
from collections.abc import Callable
from contextvars import Context
from types import CoroutineType
from typing import Any

from postroad.maps.asked import Asked
from tests.sim.virtual import VirtualLoop

Worked = Callable[["Process", Callable[..., Any], tuple[Any, ...], Any], None]


class Process(asyncio.AbstractEventLoop):
    """`work_s()`: how long the next piece of work on a thread takes. `fault(text)`: what came to the loop's handler.
    `worked`: hears what a thread has worked out, when the process is told."""

    def __init__(
        self,
        base: VirtualLoop,
        name: str,
        *,
        work_s: Callable[[], float],
        fault: Callable[[str], None],
        worked: Worked = lambda process, function, arguments, found: None,
    ) -> None:
        self.base = base
        self.name = name
        self.alive = True
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self._work_s = work_s
        self._fault = fault
        self._worked = worked
        self._steps_left = 0
        self._die: Callable[[], None] = self.kill

    def kill(self) -> None:
        self.alive = False
        for task in self.tasks:
            _let_go(task.get_coro())

    def die_at(self, step: int, die: Callable[[], None]) -> None:
        """Call `die` in place of the `step`-th step from now, also where many of them come at the same moment."""
        self._steps_left, self._die = step, die

    def spare(self) -> None:
        """It is not to die at any step any more."""
        self._steps_left = 0

    def run(self, callback: Callable[..., Any], *arguments: Any) -> None:
        """Run code of the process, where it lives."""
        if not self.alive:
            return
        before = events._get_running_loop()
        if self._steps_left and before is not self:  # else it is within a step
            self._steps_left -= 1
            if not self._steps_left:
                self._die()
                return
        events._set_running_loop(self)
        try:
            callback(*arguments)
        finally:
            events._set_running_loop(before)

    # -- what asyncio and the node use of a loop --------------------------------------------------------------

    def time(self) -> float:
        return self.base.now

    def call_soon(self, callback: Any, *arguments: Any, context: Context | None = None) -> asyncio.Handle:
        return self.base.call_soon(self.run, callback, *arguments, context=context)

    def call_soon_threadsafe(self, callback: Any, *arguments: Any, context: Context | None = None) -> asyncio.Handle:
        return self.base.call_soon(self.run, callback, *arguments, context=context)

    def call_later(
        self, delay: float, callback: Any, *arguments: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.base.call_later(delay, self.run, callback, *arguments, context=context)

    def call_at(
        self, when: float, callback: Any, *arguments: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.base.call_at(when, self.run, callback, *arguments, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self.tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            self._fault(f"{self.name}: a task failed: {task.exception()!r}")

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()
        self.call_later(self._work_s(), self._work, future, func, args)
        return future

    def _work(self, future: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            tell: Callable[..., None] = future.set_result
            found: Any = func(*args)
        except BaseException as error:
            tell, found = future.set_exception, error
        self.call_later(self._work_s(), self._told, future, tell, found, func, args)

    def _told(
        self, future: asyncio.Future[Any], tell: Callable[..., None], found: Any, func: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:
        self._worked(self, func, args, found)
        if not future.done():
            tell(found)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if self.alive:
            self._fault(f"{self.name}: {context.get('message')}: {context.get('exception')!r}")

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return not self.alive

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        raise AssertionError("the timers of a process are its base's")


def _let_go(waits: Any) -> None:
    """End a coroutine that has not begun, or a collection of them, with those that they were to wait for. None of their
    code runs, and nothing warns that they were never awaited."""
    match waits:
        case list() | tuple():
            for each in waits:
                _let_go(each)
        case dict():
            _let_go(list(waits.values()))
        case Asked():
            _let_go(waits._waiting)
        case CoroutineType() if inspect.getcoroutinestate(waits) == inspect.CORO_CREATED:
            waited_for = list(inspect.getcoroutinelocals(waits).values())
            waits.close()
            _let_go(waited_for)
