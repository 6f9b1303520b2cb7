"""Keeps connections for the next look-up, whatever the kind of server.

What always holds: a connection serves one look-up at a time; if a look-up fails or is given up, its connection is
closed, because nobody knows what may still arrive on it. If a kept connection turns out to be broken, all kept ones are
closed, and the look-up uses a new one. How it fails: with Away if no connection can be made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from postroad.maps.waiting import Away

C = TypeVar("C")
T = TypeVar("T")


class KeptConnections(Generic[C]):
    """`connect` makes one; `abort` closes one at once; `is_away` says whether an error means that the server is away
    (OSErrors and EOFErrors do anyway)."""

    def __init__(
        self, connect: Callable[[], Awaitable[C]], abort: Callable[[C], None],
        is_away: Callable[[Exception], bool] = lambda error: False,
    ) -> None:  # fmt: skip
        self._connect = connect
        self._abort = abort
        self._is_away = is_away
        self._free: list[C] = []
        self._closed = False

    async def use(self, ask: Callable[[C], Awaitable[T]]) -> T:
        """What `ask` answers by a connection."""
        if self._free:
            try:
                return await self._ask(self._free.pop(), ask)
            except Away:  # it may have broken while it was kept
                self._drop()
        try:
            connection = await self._connect()
        except Exception as error:
            raise Away(_said(error)) from error
        return await self._ask(connection, ask)

    async def _ask(self, connection: C, ask: Callable[[C], Awaitable[T]]) -> T:
        try:
            answer = await ask(connection)
        except Exception as error:
            self._end(connection)
            if isinstance(error, OSError | EOFError | Away) or self._is_away(error):
                raise Away(_said(error)) from error
            raise
        except BaseException:  # given up
            self._end(connection)
            raise
        if self._closed:
            self._end(connection)
        else:
            self._free.append(connection)
        return answer

    def _end(self, connection: C) -> None:
        with contextlib.suppress(Exception):
            self._abort(connection)

    def _drop(self) -> None:
        while self._free:
            self._end(self._free.pop())

    def __len__(self) -> int:
        """How many are kept."""
        return len(self._free)

    def close(self) -> None:
        self._closed = True
        self._drop()


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, Away) else f"{type(error).__name__}: {error}"
