"""Reads the file ``.forward`` of a user, in a process that is this user.

Which file: ``.forward`` with the address extension (``.forward+lists``) if there is one, else ``.forward``; the first
that is there counts. It may include other files (`read_included`), for which the same holds.

What always holds: it is a plain file of the user or of root, and nobody else can write to it or exchange it; at most
`SIZE_MAX` octets are read; nothing waits for a FIFO or a device. How it fails: a `ForwardFile` with a fault if the file
cannot be used (mail then goes to the mailbox), or with `not_now` if nobody can tell (mail then waits).
"""

from __future__ import annotations

import errno
import grp
import os
import re
import stat
from typing import Final

import msgspec

from postroad.world.identity import UserAccount

NAME: Final = ".forward"
SIZE_MAX: Final = 16_384  # octets of a file
INCLUDED_MAX: Final = 20  # files that one includes, directly or through others
INCLUDED_SIZE_MAX: Final = 32_768  # octets of their paths and texts together
_EXTENSION: Final = re.compile(r"[a-z0-9_+=.@%!:,-]{1,100}")
_IS_NOT_THERE: Final = frozenset((errno.ENOENT, errno.ENOTDIR))
_NOT_FOR_US: Final = frozenset((errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG))


class ForwardFile(msgspec.Struct, frozen=True):
    """`text`: what stands in it, None if there is none, or none that can be used. `fault`: why it cannot be used.
    `included`: path and text of each file that it includes."""

    text: str | None = None
    fault: str = ""
    not_now: str = ""
    included: tuple[tuple[str, str], ...] = ()


_NONE: Final = ForwardFile()


def names(extension: str) -> tuple[str, ...]:
    """The names of the files, the first one that is there counts. `extension`: with its delimiter, "" for none."""
    folded = extension.lower()
    with_it = (NAME + folded,) if _EXTENSION.fullmatch(folded) and len(folded) > 1 else ()
    return (*with_it, NAME)


def read(user: UserAccount, extension: str) -> ForwardFile:
    """The file of this user."""
    for name in names(extension):
        path = f"{user.home.rstrip('/')}/{name}"
        try:
            return _read(path, user, user.home)
        except OSError as error:
            if error.errno in _IS_NOT_THERE:
                continue
            return _failed(path, error)
    return _NONE


def read_included(path: str, user: UserAccount) -> ForwardFile:
    """A file that the file of this user includes. That it is not there is a fault."""
    try:
        return _read(path, user, os.path.dirname(path))
    except OSError as error:
        return _failed(path, error)


def _failed(path: str, error: OSError) -> ForwardFile:
    text = f"{path}: {error.strerror or error}"
    is_fault = error.errno in _NOT_FOR_US or error.errno in _IS_NOT_THERE
    return ForwardFile(fault=text) if is_fault else ForwardFile(not_now=text)


def _read(path: str, user: UserAccount, folder: str) -> ForwardFile:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(handle)
        fault = _fault(found, user, "it") if stat.S_ISREG(found.st_mode) else "it is no plain file"
        fault = fault or _fault(os.stat(folder), user, "the home" if folder == user.home else "its folder")
        if fault:
            return ForwardFile(fault=f"{path}: {fault}")
        octets = b""
        while len(octets) <= SIZE_MAX and (piece := os.read(handle, SIZE_MAX + 1 - len(octets))):
            octets += piece
    finally:
        os.close(handle)
    if len(octets) > SIZE_MAX:
        return ForwardFile(fault=f"{path}: it has more than {SIZE_MAX} octets")
    try:
        return ForwardFile(octets.decode())
    except UnicodeDecodeError:
        return ForwardFile(fault=f"{path}: it is not UTF-8")


def _fault(found: os.stat_result, user: UserAccount, what: str) -> str:
    """Why somebody else could have written it; "" if nobody could."""
    if found.st_uid not in (0, user.uid):
        return f"{what} belongs to the user with the number {found.st_uid}"
    if found.st_mode & stat.S_IWOTH:
        return f"all users can write to {what}"
    if found.st_mode & stat.S_IWGRP and not _is_his_own(found.st_gid, user):
        return f"a group can write to {what}"
    return ""


def _is_his_own(gid: int, user: UserAccount) -> bool:
    """Whether a group is the private one of the user, who is alone in it."""
    if gid != user.groups[0]:
        return gid == 0
    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return False
    return group.gr_name == user.name and not set(group.gr_mem) - {user.name}
