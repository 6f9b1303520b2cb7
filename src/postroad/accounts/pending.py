"""Questions about clients that are answered elsewhere: by threads, by a function, by another server.

A limited number is under way at a time; the others wait in order. What always holds: `done` is called exactly once,
unless the question was dropped. A question is dropped only before it has begun; so all work that a client has caused is
answered and counted, also if the client has gone. No question waits longer than `wait_s` to begin. How it fails: an
exception is a bug; it is logged and answered BUSY. A question that waits too long, or waits when a reload closes the
backend, is answered BUSY, too.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from postroad.accounts.accounts import Account
from postroad.accounts.authenticate import Found, Match

Answer = tuple[Match, Account | None]
Begin = Callable[["PendingQuestion"], None]
"""Begins the work; `PendingQuestion.end` is to be called once, when it is over."""


class PendingQuestions:
    """The questions of one backend. `broke`: words for the log before the traceback."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, at_once: int, wait_s: float, log: Callable[[str], None], broke: str
    ) -> None:
        self._loop = loop
        self._at_once = at_once
        self._wait_s = wait_s
        self._log = log
        self._broke = broke
        self._waiting: deque[PendingQuestion] = deque()
        self._under_way = 0
        self._tasks: set[asyncio.Task[Answer]] = set()

    def ask(self, question: Callable[[], Coroutine[Any, Any, Answer]], done: Found) -> PendingQuestion:
        """Have a question answered on a task, and give the answer to `done`."""
        return self.begin(partial(self._on_task, question), done)

    def begin(self, work: Begin, done: Found) -> PendingQuestion:
        """Have `work` begun, now or when others have ended."""
        asked = PendingQuestion(self, work, done)
        if self._under_way < self._at_once:
            self._start(asked)
        else:
            self._waiting.append(asked)
            asked.timer = self._loop.call_later(self._wait_s, self._late, asked)
        return asked

    def close(self) -> None:
        """Whoever waits is answered BUSY."""
        waiting = tuple(self._waiting)
        self._waiting.clear()
        for asked in waiting:
            asked.give(Match.BUSY, None)
        for task in tuple(self._tasks):
            task.cancel()

    def drop(self, asked: PendingQuestion) -> bool:
        if asked not in self._waiting:
            return False
        self._waiting.remove(asked)
        asked.stop_waiting()
        return True

    def ended(self) -> None:
        """One has come to its end: the next may begin."""
        self._under_way -= 1
        while self._waiting and self._under_way < self._at_once:
            self._start(self._waiting.popleft())

    def _start(self, asked: PendingQuestion) -> None:
        asked.stop_waiting()
        self._under_way += 1
        try:
            asked.work(asked)
        except Exception as error:
            asked.break_off(error)

    def broken(self, error: BaseException) -> None:
        """Tell the log of a bug, or of a machine that has no more threads."""
        self._log(f"{self._broke}: {''.join(traceback.format_exception(error))}")

    def _late(self, asked: PendingQuestion) -> None:
        self._waiting.remove(asked)
        asked.give(Match.BUSY, None)

    def _on_task(self, question: Callable[[], Coroutine[Any, Any, Answer]], asked: PendingQuestion) -> None:
        task = self._loop.create_task(question())
        self._tasks.add(task)
        task.add_done_callback(partial(self._answered, asked))

    def _answered(self, asked: PendingQuestion, task: asyncio.Task[Answer]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            asked.break_off(error)
        elif task.cancelled():
            asked.end(Match.BUSY, None)
        else:
            asked.end(*task.result())


class PendingQuestion:
    """One question."""

    __slots__ = ("_done", "_over", "_questions", "timer", "work")

    def __init__(self, questions: PendingQuestions, work: Begin, done: Found) -> None:
        self._questions, self.work, self._done = questions, work, done
        self.timer: asyncio.TimerHandle | None = None  # while it waits
        self._over = False

    def drop(self) -> bool:
        """Nobody wants the answer any more. True: it is not asked, and `done` is not called."""
        return self._questions.drop(self)

    def end(self, finding: Match, account: Account | None) -> None:
        """The work is over, with this."""
        if self._over:
            return
        self._over = True
        try:
            self._done(finding, account)
        finally:
            self._questions.ended()

    def break_off(self, error: BaseException) -> None:
        """The work has failed by an exception: nothing was found."""
        self._questions.broken(error)
        self.end(Match.BUSY, None)

    def give(self, finding: Match, account: Account | None) -> None:
        """The answer, without any work."""
        self.stop_waiting()
        self._done(finding, account)

    def stop_waiting(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
