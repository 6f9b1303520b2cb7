"""A destination that is found later (`mail.routing`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

from postroad.mail.routing import Found


class Later(Awaitable[Found]):
    """An answer that begins when it is awaited."""

    __slots__ = ("_begin",)

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, Found]]) -> None:
        self._begin = begin

    def __await__(self) -> Generator[Any, Any, Found]:
        return self._begin().__await__()
