"""Questions to all workers at once, and their answers.

What always holds: `ask` returns within `ANSWER_S`, with one entry for each worker that was ready when it was asked. A
worker that died, or took too long, has None as its answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from postroad.node.frames import Answer, ToWorker

ANSWER_S: Final = 30.0

_Answer = TypeVar("_Answer", bound=Answer)


class _Question:
    def __init__(self, asked: Iterable[int]) -> None:
        self.waits_for = set(asked)
        self.answers: list[tuple[int, Answer | None]] = []
        self.answered = asyncio.Event()


class WorkerQuestions:
    """`send(number, frame)`: to one worker. `ready`: the numbers of the workers that can be asked now."""

    def __init__(self, send: Callable[[int, ToWorker], None], ready: Callable[[], list[int]]) -> None:
        self._send = send
        self._ready = ready
        self._open: dict[int, _Question] = {}
        self._last = 0

    async def ask(self, make: Callable[[int], ToWorker], answer: type[_Answer]) -> list[tuple[int, _Answer | None]]:
        """Asks all workers that are ready and gathers (worker, answer). `make`: the frame with the number of the
        question; `answer`: the frame that answers it."""
        self._last += 1
        number, question = self._last, _Question(self._ready())
        if not question.waits_for:
            return []
        self._open[number] = question
        frame = make(number)
        for worker in list(question.waits_for):
            self._send(worker, frame)
        try:
            async with asyncio.timeout(ANSWER_S):
                await question.answered.wait()
        except TimeoutError:
            question.answers += ((worker, None) for worker in question.waits_for)
        finally:
            del self._open[number]
        return [(worker, value if isinstance(value, answer) else None) for worker, value in question.answers]

    def on_answer(self, worker: int, number: int, value: Answer | None) -> None:
        """A worker has answered the question of this number."""
        question = self._open.get(number)
        if question is None or worker not in question.waits_for:
            return
        question.waits_for.discard(worker)
        question.answers.append((worker, value))
        if not question.waits_for:
            question.answered.set()

    def on_worker_lost(self, worker: int) -> None:
        """A worker will not answer any more."""
        for number in list(self._open):
            self.on_answer(worker, number, None)
