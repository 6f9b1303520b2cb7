"""Maps that a test controls: a source that waits, one that cannot answer, one that breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping

from postroad.maps.face import NO_ANSWER, Answer, Map, NoAnswer, NotNow


class Waiting:
    """Answers after a turn of the loop. `asked`: the keys, as often as they were asked."""

    waits = True

    def __init__(self, values: Mapping[str, str | NotNow]) -> None:
        self.values = dict(values)
        self.asked: list[str] = []
        self.at_once = 0  # look-ups that wait at this moment
        self.at_once_max = 0

    def look_up(self, key: str, part: bool = False) -> Awaitable[Answer]:
        self.asked.append(key)
        return self._answer(key)

    def known(self, key: str, part: bool = False) -> NoAnswer:
        return NO_ANSWER

    async def _answer(self, key: str) -> Answer:
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        return self.values.get(key)

    def close(self) -> None: ...


class Broken:
    waits = False

    def look_up(self, key: str, part: bool = False) -> Answer:
        raise RuntimeError("a bug")

    def close(self) -> None: ...


class Fixed:
    waits = False

    def __init__(self, values: Mapping[str, Answer]) -> None:
        self.values = dict(values)
        self.asked: list[str] = []

    def look_up(self, key: str, part: bool = False) -> Answer:
        self.asked.append(key)
        return self.values.get(key)

    def close(self) -> None: ...


def named(source: object, name: str = "people") -> Map:
    told: list[str] = []
    return Map(name, "fake", source, told.append)  # type: ignore[arg-type]
