"""Answers that are used again for a short time: how long, how many, and when they are thrown away."""

from __future__ import annotations

import asyncio

import pytest

from postroad.maps import fresh
from postroad.maps.fresh import FreshAnswers


async def test_a_timer_throws_all_answers_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fresh, "FRESH_S", 0.0)
    answers: FreshAnswers[str, int] = FreshAnswers(10)
    for _ in range(2):
        answers.keep("a", 1)
        answers.keep("b", 2)
        assert (answers.get("a"), answers.get("b"), answers.get("c")) == (1, 2, None)
        await asyncio.sleep(0.001)
        assert len(answers) == 0 and answers.get("a") is None


async def test_an_answer_that_is_wrong_is_thrown_away() -> None:
    answers: FreshAnswers[str, int] = FreshAnswers(10)
    for each in "abc":
        answers.keep(each, 1)
    answers.forget("a")
    answers.forget("nothing")
    assert answers.get("a") is None and len(answers) == 2
    answers.clear()
    assert len(answers) == 0


async def test_they_are_bounded() -> None:
    answers: FreshAnswers[int, int] = FreshAnswers(10)
    for number in range(100):
        answers.keep(number, number)
        assert len(answers) <= 10 and answers.get(number) == number


def test_nothing_is_kept_without_a_loop_or_for_another_one() -> None:
    answers: FreshAnswers[str, int] = FreshAnswers(10)
    answers.keep("a", 1)
    assert answers.get("a") is None

    async def keep(key: str) -> None:
        answers.keep(key, 1)

    asyncio.run(keep("a"))
    asyncio.run(keep("b"))
    assert answers.get("a") is None and answers.get("b") == 1
