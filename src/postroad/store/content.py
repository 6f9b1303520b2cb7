"""Content in files: writes it while it arrives, names the files, reads them.

Content above `SpoolOptions.inline_max` stands in ``DIR/NN/xx/<queue id>`` beside its shard (xx spreads the files over
256 folders). It is written by a thread while it arrives, through a bounded backlog, and file and folder are synced
before `finish` answers, so before the commit that names it (promise 1). A crash before that commit leaves a file that
no message names; it is removed when its shard is opened. If rules changed the content, a second file with the new
content takes the place of the first (`NewContent`), by a rename before `finish` answers.

How it fails: `Incoming` remembers the first error, drops all further octets, and gives the Failure at `finish`. Reading
raises OSError. Not here: content in the shard (`store.sqlite.shard`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Final

from postroad.mail import identifier
from postroad.mail.envelope import Envelope
from postroad.mail.message import Content, ContentFile
from postroad.store.values import Failure, FailureKind, NewContent
from postroad.world.files import Posix

PIECE: Final = 262_144  # octets read or written at once
BACKLOG_MAX: Final = 524_288  # octets that wait for the disk before `write` asks for a pause
_CHECK_EVERY: Final = 4_194_304  # octets written between two looks at the free space
_FLAGS: Final = os.O_NOFOLLOW | os.O_CLOEXEC
_POSIX: Final = Posix()
SECOND: Final = ".new"  # behind the name of a file that is to take the place of another

Run = Callable[[Callable[[], None]], None]  # hands a piece of work to a thread, or to the loop


def folder(directory: Path, shard: int) -> Path:
    """The folder with the files of a shard: ``DIR/NN``."""
    return directory / f"{shard:02}"


def file_path(directory: Path, id: int) -> Path:
    """``DIR/NN/xx/<queue id>``; xx are the low bits of the time in the id."""
    return folder(directory, identifier.shard_of(id)) / f"{id >> 10 & 255:02x}" / identifier.text(id)


def content_file(directory: Path, id: int) -> ContentFile | None:
    """The file with a message's content as it is now, or None. Only a regular file of our own counts."""
    path = file_path(directory, id)
    try:
        found = os.lstat(path)
    except OSError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    return ContentFile(str(path), found.st_size)


def pieces(envelope: Envelope, content: Content, size: int = PIECE) -> Generator[bytes, None, None]:
    """Gives the message, its `Envelope.prefix` first, in pieces of at most `size` octets. Blocks for the disk; the
    kernel reads ahead."""
    yield from _cut(envelope.prefix, size)
    if isinstance(content, bytes):
        yield from _cut(content, size)
        return
    handle = os.open(content.path, os.O_RDONLY | _FLAGS)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        at = 0
        while at < content.size:
            piece = os.pread(handle, min(size, content.size - at), content.start + at)
            if not piece:
                raise OSError(errno.EIO, f"shorter than its {content.size} octets", content.path)
            at += len(piece)
            yield piece
    finally:
        os.close(handle)


def _cut(octets: bytes, size: int) -> Generator[bytes, None, None]:
    for at in range(0, len(octets), size):
        yield octets[at : at + size]


def head(envelope: Envelope, content: Content, limit: int) -> bytes:
    """The first `limit` octets of the message, for instance for the header section."""
    if isinstance(content, bytes):
        return (envelope.prefix + content)[:limit]
    found: list[bytes] = []
    left = limit
    read_on = pieces(envelope, content, max(1, min(limit, PIECE)))
    with contextlib.closing(read_on):
        while left > 0 and (piece := next(read_on, b"")):
            found.append(piece[:left])
            left -= len(piece)
    return b"".join(found)


def read(envelope: Envelope, content: Content) -> bytes:
    """All octets of the message, in memory."""
    return envelope.prefix + content if isinstance(content, bytes) else b"".join(pieces(envelope, content))


def failure_of(error: OSError, what: str) -> Failure:
    """The Failure for an error of the operating system."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return Failure(FailureKind.FULL if full else FailureKind.IO, f"{what}: {error.strerror or error}")


def sync_directory(path: Path, posix: Posix = _POSIX) -> None:
    """Makes the entries of a folder durable. Raises OSError."""
    handle = posix.open(path, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
    try:
        posix.fsync(handle)
    finally:
        posix.close(handle)


def make_directory(path: Path, posix: Posix = _POSIX) -> None:
    """Makes a folder for us alone, and makes its name durable. If it is there, it must be a real folder. Raises
    OSError."""
    try:
        posix.mkdir(path, 0o700)
    except FileExistsError:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            raise
        return
    try:
        sync_directory(path.parent, posix)
    except OSError:
        with contextlib.suppress(OSError):  # who finds it there would take its name for durable
            os.rmdir(path)
        raise


class Incoming:
    """Large content on its way into its file. It is used on the loop; only `run` touches the disk. `write` says whether
    more may come at once; after False the producer pauses until `resumed` is called (on the loop). `finish` answers
    exactly once, on the loop: with the file, synced, or with the reason why there is none. Then the content is
    accepted, or `abort` drops it. `abort` may be called at any time, also after a failed `finish` or accept."""

    def __init__(
        self,
        directory: Path,
        id: int,
        run: Run,
        on_loop: Run,
        room: Callable[[], Failure | None] = lambda: None,
        resumed: Callable[[], None] | None = None,
        posix: Posix = _POSIX,
    ) -> None:
        self._posix = posix
        self.size = 0  # octets given so far
        self.resumed = resumed
        self._directory = directory
        self._path = file_path(directory, id)
        self._run = run
        self._on_loop = on_loop
        self._room = room
        # Shared with the thread: only appended here and popped there, or set once by one side.
        self._pieces: deque[bytes] = deque()
        self._failure: Failure | None = None
        self._written = 0
        self._scheduled = False
        self._aborted = False
        # The thread's own.
        self._handle = -1
        self._second: Path | None = None  # a file that is to take the place of the first
        self._made = False  # the file is ours: one that stood there before is never removed
        self._checked = 0
        # The loop's own.
        self._paused = False

    @property
    def failure(self) -> Failure | None:
        """The first error so far. The host may refuse the message before its end."""
        return self._failure

    def write(self, octets: bytes) -> bool:
        """Takes octets. Returns False if this is enough for now; then `resumed` will be called."""
        if self._failure is not None:
            self.size += len(octets)
            return True
        self._pieces.append(octets)
        self.size += len(octets)
        if not self._scheduled:
            self._scheduled = True
            self._run(self._write_pieces)
        if self.size - self._written <= BACKLOG_MAX:
            return True
        self._paused = True
        return False

    def finish(self, done: Callable[[ContentFile | Failure], None], new: NewContent | None = None) -> None:
        """Notes that the content is complete. `new`: the content that takes its place."""
        self._run(lambda: self._finish(done, new))

    def abort(self) -> None:
        """Removes the file. Do not call it for content that was accepted."""
        self._aborted = True
        self._run(self._remove)

    def _write_pieces(self) -> None:
        self._scheduled = False  # before the pieces are looked at: what comes from now on schedules again
        while self._pieces and not self._aborted and self._failure is None:
            taken = [self._pieces.popleft() for _ in range(len(self._pieces))]
            try:
                self._open()
                for piece in taken:
                    self._write_all(piece)
            except OSError as error:
                self._failure = failure_of(error, f"writing {self._path}")
        if self._aborted or self._failure is not None:
            self._pieces.clear()
            self._written = self.size
        self._on_loop(self._resume)

    def _open(self) -> None:
        if self._handle >= 0:
            return
        make_directory(self._path.parent.parent, self._posix)
        make_directory(self._path.parent, self._posix)
        self._handle = self._posix.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
        self._made = True

    def _write_all(self, piece: bytes) -> None:
        if self._written >= self._checked:
            self._checked = self._written + _CHECK_EVERY
            self._failure = self._room()
            if self._failure is not None:
                return
        view = memoryview(piece)
        while view:
            count = self._posix.write(self._handle, view[:PIECE])
            view = view[count:]
            self._written += count

    def _resume(self) -> None:
        # After a failure nothing is written any more, and what comes is swallowed: the producer must hear of it.
        if self._paused and (self._failure is not None or self.size - self._written <= BACKLOG_MAX // 2):
            self._paused = False
            if self.resumed is not None and not self._aborted:
                self.resumed()

    def _finish(self, done: Callable[[ContentFile | Failure], None], new: NewContent | None) -> None:
        self._write_pieces()
        if self._failure is None and not self._aborted:
            try:
                self._open()  # content of no octets at all
                if new is not None:
                    self._write_second(new)
                self._posix.fdatasync(self._handle)
                if self._second is not None:
                    self._posix.rename(self._second, self._path)
                    self._second = None
                sync_directory(self._path.parent, self._posix)
                self._close()
            except OSError as error:
                self._failure = failure_of(error, f"syncing {self._path}")
        self._let_go()
        answer = self._failure or ContentFile(str(self._path), self._written)
        if self._failure is not None:
            self._remove()
        self._on_loop(lambda: done(answer))

    def _write_second(self, new: NewContent) -> None:
        """Writes the new content into a file of its own, whose handle takes the place of the first one's. Raises
        OSError."""
        self._close()
        first = os.open(self._path, os.O_RDONLY | _FLAGS)
        try:
            second = self._path.with_name(self._path.name + SECOND)
            self._handle = self._posix.open(second, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
            self._second = second
            self._written = self._checked = 0
            self._write_all(new.head)
            if new.body is not None:
                self._write_all(new.body)
                return
            at = new.head_size
            while self._failure is None and (piece := os.pread(first, PIECE, at)):
                self._write_all(piece)
                at += len(piece)
        finally:
            os.close(first)
        if self._failure is not None:
            raise OSError(errno.ENOSPC, self._failure.text)

    def _close(self) -> None:
        """Closes the file. Raises OSError, also for what was written before (close(2)); the handle is gone in any case.
        """
        handle, self._handle = self._handle, -1
        if handle >= 0:
            self._posix.close(handle)

    def _let_go(self) -> None:
        """Closes a file that is given up. Errors do not matter any more."""
        with contextlib.suppress(OSError):
            self._close()

    def _remove(self) -> None:
        self._pieces.clear()
        self._let_go()
        if self._made:
            remove(self._path, self._posix)
        if self._second is not None:
            remove(self._second, self._posix)


def remove(path: Path, posix: Posix = _POSIX) -> None:
    """Removes a content file. If that fails, the file is an orphan, which the next start removes."""
    try:
        posix.unlink(path)
    except OSError:
        return
