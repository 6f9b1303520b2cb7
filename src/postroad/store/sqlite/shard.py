"""One shard: applies the operations that the spool's writer hands it, in their order, many in one commit.

What always holds:
- An operation is answered only after the commit that holds it was synced (promise 1).
- A settlement, the DSNs that it brings and its events are one commit (promise 3).
- A commit whose sync failed may be on the disk all the same. The next commit first removes the mail that was refused
  (`_undo`), and writes the settlements of the failed commit again (`_redo`): so no recipient that the failed commit has
  removed is without an end in the history. To apply an operation twice changes nothing.

How it fails: any error of SQLite rolls the whole commit back. If there is no space, the operations are tried again
without new mail, because they make room, then once more with the space of the reserve. After an error of the disk all
operations are refused, and the connection is closed and opened again for the next commit, because the pages in memory
cannot be trusted after a failed sync. A settlement that may be on the disk is not refused but `Kept`: each further
commit has it, until one succeeds. Any other error is due to one operation: each one is tried alone. Reads are never
refused: the spool asks them again later.

Used by one thread at a time. Not here: which rows an operation means (`store.sqlite.gathering`); answers to questions
(`store.sqlite.answering`); what an error means (`store.sqlite.faults`); threads, callbacks, the loop
(`store.sqlite.spool`).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, assert_never

from postroad.mail import identifier
from postroad.mail.event import Event, Noted
from postroad.mail.seldom import Seldom
from postroad.store import content
from postroad.store.face import HISTORY, JournalReader, SpoolError
from postroad.store.reserve import Reserve
from postroad.store.sqlite import codec, faults, opening, salvage, schema, wal_index
from postroad.store.sqlite.answering import Answering
from postroad.store.sqlite.gathering import Gathering
from postroad.store.sqlite.operation import Accept, Kept, Mark, Operation, Postponed, Read, RecordEvents, Settle
from postroad.store.values import Failure, FailureKind

CHECK_MAX: Final = 67_108_864  # octets: a database up to this size is checked as a whole at start (a tenth of a second)
_UNDO_MAX: Final = 100_000
_PAGES: Final = 6  # that a commit writes besides what it gathers, about
_AGAIN_S: Final = 0.2  # until a database that could not be read is tried once more
_SMALL_MAX: Final = 262_144  # octets of a commit that the loop may make itself


class Shard:
    """`room` says why new mail must be refused for lack of space, or returns None. `note` takes messages for the
    operator. `remove` gets the path of each content file whose message has ended."""

    def __init__(
        self,
        directory: Path,
        number: int,
        now_us: Callable[[], int],
        *,
        connect: schema.Connect = schema.connect,
        room: Callable[[Shard], Failure | None] = lambda shard: None,
        note: Callable[[Event], None] = lambda event: None,
        remove: Callable[[Path], None] = content.remove,
        reserve: int = 0,
        readers: Sequence[JournalReader] = (HISTORY,),
    ) -> None:
        self.number = number
        self.path = schema.database(directory, number)
        self._suspect = directory / f"{number:02}.suspect"  # there while damage is suspected
        self.last_id = number
        self.written = 0  # octets that went into the WAL since the last checkpoint, about
        self._directory = directory
        self._now_us = now_us
        self._connect = connect
        self._room = room
        self._note = note
        self._remove = remove
        self._seldom = Seldom(now_us)
        self.reserve = Reserve(directory / f"{number:02}.reserve", reserve)
        self._cover_at = 0  # at so much in the WAL its index is given more room
        self._lock = -1
        self._connection: sqlite3.Connection | None = None
        self._seq = 0
        # Messages accepted by this process and not yet settled, with how many recipients they have: their settlement
        # needs no look into the tables.
        self._new: dict[int, int] = {}
        self._large: set[int] = set()  # messages whose content is in a file
        # Messages refused by failed commits, to be taken out of what those may have left on the disk; None: no failure.
        self._undo: list[int] | None = None
        # Settlements that failed commits may have left on the disk, in their order. Who asked for them waits, so they
        # are no more than he has under way.
        self._redo: dict[Settle, None] = {}
        self.redone: list[tuple[Settle, Failure | None]] = []  # of these, what was committed, and what to answer
        self._committed = 0  # the seq of the last commit that succeeded; read by the Historian's thread, too
        self._readers = {each.name: each for each in readers}
        self.marks: dict[str, int] = {}  # of the readers, as committed; replaced as a whole, read by other threads
        self.missed: dict[str, int] = {}  # commits that a reader was too far behind for, since the start
        self._answering = Answering(directory, self.path, self._use, self._large, self._say)
        self._batch = Gathering(self._new)

    @property
    def committed(self) -> int:
        """The journal's seq of the last commit that succeeded. Rows above it come from a commit that failed, and the
        next commit removes them."""
        return self._committed

    @property
    def unsure(self) -> bool:
        """Whether a commit has failed that may be on the disk all the same. The next commit removes what it has left.
        """
        return self._undo is not None

    # --- opening and closing

    def open(self) -> None:
        """Locks, opens, recovers. Raises SpoolError."""
        self._lock = opening.take_lock(self._directory / f"{self.number:02}.lock", self.path)
        try:
            self.reserve.look()
            try:
                self._open_files()
            except (OSError, sqlite3.Error) as error:
                if not faults.is_no_space(error) or not self._release("to open the shard"):
                    raise
                self._disconnect()
                self._open_files()
            self.reserve.fill()
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise SpoolError(f"{self.path}: cannot be opened: {error}") from error
        except SpoolError:
            self.close()
            raise

    def _open_files(self) -> None:
        salvage.finish(self._directory, self.number)
        opening.make_private_file(self.path)
        self._open_or_save()
        self._clear_orphans()

    def _release(self, what_for: str) -> bool:
        """Gives up the reserve. Returns False if there is none."""
        if not self.reserve.release():
            return False
        text = f"the disk is full: the reserve {self.reserve.path} was given up {what_for}"
        self._say("warning", f"{text}; new mail is refused until there is space for it again")
        return True

    def close(self) -> None:
        """Closes the database (which takes over the content of the WAL) and gives up the lock."""
        self._disconnect()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _open_or_save(self) -> None:
        try:
            self._open_patiently()
        except sqlite3.DatabaseError as error:
            self._disconnect()
            if not faults.is_damage(error):
                raise
            saved = salvage.replace(self._directory, self.number, self._now_us())
            self._say("error", f"{self.path} is damaged ({error}): {saved}; see `postroad spool check`")
            self._open_checked()

    def _open_patiently(self) -> None:
        """Opens the database. If it cannot be read, tries once more before the shard counts as damaged."""
        try:
            self._open_checked()
        except sqlite3.OperationalError as error:
            self._disconnect()
            if getattr(error, "sqlite_errorcode", 0) not in faults.UNREADABLE:
                raise
            time.sleep(_AGAIN_S)
            self._open_checked()

    def _open_checked(self) -> None:
        connection = self._use()
        if self.path.stat().st_size <= CHECK_MAX or self._suspect.exists():
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise faults.damaged(found)
        try:
            schema.create(connection)
        except SpoolError as error:
            raise SpoolError(f"{self.path}: {error}") from None
        self._suspect.unlink(missing_ok=True)
        self._recover()
        content.sync_directory(self._directory)
        with contextlib.suppress(FileNotFoundError):  # folders that a process made which was killed before it synced
            content.sync_directory(content.folder(self._directory, self.number))

    def _recover(self) -> None:
        connection = self._use()
        highest = [
            connection.execute(f"SELECT max({column}) FROM {table}").fetchone()[0] or 0
            for table, column in (("fresh", "id"), ("message", "id"))
        ]
        last = connection.execute("SELECT seq, last_id FROM journal ORDER BY seq DESC LIMIT 1").fetchone()
        # The journal keeps its last row, so seq never runs twice. A new file starts at the time it was made, and so
        # above what the history has seen of one that was set aside.
        self._seq, last_id = last if last is not None else (self._now_us(), 0)
        self._committed = self._seq
        self.last_id = max(self.last_id, last_id, *highest)
        self._recover_marks(connection)

    def _recover_marks(self, connection: sqlite3.Connection) -> None:
        """A reader without a mark begins with the oldest row. A mark without a reader is removed."""
        connection.execute(schema.READERS)
        kept = dict(connection.execute("SELECT name, seq FROM reader").fetchall())
        first = connection.execute("SELECT min(seq) FROM journal").fetchone()[0]
        start = self._seq if first is None else first - 1
        self.marks = {name: kept.get(name, start) for name in self._readers}
        for name in kept.keys() - self._readers.keys():
            connection.execute("DELETE FROM reader WHERE name = ?", (name,))
            self._say("info", f"{self.path}: the journal has no reader {name!r} any more; its mark is removed")

    def _clear_orphans(self) -> None:
        """Removes files that no message names. The shard is locked and has accepted nothing yet, so all of these files
        are old."""
        names: dict[int, Path] = {}
        for path in content.folder(self._directory, self.number).glob("??/*"):
            if path.name.endswith(content.SECOND):  # of content that was being changed, and never accepted
                content.remove(path)
                continue
            id = identifier.parse(path.name)
            if id is None or identifier.shard_of(id) != self.number:
                continue
            names[id] = path
        connection = self._use()
        for template in (schema.SELECT_FRESH_IDS, schema.SELECT_PRESENT):
            self._large.update(id for (id,) in schema.read_rows(connection, template, names))
        orphans = [path for id, path in names.items() if id not in self._large]
        for path in orphans:
            content.remove(path)
        if orphans:
            self._say("info", f"{self.path}: removed {len(orphans)} content files of messages never accepted")

    def _use(self) -> sqlite3.Connection:
        """The connection, opened again after an error. Raises sqlite3.Error."""
        if self._connection is None:
            self._connection = self._connect(self.path)
            self._cover_at = schema.WAL_COVERED // 2
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as error:
                self._say("error", f"{self.path}: closing: {error}")

    def _suspect_damage(self, error: sqlite3.Error) -> None:
        """Notes that damage has shown while the node runs: the next start then checks the whole file, however large it
        is."""
        if faults.primary(error) in faults.DAMAGE:
            with contextlib.suppress(OSError):
                self._suspect.touch(0o600)

    def _say(self, level: str, text: str) -> None:
        self._note(Noted(self._now_us(), 0, level, text))

    # --- committing

    def commit(self, operations: Sequence[Operation]) -> list[Any]:
        """Applies all operations and commits. Returns one answer for each, in order: None or a Failure; for a read its
        result or Postponed."""
        refused = self._room(self) if any(type(each) is Accept for each in operations) else None
        if refused is None:
            return self._attempt(operations)
        return self._without_accepts(operations, refused)

    def stage(self, operations: Sequence[Operation]) -> list[Any] | None:
        """The first half of `commit`, which does not touch the disk: writes everything into the transaction. Returns
        None if this is not possible (no space, an error); then nothing has changed, and `commit` must do everything.
        The answers count only after `complete`."""
        connection = self._connection
        if connection is None or self._undo is not None:
            return None
        try:
            if any(type(each) is Accept for each in operations) and self._room(self) is not None:
                return None
            return self._write(connection, operations, _begin)
        except Exception:  # `commit` runs into it again and knows what to do
            try:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._disconnect()
            return None

    def is_small(self) -> bool:
        """Whether the second half writes little, and everything that follows it is in memory."""
        written = self._batch.written
        return written <= _SMALL_MAX and self.written + written + _PAGES * schema.PAGE_SIZE <= self._cover_at

    def finish(self, staged: list[Any]) -> list[Any]:
        """The second half: the commit and its sync. `staged`: the result of `stage`. Raises what went wrong; then the
        answers are those of `after_error`, and nothing else may be asked before."""
        return self._finish(self._use(), staged)

    def complete(self, operations: Sequence[Operation], staged: list[Any]) -> list[Any]:
        """Does `finish`, and `after_error` if that is needed. Answers as `commit` does."""
        try:
            return self.finish(staged)
        except Exception as error:
            return self.after_error(operations, error)

    def _attempt(self, operations: Sequence[Operation]) -> list[Any]:
        try:
            return self._transact(operations)
        except Exception as error:
            return self.after_error(operations, error)

    def after_error(self, operations: Sequence[Operation], error: Exception) -> list[Any]:
        """Tries the operations of a failed commit again, or refuses them. Answers as `commit` does. May take long."""
        failure = self._fail(error, operations)
        if failure.kind is FailureKind.INVALID and len(operations) > 1:
            kept = set(self._redo)
            return [Kept(failure.text) if each in kept else self._attempt((each,))[0] for each in operations]
        if failure.kind is FailureKind.FULL:
            if any(type(each) is Accept for each in operations):
                return self._without_accepts(operations, failure)
            if self._release("for what is in the queue"):
                return self._attempt(operations)
        return [self._answer_despite(each, failure) for each in operations]

    def _answer_despite(self, operation: Operation, failure: Failure) -> Any:
        if type(operation) is Read:
            return self._read_despite(operation, failure)
        return Kept(failure.text) if operation in self._redo else failure

    def _read_despite(self, read: Read, failure: Failure) -> Any:
        """Reads although nothing can be committed now. Content does not depend on commits, and without it mail would be
        held. Other reads wait until the rest of the failed commit is removed."""
        if not read.about:
            return Postponed(failure.text)
        self._batch = Gathering(self._new)
        return self._read(read)

    def _without_accepts(self, operations: Sequence[Operation], refused: Failure) -> list[Any]:
        """Does the operations without new mail, because there is no space: settlements make room."""
        others = iter(self._attempt([each for each in operations if type(each) is not Accept]))
        return [refused if type(each) is Accept else next(others) for each in operations]

    def _transact(self, operations: Sequence[Operation]) -> list[Any]:
        connection = self._use()
        if all(type(each) is Read and (self._undo is None or each.about) for each in operations):
            self._batch = Gathering(self._new)
            return [self._read(each) for each in operations if type(each) is Read]
        return self._finish(connection, self._write(connection, operations, _begin_patiently))

    def _write(
        self,
        connection: sqlite3.Connection,
        operations: Sequence[Operation],
        begin: Callable[[sqlite3.Connection], None],
    ) -> list[Any]:
        """Begins, and writes what the operations say. This goes only into memory: in WAL mode the file is written at
        COMMIT."""
        batch = self._batch = Gathering(self._new)
        begin(connection)
        batch.transaction = True
        if self._undo is not None:
            batch.delete_messages(connection, self._undo)
            schema.write_rows(connection, schema.DELETE_ALL_RECIPIENTS, self._undo)
            connection.execute("DELETE FROM journal WHERE seq > ?", (self._committed,))
            batch.redone = [(each, self._apply(connection, each)) for each in self._redo]
        apply = self._apply_once if self._redo else self._apply
        answers = [apply(connection, each) for each in operations]
        self._batch.flush(connection)
        if batch.events:
            self._seq += 1
            events = codec.join_events(batch.events)
            batch.written += len(events)
            connection.execute(
                "INSERT INTO journal VALUES (?,?,?,?)", (self._seq, self._now_us(), self.last_id, events)
            )
        return answers

    def _finish(self, connection: sqlite3.Connection, answers: list[Any]) -> list[Any]:
        batch = self._batch
        batch.committing = True
        connection.execute("COMMIT")
        batch.transaction = False
        self._undo = None
        if self._redo:
            self.redone += batch.redone
            self._redo.clear()
        self._committed = self._seq
        self._after(batch)
        return answers

    def _after(self, batch: Gathering) -> None:
        """Updates what is in memory: the commit is durable."""
        self.written += batch.written + _PAGES * schema.PAGE_SIZE
        if self.written > self._cover_at:
            self._cover_index()
        if batch.marks:
            self._marked(batch)
        self._new.update(batch.added)
        for id in batch.settled:
            self._new.pop(id, None)
        self._large.update(batch.large)
        if self._large:
            for id in self._large.intersection(batch.removed):
                self._large.discard(id)
                self._remove(content.file_path(self._directory, id))

    def _fail(self, error: Exception, operations: Sequence[Operation]) -> Failure:
        """Rolls back, and says what kind of error it was. If it is not an error of SQLite, it is a bug, and due to one
        operation."""
        primary = faults.primary(error)
        kind = faults.kind_of(primary) if isinstance(error, sqlite3.Error) else FailureKind.INVALID
        if isinstance(error, sqlite3.Error):
            self._suspect_damage(error)
        if kind is FailureKind.IO and faults.is_full(self._directory):
            kind = FailureKind.FULL
        failure = Failure(kind, f"{self.path}: {getattr(error, 'sqlite_errorname', type(error).__name__)}: {error}")
        try:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            primary = sqlite3.SQLITE_IOERR
        if len(operations) == 1 or kind is not FailureKind.INVALID:
            trace = "" if isinstance(error, sqlite3.Error) else "\n" + "".join(traceback.format_exception(error))
            text = self._seldom.to_write(f"commit failed: {failure.text}{trace}")
            if text:
                self._say("error", text)
        if kind is not FailureKind.INVALID and primary not in faults.KEEP_OPEN:
            self._disconnect()
            if self._batch.transaction:
                self._undo = [*(self._undo or ()), *_accepted(operations)][-_UNDO_MAX:]
            if self._batch.committing:
                self._redo.update(dict.fromkeys(each for each in operations if type(each) is Settle))
        return failure

    # --- applying one operation

    def _apply_once(self, connection: sqlite3.Connection, operation: Operation) -> Any:
        """Does an operation. If this commit writes it again anyway, does not write it twice; `redone` has its answer.
        """
        return Kept("") if operation in self._redo else self._apply(connection, operation)

    def _apply(self, connection: sqlite3.Connection, operation: Operation) -> Any:
        match operation:
            case Accept():
                self._batch.accept(operation)
                return None
            case Settle():
                return self._batch.settle(connection, operation)
            case Read():
                self._batch.flush(connection)
                return self._read(operation)
            case Mark():
                self._mark(connection, operation)
                return None
            case RecordEvents():
                if operation.events:
                    self._batch.events.append(operation.events)
                return None
            case _:
                assert_never(operation)

    def _mark(self, connection: sqlite3.Connection, operation: Mark) -> None:
        """Keeps the mark, and removes what all readers have."""
        if operation.reader not in self._readers:
            return
        changed = self._batch.marks
        marks = {**self.marks, **changed}
        changed[operation.reader] = marks[operation.reader] = max(marks[operation.reader], operation.seq)
        for name, reader in self._readers.items():
            least = self._committed - reader.behind_max
            if reader.behind_max and marks[name] < least:
                self._batch.missed[name] = self._batch.missed.get(name, 0) + least - marks[name]
                changed[name] = marks[name] = least
        for each in changed.items():
            connection.execute("INSERT OR REPLACE INTO reader VALUES (?,?)", each)
        # The last row stays: it says how far seq and the ids have come.
        sql = "DELETE FROM journal WHERE seq <= ? AND seq < (SELECT max(seq) FROM journal)"
        connection.execute(sql, (_had_by_all(marks),))

    def _marked(self, batch: Gathering) -> None:
        self.marks = {**self.marks, **batch.marks}
        for name, count in batch.missed.items():
            self.missed[name] = self.missed.get(name, 0) + count
            text = f"{self.path}: the reader {name!r} of the journal is too far behind: it misses {count} commits"
            if text := self._seldom.to_write(text):
                self._say("error", text)

    # --- reading (the questions of `Read`)

    def _read(self, operation: Read) -> Any:
        try:
            return self._answering.answer(operation.question)
        except sqlite3.Error as error:
            self._suspect_damage(error)
            if not self._batch.transaction:
                if faults.primary(error) not in faults.KEEP_OPEN:
                    self._disconnect()
            elif self._connection is None or not self._connection.in_transaction:
                raise  # SQLite has rolled back the commit that this read stands in
            return Postponed(f"{self.path}: {error}")

    def free_inside(self) -> int:
        """How many octets are free within the file."""
        try:
            return int(self._use().execute("PRAGMA freelist_count").fetchone()[0]) * schema.PAGE_SIZE
        except sqlite3.Error:
            return 0

    @property
    def connection(self) -> sqlite3.Connection:
        """For `store.sqlite.repair`. Raises sqlite3.Error."""
        return self._use()

    # --- the WAL

    def checkpoint(self) -> None:
        """Moves the WAL into the database, as far as readers allow. An error only leaves the WAL longer."""
        self.written = 0
        try:
            self._use().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._cover_at = 0  # what could not be taken in stays in the WAL
        except sqlite3.Error as error:
            text = self._seldom.to_write(f"{self.path}: checkpoint: {error}")
            if text:
                self._say("error", text)
            if faults.primary(error) not in faults.KEEP_OPEN:
                self._disconnect()


    def _cover_index(self) -> None:
        """Makes room for the index when the WAL has grown. If there is no room, opens the database again, which
        shortens the WAL."""
        self._cover_at = self.written + schema.WAL_COVERED // 2
        try:
            in_wal = os.stat(f"{self.path}-wal").st_size
            wal_index.cover(self._use(), self.path, schema.PAGE_SIZE, in_wal + schema.WAL_COVERED)
        except (OSError, sqlite3.Error) as error:
            text = self._seldom.to_write(f"{self.path}: {error}")
            if text:
                self._say("error", text)
            self._disconnect()


def _begin(connection: sqlite3.Connection) -> None:
    """Begins a transaction. Raises sqlite3.OperationalError (SQLITE_BUSY) at once if another process writes: a tool of
    an operator."""
    connection.execute("BEGIN IMMEDIATE")


def _begin_patiently(connection: sqlite3.Connection) -> None:
    """Begins a transaction. If another process writes, waits for a while."""
    deadline = time.monotonic() + schema.BUSY_TIMEOUT_S
    while True:
        try:
            _begin(connection)
        except sqlite3.OperationalError as error:
            if faults.primary(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _had_by_all(marks: dict[str, int]) -> int:
    """The seq up to which the journal may be removed."""
    return min(marks.values())


def _accepted(operations: Iterable[Operation]) -> list[int]:
    """The ids that a failed commit would have added."""
    ids = []
    for each in operations:
        match each:
            case Accept():
                ids += [each.row.id, *(row.id for row in each.reports)]
            case Settle():
                ids += [row.id for row in each.accepted]
            case _:
                pass
    return ids
