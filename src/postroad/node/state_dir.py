"""The state folder of a node: its folders, the lock that keeps other nodes out, and the shards that are there.

What always holds: one node per state folder. Workers inherit the lock, so it is held until the last of them is gone.
The folder belongs to the node's user, and the node may still be root here: nothing in it leads root to a file
elsewhere.

How it fails: a text says what is wrong and what to do.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

LOCK_WAIT_S: Final = 15.0
HOLDER_SIZE: Final = 32  # octets of the lock file, which names the process that holds it
_LOOK_S: Final = 0.1

Say = Callable[[str, str], None]  # level, text


def owner_of(user: str, group: str) -> tuple[int, int]:
    """User and group id; KeyError if there is no such user or group."""
    account = pwd.getpwnam(user)
    return account.pw_uid, grp.getgrnam(group).gr_gid if group else account.pw_gid


def make_folders(state_dir: Path, owner: tuple[int, int] | None) -> None:
    """Makes the folders that are missing, for this owner. Raises OSError."""
    for folder in (state_dir, state_dir / "run", state_dir / "spool", state_dir / "history"):
        made = not folder.exists()
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        if made and owner is not None:
            os.chown(folder, *owner, follow_symlinks=False)


def shards_on_disk(spool: Path) -> int:
    """One more than the highest shard there is: a node with fewer workers than before still takes up all shards."""
    numbers = [int(path.stem) for path in spool.glob("*.db") if path.stem.isdigit()]
    return max(numbers, default=-1) + 1


class NodeLock:
    """The lock of a node. `descriptor`: of its file, for workers to inherit; -1 before it is taken."""

    def __init__(self, path: Path, say: Say) -> None:
        self._path = path
        self._say = say
        self.descriptor = -1

    def take(self, owner: tuple[int, int] | None) -> str:
        """Takes the lock, or says why it cannot be taken. If workers of the previous node still hold it, this waits
        `LOCK_WAIT_S` for them. `owner`: whose file it shall be."""
        problem = self._open(owner)
        if problem:
            return problem
        waited_until = time.monotonic() + LOCK_WAIT_S
        waits = False
        while not self._locked():
            holder = os.pread(self.descriptor, HOLDER_SIZE, 0).decode("ascii", "replace").strip()
            alive = holder.isdigit() and Path(f"/proc/{holder}").exists()
            if alive or time.monotonic() > waited_until:
                return (
                    f"another node (process {holder or 'unknown'}) uses {self._path.parent.parent}; stop it first, "
                    "or set another `state_dir`"
                )
            if not waits:
                waits = True
                self._say("info", "waiting until the workers of the previous node have ended")
            time.sleep(_LOOK_S)
        self._write_holder()
        return ""

    def _open(self, owner: tuple[int, int] | None) -> str:
        path = self._path
        try:
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                self.descriptor = os.open(path.name, flags, 0o644, dir_fd=folder)
            finally:
                os.close(folder)
            found = os.fstat(self.descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
                return f"{path} is not a lock file of a node: remove it"
            if owner is not None:
                os.fchown(self.descriptor, *owner)  # for a later start by that user himself
        except OSError as error:
            return f"cannot lock {path}: {error.strerror}; make the state folder the user's, or set `state_dir`"
        return ""

    def _locked(self) -> bool:
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _write_holder(self) -> None:
        """Writes who holds the lock, for people. In place and of one size: on a full disk no block must be given back
        and then missed. What counts is the lock: without the number the node starts all the same."""
        with contextlib.suppress(OSError):
            os.pwrite(self.descriptor, f"{os.getpid():<{HOLDER_SIZE - 1}}\n".encode(), 0)
            os.ftruncate(self.descriptor, HOLDER_SIZE)
