"""A virtual clock: an event loop on which time passes only when nothing is left to do, so that days take no time."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

TURNS_MAX = 2_000_000  # of the loop in one run: several times what the busiest takes
START_US = 1_800_000_000_000_000


class _Idle(selectors.BaseSelector):
    """A selector that waits for nothing: where the loop would sleep, the clock jumps."""

    def __init__(self) -> None:
        self.loop: VirtualLoop | None = None
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        key = selectors.SelectorKey(fileobj, fileobj if isinstance(fileobj, int) else fileobj.fileno(), events, data)
        self._keys[fileobj] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert self.loop is not None
        self.loop.turns += 1
        if self.loop.turns > self.loop.turns_max:
            raise RuntimeError("the virtual world does not come to rest: something is done again and again")
        if timeout is None:
            raise RuntimeError("the virtual world has come to a standstill: nothing is scheduled")
        if timeout > 0:
            # Exactly to the timer, else rounding could leave the clock a hair before it for ever.
            first = self.loop._scheduled[0]._when if self.loop._scheduled else 0.0
            self.loop.now = max(self.loop.now, min(first, self.loop.now + timeout + 1e-6))
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop; `now` is its time in seconds."""

    def __init__(self) -> None:
        selector = _Idle()
        super().__init__(selector)
        selector.loop = self
        self.now = 0.0
        self.turns, self.turns_max = 0, TURNS_MAX

    def time(self) -> float:
        return self.now


class VirtualClock:
    """`world.clock.Clock` over a VirtualLoop; `offset_us` lets the wall clock jump."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.offset_us = 0

    def now_us(self) -> int:
        return START_US + self.offset_us + round(self.loop.now * 1_000_000)
