"""One shard: the operations that the spool's writer hands it, applied in their order, many to one commit.

What always holds:
- An operation is answered only after the commit it stands in, and that commit was synced (promise 1).
- A settlement, the DSNs that it brings and its events are one commit (promise 3).
- A commit whose sync failed may be on the disk all the same. The next one first takes out what was refused (`_undo`),
  and in the same commit writes again the settlements that were in it (`_redo`): no recipient that the failed commit
  removed is ever without an end in the history. Applying what was applied already changes nothing.

How it fails: any error of SQLite rolls the whole commit back. No space: what only makes room is tried again without
the new mail, then once more with the space of the reserve. An error of the disk: all is refused, the connection is
dropped and opened anew for the next commit, since after a failed sync the pages in memory are not to be trusted. A
settlement that may be on the disk is not refused but `Kept`: each further commit has it, until one succeeds. Any other
error is due to one operation: each is tried alone. Reads are never refused: the spool asks them again later.

Used by one thread at a time. Not here: threads, callbacks, the loop (`store.sqlite.spool`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, assert_never

from postroad.mail import identifier
from postroad.mail.envelope import Envelope
from postroad.mail.event import Event, Noted
from postroad.mail.message import Content
from postroad.mail.seldom import Seldom
from postroad.store import content
from postroad.store.face import HISTORY, JournalReader, SpoolError
from postroad.store.questions import Ahead, Contents, FirstDue, Fresh, Load, NextDue, Question, Select, Take
from postroad.store.reserve import Reserve
from postroad.store.sqlite import codec, opening, salvage, schema, selecting, wal_index
from postroad.store.sqlite.operation import Accept, Kept, Mark, Operation, Postponed, Read, RecordEvents, Row, Settle
from postroad.store.values import Failure, FailureKind, Loaded, Selection, Waiting

CHECK_MAX: Final = 67_108_864  # octets: a database up to this size is checked as a whole at start (a tenth of a second)
_SELECT_STEPS: Final = 4  # steps of a selection between two commits
_ENVELOPES_MAX: Final = 50_000  # recipients in the envelopes kept decoded, for large mailings read piece by piece
_UNDO_MAX: Final = 100_000
_PAGES: Final = 6  # that a commit writes besides what it gathers, about
_SMALL_MAX: Final = 262_144  # octets of a commit that the loop may make itself
_CACHED_FROM: Final = 20  # recipients from which an envelope is worth keeping


_ENVIRONMENT: Final = frozenset(
    {
        sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_NOLFS,
    }
)  # fmt: skip
_KEEP_OPEN: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM})
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_UNREADABLE: Final = frozenset({sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ})
_AGAIN_S: Final = 0.2


class Shard:
    """`room` tells why new mail must be refused for lack of space, or None. `note` takes what the operator should
    read. `remove` is handed the path of each content file whose message has ended."""

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
        self._envelopes: OrderedDict[int, Envelope] = OrderedDict()
        self._batch = _Batch()

    @property
    def committed(self) -> int:
        """The journal's seq of the last commit that succeeded. What stands above it was left by one that failed, and is
        taken out by the next."""
        return self._committed

    @property
    def unsure(self) -> bool:
        """Whether a commit has failed that may be on the disk all the same. The next one takes it out."""
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
                if not _is_no_space(error) or not self._release("to open the shard"):
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
        """Gives the reserve up. False: there is none."""
        if not self.reserve.release():
            return False
        text = f"the disk is full: the reserve {self.reserve.path} was given up {what_for}"
        self._say("warning", f"{text}; new mail is refused until there is space for it again")
        return True

    def close(self) -> None:
        """Closes the database (which takes the WAL into it) and gives the lock free."""
        self._disconnect()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _open_or_save(self) -> None:
        try:
            self._open_patiently()
        except sqlite3.DatabaseError as error:
            self._disconnect()
            if not _is_damage(error):
                raise
            saved = salvage.replace(self._directory, self.number, self._now_us())
            self._say("error", f"{self.path} is damaged ({error}): {saved}; see `postroad spool check`")
            self._open_checked()

    def _open_patiently(self) -> None:
        """A disk that cannot be read may be so for a moment only: once more before the shard counts as damaged."""
        try:
            self._open_checked()
        except sqlite3.OperationalError as error:
            self._disconnect()
            if getattr(error, "sqlite_errorcode", 0) not in _UNREADABLE:
                raise
            time.sleep(_AGAIN_S)
            self._open_checked()

    def _open_checked(self) -> None:
        connection = self._use()
        if self.path.stat().st_size <= CHECK_MAX or self._suspect.exists():
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise _damaged(found)
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
        """A reader without a mark begins with the oldest row; a mark without a reader goes."""
        connection.execute(schema.READERS)
        kept = dict(connection.execute("SELECT name, seq FROM reader").fetchall())
        first = connection.execute("SELECT min(seq) FROM journal").fetchone()[0]
        start = self._seq if first is None else first - 1
        self.marks = {name: kept.get(name, start) for name in self._readers}
        for name in kept.keys() - self._readers.keys():
            connection.execute("DELETE FROM reader WHERE name = ?", (name,))
            self._say("info", f"{self.path}: the journal has no reader {name!r} any more; its mark is removed")

    def _clear_orphans(self) -> None:
        """Removes files that no message names. We hold the lock and nothing was accepted yet: all of them are old."""
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
        """The connection, opened anew after an error. Raises sqlite3.Error."""
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
        """Damage that shows while we run: the next start looks through the whole file, however large it is."""
        if _primary(error) in _DAMAGE:
            with contextlib.suppress(OSError):
                self._suspect.touch(0o600)

    def _say(self, level: str, text: str) -> None:
        self._note(Noted(self._now_us(), 0, level, text))

    # --- committing

    def commit(self, operations: Sequence[Operation]) -> list[Any]:
        """Applies all and commits. One answer for each, in order: None or a Failure; a read's result or Postponed."""
        refused = self._room(self) if any(type(each) is Accept for each in operations) else None
        if refused is None:
            return self._attempt(operations)
        return self._without_accepts(operations, refused)

    def stage(self, operations: Sequence[Operation]) -> list[Any] | None:
        """The first half of `commit`, which does not touch the disk: everything is written into the transaction.

        None: not in this way (no space, an error); nothing is changed then, and `commit` has to do all of it. The
        answers count only after `complete`.
        """
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
        """Whether the second half writes little, and nothing but what is in memory has to follow it."""
        written = self._batch.written
        return written <= _SMALL_MAX and self.written + written + _PAGES * schema.PAGE_SIZE <= self._cover_at

    def finish(self, staged: list[Any]) -> list[Any]:
        """The second half: the commit and its sync. `staged`: what `stage` gave. Raises what went wrong; the answers
        are then those of `after_error`, and nothing else may be asked before."""
        return self._finish(self._use(), staged)

    def complete(self, operations: Sequence[Operation], staged: list[Any]) -> list[Any]:
        """`finish`, and `after_error` if that is needed. Answers as those of `commit`."""
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
        """What becomes of the operations of a commit that failed: tried again, or refused. Answers as those of
        `commit`. May take long."""
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
        """Content is what it is whatever cannot be committed now, and without it mail would be held. What waits is
        looked at when what failed is taken out again."""
        if not read.about:
            return Postponed(failure.text)
        self._batch = _Batch()
        return self._read(read)

    def _without_accepts(self, operations: Sequence[Operation], refused: Failure) -> list[Any]:
        """No space for new mail: what ends messages goes on, it makes room."""
        others = iter(self._attempt([each for each in operations if type(each) is not Accept]))
        return [refused if type(each) is Accept else next(others) for each in operations]

    def _transact(self, operations: Sequence[Operation]) -> list[Any]:
        connection = self._use()
        if all(type(each) is Read and (self._undo is None or each.about) for each in operations):
            self._batch = _Batch()
            return [self._read(each) for each in operations if type(each) is Read]
        return self._finish(connection, self._write(connection, operations, _begin_patiently))

    def _write(
        self,
        connection: sqlite3.Connection,
        operations: Sequence[Operation],
        begin: Callable[[sqlite3.Connection], None],
    ) -> list[Any]:
        """Begin, and write what the operations say. Only into memory: in WAL mode the file is written at COMMIT."""
        batch = self._batch = _Batch()
        begin(connection)
        batch.transaction = True
        if self._undo is not None:
            self._delete_messages(connection, self._undo)
            schema.write_rows(connection, schema.DELETE_ALL_RECIPIENTS, self._undo)
            connection.execute("DELETE FROM journal WHERE seq > ?", (self._committed,))
            batch.redone = [(each, self._apply(connection, each)) for each in self._redo]
        apply = self._apply_once if self._redo else self._apply
        answers = [apply(connection, each) for each in operations]
        self._flush(connection)
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

    def _after(self, batch: _Batch) -> None:
        """The commit is durable: what is known in memory follows."""
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
        """Rolls back and tells what it was. What is no error of SQLite is a bug, and concerns one operation."""
        primary = _primary(error)
        kind = _kind(primary) if isinstance(error, sqlite3.Error) else FailureKind.INVALID
        if isinstance(error, sqlite3.Error):
            self._suspect_damage(error)
        if kind is FailureKind.IO and _is_full(self._directory):
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
        if kind is not FailureKind.INVALID and primary not in _KEEP_OPEN:
            self._disconnect()
            if self._batch.transaction:
                self._undo = [*(self._undo or ()), *_accepted(operations)][-_UNDO_MAX:]
            if self._batch.committing:
                self._redo.update(dict.fromkeys(each for each in operations if type(each) is Settle))
        return failure

    # --- applying one operation

    def _apply_once(self, connection: sqlite3.Connection, operation: Operation) -> Any:
        """What is written again in this commit is not written twice; `redone` has its answer."""
        return Kept("") if operation in self._redo else self._apply(connection, operation)

    def _apply(self, connection: sqlite3.Connection, operation: Operation) -> Any:
        match operation:
            case Accept():
                return self._accept(operation)
            case Settle():
                return self._settle(connection, operation)
            case Read():
                self._flush(connection)
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
        """Keeps the mark and removes what all readers have."""
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

    def _marked(self, batch: _Batch) -> None:
        self.marks = {**self.marks, **batch.marks}
        for name, count in batch.missed.items():
            self.missed[name] = self.missed.get(name, 0) + count
            text = f"{self.path}: the reader {name!r} of the journal is too far behind: it misses {count} commits"
            if text := self._seldom.to_write(text):
                self._say("error", text)

    def _accept(self, operation: Accept) -> None:
        row, waiting = operation.row, operation.waiting
        batch = self._batch
        if waiting:
            batch.messages += (row.id, row.envelope)
            batch.recipients += _recipient_rows(row.id, waiting)
            self._gather_content(row)
        else:
            self._gather_fresh(row)
        batch.touched.add(row.id)
        for report in operation.reports:
            self._gather_fresh(report)
        if operation.events:
            batch.events.append(operation.events)

    def _gather_fresh(self, row: Row) -> None:
        self._batch.fresh += (row.id, row.envelope)
        self._batch.added[row.id] = row.count
        self._gather_content(row)

    def _gather_content(self, row: Row) -> None:
        batch = self._batch
        if row.octets is not None:
            batch.contents += (row.id, row.octets)
            batch.written += len(row.octets)
        else:
            batch.large.append(row.id)
        batch.written += len(row.envelope)

    def _settle(self, connection: sqlite3.Connection, operation: Settle) -> Failure | None:
        batch = self._batch
        id = operation.id
        if id in batch.touched:  # accepted or settled in this very commit: what is gathered of it goes first
            self._flush(connection)
        count = None if id in batch.settled else self._new.get(id) or batch.added.get(id)
        if count is not None and not operation.waiting and len(set(operation.ended)) == count:
            batch.gone.append(id)
            batch.settled.add(id)
        else:
            failure = self._settle_looking(connection, operation, count)
            if failure is not None:
                return failure
        batch.touched.add(id)
        for row in operation.accepted:
            self._gather_fresh(row)
        if operation.events:
            batch.events.append(operation.events)
        return None

    def _settle_looking(
        self, connection: sqlite3.Connection, operation: Settle, count: int | None
    ) -> Failure | None:
        """A settlement that leaves recipients waiting, or of a message that is not new to this process.

        `count`: its recipients where it is known to be fresh. What names a message or a recipient that is not there
        (any more) changes nothing: an end cannot be taken back.
        """
        batch = self._batch
        id = operation.id
        if count is None and id not in batch.settled:
            row = connection.execute("SELECT envelope FROM fresh WHERE id = ?", (id,)).fetchone()
            count = None if row is None else len(codec.decode_envelope(row[0]).recipients)
        batch.written += 512 * len(operation.waiting)
        if count is None:
            for place in operation.ended:
                batch.ended += (id, place)
            batch.changed += _recipient_rows(id, operation.waiting)
            return None
        named = {*operation.ended, *(each.index for each in operation.waiting)}
        if len(named) != count:
            text = f"first settlement of {identifier.text(id)} names {len(named)} of {count} recipients"
            return Failure(FailureKind.INVALID, text)
        batch.settled.add(id)
        if operation.waiting:
            batch.moved.append(id)
            batch.recipients += _recipient_rows(id, operation.waiting)
        else:
            batch.gone.append(id)
        return None

    def _flush(self, connection: sqlite3.Connection) -> None:
        """Writes what was gathered. Deletions first: what they free is used again at once."""
        batch = self._batch
        write = schema.write_rows
        if batch.gone:
            write(connection, schema.DELETE_FRESH, batch.gone)
            write(connection, schema.DELETE_CONTENT, batch.gone)
            batch.removed += batch.gone
            batch.gone.clear()
        if batch.moved:
            write(connection, schema.MOVE_FRESH, batch.moved)
            write(connection, schema.DELETE_FRESH, batch.moved)
            batch.moved.clear()
        if batch.fresh:
            write(connection, schema.INSERT_FRESH, batch.fresh, 2)
            batch.fresh.clear()
        if batch.messages:
            write(connection, schema.INSERT_MESSAGE, batch.messages, 2)
            batch.messages.clear()
        if batch.contents:
            write(connection, schema.INSERT_CONTENT, batch.contents, 2)
            batch.contents.clear()
        if batch.recipients:
            write(connection, schema.INSERT_RECIPIENT, batch.recipients, 6)
            batch.recipients.clear()
        if batch.changed:
            write(connection, schema.UPDATE_RECIPIENT, batch.changed, 6)
            batch.changed.clear()
        if batch.ended:
            self._end(connection, batch.ended)
            batch.ended.clear()
        batch.touched.clear()

    def _end(self, connection: sqlite3.Connection, ended: Sequence[int]) -> None:
        """Removes recipients, and the messages that have none left."""
        schema.write_rows(connection, schema.DELETE_RECIPIENT, ended, 2)
        touched = dict.fromkeys(ended[::2])
        for (id,) in schema.read_rows(connection, schema.SELECT_WAITING, touched):
            del touched[id]
        if touched:
            self._delete_messages(connection, list(touched))
            self._batch.removed += touched

    def _delete_messages(self, connection: sqlite3.Connection, ids: Sequence[int]) -> None:
        for template in (schema.DELETE_FRESH, schema.DELETE_MESSAGE, schema.DELETE_CONTENT):
            schema.write_rows(connection, template, ids)

    # --- reading (the questions of `Read`)

    def _read(self, operation: Read) -> Any:
        try:
            return self.answer(operation.question)
        except sqlite3.Error as error:
            self._suspect_damage(error)
            if not self._batch.transaction:
                if _primary(error) not in _KEEP_OPEN:
                    self._disconnect()
            elif self._connection is None or not self._connection.in_transaction:
                raise  # SQLite has rolled back the commit that this read stands in
            return Postponed(f"{self.path}: {error}")

    def answer(self, question: Question) -> Any:
        """The answer to a question, as its class says. Raises sqlite3.Error."""
        match question:
            case Take(destination, before_us, limit):
                return self.take(destination, before_us, limit)
            case NextDue(destination, after_us):
                return self.next_due(destination, after_us)
            case Load(id):
                return self.load(id)
            case Fresh(after, limit):
                return self.fresh(after, limit)
            case Ahead(place, until_us, limit):
                return self.ahead(place, until_us, limit)
            case FirstDue(destinations):
                return self.first_due(destinations)
            case Contents(id):
                return self.content(id)
            case Select(selection, after):
                return self._select(selection, after)
            case _ as unknown:
                assert_never(unknown)

    def _select(self, selection: Selection, after: int) -> tuple[list[int], int | None]:
        """Ids that are found in a few steps, and the id to go on after."""
        found: list[int] = []
        last: int | None = after
        for _ in range(_SELECT_STEPS):
            if last is None:
                break
            more, last = selecting.step(self.connection, selection, last)
            found += more
        return found, last

    def take(self, destination: str, before_us: int, limit: int) -> list[Loaded]:
        """Due recipients of a destination, the oldest due first, at most `limit` of them, by message."""
        rows = self._use().execute(
            "SELECT id, state FROM recipient WHERE destination = ? AND held = 0 AND due_us <= ?"
            " ORDER BY due_us LIMIT ?",
            (destination, before_us, limit),
        ).fetchall()  # fmt: skip
        return [loaded for loaded in self._loaded(rows) if loaded.waiting]

    def next_due(self, destination: str, after_us: int = 0) -> int:
        """When the first recipient of a destination is due after a time; 0 where none waits for longer."""
        row = self._use().execute(
            "SELECT due_us FROM recipient WHERE destination = ? AND held = 0 AND due_us > ? ORDER BY due_us LIMIT 1",
            (destination, after_us or -1),
        ).fetchone()  # fmt: skip
        return 0 if row is None else max(1, row[0])

    def load(self, id: int) -> Loaded | None:
        """A message with all its waiting recipients; none wait of one never settled."""
        rows = self._use().execute("SELECT id, state FROM recipient WHERE id = ? ORDER BY number", (id,)).fetchall()
        loaded = self._loaded(rows) if rows else [Loaded(each, ()) for each in self._envelopes_of([id])]
        return loaded[0] if loaded else None

    def fresh(self, after: int, limit: int) -> list[Envelope]:
        """Messages accepted and never settled, in the order of their ids, above `after`."""
        found = []
        rows = self._use().execute("SELECT id, envelope FROM fresh WHERE id > ? ORDER BY id LIMIT ?", (after, limit))
        for id, octets in rows.fetchall():
            try:
                found.append(codec.decode_envelope(octets))
            except codec.Undecodable as error:
                self._keep_for_repair(id, str(error))
        return found

    def ahead(self, after: tuple[int, str], until_us: int, limit: int) -> list[tuple[int, str]]:
        """When destinations have something due, and which: behind a time and name and until a time, in that order."""
        return self._use().execute(schema.AHEAD, (*after, until_us, limit)).fetchall()

    def first_due(self, names: Sequence[str]) -> dict[str, int]:
        """When each of these destinations first has something due; those that have nothing are left out."""
        rows = schema.read_rows(self._use(), schema.SELECT_DUE, names)
        return {name: due_us for name, due_us in rows if due_us is not None}

    def content(self, id: int) -> Content | None:
        """The octets of a message, or its file; None where there is no such message."""
        if id in self._large:
            return content.content_file(self._directory, id)
        row = self._use().execute("SELECT octets FROM content WHERE id = ?", (id,)).fetchone()
        return None if row is None else row[0]

    def free_inside(self) -> int:
        """Octets that the file has free within itself."""
        try:
            return int(self._use().execute("PRAGMA freelist_count").fetchone()[0]) * schema.PAGE_SIZE
        except sqlite3.Error:
            return 0

    @property
    def connection(self) -> sqlite3.Connection:
        """For `store.sqlite.selecting`, within a read. Raises sqlite3.Error."""
        return self._use()

    def _loaded(self, rows: Iterable[tuple[int, bytes]]) -> list[Loaded]:
        waiting: dict[int, list[Waiting]] = {}
        for id, state in rows:
            try:
                waiting.setdefault(id, []).append(codec.decode_waiting(state))
            except codec.Undecodable as error:
                self._keep_for_repair(id, str(error))
        envelopes = {each.id: each for each in self._envelopes_of(waiting)}
        if len(envelopes) < len(waiting):
            self._drop_strays([id for id in waiting if id not in envelopes])
        return [Loaded(envelopes[id], tuple(places)) for id, places in waiting.items() if id in envelopes]

    def _envelopes_of(self, ids: Iterable[int]) -> list[Envelope]:
        found: list[Envelope] = []
        missing: list[int] = []
        for id in ids:
            kept = self._envelopes.get(id)
            if kept is None:
                missing.append(id)
            else:
                self._envelopes.move_to_end(id)
                found.append(kept)
        connection = self._use()
        rows = list(schema.read_rows(connection, schema.SELECT_MESSAGE, missing))
        if len(rows) < len(missing):
            rows += schema.read_rows(connection, schema.SELECT_FRESH, set(missing).difference(id for id, _ in rows))
        for id, octets in rows:
            try:
                envelope = codec.decode_envelope(octets)
            except codec.Undecodable as error:
                self._keep_for_repair(id, str(error))
                continue
            found.append(envelope)
            if len(envelope.recipients) >= _CACHED_FROM:
                self._keep_decoded(envelope)
        return found

    def _keep_decoded(self, envelope: Envelope) -> None:
        self._envelopes[envelope.id] = envelope
        total = sum(len(each.recipients) for each in self._envelopes.values())
        while total > _ENVELOPES_MAX and len(self._envelopes) > 1:
            _, dropped = self._envelopes.popitem(last=False)
            total -= len(dropped.recipients)

    def _drop_strays(self, ids: Sequence[int]) -> None:
        """Recipients of which no message is there (only a commit that failed and yet was written could leave them)."""
        connection = self._use()
        there = {id for template in (schema.SELECT_MESSAGE, schema.SELECT_FRESH)
                 for id, _ in schema.read_rows(connection, template, ids)}  # fmt: skip
        for id in set(ids) - there:
            connection.execute("DELETE FROM recipient WHERE id = ?", (id,))
            self._say("error", f"{self.path}: recipients of {identifier.text(id)} without their message: removed")

    def _keep_for_repair(self, id: int, why: str) -> None:
        """A row that cannot be read: it stays, is never due, and does not stand in the way of others."""
        self._say("error", f"{self.path}: message {identifier.text(id)} is damaged ({why}); it is kept, not delivered")
        connection = self._use()
        connection.execute("UPDATE recipient SET held = ? WHERE id = ?", (schema.DAMAGED, id))
        connection.execute("INSERT OR REPLACE INTO message SELECT id, envelope FROM fresh WHERE id = ?", (id,))
        if connection.execute("DELETE FROM fresh WHERE id = ?", (id,)).rowcount:
            sql = "INSERT INTO recipient VALUES (?,0,'',?,0,?) ON CONFLICT DO NOTHING"
            connection.execute(sql, (id, schema.DAMAGED, b""))

    # --- the WAL

    def checkpoint(self) -> None:
        """Takes the WAL into the database, as far as readers let. An error costs nothing but a longer WAL."""
        self.written = 0
        try:
            self._use().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self._cover_at = 0  # what could not be taken in stays in the WAL
        except sqlite3.Error as error:
            text = self._seldom.to_write(f"{self.path}: checkpoint: {error}")
            if text:
                self._say("error", text)
            if _primary(error) not in _KEEP_OPEN:
                self._disconnect()


    def _cover_index(self) -> None:
        """The WAL has grown: its index gets room for what comes next. Without it the database is opened anew, which
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


class _Batch:
    """What one commit has gathered. Flat lists: the values of the rows, one after another."""

    __slots__ = (
        "added", "changed", "committing", "contents", "ended", "events", "fresh", "gone", "large", "marks", "messages",
        "missed", "moved",
        "recipients", "redone", "removed", "settled", "touched", "transaction", "written",
    )  # fmt: skip

    def __init__(self) -> None:
        self.fresh: list[Any] = []
        self.messages: list[Any] = []
        self.contents: list[Any] = []
        self.recipients: list[Any] = []
        self.changed: list[Any] = []
        self.ended: list[int] = []
        self.gone: list[int] = []  # fresh, all ended
        self.moved: list[int] = []  # fresh, some wait
        self.removed: list[int] = []
        self.large: list[int] = []
        self.events: list[bytes] = []
        self.marks: dict[str, int] = {}
        self.missed: dict[str, int] = {}
        self.added: dict[int, int] = {}
        self.settled: set[int] = set()  # settled in this commit, no longer new
        self.touched: set[int] = set()  # has something gathered that is not yet written
        self.written = 0
        self.transaction = False
        self.committing = False  # the commit was begun: what fails now may be on the disk
        self.redone: list[tuple[Settle, Failure | None]] = []


def _begin(connection: sqlite3.Connection) -> None:
    """Raises sqlite3.OperationalError (SQLITE_BUSY) at once where another process writes: an operator's tool."""
    connection.execute("BEGIN IMMEDIATE")


def _begin_patiently(connection: sqlite3.Connection) -> None:
    """Waits for it, for a while."""
    deadline = time.monotonic() + schema.BUSY_TIMEOUT_S
    while True:
        try:
            _begin(connection)
        except sqlite3.OperationalError as error:
            if _primary(error) != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _had_by_all(marks: dict[str, int]) -> int:
    """The seq up to which the journal can go."""
    return min(marks.values())


def _recipient_rows(id: int, waiting: Iterable[Waiting]) -> list[Any]:
    rows: list[Any] = []
    for each in waiting:
        rows += (id, each.index, each.destination, int(each.held), each.due_us, codec.encode_waiting(each))
    return rows


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


def _primary(error: Exception) -> int:
    """SQLite's primary result code; 0 where the error is the module's own."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _is_damage(error: sqlite3.Error) -> bool:
    return _primary(error) in _DAMAGE or getattr(error, "sqlite_errorcode", 0) in _UNREADABLE


def _damaged(text: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    error.sqlite_errorname = "SQLITE_CORRUPT"
    return error


def _is_no_space(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    code = getattr(error, "sqlite_errorcode", 0)
    return _primary(error) == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE


def _kind(primary: int) -> FailureKind:
    if primary == sqlite3.SQLITE_FULL:
        return FailureKind.FULL
    return FailureKind.IO if primary in _ENVIRONMENT else FailureKind.INVALID


def _is_full(directory: Path) -> bool:
    """A write that failed without saying so (a quota, delayed allocation) on a file system with no space left."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < 1_048_576
