"""Who knows accounts is asked on tasks, so many at a time: for backends that ask others (`function`, `introspection`).

What always holds: `done` is called exactly once, also where a reload closes the backend, even before a task began.
How it fails: an exception is a bug; it is logged and answered BUSY.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from postroad.receive.accounts import Account
from postroad.receive.authenticate import Finding, Found

Answer = tuple[Finding, Account | None]


class Asking:
    """The questions of one backend that are not answered yet. `broke`: words for the log before the traceback."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int, log: Callable[[str], None], broke: str) -> None:
        self._loop = loop
        self._most = most
        self._log = log
        self._broke = broke
        self._tasks: set[asyncio.Task[Answer]] = set()

    def ask(self, question: Callable[[], Coroutine[Any, Any, Answer]], done: Found) -> None:
        """Ask, and give the answer to `done`; BUSY where too many wait already."""
        if len(self._tasks) >= self._most:
            done(Finding.BUSY, None)
            return
        task = self._loop.create_task(question())
        self._tasks.add(task)
        task.add_done_callback(partial(self._answered, done))

    def close(self) -> None:
        """Whoever waits is answered BUSY."""
        for task in tuple(self._tasks):
            task.cancel()

    def _answered(self, done: Found, task: asyncio.Task[Answer]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log(f"{self._broke}: {''.join(traceback.format_exception(error))}")
        if error is not None or task.cancelled():
            done(Finding.BUSY, None)
        else:
            done(*task.result())
