"""Makes a process another user for good, in a child that does one thing and ends.

What always holds: a process that has become a user has the user's ids as real, effective and saved ids, the user's
groups and no others, and cannot go back; it never becomes root. How it fails: `account` returns a Problem; `become`
raises OSError, and then the process must end.
"""

from __future__ import annotations

import ctypes
import errno
import grp
import os
import pwd
import resource
from typing import Final

import msgspec

from postroad.world.problem import Problem

_PR_SET_NO_NEW_PRIVS: Final = 38
_UMASK: Final = 0o077


class UserAccount(msgspec.Struct, frozen=True):
    """`groups`: all of them, the main one first."""

    name: str
    uid: int
    groups: tuple[int, ...]
    home: str


def account(name: str, group: str, uid_min: int) -> UserAccount | Problem:
    """The user of this name. `group`: one more group, or "". `uid_min`: the smallest number that is allowed."""
    try:
        found = pwd.getpwnam(name)
        extra = (grp.getgrnam(group).gr_gid,) if group else ()
    except (KeyError, ValueError):
        return Problem(name, f"there is no such user{' or no group ' + group if group else ''}", "Create it.")
    if found.pw_uid < max(1, uid_min):
        return Problem(name, f"has the number {found.pw_uid}, which is below {uid_min}", "Use another user.")
    groups = (found.pw_gid, *(each for each in os.getgrouplist(name, found.pw_gid) if each != found.pw_gid))
    return UserAccount(name, found.pw_uid, tuple(dict.fromkeys((*groups, *extra))), found.pw_dir or "/")


def own_account() -> UserAccount | None:
    """The user that this process is; None if that is root, or a number without a name."""
    try:
        found = pwd.getpwuid(os.geteuid())
    except KeyError:
        return None
    if not found.pw_uid:
        return None
    return UserAccount(found.pw_name, found.pw_uid, (found.pw_gid, *os.getgroups()), found.pw_dir or "/")


class UserEntry(msgspec.Struct, frozen=True):
    """A user as the machine knows him."""

    uid: int
    home: str


class _Passwd(ctypes.Structure):
    """``struct passwd`` of the GNU C library."""

    _fields_ = (
        ("name", ctypes.c_char_p), ("passwd", ctypes.c_char_p), ("uid", ctypes.c_uint), ("gid", ctypes.c_uint),
        ("gecos", ctypes.c_char_p), ("dir", ctypes.c_char_p), ("shell", ctypes.c_char_p),
    )  # fmt: skip


_PASSWD_MAX: Final = 65_536  # octets of an entry
_NO_SUCH_USER: Final = frozenset((0, errno.ENOENT, errno.ESRCH, errno.EBADF, errno.EPERM))  # getpwnam_r(3)


def find_user(name: str) -> UserEntry | None:
    """The user of this name; None if there is none. Blocks. Raises OSError if nobody can tell: `pwd` does not know the
    two apart."""
    entry, buffer = _Passwd(), ctypes.create_string_buffer(_PASSWD_MAX)
    found = ctypes.POINTER(_Passwd)()
    code = ctypes.CDLL(None).getpwnam_r(
        name.encode(), ctypes.byref(entry), buffer, _PASSWD_MAX, ctypes.byref(found)
    )
    if found:
        return UserEntry(entry.uid, os.fsdecode(entry.dir or b"") or "/")
    if code in _NO_SUCH_USER:
        return None
    raise OSError(code, os.strerror(code))


def owner(path: str, uid_min: int) -> str:
    """The name of the user to whom a file belongs; "" if he has none, or a number that is too small."""
    try:
        found = pwd.getpwuid(os.stat(path).st_uid)
    except (OSError, KeyError):
        return ""
    return found.pw_name if found.pw_uid >= max(1, uid_min) else ""


def is_group(name: str) -> bool:
    """Whether this machine has a group of this name."""
    try:
        grp.getgrnam(name)
    except (KeyError, ValueError):
        return False
    return True


def become(user: UserAccount, *, gain_rights: bool) -> None:
    """Be this user from here on. `gain_rights`: programs may gain rights by bits of their files."""
    if user.uid == 0:
        raise PermissionError(1, "nothing is delivered as root")
    os.setgroups(user.groups)
    os.setresgid(user.groups[0], user.groups[0], user.groups[0])
    os.setresuid(user.uid, user.uid, user.uid)
    if os.getresuid() != (user.uid,) * 3 or os.getresgid() != (user.groups[0],) * 3 or _can_go_back():
        raise PermissionError(1, f"cannot become {user.name}")
    if not gain_rights and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl: new privileges cannot be forbidden")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(_UMASK)
    os.environ.clear()
    os.environ.update({"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": user.home})


def _can_go_back() -> bool:
    try:
        os.setuid(0)
    except PermissionError:
        return False
    return True
