"""Lets a question that needs many look-ups be written as plain code, although maps may make it wait.

The question is a function of an `Asked`, by which it looks up. If an answer is not there yet, `look_up` returns
NO_ANSWER: the function leaves that branch and goes on with the others, and its result is thrown away. When all missing
answers have come, the function is called again and finds them. So look-ups that do not need each other wait together,
and a question whose answers are all at hand costs nothing more and makes no task.

What always holds: a key is looked up once for each question; a question ends, with its result or with NotNow. A
question must depend only on what it looks up, and must change nothing: its result may be thrown away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeVar

from postroad.maps.face import NO_ANSWER, Answer, Map, NoAnswer, NotNow
from postroad.maps.steps import KeyStep

T = TypeVar("T")
Entry = tuple[str, str, str]
"""What a map has: the value, its key, and the name of the map."""

_WAITED_FOR: Final = NotNow("the answer is waited for")  # stands for it until it is there
ROUNDS_MAX: Final = 1_000  # look-ups one after another for one question
_TOO_MANY: Final = NotNow(f"more than {ROUNDS_MAX} look-ups one after another")


class Asked:
    """What one question has learned, and what it waits for."""

    __slots__ = ("_answers", "_waiting", "not_now", "stopped", "waited")

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str, bool], Answer] = {}
        self._waiting: dict[tuple[str, str, bool], Awaitable[Answer]] = {}
        self.stopped = False  # whether the result means nothing
        self.waited = False  # whether answers are from before a wait
        self.not_now: NotNow | None = None

    def look_up(self, map: Map, key: str, part: bool = False) -> str | NoAnswer | None:
        """The value, None, or NO_ANSWER, after which the caller goes no further on this branch."""
        place = (map.name, key, part)
        answer = self._answers.get(place, NO_ANSWER)
        if answer is NO_ANSWER:
            found = map.look_up(key, part)
            if found is None or isinstance(found, str):
                self._answers[place] = found
                return found
            if not isinstance(found, NotNow):
                self._waiting[place] = found
                found = _WAITED_FOR
            answer = self._answers[place] = found
        if isinstance(answer, NotNow):
            self.not_now = answer
            self.stopped = True
            return NO_ANSWER
        return answer

    def first(self, steps: Iterable[KeyStep], maps: Iterable[Map]) -> Entry | NoAnswer | None:
        """The first entry that the maps have: all maps are asked for a key before the next key, and nothing behind the
        first value is looked up. None if there is no entry. NO_ANSWER, as of `look_up`, if an answer before the first
        value is missing: a map that must be waited for, or that cannot answer now, is never passed over."""
        look_up = self.look_up
        for _, key, part in steps:
            for map in maps:
                value = look_up(map, key, part)
                if value is None:
                    continue
                return NO_ANSWER if value is NO_ANSWER else (value, key, map.name)
        return None

    def refuse(self, text: str) -> None:
        """A value cannot be used: as if the map could not answer now."""
        self.not_now = NotNow(text)
        self.stopped = True

    async def gather(self) -> None:
        """Wait for all that is missing; the next round may begin."""
        self.waited = True
        waiting, self._waiting = self._waiting, {}
        if len(waiting) == 1:  # the usual case, without a task of its own
            for place, pending in waiting.items():
                self._answers[place] = await pending
        else:
            answers = await asyncio.gather(*waiting.values())
            self._answers.update(zip(waiting, answers, strict=True))
        self.stopped = False
        self.not_now = None

    @property
    def is_waiting(self) -> bool:
        return bool(self._waiting)


class AtOnce(Asked):
    """For a question that cannot wait: what is not known at once is NO_ANSWER, and stays so."""

    def look_up(self, map: Map, key: str, part: bool = False) -> str | NoAnswer | None:
        if map.waits:
            return NO_ANSWER
        found = map.look_up(key, part)
        return found if found is None or isinstance(found, str) else NO_ANSWER

    def refuse(self, text: str) -> None:
        """Nobody hears of it here."""


AT_ONCE: Final = AtOnce()


class Known(Asked):
    """For a question that may be asked again later, when it may wait: with the answers that are there. `stopped` says
    that they were not enough; nothing was begun."""

    __slots__ = ()

    def look_up(self, map: Map, key: str, part: bool = False) -> str | NoAnswer | None:
        found = map.known(key, part) if map.waits else map.look_up(key, part)
        if found is None or isinstance(found, str):
            return found
        if isinstance(found, NotNow):
            self.not_now = found
        self.stopped = True
        return NO_ANSWER


def answered(question: Callable[[Asked], T]) -> T | NotNow | Awaitable[T | NotNow]:
    """The result of a question, at once if no map makes it wait. NotNow if a map that it needed could not answer."""
    asked = Asked()
    result = _once(question, asked)
    return _rounds(question, asked) if isinstance(result, NoAnswer) else result


async def _rounds(question: Callable[[Asked], T], asked: Asked) -> T | NotNow:
    for _ in range(ROUNDS_MAX):
        await asked.gather()
        result = _once(question, asked)
        if not isinstance(result, NoAnswer):
            return result
    return _TOO_MANY


def _once(question: Callable[[Asked], T], asked: Asked) -> T | NotNow | NoAnswer:
    """The result with the answers that are there; NO_ANSWER if maps must be waited for first."""
    result = question(asked)
    if not asked.stopped:
        return result
    if asked.is_waiting:
        return NO_ANSWER
    assert asked.not_now is not None
    return asked.not_now
