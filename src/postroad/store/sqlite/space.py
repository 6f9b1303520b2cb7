"""Decides whether there is space for new mail: by the free space on the disk and within a shard, and by the reserves.

What always holds: below `free_min` new mail is refused, unless the shard has so much free space within its file. New
mail is also refused while the reserve of the shard is not whole, so that there is one when the disk is full again. A
reserve that was given up is made again when twice its size is free; this is tried at most once a second. Used by one
thread at a time, the one that uses the shard.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from postroad.store.options import SpoolOptions
from postroad.store.sqlite.shard import Shard
from postroad.store.values import Failure, FailureKind
from postroad.world.clock import Clock

_RESERVE_FREE: Final = 2  # times its size must be free before a reserve is made again
_RESERVE_AGAIN_S: Final = 1.0  # between two attempts
_LOOK_EVERY_US: Final = 100_000  # how often the free space is looked at


def free_octets(directory: Path) -> int:
    """Free space on the disk of a folder. Raises OSError."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


class Space:
    """The space of one spool. `free` returns the free octets on the disk of a folder; it raises OSError if they are not
    known. `on_whole` gets the path of a reserve that is whole again."""

    def __init__(
        self,
        directory: Path,
        options: SpoolOptions,
        clock: Clock,
        time: Callable[[], float],
        *,
        free: Callable[[Path], int],
        on_whole: Callable[[Path], None],
    ) -> None:
        self._directory = directory
        self._options = options
        self._clock = clock
        self._time = time
        self._free_octets = free
        self._on_whole = on_whole
        self._free = 0
        self._looked_us = 0
        self._again = 0.0  # when a reserve may be tried to be made again

    def room(self, shard: Shard) -> Failure | None:
        """Why new mail must be refused, or None. Pages that are free within the file count as room."""
        failure = self.room_on_disk()
        if failure is not None and self._free + shard.free_inside() < self._options.free_min:
            return failure
        return None if shard.reserve.whole else self._fill_reserve(shard)

    def room_on_disk(self) -> Failure | None:
        """Why new mail must be refused if no shard has free pages within its file; None if there is space."""
        now_us = self._clock.now_us()
        if abs(now_us - self._looked_us) >= _LOOK_EVERY_US:
            self._looked_us = now_us
            try:
                self._free = self._free_octets(self._directory)
            except OSError as error:
                return Failure(FailureKind.IO, f"{self._directory}: {error.strerror}")
        if self._free >= self._options.free_min:
            return None
        text = f"{self._directory}: {self._free} octets free, fewer than free_min {self._options.free_min}"
        return Failure(FailureKind.FULL, text)

    def _fill_reserve(self, shard: Shard) -> Failure | None:
        """Makes the reserve again after the disk was full. New mail is accepted when the reserve is there."""
        reserve = shard.reserve
        if self._free >= _RESERVE_FREE * reserve.size:
            now = self._time()
            if now >= self._again:
                self._again = now + _RESERVE_AGAIN_S
                if reserve.fill():
                    self._on_whole(reserve.path)
                    return None
        return Failure(FailureKind.FULL, f"{self._directory}: no space for the reserve {reserve.path}")
