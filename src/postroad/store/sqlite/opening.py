"""Opens a spool's files safely: folder, lock, private files; and sets a damaged shard aside.

What always holds: all files that we open are ours alone: no symbolic link is followed, a wrong owner or a folder that
others may write is refused (attacks by the files of a queue are known: Qualys 2015 on OpenSMTPD). One process holds a
shard's lock.

How it fails: SpoolError says which file, why, and what to do; OSError if the system says so.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Collection
from pathlib import Path

from postroad.mail import identifier
from postroad.store import content
from postroad.store.face import SpoolError
from postroad.store.sqlite import schema


def check_directory(directory: Path) -> None:
    """Makes the spool's folder if it is not there, and checks that it is ours alone. Raises SpoolError."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.lstat(directory)
    except OSError as error:
        raise SpoolError(f"{directory}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise SpoolError(f"{directory}: not a folder (a symbolic link is not followed)")
    if found.st_uid != os.geteuid():
        raise SpoolError(f"{directory}: belongs to user {found.st_uid}, the node runs as {os.geteuid()}")
    if found.st_mode & 0o022:
        raise SpoolError(f"{directory}: others can write there; run chmod go-w {directory}")


def take_lock(path: Path, database: Path) -> int:
    """Returns an open descriptor that holds the lock of `database` until it is closed. Raises SpoolError."""
    handle = -1
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if handle >= 0:
            os.close(handle)
        if isinstance(error, BlockingIOError):
            text = f"{database}: another process has it open for writing; is a node running?"
            raise SpoolError(text) from None
        raise SpoolError(f"{path}: cannot be locked: {error.strerror}") from error
    return handle


def make_private_file(path: Path) -> None:
    """Makes an empty file for us alone. If the file is there, it must be a regular file of ours. Raises SpoolError,
    OSError."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        found = os.fstat(handle)
    finally:
        os.close(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        raise SpoolError(f"{path}: not a regular file of its own")
    if found.st_uid != os.geteuid():
        raise SpoolError(f"{path}: belongs to user {found.st_uid}, not to the one that runs the node ({os.geteuid()})")


def set_aside(directory: Path, shard: int, now_us: int, saved: Collection[int] = ()) -> str:
    """Moves a damaged database, its WAL and its content files away, except those of messages that were saved. Returns
    the name that the database has now. The files go first, so that after a crash in between everything is done again.
    Raises OSError."""
    path = schema.database(directory, shard)
    stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now_us // 1_000_000))
    files = content.folder(directory, shard)
    for source in sorted(files.glob("*/*")):
        if identifier.parse(source.name) not in saved:
            target = directory / f"{files.name}.damaged-{stamp}" / source.parent.name
            target.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.rename(source, target / source.name)
    aside = f"{path.name}.damaged-{stamp}"
    for ending in ("-wal", "-shm", ""):
        source = Path(f"{path}{ending}")
        if source.exists():
            os.rename(source, directory / f"{aside}{ending}")
    content.sync_directory(directory)
    return aside
