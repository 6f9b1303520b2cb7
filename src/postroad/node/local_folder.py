"""The folder that the node shares with the users of this machine (`sendmail.places`): made, checked, and its socket.

What always holds: root makes and changes nothing by a name that the node's user could have pointed elsewhere. The
folder belongs to the node's user, so root opens the drop folder once, without following links, and changes only what it
has opened. The socket and the facts are made after the rights of root were given up.

How it fails: with a Problem, which says how to make what is missing. Without its drop folder a node still serves the
socket.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path
from typing import Final

from postroad.sendmail import places
from postroad.world import system
from postroad.world.problem import Problem

_REMEDY: Final = (
    "Make it once as root: install -d -m 0755 -o USER -g GROUP {0}; install -d -m 3733 -o USER -g GROUP {0}/"
    + places.DROP
    + " (USER and GROUP: the node's)."
)


def prepare(folder: Path, owner: tuple[int, int] | None) -> Problem | None:
    """Make the folder and the drop folder, if they are not there. `owner`: user and group of the node if we are root
    and it will be another user, else None."""
    uid, gid = owner or (os.geteuid(), os.getegid())
    made = not folder.exists()
    try:
        if made:
            folder.mkdir(mode=0o755, parents=True)
            folder.chmod(0o755)
            if owner is not None:
                os.chown(folder, uid, gid, follow_symlinks=False)
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return _problem(folder, f"cannot be made ({error.strerror})")
    try:
        return _prepare_drop(folder, at, uid, gid)
    finally:
        os.close(at)


def _prepare_drop(folder: Path, at: int, uid: int, gid: int) -> Problem | None:
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(places.DROP, 0o700, dir_fd=at)
        drop = os.open(places.DROP, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=at)
    except OSError as error:
        return _problem(folder / places.DROP, f"cannot be used ({error.strerror})", folder)
    try:
        if (os.fstat(drop).st_uid, os.fstat(drop).st_gid) != (uid, gid):
            os.fchown(drop, uid, gid)
        if stat.S_IMODE(os.fstat(drop).st_mode) != places.DROP_MODE:
            os.fchmod(drop, places.DROP_MODE)
    except OSError as error:
        return _problem(folder / places.DROP, f"does not have the right owner or mode ({error.strerror})", folder)
    finally:
        os.close(drop)
    return None


def _problem(path: Path, text: str, folder: Path | None = None) -> Problem:
    return Problem(str(path), text, _REMEDY.format(folder or path))


def doubts(folder: Path, gid: int) -> list[str]:
    """What is no fault, but not as it should be. `gid`: the node's group."""
    found = []
    for path in (folder, *folder.absolute().parents):
        with contextlib.suppress(OSError):
            if not path.stat().st_mode & stat.S_IXOTH:
                found.append(f"users cannot enter {path}, so they cannot use {folder}: choose another folder")
    members = system.group_members(gid)
    if members:
        names = ", ".join(members)
        found.append(f"in the node's group: {names}; these users can read mail in {folder / places.DROP}")
    return found


def serve(folder: Path) -> socket.socket | Problem:
    """The listening socket, to which everybody may connect. Called with the rights of the node's user."""
    path = folder / places.SOCKET
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)  # the node's lock is ours: what stands here is left over
    return system.bind_unix(str(path), mode=0o666, backlog=socket.SOMAXCONN)


def tell(folder: Path, size_max: int) -> None:
    """Write down what the program has to know. Raises OSError."""
    new = folder / f"{places.FACTS}.new"
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o644)
        file.write(f"size_max {size_max}\n".encode())
    new.rename(folder / places.FACTS)
