"""Reads spool and history of a state folder for the commands, whether a node has them open or not.

How it fails: `CannotRead` if nothing can be read at all; a single file that cannot be read is left out and named in
`faults`.
"""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path

from postroad.store import engine
from postroad.store.face import HistoryView, SpoolView
from postroad.store.kept_reports import ReportStore
from postroad.store.options import KeptReportOptions
from postroad.world.problem import closed_folder, user_name


class CannotRead(Exception):
    """Neither spool nor history can be read; the text says why."""


def cannot_read(path: Path, error: OSError) -> str:
    """Why a folder of the node cannot be read, with who may."""
    text = f"{path}: cannot be read: {error.strerror or error}"
    return f"{text}. {who_may(path)}" if isinstance(error, PermissionError) else text


def who_may(path: Path) -> str:
    """Whose rights a command needs for a folder of the node: those of its owner, or of root."""
    for folder in (path, *path.parents):
        try:
            owner = folder.stat().st_uid
        except OSError:
            continue
        break
    if owner in (0, os.geteuid()):
        return "Run this as root."
    return f"Run this as root or as the user {_name_of(owner)}."


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def spool_directory(state_dir: Path) -> Path:
    """Where the spool of a node is."""
    return state_dir / "spool"


def open_spool(state_dir: Path) -> SpoolView:
    """Raises CannotRead."""
    return engine.spool_view(existing_spool(state_dir))


def existing_spool(state_dir: Path) -> Path:
    """Where the spool of a node is. From here on root works as the owner of the spool. Raises CannotRead if there is no
    spool, or if it cannot be read."""
    directory = spool_directory(state_dir)
    become_owner(directory)
    try:
        os.listdir(directory)
    except FileNotFoundError:
        raise CannotRead(f"{directory}: there is no spool. Check whether a node has run with this state_dir") from None
    except OSError as error:
        raise CannotRead(cannot_read(directory, error)) from error
    return directory


def open_history(state_dir: Path) -> HistoryView:
    """Raises CannotRead. If there is no history, only the journals of the spool are read."""
    directory = state_dir / "history"
    if directory.exists() and not os.access(directory, os.R_OK | os.X_OK):
        raise CannotRead(f"{directory}: cannot be read: Permission denied. {who_may(directory)}")
    return engine.history_view(directory, spool_directory(state_dir))


def open_reports(state_dir: Path) -> ReportStore:
    """The reports of others that a node has kept, perhaps none. Raises CannotRead."""
    directory = state_dir / "history"
    become_owner(directory)
    if directory.exists() and not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise CannotRead(f"{directory}: cannot be read: Permission denied. {who_may(directory)}")
    return ReportStore(directory, KeptReportOptions(), only_reads=True)


def become_owner(directory: Path) -> None:
    """Root becomes the user and group who own the folder, for good; else a file that SQLite makes beside the spool
    would be root's, and the node could not open it. Raises CannotRead."""
    if os.geteuid() != 0:
        return
    try:
        owner = directory.stat()
        if owner.st_uid == 0:
            return
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CannotRead(f"{directory}: cannot become its owner: {error.strerror or error}") from error
    try:
        demand_programs()
    except PermissionError as error:
        raise CannotRead(str(error.strerror)) from error


def demand_programs() -> None:
    """Modules are loaded when they are needed, so also with the rights of the spool's owner. Raises PermissionError
    if these are not enough for it: a Python below /root, for instance."""
    for module in (os.__file__, __file__):
        if folder := closed_folder(module):
            who = f"the user {user_name()!r} may not enter {folder}"
            raise PermissionError(errno.EACCES, f"{who}, where Postroad or its Python is: install it elsewhere")
