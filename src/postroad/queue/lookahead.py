"""The lookahead: puts what is due soon from the shards onto the agenda. Everything else stays on the disk.

A shard tells which destinations have something due, in the order of time (`Spool.ahead`). It is read a few minutes
ahead, some destinations at a time, and the next ones when nothing more on the agenda is due. So neither the start nor
memory grows with the queue.

What always holds, for each shard and the time and name up to which it was read (`reached`):
- A destination whose first row is due before `reached` is on the agenda, or is being loaded.
- Other destinations on the agenda (deferred a moment ago, or with rows in memory) are forgotten if the shard says that
  they have nothing due before `reached`. They are read again when their time comes.
- After a start, and when the clock was set back, rows that are due further ahead than any interval of ours are looked
  at, too (`far`), and reading begins anew.

This rests on the spool's order: a commit is reported before the answers to questions that were asked after it. Not
here: when a destination on the agenda is loaded (`queue.agenda`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from postroad.queue.agenda import Agenda
from postroad.store.face import Spool
from postroad.world.clock import Clock

AHEAD_US: Final = 600_000_000  # how far it is read
_AGAIN_US: Final = AHEAD_US // 2  # and what of it must be left before it is read again
_SOON_US: Final = 1_000_000  # so long before its time more is read
_PAGE: Final = 1_000  # destinations that are asked for at a time: commits go on between
_LOOK_S: Final = 30.0  # between looks at the clock
_KNOWN_MAX: Final = 5_000  # destinations in the agenda from which it is asked which may be forgotten
_EVER_US: Final = 1 << 62
_START: Final = (-1, "")

Place = tuple[int, str]  # a time and a destination


class _Reading:
    """How far a shard was read. `until_us`: how far it is to be read. `more`: whether something up to there was not
    read. `asked`: whether a question is under way. `put_off`: whether it will be asked when its time is near."""

    __slots__ = ("asked", "far", "more", "put_off", "reached", "shard", "until_us")

    def __init__(self, shard: int, reached: Place = _START, until_us: int = 0, *, far: bool = False) -> None:
        self.shard = shard
        self.reached = reached
        self.until_us = until_us
        self.far = far
        self.more = True
        self.asked = False
        self.put_off = False


class Lookahead:
    """See the module. `far_us()`: rows with a later time than this are looked into. `on_look(now_us)` is called at each
    look."""

    def __init__(
        self,
        spool: Spool,
        agenda: Agenda,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        *,
        far_us: Callable[[], int],
        on_look: Callable[[int], None],
    ) -> None:
        self._spool = spool
        self._agenda = agenda
        self._clock = clock
        self._loop = loop
        self._far_us = far_us
        self._on_look = on_look
        self._readings: list[_Reading] = []
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self._forgetting = 0  # questions under way
        self._known_max = _KNOWN_MAX
        # Whether anything was forgotten since the start. If so, a row that is stored with an earlier time, while it is
        # in memory, hides the forgotten one from `ahead`: the queue has its destination looked at again.
        self.forgets = False

    def start(self, shards: Sequence[int]) -> None:
        self._readings = [_Reading(shard) for shard in shards]
        self.begin_anew()
        self._look()

    def stop(self) -> None:
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def begin_anew(self) -> None:
        """Reads everything that is due soon, or strangely late: at the start, and if what was far ahead may have
        changed."""
        shards = [reading.shard for reading in self._readings if not reading.far]
        after = (self._clock.now_us() + self._far_us(), "")
        self._readings = [_Reading(shard) for shard in shards]
        self._readings += [_Reading(shard, after, _EVER_US, far=True) for shard in shards]
        self.go_on()

    def go_on(self) -> None:
        """Reads on if more is due soon: nothing more on the agenda is due."""
        now_us = self._clock.now_us()
        for reading in self._readings:
            self._read(reading, now_us)
        if len(self._agenda) > self._known_max and not self._forgetting:
            self._forget()

    def _look(self) -> None:
        if self._stopped:
            return
        self._on_look(self._clock.now_us())
        self.go_on()
        self._timer = self._loop.call_later(_LOOK_S, self._look)

    # -- reading on --------------------------------------------------------------------------------------------------

    def _read(self, reading: _Reading, now_us: int) -> None:
        if reading.asked or self._stopped:
            return
        if not reading.far and reading.until_us - now_us < _AGAIN_US:
            reading.until_us = now_us + AHEAD_US
            reading.more = True
        if not reading.more:
            return
        near_us = reading.reached[0] - now_us - _SOON_US
        if near_us > 0 and not reading.far:
            if near_us < _LOOK_S * 1_000_000 and not reading.put_off:
                reading.put_off = True
                self._loop.call_later(near_us / 1_000_000, self._read_later, reading)
            return
        reading.asked = True
        self._spool.ahead(reading.shard, reading.reached, reading.until_us, _PAGE, partial(self._found, reading))

    def _read_later(self, reading: _Reading) -> None:
        reading.put_off = False
        if reading in self._readings:
            self._read(reading, self._clock.now_us())

    def _found(self, reading: _Reading, page: list[Place]) -> None:
        reading.asked = False
        if self._stopped or reading not in self._readings:
            return
        # Of what is far ahead it is looked into why (`queue.loading`).
        for due_us, destination_key in page:
            self._agenda.schedule(reading.shard, destination_key, self._clock.now_us() if reading.far else due_us)
        if len(page) >= _PAGE:
            reading.reached = page[-1]
        elif reading.far:
            self._readings.remove(reading)
        else:
            reading.reached, reading.more = (reading.until_us + 1, ""), False

    # -- forgetting --------------------------------------------------------------------------------------------------

    def _forget(self) -> None:
        for reading in self._readings:
            if not reading.far:
                destination_keys = self._agenda.after(reading.shard, reading.reached[0])
                for start in range(0, len(destination_keys), _PAGE):
                    self._forgetting += 1
                    piece = destination_keys[start : start + _PAGE]
                    self._spool.first_due(reading.shard, piece, partial(self._told, reading, piece))
        if not self._forgetting:
            self._known_max = max(_KNOWN_MAX, 2 * len(self._agenda))

    def _told(self, reading: _Reading, destination_keys: list[str], first_due: dict[str, int]) -> None:
        self._forgetting -= 1
        if self._stopped or reading not in self._readings:
            return
        reached_us = reading.reached[0]
        gone = [
            destination_key
            for destination_key in destination_keys
            if first_due.get(destination_key, _EVER_US) > reached_us
        ]
        self.forgets = self.forgets or bool(gone)
        self._agenda.forget(reading.shard, gone, reached_us)
        if not self._forgetting:
            self._known_max = max(_KNOWN_MAX, 2 * len(self._agenda))
