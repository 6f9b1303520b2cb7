"""The drop folder: a message that the node takes later.

What always holds: a message in the folder is complete and on stable storage before the program ends with 0. Only the
caller and the node's group can read its file, and only the caller and the node can remove it: everybody may create
files in the folder, but only its owner can list it; the folder is sticky, new files get its group, and names are
random. The file is written under a name that the node ignores, and gets its own name when it is whole.

An ordinary user cannot sync the folder, because he may not open it for reading. So the whole file system is synced
after the file has its name.
"""

from __future__ import annotations

import posix

from postroad.sendmail import places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_PIECE: Final = 1_048_576


class Undropped(Exception):
    """The message cannot be kept here. The text says why."""


def drop(folder: str, request: bytes, content: bytes) -> None:
    """Keep a message for the node. Raises Undropped."""
    name = posix.urandom(places.NAME_OCTETS).hex()
    part, whole = places.PART + name, places.WHOLE + name
    flags = posix.O_PATH | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
    try:
        at = posix.open(f"{folder}/{places.DROP}", flags)
    except OSError as error:
        remedy = "; the node makes it at its start" if isinstance(error, FileNotFoundError) else ""
        text = f"there is no drop folder for mail: {folder}/{places.DROP}: {error.strerror}{remedy}"
        raise Undropped(text) from None
    made = False
    try:
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
        descriptor = posix.open(part, flags, places.FILE_MODE, dir_fd=at)
        made = True
        posix.fchmod(descriptor, places.FILE_MODE)  # whatever the umask is
        _write(descriptor, request)
        _write(descriptor, content)
        posix.fsync(descriptor)
        posix.rename(part, whole, src_dir_fd=at, dst_dir_fd=at)
        part = whole
        _sync(descriptor)
        posix.close(descriptor)
    except OSError as error:
        if made:
            _remove(part, at)
        raise Undropped(f"the message cannot be kept in the drop folder: {error.strerror}") from None
    finally:
        posix.close(at)


def _write(descriptor: int, octets: bytes) -> None:
    view = memoryview(octets)
    while view:
        view = view[posix.write(descriptor, view[:_PIECE]) :]


def _sync(descriptor: int) -> None:
    """The file's new name is on stable storage, too."""
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "syncfs"):
        posix.sync()
    elif library.syncfs(descriptor):
        raise OSError(ctypes.get_errno(), posix.strerror(ctypes.get_errno()))


def _remove(name: str, at: int) -> None:
    try:
        posix.unlink(name, dir_fd=at)
    except OSError:  # a file that is left under this name is removed by the node
        return
