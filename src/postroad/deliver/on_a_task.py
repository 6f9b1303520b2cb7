"""The base of couriers that carry each job on a task of its own, because their work waits for threads or processes.

What always holds: `done` is called once for each job, with an attempt for each recipient, also if the courier is ended
before the task has begun. A courier stands in `busy` as long as it carries a job.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from postroad.mail.attempt import Attempt
from postroad.mail.job import Job


class TaskCourier(ABC):
    """Carries one job at a time; usable until it is closed. `busy`: the couriers of a kind that carry a job."""

    def __init__(self, loop: asyncio.AbstractEventLoop, busy: set[Any]) -> None:
        self._loop = loop
        self._busy = busy
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def usable(self) -> bool:
        return self._task is None and not self._closed

    @property
    def elsewhere(self) -> bool:
        return False

    def carry(self, job: Job, done: Callable[[Job, tuple[Attempt, ...]], None]) -> None:
        """Carry a job. One at a time."""
        assert self._task is None, "one job at a time"
        self._busy.add(self)
        self._task = self._loop.create_task(self._carry(job, done))

    def close(self) -> None:
        self._closed = True

    async def end(self) -> None:
        """Break off what is being carried; its `done` has been called by then."""
        self._closed = True
        if self._task is not None:
            self._loop.call_soon(self._task.cancel)  # not before it has begun: it is to call `done`
            await asyncio.wait((self._task,))

    async def _carry(self, job: Job, done: Callable[[Job, tuple[Attempt, ...]], None]) -> None:
        attempts = await self._attempts(job)
        self._task = None
        self._busy.discard(self)
        done(job, tuple(attempts))

    @abstractmethod
    async def _attempts(self, job: Job) -> Sequence[Attempt]:
        """One for each recipient of the job. It raises nothing, and returns them also if it is cancelled."""
