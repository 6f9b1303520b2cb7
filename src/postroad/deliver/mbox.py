"""Delivery to the end of an mbox file, as Debian's programs expect it (RFC 4155, Debian policy §11.6).

A message begins with a line ``From sender date``, has LF line ends, and ends with an empty line. A line of its own that
begins with ``From `` gets a ``>`` in front (`Quoting`). Fields in which mail readers keep the state of a message in the
mailbox (``Status``, ``X-UID`` and so on, `STATES`) are taken off: a sender has no say in them.

Locks: first one of fcntl(2), then the file NAME.lock. If one of them cannot be had at once, both are released, and the
caller comes again later: so a program that takes them in the other order never waits for us for ever. A NAME.lock that
is older than `stale_lock_s`, by the clock of its file system, is removed; so is one that a dead process of ours left.

What always holds: before a message counts as delivered, the file is synced, and the folder, too, if the file is new. A
delivery that fails cuts the file where it began. While we write, NAME.lock says where that is; if the process dies, the
next delivery cuts there, but only if the file still holds what we wrote and nothing behind it, and only until the
machine starts again. (After a power cut such a note may be older than the file. What was written of a message then
stays, and the next message begins behind an empty line.) Below the operator's part of the path a file must be regular
and have one name only; if everybody may write to its folder, it must be ours. Symbolic links are not followed.

How it fails: `Locked` if another program has a lock; else as a Maildir does (`deliver.folders`). BINARYMIME cannot
stand in an mbox file (5.6.1).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import re
import stat
import threading
import time
from collections.abc import Iterator
from typing import Final

import msgspec

from postroad.deliver.files import LineEnds, write
from postroad.deliver.folders import FolderOpener, UntrustedFolder
from postroad.deliver.letter import Letter
from postroad.deliver.mailbox import Folder
from postroad.deliver.maildir import over_quota
from postroad.deliver.options import MboxOptions, MboxQuoting
from postroad.mail.address import Address
from postroad.mail.attempt import Outcome, Reach
from postroad.mail.message import HEADER_MAX, header_end, header_is_whole, without
from postroad.mail.route import MailboxRules
from postroad.protocol.sending import Result
from postroad.world.files import Posix

# In lower case. Dovecot, mutt, s-nail, Alpine and mail(1) keep the state of a message in these.
STATES: Final = (
    b"status", b"x-status", b"x-keywords", b"x-uid", b"x-imap", b"x-imapbase", b"content-length",
)  # fmt: skip
LOCK: Final = ".lock"
_NO_RULES: Final = MailboxRules()
_OPEN: Final = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_LOCK_SIZE_MAX: Final = 4096  # octets of a NAME.lock that are read
_LOOK_SIZE: Final = 262_144  # octets that are looked through at a time
_HELD_MAX: Final = 65_536  # octets of a line of ">" that are looked through for a "From " behind them
_TOUCH_SIZE: Final = 33_554_432  # after so many octets NAME.lock is touched, so that it does not look stale
_BOOT: Final = "/proc/sys/kernel/random/boot_id"


class Locked(msgspec.Struct, frozen=True):
    """Somebody else has the mailbox now. `by`: the lock, for people."""

    by: str


class MboxGate:
    """The mailboxes that this process is at. A lock of fcntl(2) is one of the whole process: it keeps out no other
    thread, and ends if any thread closes the file."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def entered(self, name: str) -> Iterator[bool]:
        """Whether nobody else is at it."""
        with self._lock:
            free = name not in self._names
            self._names.add(name)
        try:
            yield free
        finally:
            if free:
                with self._lock:
                    self._names.discard(name)


class _Note(msgspec.Struct, frozen=True):
    """What stands in NAME.lock while we write: who, and where the file must be cut if we die. `first`: the octets with
    which we begin there."""

    pid: int
    boot: str
    device: int
    inode: int
    start: int
    first: bytes

    def octets(self) -> bytes:
        # the first line alone is what others read: the number of the process
        return b"%d\n%s\n" % (self.pid, msgspec.json.encode(self))


class MboxWriter:
    """The work itself; blocks. `group_may_read`: whether a new file is for its group, too (0660, not 0600)."""

    def __init__(
        self, options: MboxOptions, posix: Posix, gate: MboxGate, *, make_folders: bool, group_may_read: bool = False
    ) -> None:
        self._options = options
        self._posix = posix
        self._gate = gate
        self._folders = FolderOpener(posix, make=make_folders)
        self._mode = 0o660 if group_may_read else 0o600
        self._boot = _boot()

    def put(
        self, box: Folder, letter: Letter, now_us: int, rules: MailboxRules = _NO_RULES, size_max: int = 0
    ) -> Result | Locked:
        """Deliver to the end of one file, which may have up to `size_max` octets; 0: no limit. Raises OSError."""
        if letter.binary:
            return Result(
                Outcome.FAILED, Reach.RECIPIENT, "5.6.1", "the message is BINARYMIME, which no mbox file can hold"
            )
        with self._gate.entered(str(box)) as free, contextlib.ExitStack() as stack:
            if not free:
                return Locked("another delivery of ours")
            folder = self._folders.open(box.base, box.names[:-1], stack)
            found = self._put(box, folder, letter, now_us, stack, size_max)
        return over_quota(str(box), rules) if found is None else found

    def _put(
        self, box: Folder, folder: int, letter: Letter, now_us: int, stack: contextlib.ExitStack, size_max: int
    ) -> Result | Locked | None:
        """None: there is no room."""
        posix, name = self._posix, box.names[-1]
        handle, made = self._open(folder, name)
        stack.callback(posix.close, handle)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return Locked("a lock of fcntl")
            raise
        lock = self._lock(folder, name, handle, stack) if self._options.dotlock else -1
        if isinstance(lock, Locked):
            return lock
        if not self._is_still(folder, name, handle):
            return Locked("the file was replaced")
        if size_max and letter.size > size_max:
            text = f"{box}: the message has {letter.size} octets, and the mailbox may have {size_max}"
            return Result(Outcome.FAILED, Reach.RECIPIENT, "5.2.3", text)
        if size_max and posix.fstat(handle).st_size + letter.size > size_max:
            return None
        self._append(handle, lock, letter, now_us, folder if made else -1)
        return Result(Outcome.DELIVERED, Reach.RECIPIENT, "2.0.0", f"delivered to {box}")

    # -- the file -------------------------------------------------------------------------------------------------

    def _open(self, folder: int, name: str) -> tuple[int, bool]:
        """A descriptor of the file, which may have been made for it."""
        posix = self._posix
        made = False
        try:
            try:
                handle = posix.open(name, _OPEN, dir_fd=folder)
            except FileNotFoundError:
                handle = posix.open(name, _OPEN | os.O_CREAT | os.O_EXCL, self._mode, dir_fd=folder)
                made = True
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR):
                raise UntrustedFolder(error.errno, f"{name!r} is a symbolic link or a folder") from error
            raise
        try:
            self._check(posix.fstat(handle), posix.fstat(folder), name)
        except BaseException:
            posix.close(handle)
            raise
        return handle, made

    def _check(self, file: os.stat_result, folder: os.stat_result, name: str) -> None:
        if not stat.S_ISREG(file.st_mode):
            raise UntrustedFolder(errno.EPERM, f"{name!r} is not a file")
        if file.st_nlink > 1:
            raise UntrustedFolder(errno.EPERM, f"{name!r} has a second name")
        if file.st_mode & stat.S_IWOTH:
            raise UntrustedFolder(errno.EPERM, f"everybody may write to {name!r}")
        if folder.st_mode & stat.S_IWOTH and file.st_uid != os.geteuid():
            raise UntrustedFolder(errno.EPERM, f"{name!r} is not our own, and everybody may write to its folder")

    def _is_still(self, folder: int, name: str, handle: int) -> bool:
        """Whether the file is still the one of this name: a mail reader may have removed or replaced it."""
        try:
            named = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        found = self._posix.fstat(handle)
        return (named.st_dev, named.st_ino) == (found.st_dev, found.st_ino)

    def _append(self, handle: int, lock: int, letter: Letter, now_us: int, folder: int) -> None:
        """`lock`: NAME.lock, or -1; `folder`: that of a file that is new, else -1."""
        posix = self._posix
        found = posix.fstat(handle)
        start = found.st_size
        first = _gap(os.pread(handle, 2, max(0, start - 2))) + from_line(letter.sender, now_us)
        if lock >= 0:
            note = _Note(os.getpid(), self._boot, found.st_dev, found.st_ino, start, first)
            write(posix, lock, note.octets()[len(_pid_line()) :])
        untouched = 0
        try:
            write(posix, handle, first)
            for piece in lines(letter, self._options.quoting):
                untouched += write(posix, handle, piece)
                if lock >= 0 and untouched > _TOUCH_SIZE:
                    os.utime(lock)
                    untouched = 0
            posix.fsync(handle)
            if folder >= 0:
                posix.fsync(folder)
            if lock >= 0:  # from here on nobody may cut the file any more
                posix.ftruncate(lock, len(_pid_line()))
        except BaseException:
            posix.ftruncate(handle, start)
            with contextlib.suppress(OSError):
                posix.fsync(handle)
            raise

    # -- NAME.lock ------------------------------------------------------------------------------------------------

    def _lock(self, folder: int, name: str, handle: int, stack: contextlib.ExitStack) -> int | Locked:
        """A descriptor of NAME.lock, which is ours until the stack ends."""
        posix, file = self._posix, name + LOCK
        for _ in range(2):
            try:
                lock = posix.open(file, _NEW, 0o644, dir_fd=folder)
            except FileExistsError:
                told = self._left(folder, file, handle)
                if told is not None:
                    return told
                continue
            except PermissionError as error:
                text = f"{file!r} cannot be made: give the node's user the right to its folder, or set mbox.dotlock"
                raise UntrustedFolder(error.errno, text) from error

            def release() -> None:
                with contextlib.suppress(OSError):
                    posix.unlink(file, dir_fd=folder)

            stack.callback(posix.close, lock)
            stack.callback(release)
            write(posix, lock, _pid_line())
            return lock
        return Locked(f"the file {file}")

    def _left(self, folder: int, file: str, handle: int) -> Locked | None:
        """None if NAME.lock was left behind and is gone now. A file that we had half written is cut."""
        try:
            lock = self._posix.open(file, _READ, dir_fd=folder)
        except FileNotFoundError:
            return None
        try:
            found = self._posix.fstat(lock)
            said = os.read(lock, _LOCK_SIZE_MAX) if stat.S_ISREG(found.st_mode) else b""
        finally:
            self._posix.close(lock)
        # In some folders everybody may make a NAME.lock. What somebody else wrote into it has us cut no file.
        note = _note(said) if found.st_uid == os.geteuid() and found.st_nlink == 1 else None
        ours = note is not None and note.boot == self._boot and not _is_alive(note.pid)
        if not ours and self._age_s(folder, file, found) < self._options.stale_lock_s:
            pid = said.partition(b"\n")[0][:10]
            who = f" (process {pid.decode()})" if pid.isdigit() and int(pid) else ""
            return Locked(f"the file {file}{who}")
        if note is not None and ours:
            self._cut(handle, note)
        with contextlib.suppress(FileNotFoundError):
            now = os.stat(file, dir_fd=folder, follow_symlinks=False)
            if (now.st_ino, now.st_mtime_ns) == (found.st_ino, found.st_mtime_ns):
                self._posix.unlink(file, dir_fd=folder)
        return None

    def _age_s(self, folder: int, file: str, found: os.stat_result) -> float:
        """How old a file is by the clock of its file system, which may be another machine's."""
        name = f"{file}.{os.getpid()}.{next(_COUNT)}"
        probe = self._posix.open(name, _NEW, 0o600, dir_fd=folder)
        try:
            return self._posix.fstat(probe).st_mtime - found.st_mtime
        finally:
            self._posix.close(probe)
            self._posix.unlink(name, dir_fd=folder)

    def _cut(self, handle: int, note: _Note) -> None:
        """Take away what a dead process of ours has written of a message that it did not end."""
        found = self._posix.fstat(handle)
        if (found.st_dev, found.st_ino) != (note.device, note.inode) or found.st_size <= note.start:
            return
        there = os.pread(handle, len(note.first), note.start)
        if note.first.startswith(there) and not _goes_on(handle, note.start + len(there), found.st_size):
            self._posix.ftruncate(handle, note.start)
            self._posix.fsync(handle)


_COUNT: Final = itertools.count(1)


def _pid_line() -> bytes:
    return b"%d\n" % os.getpid()


def _boot() -> str:
    """What names the time since the machine started; "" if that is not known: then nothing is cut."""
    try:
        with open(_BOOT, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def _note(said: bytes) -> _Note | None:
    try:
        note = msgspec.json.decode(said.partition(b"\n")[2], type=_Note)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return note if note.boot and note.start >= 0 and note.first and note.pid > 0 else None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _goes_on(handle: int, at: int, end: int) -> bool:
    """Whether another message begins behind `at`: somebody else has written since. Ours are quoted."""
    held = b""
    while at < end:
        piece = os.pread(handle, _LOOK_SIZE, at)
        if not piece:
            break
        if b"\nFrom " in held + piece:
            return True
        held = piece[-5:]
        at += len(piece)
    return False


# -- the message as it stands in the file


def from_line(sender: Address | None, now_us: int) -> bytes:
    """``From ada@example.org Sat Jan  3 01:05:34 2026``, in local time as all programs write it."""
    name = str(sender) if sender is not None else "MAILER-DAEMON"
    word = "".join(char if char.isprintable() and not char.isspace() else "_" for char in name)
    return f"From {word} {time.asctime(time.localtime(now_us // 1_000_000))}\n".encode("utf-8", "replace")


def _gap(last: bytes) -> bytes:
    """What must stand before the next message, if the file ends with these octets."""
    if not last or last == b"\n\n":
        return b""
    return b"\n" if last.endswith(b"\n") else b"\n\n"


def lines(letter: Letter, quoting: MboxQuoting) -> Iterator[bytes]:
    """A letter as it stands in the file below its first line, with the empty line at its end."""
    ends, quotes = LineEnds(), Quoting(quoting)
    last = b"\n"
    for piece in _without_states(letter.octets()):
        made = quotes.piece(ends.piece(piece))
        last = made[-1:] or last
        yield made
    made = quotes.piece(ends.end()) + quotes.end()
    last = made[-1:] or last
    yield made + (b"\n" if last == b"\n" else b"\n\n")


class Quoting:
    """Puts ``>`` in front of each line that begins with ``From `` or, as mboxrd has it, with ``>`` and that."""

    __slots__ = ("_begins", "_held", "_partly", "_starts")

    def __init__(self, how: MboxQuoting) -> None:
        reversible = how is MboxQuoting.MBOXRD
        self._starts = re.compile(rb"(?m)^(?=>*From )" if reversible else rb"(?m)^(?=From )")
        self._partly = re.compile(rb">*(?:F|Fr|Fro|From)?" if reversible else rb"F|Fr|Fro|From")
        self._begins = True  # the next octet is the first of a line
        self._held = b""

    def piece(self, octets: bytes) -> bytes:
        """LF line ends."""
        octets = self._held + octets
        self._held = b""
        if not octets:
            return b""
        start = octets.rfind(b"\n") + 1
        if (start or self._begins) and len(octets) - start <= _HELD_MAX and self._partly.fullmatch(octets, start):
            octets, self._held = octets[:start], octets[start:]
        return self._quoted(octets)

    def end(self) -> bytes:
        held, self._held = self._held, b""
        return self._quoted(held)

    def _quoted(self, octets: bytes) -> bytes:
        if not octets:
            return b""
        if b"From " not in octets:
            quoted = octets
        elif self._begins:
            quoted = self._starts.sub(b">", octets)
        else:
            first, end, rest = octets.partition(b"\n")
            quoted = first + end + self._starts.sub(b">", rest)
        self._begins = octets.endswith(b"\n")
        return quoted


def _without_states(octets: Iterator[bytes]) -> Iterator[bytes]:
    """The message without the fields in `STATES`."""
    head = b""
    for piece in octets:
        head += piece
        if len(head) > HEADER_MAX or header_is_whole(head):
            break
    end = header_end(head)
    section = head[:end]
    lowered = b"\n" + section.lower()
    for name in STATES:
        if b"\n" + name in lowered:
            section = without(section, name)
    yield section + head[end:]
    yield from octets
