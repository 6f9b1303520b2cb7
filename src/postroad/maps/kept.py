"""Keeps connections for the next look-up, whatever the kind of server.

What always holds: a connection serves one look-up at a time; if a look-up fails or is given up, its connection is
closed, because nobody knows what may still arrive on it. If a kept connection turns out to be broken, all kept ones are
closed, and the look-up uses a new one. If the server takes no further connection while others are at work (it has a
limit), the look-up waits for one of these. How it fails: with Away if no connection can be made and none is at work.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from postroad.maps.waiting import Away

C = TypeVar("C")
T = TypeVar("T")


class KeptConnections(Generic[C]):
    """`connect` makes one; `abort` closes one at once; `is_away` says whether an error means that the server is down
    (OSErrors and EOFErrors do anyway)."""

    def __init__(
        self, connect: Callable[[], Awaitable[C]], abort: Callable[[C], None],
        is_away: Callable[[Exception], bool] = lambda error: False,
    ) -> None:  # fmt: skip
        self._connect = connect
        self._abort = abort
        self._is_away = is_away
        self._free: list[C] = []
        self._at_work = 0
        self._waiting: deque[asyncio.Future[C]] = deque()  # for one that is at work
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
            if not self._at_work:
                raise Away(_said(error)) from error
            connection = await self._next()
            self._at_work -= 1  # it was counted when it was given
        return await self._ask(connection, ask)

    async def _next(self) -> C:
        """The next connection whose work is done. Raises Away if the last one breaks."""
        waiting: asyncio.Future[C] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            return await waiting
        except asyncio.CancelledError:
            if waiting.done() and not waiting.cancelled() and waiting.exception() is None:  # given up at that moment
                self._at_work -= 1
                self._give(waiting.result())
            raise

    def _give(self, connection: C) -> None:
        """The connection is free."""
        if self._closed:
            self._end(connection)
            return
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                self._at_work += 1
                waiting.set_result(connection)
                return
        self._free.append(connection)

    def _fail_waiting(self) -> None:
        """None is at work any more, for which somebody waits."""
        while self._waiting and not self._at_work:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(Away("the server takes no connection"))

    async def _ask(self, connection: C, ask: Callable[[C], Awaitable[T]]) -> T:
        self._at_work += 1
        try:
            answer = await self._asked(connection, ask)
        except BaseException:
            self._at_work -= 1
            self._fail_waiting()
            raise
        self._at_work -= 1
        self._give(connection)
        return answer

    async def _asked(self, connection: C, ask: Callable[[C], Awaitable[T]]) -> T:
        try:
            return await ask(connection)
        except Exception as error:
            self._end(connection)
            if isinstance(error, OSError | EOFError | Away) or self._is_away(error):
                raise Away(_said(error)) from error
            raise
        except BaseException:  # given up
            self._end(connection)
            raise

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
