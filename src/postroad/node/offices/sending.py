"""The supervisor's office of sending limits (`check.sending`): the counts of the whole node, kept over a restart.

Workers tell what they count and hear what the others have; they never wait for an answer. What always holds: a file in
the state folder has the counts as they were at most `KEEP_S` ago, so that a crash forgets only what was sent since, and
a stop forgets nothing; a limit that was reached is told to the postmaster once within its window, whichever workers
say so.

How it fails: if the file cannot be written, the log says so, and it is tried again; if it cannot be read, the counts
begin anew, and the log says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from postroad.check.sending import (
    DAY,
    HELD,
    HELD_SIZE,
    HOUR,
    MESSAGES,
    RECIPIENTS,
    WINDOWS_S,
    LimitSubject,
    Whose,
    keys_of,
    subject_of,
)
from postroad.check.tally import TallyFrame, TallyOffice
from postroad.mail.account import canonical_account
from postroad.node.frames import NoticeWanted, SendingForgotten, SendingTold, ToWorker
from postroad.operate.requests import LimitsAsked, SentCount
from postroad.world import files

FILE: Final = "sending"
KEEP_S: Final = 10.0
NOTICES_MAX: Final = 10_000  # subjects of which is remembered that the postmaster knows
ROWS_MAX: Final = 10_000  # that a list has
_PLACES: Final = {
    (MESSAGES, HOUR): 0, (RECIPIENTS, HOUR): 1, (MESSAGES, DAY): 2, (RECIPIENTS, DAY): 3, (HELD, DAY): 4,
    (HELD_SIZE, DAY): 5,
}  # fmt: skip


class _Kept(msgspec.Struct):
    """The file. `windows`: number, counts, counts of the window before. `noticed`: key → when."""

    windows: list[tuple[int, dict[str, int], dict[str, int]]] = []
    noticed: dict[str, int] = {}


class SendingOffice:
    """`send(worker, frame)`: to one worker; `workers()`: the numbers of those that serve."""

    def __init__(
        self,
        state_dir: Callable[[], Path],
        send: Callable[[int, ToWorker], None],
        workers: Callable[[], Sequence[int]],
        now_us: Callable[[], int],
        say: Callable[[str, str], None],
    ) -> None:
        self._state_dir = state_dir
        self._send = send
        self._workers = workers
        self._now_us = now_us
        self._say = say
        self._noticed: dict[str, int] = {}
        self._changed = False
        self._next_us = 0
        self._writing: asyncio.Task[None] | None = None
        self._office = TallyOffice(
            len(WINDOWS_S), lambda number, told: send(number, SendingTold(told)), lambda key: 1, lambda key: None
        )

    # ---- Workers

    def worker_up(self, number: int) -> None:
        self._office.worker_up(number)

    def worker_died(self, number: int) -> None:
        self._office.worker_died(number)

    def take_counts(self, number: int, told: TallyFrame) -> None:
        self._office.take_counts(number, told)
        self._changed = True

    def reached(self, number: int, key: str, text: str) -> None:
        """A worker has found that somebody is at a limit: the postmaster is told once within a day."""
        now_us = self._now_us()
        if now_us < self._noticed.get(key, 0) + int(WINDOWS_S[-1] * 1e6):
            return
        while len(self._noticed) >= NOTICES_MAX:
            del self._noticed[next(iter(self._noticed))]
        self._noticed.pop(key, None)
        self._noticed[key] = now_us
        self._changed = True
        self._say("warning", f"{text}; `postroad limits` shows the counts")
        self._send(number, NoticeWanted(text))

    # ---- Operators

    def asked(self, asked: LimitsAsked) -> list[SentCount]:
        """The counts of all or of some, or of those that were set to nothing."""
        rows = self._rows(asked.names)
        if asked.reset:
            keys = tuple(key for row in rows for key in keys_of(LimitSubject(Whose(row.whose), row.name)))
            self._office.forget(keys)
            for key in keys:
                self._noticed.pop(key, None)
            for number in self._workers():
                self._send(number, SendingForgotten(keys))
            self._changed = bool(keys) or self._changed
        return rows[:ROWS_MAX]

    def _rows(self, names: tuple[str, ...]) -> list[SentCount]:
        found: dict[LimitSubject, list[int]] = {}  # numbers in the order of `_PLACES`
        wanted = {canonical_account(name) for name in names} | {name.lower() for name in names}
        for place, length_s in enumerate(WINDOWS_S):
            for key, count in self._office.sums(place, int(length_s * 1e6), self._now_us()).items():
                subject = subject_of(key)
                if not wanted or subject.name in wanted:
                    numbers = found.setdefault(subject, [0] * len(_PLACES))
                    numbers[_PLACES[key[0], place]] = round(count)
        rows = [
            SentCount(subject.whose.value, subject.name, a, b, c, d, self._noticed_us(subject), held, held_size)
            for subject, (a, b, c, d, held, held_size) in found.items()
            if a or b or c or d or held
        ]
        return sorted(rows, key=lambda row: (row.whose, -row.recipients_per_day, row.name))

    def _noticed_us(self, subject: LimitSubject) -> int:
        return max(self._noticed.get(key, 0) for key in keys_of(subject))

    # ---- The file

    def load(self) -> None:
        path = self._state_dir() / FILE
        try:
            kept = msgspec.msgpack.decode(path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError, ValueError) as error:
            self._say("error", f"the counts of sent mail cannot be read from {path}, and start again from 0: {error}")
            return
        for place, (number, now, before) in enumerate(kept.windows[: len(WINDOWS_S)]):
            self._office.restore(place, number, now, before)
        self._noticed = kept.noticed

    def look(self) -> None:
        """To be called every second."""
        if self._changed and self._writing is None and self._now_us() >= self._next_us:
            self._writing = asyncio.ensure_future(self._write())

    async def close(self) -> None:
        """Waits until everything is in the file."""
        if self._writing is not None:
            await self._writing
        if self._changed:
            await self._write()

    def state(self) -> _Kept:
        """What goes into the file."""
        return _Kept([self._office.kept(place) for place in range(len(WINDOWS_S))], dict(self._noticed))

    async def _write(self) -> None:
        self._changed = False
        self._next_us = self._now_us() + int(KEEP_S * 1e6)
        kept = self.state()
        path = self._state_dir() / FILE
        try:
            await asyncio.to_thread(lambda: files.replace(str(path), msgspec.msgpack.encode(kept)))
        except OSError as error:
            self._changed = True
            self._say("error", f"the counts of sent mail cannot be kept in {path}: {error.strerror or error}")
        finally:
            self._writing = None
