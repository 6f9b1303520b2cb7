"""Answers that are used again for a short time, so that one costs a look into a dictionary and none at the clock.

What always holds: no answer is used for longer than `FRESH_S` after it was kept, and no more than `most` are there. A
timer of the loop throws all away at once; it runs only while there are any. Without a loop, as while settings are
checked, nothing is kept. Who keeps an answer throws it away earlier (`forget`, `clear`) if it learns that it is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

FRESH_S: Final = 1.0  # how long an answer is used again


class FreshAnswers(Generic[K, V]):
    """See the module. It belongs to one loop. `get` is that of a dictionary: None for what is not there."""

    __slots__ = ("_answers", "_loop", "_most", "get")

    def __init__(self, most: int) -> None:
        self._answers: dict[K, V] = {}
        self._most = most
        self._loop: asyncio.AbstractEventLoop | None = None  # whose timer runs
        self.get: Callable[[K], V | None] = self._answers.get

    def keep(self, key: K, value: V) -> None:
        loop = asyncio._get_running_loop()
        if loop is None:
            return
        if self._loop is not loop:
            self._answers.clear()
            self._loop = loop
            loop.call_later(FRESH_S, self._grow_old, loop)
        elif len(self._answers) >= self._most:
            self._answers.clear()
        self._answers[key] = value

    def _grow_old(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is loop:
            self._answers.clear()
            self._loop = None

    def forget(self, key: K) -> None:
        self._answers.pop(key, None)

    def clear(self) -> None:
        self._answers.clear()

    def __len__(self) -> int:
        return len(self._answers)
