"""Measures how long a thread waits for something else than a processor: for a disk, or for a lock.

The wall time of a step says little about the disk on a busy machine: other processes take the processor for
milliseconds. So we subtract the time for which the thread ran, and the time for which it was ready while another one
ran (Linux tells it in ``/proc/thread-self/schedstat``). On a system that does not tell the latter, it counts as
waiting.
"""

from __future__ import annotations

import os
import time
from typing import Final

_SCHEDSTAT: Final = "/proc/thread-self/schedstat"  # "ns on the processor, ns ready and not on it, turns"
_LINE_MAX: Final = 128


class WaitClock:
    """The clock of the thread that makes it; no other thread reads it."""

    def __init__(self) -> None:
        try:
            self._file = os.open(_SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._file = -1

    def waited_s(self) -> float:
        """Grows by the seconds for which the thread waits; only a difference means something."""
        return time.monotonic() - time.thread_time() - self._ready_s()

    def close(self) -> None:
        """After it `waited_s` goes on without the system's account."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _ready_s(self) -> float:
        if self._file < 0:
            return 0.0
        try:
            return int(os.pread(self._file, _LINE_MAX, 0).split()[1]) / 1e9
        except (OSError, ValueError, IndexError):
            self.close()
            return 0.0
