"""The history: the journal of the shards, moved into day files in the background, kept for a time, and searched.

Each commit of the spool puts its events into the shard's journal. The Historian moves them, a bounded number at a time,
into the file of their day (`store.dayfile`), then lets the spool forget them. It lags behind by `lag_s`, so that a peak
of load passes first and batches are full; the journal is read as well, so nothing is missing meanwhile.

What always holds: an event of a commit is found exactly once, whenever either side crashes: a row is removed from the
journal only after the day file has it, and a day file knows up to which row it has its day's. Day files older than
`keep_days` are removed, and the oldest ones while all are larger than `size_max`, but never a day that is written.

How it fails: an error leaves the journal as it is and is tried again; it never concerns mail. A day file that is
damaged is set aside and begun anew. Not here: searching (`store.searching`).
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
from typing import Final, Protocol

import msgspec

from postroad.mail.event import Event, Noted
from postroad.store import schema
from postroad.store.dayfile import DAY_US, DayFile, JournalRow, path_of
from postroad.world.clock import Clock

_STEP_ROWS: Final = 512  # journal rows in one step
_STEP_OCTETS: Final = 524_288  # and octets
_LOOK_S: Final = 1.0  # how often the journal is looked at
_REST: Final = 3.0  # after a step of t seconds, a rest of 3t: a quarter of a core at most, unless it falls far behind
_FAR: Final = 6  # times `lag_s`: then it rests no more
_AGAIN_S: Final = 30.0  # after an error
_CLEAR_EVERY_US: Final = 3_600_000_000
_NAME: Final = re.compile(r"(\d{4}-\d\d-\d\d)\.(\d\d+)\.db")


class HistoryOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the history.

    `keep_days`: days that are kept, today not counted. `size_max`: octets of all day files together above which the
    oldest go, 0 for no limit. `lag_s`: how long events stay in the journal before they are moved.
    """

    keep_days: int = 30
    size_max: int = 0
    lag_s: float = 20.0


class Trimmer(Protocol):
    """What the Historian needs of the spool."""

    @property
    def shards(self) -> Sequence[int]: ...

    def trim_soon(self, shard: int, seq: int) -> None: ...


class Historian:
    """Moves the journals of one worker's shards. `start` runs it on a thread; a simulation calls `step` itself."""

    def __init__(
        self,
        spool_directory: Path,
        history_directory: Path,
        spool: Trimmer,
        options: HistoryOptions,
        clock: Clock,
        *,
        log: Callable[[Event], None] | None = None,
    ) -> None:
        """`log` is called on the Historian's thread."""
        self._directory = history_directory
        self._spool = spool
        self._options = options
        self._clock = clock
        self._log = log if log is not None else _log
        self._journals = {shard: _Journal(spool_directory, shard) for shard in spool.shards}
        self._files: dict[int, DayFile] = {}
        self._cleared_us = 0
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops after the step it is at. What was not moved stays in the journal."""
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
        """Moves what waits, a bounded part of it, whatever its age; whether there may be more. Raises sqlite3.Error."""
        moved = [self._move(shard) for shard in self._journals]
        return any(moved)

    def clear(self) -> None:
        """Removes the day files that are to be kept no longer."""
        now_us = self._clock.now_us()
        self._cleared_us = now_us
        today = path_of(self._directory, now_us, 0).name[:10]
        oldest = path_of(self._directory, now_us - self._options.keep_days * DAY_US, 0).name[:10]
        kept: list[tuple[str, Path, int]] = []
        for day, path in day_files(self._directory):
            if day < oldest:
                _remove(path)
            elif day < today:
                kept.append((day, path, _size(path)))
        if not self._options.size_max:
            return
        total = sum(size for _, _, size in kept)
        total += sum(_size(path) for day, path in day_files(self._directory) if day >= today)
        for _, path, size in kept:
            if total <= self._options.size_max:
                return
            _remove(path)
            total -= size

    # --- the thread

    def _run(self) -> None:
        pause_s = 0.0
        while not self._ending.wait(pause_s):
            try:
                pause_s = self._turn()
            except (sqlite3.Error, OSError) as error:
                self._say(f"history: {error}; tried again in {_AGAIN_S:.0f} s")
                self._close_all()
                pause_s = _AGAIN_S
            except Exception:
                logging.getLogger("postroad.store").exception("history")
                pause_s = _AGAIN_S

    def _turn(self) -> float:
        """One bounded piece of work; how long to rest then."""
        now_us = self._clock.now_us()
        if abs(now_us - self._cleared_us) > _CLEAR_EVERY_US:
            self.clear()
        worst_s = 0.0
        start = time.monotonic()
        for shard, journal in self._journals.items():
            oldest_us = journal.oldest_us()
            if oldest_us is None:
                continue
            age_s = abs(now_us - oldest_us) / 1e6
            if age_s >= self._options.lag_s:
                worst_s = max(worst_s, age_s)
                self._move(shard)
        if not worst_s:
            return _LOOK_S
        return 0.0 if worst_s > _FAR * self._options.lag_s else _REST * (time.monotonic() - start)

    def _close_all(self) -> None:
        for journal in self._journals.values():
            journal.close()
        for file in self._files.values():
            file.close()
        self._files.clear()

    # --- moving

    def _move(self, shard: int) -> bool:
        """One step for one shard: rows of one day, from the oldest on."""
        journal = self._journals[shard]
        rows = journal.rows()
        if not rows:
            return False
        day = rows[0][1] // DAY_US
        # A row of another day ends the step, also where the clock was set back: seq must not pass what is not moved.
        rows = [*itertools.takewhile(lambda row: row[1] // DAY_US == day, rows)]
        self._file(shard, path_of(self._directory, rows[0][1], shard)).append(rows)
        journal.moved(rows[-1][0])
        self._spool.trim_soon(shard, rows[-1][0])
        return True

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
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            aside = f"{path}.damaged-{self._clock.now_us() // 1_000_000}"
            for ending in ("", "-wal", "-shm"):
                if os.path.exists(f"{path}{ending}"):
                    os.rename(f"{path}{ending}", f"{aside}{ending}")
            self._say(f"history: {path} is damaged ({error}): set aside as {aside}")
        _make_private(path)
        return DayFile(path)

    def _say(self, text: str) -> None:
        self._log(Noted(self._clock.now_us(), 0, "error", text))


class _Journal:
    """The journal of one shard, read from outside."""

    def __init__(self, directory: Path, shard: int) -> None:
        self._path = schema.database(directory, shard)
        self._connection: sqlite3.Connection | None = None
        self._after = 0  # the seq up to which it is moved

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _use(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = schema.connect_reader(self._path)
        return self._connection

    def oldest_us(self) -> int | None:
        """When the oldest row that is not moved was written."""
        row = self._use().execute(
            "SELECT at_us FROM journal WHERE seq > ? ORDER BY seq LIMIT 1", (self._after,)
        ).fetchone()  # fmt: skip
        return None if row is None else row[0]

    def rows(self) -> list[JournalRow]:
        """The rows of the next step, the oldest first. Each is read alone, so that no snapshot is held for long."""
        found: list[JournalRow] = []
        octets = 0
        cursor = self._use().execute(
            "SELECT seq, at_us, events FROM journal WHERE seq > ? ORDER BY seq LIMIT ?", (self._after, _STEP_ROWS)
        )
        for row in cursor:
            found.append(row)
            octets += len(row[2])
            if octets >= _STEP_OCTETS:
                break
        cursor.close()
        return found

    def moved(self, seq: int) -> None:
        self._after = seq


def day_files(directory: Path) -> list[tuple[str, Path]]:
    """(day, file) of all day files, the oldest first."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted((found[1], directory / name) for name in names if (found := _NAME.fullmatch(name)))


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
    """An empty file that others may not read. Raises OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


def _log(event: Event) -> None:
    if isinstance(event, Noted):
        logging.getLogger("postroad.store").error("%s", event.text)
