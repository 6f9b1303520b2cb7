"""Opens the folders of mailboxes so that nobody can lead us elsewhere, and puts errors of the system into results.

What always holds: the operator's part of a path is opened as it is written. The folders below it depend on the address.
They are opened one after the other without following symbolic links; each must be our own and not writable for
everybody; a missing one is made with mode 0700.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from postroad.mail.attempt import Outcome, Reach
from postroad.protocol.sending import Result
from postroad.world.files import Posix

_Told = TypeVar("_Told")
_LOG: Final = logging.getLogger(__name__)
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class UntrustedFolder(OSError):
    """A folder or file that we do not trust."""


class FolderOpener:
    """`make`: whether missing folders are created."""

    def __init__(self, posix: Posix, *, make: bool) -> None:
        self._posix = posix
        self._make = make

    def open(self, base: str, names: Iterable[str], stack: contextlib.ExitStack) -> int:
        """A descriptor of the last of the folders; the stack closes it."""
        at = self._open_base(base)
        stack.callback(self._posix.close, at)
        for name in names:
            at = self.open_below(name, at, stack)
        return at

    def open_below(self, name: str, parent: int, stack: contextlib.ExitStack) -> int:
        """A descriptor of the folder `name` in the folder `parent`; the stack closes it."""
        handle = self._open_folder(name, parent)
        stack.callback(self._posix.close, handle)
        return handle

    def _open_base(self, base: str) -> int:
        """The operator's part: it may be a symbolic link, and is made if its own parent is there."""
        try:
            return self._posix.open(base, _DIRECTORY)
        except FileNotFoundError:
            if not self._make:
                raise
        self._posix.mkdir(base, 0o700)
        return self._posix.open(base, _DIRECTORY)

    def _open_folder(self, name: str, parent: int) -> int:
        posix = self._posix
        try:
            handle = posix.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        except FileNotFoundError:
            if not self._make:
                raise
            with contextlib.suppress(FileExistsError):  # another delivery was faster
                posix.mkdir(name, 0o700, dir_fd=parent)
            posix.fsync(parent)
            handle = posix.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise UntrustedFolder(error.errno, f"{name!r} is a symbolic link or no folder") from error
            raise
        found = posix.fstat(handle)
        if found.st_uid != os.geteuid() or found.st_mode & stat.S_IWOTH:
            posix.close(handle)
            raise UntrustedFolder(errno.EPERM, f"{name!r} is not our own, or everybody may write to it")
        return handle


def guarded(place: object, work: Callable[[], _Told]) -> _Told | Result:
    """The result of a delivery into the mailbox `place`. An exception is a bug: it is caught here, so that the other
    recipients of a job keep what they have."""
    try:
        return work()
    except OSError as error:
        return failed(error, place)
    except Exception as error:
        _LOG.exception("delivery to %s", place)
        return deferred("4.3.0", f"internal error: {type(error).__name__}")


def failed(error: OSError, place: object) -> Result:
    """What a call of the system that failed means for the recipient. `place`: the mailbox."""
    reason = error.strerror or str(error)
    if isinstance(error, UntrustedFolder):
        return deferred("4.3.5", f"{place}: {reason}")
    match error.errno:
        case errno.ENOSPC:
            return deferred("4.3.1", f"{place}: the disk is full")
        case errno.EDQUOT:
            return deferred("4.2.2", f"{place}: the quota is used up")
        case _:
            return deferred("4.3.0", f"{place}: {reason}")


def deferred(status: str, text: str) -> Result:
    return Result(Outcome.DEFERRED, Reach.RECIPIENT, status, text)
