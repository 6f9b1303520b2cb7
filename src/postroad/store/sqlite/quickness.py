"""Whether the next commit may be made on the loop, because the disk is quick.

A commit on the writer's thread costs two hand-overs of the interpreter's lock, 100 to 500 µs of processor under load. A
commit on the loop costs the time for which the loop stands still, and on a quick disk that is less.

What always holds: the first commits are made on the thread, until most of the last `COMMITS` were quick. The time for
which the loop stands still in commits that are not quick is no more than `SHARE` of all time, but for `CREDIT_MAX_S`
and the commit that exceeds it: a slow commit sends the next ones to the thread, for as long as it takes to make up for
it. If the disk is not quick, all commits are made on the thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

COMMITS: Final = 32  # that are remembered
NOT_QUICK_MAX: Final = 16  # of these; not none: on the thread, waiting for the interpreter's lock looks the same
QUICK_S: Final = 0.0005  # a commit that waits for less is quick: the hand-overs would cost about as much
SHARE: Final = 0.05  # of the time, for which the loop may stand still for what exceeds `QUICK_S`
CREDIT_MAX_S: Final = 0.01  # of this, how much it may use up at once

_ALL: Final = (1 << COMMITS) - 1


class Quickness:
    """What is known of the last commits. `time`: monotonic seconds. Used by one thread at a time."""

    def __init__(self, time: Callable[[], float]) -> None:
        self._time = time
        self._not_quick = _ALL  # a bit for each of the last commits
        self._credit_s = CREDIT_MAX_S
        self._credited = time()

    def may_be_on_loop(self) -> bool:
        """Whether the next commit may be made on the loop."""
        if self._not_quick.bit_count() > NOT_QUICK_MAX:
            return False
        now = self._time()
        self._credit_s = min(CREDIT_MAX_S, self._credit_s + SHARE * (now - self._credited))
        self._credited = now
        return self._credit_s > 0.0

    def took(self, wait_s: float, *, on_loop: bool) -> None:
        """Notes for how long a commit has waited for something else than a processor."""
        is_quick = wait_s <= QUICK_S
        self._not_quick = (self._not_quick << 1 | (not is_quick)) & _ALL
        if on_loop and not is_quick:
            self._credit_s -= wait_s - QUICK_S
