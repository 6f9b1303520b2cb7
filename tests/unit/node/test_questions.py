"""Questions to all workers: each one's answer once, and nobody is waited for who is gone."""

from __future__ import annotations

import asyncio

import pytest

from postroad.node import questions
from postroad.node.frames import Operated, Sync, Synced, ToWorker
from postroad.node.questions import WorkerQuestions


class Asked:
    """Three workers, of which the first two are ready."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, ToWorker]] = []
        self.ready = [0, 1]
        self.questions = WorkerQuestions(lambda number, frame: self.sent.append((number, frame)), lambda: self.ready)

    async def begin(self) -> asyncio.Task[list[tuple[int, Synced | None]]]:
        task = asyncio.ensure_future(self.questions.ask(Sync, Synced))
        await asyncio.sleep(0)
        return task


async def test_each_worker_that_is_ready_is_asked_and_answers_once() -> None:
    asked = Asked()
    task = await asked.begin()
    assert asked.sent == [(0, Sync(1)), (1, Sync(1))]
    asked.questions.on_answer(1, 1, Synced(1))
    asked.questions.on_answer(1, 1, Synced(1))
    asked.questions.on_answer(2, 1, Synced(1))  # it was not asked
    await asyncio.sleep(0)
    assert not task.done()
    asked.questions.on_answer(0, 1, Synced(1))
    assert await task == [(1, Synced(1)), (0, Synced(1))]
    asked.questions.on_answer(0, 1, Synced(1))  # too late: nobody waits


async def test_a_worker_that_dies_has_no_answer() -> None:
    asked = Asked()
    task = await asked.begin()
    asked.questions.on_worker_lost(0)
    asked.questions.on_answer(1, 1, Operated(1, ()))  # no answer to this question
    assert await task == [(0, None), (1, None)]


async def test_a_worker_that_does_not_answer_in_time_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "ANSWER_S", 0.0)
    asked = Asked()
    task = await asked.begin()
    asked.questions.on_answer(1, 1, Synced(1))
    answers = dict(await task)
    assert answers[0] is None and set(answers) == {0, 1}


async def test_without_workers_there_are_no_answers() -> None:
    asked = Asked()
    asked.ready = []
    assert await asked.questions.ask(Sync, Synced) == []
