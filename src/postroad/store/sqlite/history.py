"""The history: moves the journal of the shards into day files in the background, and keeps these for a time.

Each commit of the spool puts its events into the shard's journal. The Historian moves them, a bounded number at a time,
into the file of their day (`store.sqlite.dayfile`), then marks them as read (`store.face.JournalMarks`). It moves
events only after `lag_s`, so that a peak of load passes first and batches are full. A search reads the journal, too, so
nothing is missing meanwhile.

What always holds: an event of a commit is found exactly once, whenever either side crashes: a row is removed from the
journal only after the day file has it, and a day file knows up to which row of the journal it reaches. Other readers
need not read the same rows again: they get the decoded events from it (`store.face.OnMoved`). Rows that a failed commit
has left in the journal are not moved: the commit was answered with a failure, and the next one removes them. Day files
older than `keep_days` are removed, and the oldest ones while all are larger than `size_max`, but never a day that is
written.

How it fails: after an error the journal of this shard stays as it is, and moving is tried again after a while; the
other shards go on, and mail is never concerned. A journal that cannot be moved grows: the log says so at the beginning,
from time to time while it lasts (`BEHIND_S`) and at the end; `backlog` tells it at any time. The spool's `free_min`
bounds its growth. A damaged day file is set aside, and a new one is begun. Not here: searching
(`store.sqlite.searching`).
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from postroad.mail.event import Event, Noted
from postroad.store.face import HISTORY, Committed, JournalMarks, OnMoved
from postroad.store.options import HistoryOptions
from postroad.store.sqlite import schema
from postroad.store.sqlite.dayfile import DAY_US, DayFile, path_of
from postroad.store.sqlite.journal import JournalRow, ShardJournal
from postroad.world.clock import Clock

_STEP_ROWS: Final = 512  # journal rows in one step
_STEP_OCTETS: Final = 524_288  # and octets
_LOOK_S: Final = 1.0  # how often the journal is looked at
_REST: Final = 3.0  # after a step of t seconds, a rest of 3t: a quarter of a core at most, unless it falls far behind
_FAR: Final = 6  # times `lag_s`: then it rests no more
_AGAIN_S: Final = 30.0  # after an error
BEHIND_S: Final = 600.0  # the history lags so far behind that the operator is told; and how often while it lasts
_CLEAR_EVERY_US: Final = 3_600_000_000
_NAME: Final = re.compile(r"(\d{4}-\d\d-\d\d)\.(\d\d+)\.db")


class Behind(msgspec.Struct, frozen=True):
    """A journal that is not moved. `since_us`: when its oldest row was written. `why`: the last error, "" for none."""

    shard: int
    since_us: int
    why: str = ""


class Historian:
    """Moves the journals of one worker's shards. `start` runs it on a thread; a simulation calls `step` itself."""

    def __init__(
        self,
        spool_directory: Path,
        history_directory: Path,
        spool: JournalMarks,
        options: HistoryOptions,
        clock: Clock,
        *,
        log: Callable[[Event], None] | None = None,
        on_moved: OnMoved = lambda shard, after, rows: None,
    ) -> None:
        """`log` and `on_moved` are called on the Historian's thread."""
        self._directory = history_directory
        self._spool_directory = spool_directory
        self._spool = spool
        self._options = options
        self._clock = clock
        self._log = log if log is not None else _log
        self._on_moved = on_moved
        self._journals = {
            shard: ShardJournal(spool_directory, shard, spool.mark_of(HISTORY.name, shard)) for shard in spool.shards
        }
        self._files: dict[int, DayFile] = {}
        self._cleared_us = 0
        self._again: dict[int, float] = {}  # shards that failed, and when they are tried again (monotonic seconds)
        self._behind: dict[int, Behind] = {}
        self._told_us: dict[int, int] = {}
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops after the step under way. What was not moved stays in the journal."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        for journal in self._journals.values():
            journal.close()
        for file in self._files.values():
            file.close()
        self._files.clear()

    def step(self) -> bool:
        """Moves a bounded part of what waits, of any age. Returns whether there may be more. Raises sqlite3.Error."""
        moved = [self._move(shard) for shard in self._journals]
        return any(moved)

    def clear(self) -> None:
        """Removes day files that are too old or too large together. The files of all workers stand in one folder. A
        file that its worker has open must stay: otherwise new events would go into a file without a name, and leave the
        journal all the same. So each Historian removes only files of its own shards (the first one also those of shards
        that are no more), and none that it has open."""
        now_us = self._clock.now_us()
        self._cleared_us = now_us
        today = path_of(self._directory, now_us, 0).name[:10]
        oldest = path_of(self._directory, now_us - self._options.keep_days * DAY_US, 0).name[:10]
        files = day_files(self._directory)
        for _, path in (each for each in files if each[0] < oldest):
            self._remove_if_ours(path)
        if not self._options.size_max:
            return
        sizes = {path: _size(path) for _, path in files}  # 0 for what has just been removed
        total = sum(sizes.values())
        for day, path in files:
            if total <= self._options.size_max or day >= today:
                return
            self._remove_if_ours(path)
            total -= sizes[path]  # also if another Historian is to remove it

    def _remove_if_ours(self, path: Path) -> None:
        shard = int(path.name.split(".")[1])
        if any(file.path == path for file in self._files.values()):
            return
        nobodys = 0 in self._journals and not schema.database(self._spool_directory, shard).exists()
        if shard in self._journals or nobodys:
            _remove(path)

    def backlog(self) -> tuple[Behind, ...]:
        """The journals that are more than `BEHIND_S` behind; from any thread."""
        return tuple(self._behind.values())

    # --- the thread

    def _run(self) -> None:
        pause_s = 0.0
        while not self._ending.wait(pause_s):
            try:
                pause_s = self._turn()
            except OSError as error:
                self._say("error", f"history: {error}; tried again in {_AGAIN_S:.0f} s")
                pause_s = _AGAIN_S
            except Exception:
                logging.getLogger("postroad.store").exception("history")
                pause_s = _AGAIN_S

    def _turn(self) -> float:
        """Does one bounded piece of work. Returns how long to rest then."""
        now_us = self._clock.now_us()
        if abs(now_us - self._cleared_us) > _CLEAR_EVERY_US:
            self.clear()
        worst_s = 0.0
        start = time.monotonic()
        for shard in self._journals:
            if self._again.get(shard, 0.0) <= start:
                worst_s = max(worst_s, self._turn_shard(shard, now_us))
        if not worst_s:
            return _LOOK_S
        return 0.0 if worst_s > _FAR * self._options.lag_s else _REST * (time.monotonic() - start)

    def _turn_shard(self, shard: int, now_us: int) -> float:
        """Moves a piece of one journal. Returns how far it is behind in seconds, 0 if nothing is to do."""
        journal = self._journals[shard]
        why, oldest_us = "", None
        try:
            oldest_us = journal.oldest_us(self._spool.committed(shard))
            age_s = abs(now_us - oldest_us) / 1e6 if oldest_us is not None else 0.0
            if age_s >= self._options.lag_s:
                self._move(shard)
            else:
                age_s = 0.0
        except (sqlite3.Error, OSError) as error:
            self._close_shard(shard)
            self._again[shard] = time.monotonic() + _AGAIN_S
            age_s, why = 0.0, str(error)
        else:
            self._again.pop(shard, None)
        self._watch(shard, oldest_us, now_us, why)
        return age_s

    def _watch(self, shard: int, oldest_us: int | None, now_us: int, why: str) -> None:
        """Tells the operator of a journal that is not moved: of an error at once, then from time to time."""
        told = self._behind.get(shard)
        failing = bool(why)
        late = oldest_us is not None and abs(now_us - oldest_us) > BEHIND_S * 1e6
        if not failing and not late:
            if told is not None:
                del self._behind[shard]
                self._say("info", f"history: the journal of shard {shard:02} is being moved again")
            return
        since_us = oldest_us if oldest_us is not None else told.since_us if told is not None else now_us
        self._behind[shard] = Behind(shard, since_us, why)
        if told is not None and told.why == why and abs(now_us - self._told_us.get(shard, 0)) < BEHIND_S * 1e6:
            return
        self._told_us[shard] = now_us
        text = f"history: the journal of shard {shard:02} grows: nothing was moved from it for"
        text += f" {abs(now_us - since_us) / 1e6:.0f} s"
        self._say("error" if failing else "warning", f"{text}: {why}; tried again" if failing else text)

    def _close_shard(self, shard: int) -> None:
        self._journals[shard].close()
        file = self._files.pop(shard, None)
        if file is not None:
            file.close()

    # --- moving

    def _move(self, shard: int) -> bool:
        """Does one step for one shard: rows of one day, from the oldest on."""
        journal = self._journals[shard]
        rows = journal.rows(self._spool.committed(shard), _STEP_ROWS, _STEP_OCTETS)
        if not rows:
            return False
        day = rows[0][1] // DAY_US
        # A row of another day ends the step, also if the clock was set back: seq must not pass what is not moved.
        rows = [*itertools.takewhile(lambda row: row[1] // DAY_US == day, rows)]
        added = self._append(shard, path_of(self._directory, rows[0][1], shard), rows)
        if added:
            known = len(rows) - len(added)  # rows that the day file had already
            self._on_moved(shard, rows[known - 1][0] if known else journal.after, added)
        journal.moved(rows[-1][0])
        self._spool.mark(HISTORY.name, shard, rows[-1][0])
        return True

    def _append(self, shard: int, path: Path, rows: Sequence[JournalRow]) -> list[Committed]:
        try:
            return self._file(shard, path).append(rows)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._files.pop(shard).close()
            self._set_aside(path, error)
            return self._file(shard, path).append(rows)

    def _file(self, shard: int, path: Path) -> DayFile:
        file = self._files.get(shard)
        if file is not None and file.path == path:
            return file
        if file is not None:
            del self._files[shard]
            file.close()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files[shard] = file = self._open(path)
        return file

    def _open(self, path: Path) -> DayFile:
        _make_private(path)
        try:
            return DayFile(path)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._set_aside(path, error)
        _make_private(path)
        return DayFile(path)

    def _set_aside(self, path: Path, error: sqlite3.DatabaseError) -> None:
        aside = f"{path}.damaged-{self._clock.now_us() // 1_000_000}"
        for ending in ("", "-wal", "-shm"):
            if os.path.exists(f"{path}{ending}"):
                os.rename(f"{path}{ending}", f"{aside}{ending}")
        self._say("error", f"history: {path} is damaged ({error}): set aside as {aside}")

    def _say(self, level: str, text: str) -> None:
        self._log(Noted(self._clock.now_us(), 0, level, text))


def day_files(directory: Path) -> list[tuple[str, Path]]:
    """(day, file) of all day files, the oldest first."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted((found[1], directory / name) for name in names if (found := _NAME.fullmatch(name)))


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _size(path: Path) -> int:
    total = 0
    for ending in ("", "-wal"):
        try:
            total += os.stat(f"{path}{ending}").st_size
        except OSError:
            continue
    return total


def _remove(path: Path) -> None:
    for ending in ("", "-wal", "-shm"):
        try:
            os.unlink(f"{path}{ending}")
        except OSError:
            continue


def _make_private(path: Path) -> None:
    """Makes an empty file that others may not read. Raises OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def _log(event: Event) -> None:
    if isinstance(event, Noted):
        level = {"info": logging.INFO, "warning": logging.WARNING}.get(event.level, logging.ERROR)
        logging.getLogger("postroad.store").log(level, "%s", event.text)
