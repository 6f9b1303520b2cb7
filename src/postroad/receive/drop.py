"""The drop folder: mail that users of this machine left while the node did not take it (`sendmail.drop_folder`).

One worker takes the files, one after the other, and each file exactly once, over every crash:

1. `m-NAME` becomes `x-ID-NAME`, with the queue id that the message will have; the folder is synced.
2. The message is accepted under this id: the commit.
3. The file is removed, and the folder is synced. Only then does the queue hear of the message.

So as long as the file is there, the message is at most accepted, and nothing else has happened to it. After a crash
`recover` asks the spool for the id, before the queue starts: if the spool has the message, the file is removed; else it
becomes `m-NAME` again.

The owner of a file is its sender; the file system knows him. The text of the file is checked as strictly as what comes
over the socket. Only regular files with one name are read, through the folder and without following links. A file that
is no message of `sendmail`, or whose name `sendmail` has not made, is set aside as `b-NAME`, with a line in the log.
Refusals go to the sender as a report; of a message that is too large only the part that the report needs is read.

How it fails: a file that cannot be taken now stays, and is tried again after `RETRY_S`. Such files never hold up the
others, however many there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import os
import re
import stat
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import Executor
from pathlib import Path
from typing import Final

import msgspec

from postroad.mail import identifier
from postroad.mail.event import Noted
from postroad.mail.reply import Reply, said
from postroad.mail.seldom import Seldom
from postroad.receive import local_request
from postroad.receive.local_mail import SAMPLE_MAX, LocalMail
from postroad.receive.local_request import LocalRequest
from postroad.receive.local_users import LocalCounts, LocalUser
from postroad.receive.options import LocalOptions
from postroad.receive.setup import ListenerSetup
from postroad.sendmail import places
from postroad.store.values import Stored, Waiting
from postroad.world.clock import Clock
from postroad.world.files import Posix

AT_ONCE: Final = 500  # names of one look
TAKEN_MAX: Final = 100_000  # files that were taken by a worker that is gone; there is one, or a few
PIECE: Final = 262_144
RETRY_S: Final = 10.0
RETRIES_PER_S: Final = 100  # if so many wait that they would be more, each waits longer
PART_S: Final = 86_400.0  # a file that is not whole after this time has lost its writer
TAKEN: Final = "x-"
BAD: Final = "b-"
_NAME: Final = re.compile(r"[0-9A-Za-z]{1,64}")
_NO_FILE: Final = frozenset((errno.ELOOP, errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENODEV))  # for us, ever
_NONE: Final[frozenset[str]] = frozenset()

Who = Callable[[int, Callable[[LocalUser], None]], None]


class DropFile(msgspec.Struct, frozen=True):
    """One file that was opened: its message begins at `start`."""

    descriptor: int
    uid: int
    request: LocalRequest
    start: int
    written_s: float


class BadFile(msgspec.Struct, frozen=True):
    """One that is no message; `why`."""

    why: str


class DropFiles:
    """The files of one drop folder. Each method blocks for the disk, so it is called off the loop. Raises OSError."""

    def __init__(self, folder: Path, posix: Posix) -> None:
        self._path = folder
        self._posix = posix

    def names(self, prefix: str, limit: int, but: Collection[str] = _NONE) -> list[str]:
        """Names of files that begin with this, at most `limit` of them, none of those in `but`."""
        found: list[str] = []
        with os.scandir(self._path) as entries:
            for entry in entries:
                if entry.name.startswith(prefix) and entry.name not in but:
                    found.append(entry.name)
                    if len(found) == limit:
                        break
        return found

    def remove_parts(self, names: Iterable[str], before_s: float) -> None:
        """Files whose writer is gone: last written before this time."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                if os.lstat(self._path / name).st_mtime < before_s:
                    self._posix.unlink(str(self._path / name))

    def open(self, name: str) -> DropFile | BadFile | None:
        """None: it is gone."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = self._posix.open(str(self._path / name), flags)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            return BadFile(f"cannot be opened: {error.strerror}")
        try:
            found = self._read(descriptor)
        except BaseException:
            self._posix.close(descriptor)
            raise
        if isinstance(found, BadFile):
            self._posix.close(descriptor)
        return found

    def _read(self, descriptor: int) -> DropFile | BadFile:
        state = self._posix.fstat(descriptor)
        if not stat.S_ISREG(state.st_mode):
            return BadFile("is not a file")
        if state.st_nlink != 1:
            return BadFile("has several names")
        octets = os.pread(descriptor, min(state.st_size, places.REQUEST_MAX), 0)
        end = local_request.end(octets)
        request = local_request.read(octets[:end]) if end > 0 else "has no request"
        if isinstance(request, str):
            return BadFile(request)
        if request.verb != places.SUBMIT:
            return BadFile("is not a message")
        if end + request.size != state.st_size:
            return BadFile("is not whole")
        return DropFile(descriptor, state.st_uid, request, end, state.st_mtime)

    def rename(self, name: str, new: str) -> None:
        """Durably."""
        self._posix.rename(str(self._path / name), str(self._path / new))
        self.sync()

    def set_aside(self, name: str, spare: str) -> str:
        """Its new name, durably. `spare`: a part of it that no other has, if there is such a file already."""
        bad = BAD + (name.rpartition("-")[2] if _taken(name) else name[len(places.WHOLE) :])
        if os.path.lexists(self._path / bad):
            bad = BAD + spare
        self.rename(name, bad)
        return bad

    def remove(self, name: str) -> None:
        """Durably; it may be gone already."""
        with contextlib.suppress(FileNotFoundError):
            self._posix.unlink(str(self._path / name))
        self.sync()

    def piece(self, file: DropFile, at: int) -> bytes:
        """Content from `at` on; b"" at its end, and if its owner has cut it off."""
        return os.pread(file.descriptor, max(0, min(PIECE, file.request.size - at)), file.start + at)

    def close(self, file: DropFile) -> None:
        self._posix.close(file.descriptor)

    def sync(self) -> None:
        descriptor = self._posix.open(str(self._path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._posix.fsync(descriptor)
        finally:
            self._posix.close(descriptor)


class Drop:
    """Takes the files of a drop folder. All methods are called on the loop. `who`: the user of an id. `lifetime_s`: a
    message that cannot be taken for so long fails."""

    def __init__(
        self, files: DropFiles, setup: ListenerSetup, options: LocalOptions, counts: LocalCounts, *, who: Who,
        pool: Executor | None, clock: Clock, lifetime_s: float,
    ) -> None:
        self._files = files
        self._setup, self._options = setup, options
        self._counts = counts
        self._who = who
        self._pool = pool
        self._clock = clock
        self._lifetime_s = lifetime_s
        self._ids: dict[str, int] = {}  # of files that were taken and have to come again, by their name
        self._again_at: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        self._mail: LocalMail | None = None
        self._stopping = asyncio.Event()
        self._seldom = Seldom(clock.now_us)

    def take(self, setup: ListenerSetup, options: LocalOptions, lifetime_s: float) -> None:
        """Settings: files from here on go by them."""
        self._setup, self._options, self._lifetime_s = setup, options, lifetime_s

    def look(self) -> None:
        """Look for files, unless that is under way."""
        if self._task is None and not self._stopping.is_set():
            self._task = self._setup.doors.loop.create_task(self._watched())
            self._task.add_done_callback(self._looked)

    async def stop(self, limit_s: float) -> None:
        """A message that is on its way to the disk comes to its end, if that is soon; others stay where they are."""
        self._stopping.set()
        if self._mail is not None:
            self._mail.leave()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=limit_s)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._task = None
        error = None if task.cancelled() else task.exception()
        if error is not None:  # a bug
            self._setup.doors.loop.call_exception_handler({"message": "the drop folder", "exception": error})

    async def _watched(self) -> None:
        """One look; what the disk refuses is told from time to time, and done again at the next look."""
        try:
            await self._look()
        except OSError as error:
            self._tell(f"mail in the drop folder is not taken: {error}")

    def _tell(self, text: str) -> None:
        if text := self._seldom.to_write(text):
            self._note("error", text)

    def _note(self, level: str, text: str, id: int = 0) -> None:
        doors = self._setup.doors
        doors.log((Noted(doors.now_us(), id, level, text),))

    async def _off(self, work: Callable[..., object], *arguments: object) -> object:
        return await self._setup.doors.loop.run_in_executor(self._pool, work, *arguments)

    # ---- One look

    async def _look(self) -> None:
        files = self._files
        parts = await self._off(files.names, places.PART, AT_ONCE)
        assert isinstance(parts, list)
        if parts:
            await self._off(files.remove_parts, parts, self._clock.now_us() / 1e6 - PART_S)
        while not self._stopping.is_set():
            now = self._setup.doors.loop.time()
            self._again_at = {name: at for name, at in self._again_at.items() if at > now}
            later = frozenset(self._again_at)
            names = await self._off(files.names, places.WHOLE, AT_ONCE, later)
            assert isinstance(names, list)
            ready = [*(name for name in self._ids if name not in later), *names]
            if not ready:
                return
            for name in ready:
                if self._stopping.is_set():
                    return
                await self._one(name)

    async def _one(self, name: str) -> None:
        """Take one file, if it can be taken now."""
        try:
            if name in self._ids or _NAME.fullmatch(name[len(places.WHOLE) :]):
                await self._take(name)
            else:
                await self._set_aside(name, "sendmail gives no such names")
        except OSError as error:
            self._later(name)
            self._tell(f"the drop folder: {_shown(name)} is not taken: {error.strerror}")

    async def _take(self, name: str) -> None:
        opened = await self._off(self._files.open, name)
        if opened is None:
            self._forget(name)
            return
        if isinstance(opened, BadFile):
            await self._set_aside(name, opened.why)
            return
        assert isinstance(opened, DropFile)
        try:
            user = await self._user(opened.uid)
            refused = self._counts.enter(user, self._options)
            if refused is not None:
                self._later(name)
                return
            taken = False
            try:
                taken = await self._carry(name, opened, user)
            finally:
                self._counts.leave(user, self._options, taken=taken)
        finally:
            self._files.close(opened)

    async def _carry(self, name: str, file: DropFile, user: LocalUser) -> bool:
        """Steps 1 to 3. True: the message is in the spool, or its sender is told."""
        doors = self._setup.doors
        id = self._ids.get(name, 0)
        if not id:
            id = doors.storing.new_id()
            taken = f"{TAKEN}{identifier.text(id)}-{name.removeprefix(places.WHOLE)}"
            self._ids[taken] = id  # before: it may fail and have its new name all the same
            await self._off(self._files.rename, name, taken)
            self._forget(name)
            name = taken
        later: list[Callable[[], None]] = []
        answer = await self._accept(file, user, id, later)
        if answer.transient:
            self._later(name)
            return False
        if answer.permanent:
            await self._set_aside(name, f"refused: {said(answer)}", id)
            return False
        if await self._gone(name):
            for each in later:
                each()
        return True

    async def _gone(self, name: str) -> bool:
        """Step 3. The message waits until the file is gone. False: the node stops before that."""
        while True:
            try:
                await self._off(self._files.remove, name)
            except OSError as error:
                self._tell(f"the drop folder: {name} cannot be removed: {error.strerror}")
            else:
                self._forget(name)
                return True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_S):
                    await self._stopping.wait()
                return False

    async def _accept(
        self, file: DropFile, user: LocalUser, id: int, later: list[Callable[[], None]]
    ) -> Reply:
        """Step 2. `later` gets what the queue is to hear."""
        setup, loop = self._setup, self._setup.doors.loop
        storing = setup.doors.storing
        queued, waiting = storing.queued, storing.waiting

        def queue(stored: Stored) -> None:
            later.append(lambda: queued(stored))

        def wait(message: int, rows: tuple[Waiting, ...]) -> None:
            later.append(lambda: waiting(message, rows))

        storing = dataclasses.replace(storing, new_id=lambda: id, queued=queue, waiting=wait)
        doors = dataclasses.replace(setup.doors, storing=storing)
        ended: asyncio.Future[Reply] = loop.create_future()
        more = asyncio.Event()

        def on_end(answer: Reply, recipient: str) -> None:
            if not ended.done():
                ended.set_result(answer)
            more.set()

        age_s = self._clock.now_us() / 1e6 - file.written_s
        mail = self._mail = LocalMail(
            dataclasses.replace(setup, doors=doors), self._options, user, file.request, on_end, more.set,
            reports=True, expired=age_s > self._lifetime_s, spare_id=setup.doors.storing.new_id,
        )
        size = file.request.size
        if size > setup.options.limits.size_max:
            size = min(size, SAMPLE_MAX)  # it is refused; this is for the report
        try:
            at = 0
            while not ended.done():
                piece = await self._off(self._files.piece, file, at)
                assert isinstance(piece, bytes)
                at += len(piece)
                more.clear()
                last = at >= size
                if not piece and not last:
                    mail.gone()
                    return _CUT_OFF
                if not mail.content(piece, last=last) and not last:
                    await more.wait()
                if last:
                    break
            return await ended
        finally:
            self._mail = None

    async def _user(self, uid: int) -> LocalUser:
        found: asyncio.Future[LocalUser] = self._setup.doors.loop.create_future()
        self._who(uid, found.set_result)
        return await found

    def _later(self, name: str) -> None:
        wait_s = max(RETRY_S, len(self._again_at) / RETRIES_PER_S)
        self._again_at[name] = self._setup.doors.loop.time() + wait_s

    def _forget(self, name: str) -> None:
        self._ids.pop(name, None)
        self._again_at.pop(name, None)

    async def _set_aside(self, name: str, why: str, id: int = 0) -> None:
        spare = identifier.text(self._setup.doors.storing.new_id())
        bad = await self._off(self._files.set_aside, name, spare)
        assert isinstance(bad, str)
        self._forget(name)
        self._note("error", f"the drop folder: {_shown(name)} is set aside as {_shown(bad)}: {why}", id)


_CUT_OFF: Final = Reply(554, "5.6.0", ("the file was cut off while it was read",))


async def recover(
    files: DropFiles, is_mine: Callable[[int], bool], known: Callable[[int], Awaitable[bool]],
    failed: Callable[[str], None],
) -> None:
    """Before the queue starts: put in order what a worker has taken that is gone. `is_mine`: whether the shard of an id
    is ours. `known`: whether the spool has a message. `failed` hears of files with which this cannot be done: anybody
    can make some. Raises OSError if the folder cannot be read."""
    for name in files.names(TAKEN, TAKEN_MAX):
        taken = _taken(name)
        if taken is None or not is_mine(taken[0]):
            continue
        try:
            if await known(taken[0]):
                files.remove(name)
            else:
                files.rename(name, places.WHOLE + taken[1])
        except OSError as error:
            failed(f"the drop folder: {name} is not taken: {error.strerror}")


def _taken(name: str) -> tuple[int, str] | None:
    """The queue id in the name of a file that was taken, and the name that it had before; None if it is no such one."""
    text, _, before = name.removeprefix(TAKEN).partition("-")
    id = identifier.parse(text) if name.startswith(TAKEN) and _NAME.fullmatch(before) else None
    return None if not id else (id, before)


def _shown(name: str) -> str:
    """A name that anybody may have chosen, for the log."""
    return name if name.isascii() and name.isprintable() else ascii(name)
