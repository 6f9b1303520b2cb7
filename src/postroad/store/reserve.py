"""The reserve: space that a shard keeps for the moment when the disk is full, in the file ``DIR/NN.reserve``.

A full disk must not stop the queue: what was delivered has to be written down, or it would be delivered again. So if a
commit without new mail finds no space, the reserve is given up and the commit is tried again; it is the same at the
start. New mail is refused (452) until the reserve is whole again; this is tried as soon as twice its size is free.

How it fails: if the reserve cannot be made, new mail is refused. A file system that copies on write (Btrfs, ZFS,
snapshots) may need more space even to write into reserved space: keep `free_min` there.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

_CANNOT: Final = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # the file system has no way to reserve space
_PIECE: Final = 65_536


class Reserve:
    """A file that keeps space. `size`: octets; 0 for none. It is not used before `look`."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self.whole = True

    def look(self) -> None:
        """Finds what an earlier process has left of the reserve."""
        try:
            found = os.lstat(self.path)
        except OSError:
            self.whole = not self.size
            return
        self.whole = found.st_size == self.size and found.st_blocks * 512 >= self.size

    def fill(self) -> bool:
        """Makes the reserve whole, or smaller if the setting says so. Returns whether it is whole now."""
        if self.whole:
            return True
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                self._fill(handle)
            finally:
                os.close(handle)
        except OSError:
            return False
        self.whole = True
        return True

    def _fill(self, handle: int) -> None:
        os.ftruncate(handle, self.size)
        if self.size:
            try:
                self._allocate(handle)
            except OSError:
                os.ftruncate(handle, 0)  # a part of it would only be in the way
                raise

    def _allocate(self, handle: int) -> None:
        try:
            os.posix_fallocate(handle, 0, self.size)
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            # glibc does this itself if the file system cannot reserve, musl does not.
            for start in range(0, self.size, _PIECE):
                os.pwrite(handle, bytes(min(_PIECE, self.size - start)), start)

    def release(self) -> bool:
        """Gives the space back to the disk. Returns False if there is nothing to give."""
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if not self.size or os.fstat(handle).st_blocks == 0:
                return False
            os.ftruncate(handle, 0)
        except OSError:
            return False
        finally:
            os.close(handle)
        self.whole = False
        return True
