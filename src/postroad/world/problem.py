"""A Problem: something that an operator must mend before a door can open (a file, an address, a right). It is a value,
never an exception.

Code that opens a door at the start (certificates, sockets, users, tables) returns one or several Problems, so that all
of them can be shown at once, each with its remedy.
"""

from __future__ import annotations

import os
import pwd
from typing import Final

import msgspec

_COMPILED: Final = (".db", ".cdb", ".lmdb", ".mdb", ".dir", ".pag")


class Problem(msgspec.Struct, frozen=True):
    """`where`: the file (with ``:line`` if there is one), address or setting. `remedy`: what to do, a sentence."""

    where: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.where}: {self.text}"
        return f"{line}. {self.remedy}" if self.remedy else line


def unreadable(path: str, error: OSError) -> Problem:
    """Why a file cannot be read, with what to do about it."""
    match error:
        case FileNotFoundError():
            return Problem(path, "there is no such file", "Create it, or correct the path in the configuration.")
        case PermissionError():
            folder = closed_folder(path)
            text = f"may not be read by the user {user_name()!r}"
            if folder:
                return Problem(path, f"{text}, who may not enter {folder}", "Give that user the right to enter it.")
            return Problem(path, text, "Give that user the right to read it.")
        case IsADirectoryError():
            return Problem(path, "is a directory", "Set a file, not a folder, in the configuration.")
        case _:
            return Problem(path, f"cannot be read ({error.strerror or error})", "Check the file and its disk.")


def not_utf8(where: str, more: str = "") -> Problem:
    """A file that must be a text and is none. `where`: the file, perhaps with ``:line``. `more`: what else is known."""
    path, colon, line = where.rpartition(":")
    if (path if colon and line.isdigit() else where).endswith(_COMPILED):
        text = "is no text: it looks like a table that postmap or postalias has compiled"
        return Problem(where, text, "Name the text file from which it was made.")
    return Problem(where, f"is not in UTF-8{more}", "Save the file in UTF-8.")


def closed_folder(path: str) -> str:
    """The first folder on the way to `path` that we may not enter; "" if all are open."""
    way = os.path.dirname(os.path.abspath(path))
    folders = [way]
    while (above := os.path.dirname(folders[-1])) != folders[-1]:
        folders.append(above)
    return next((each for each in reversed(folders) if not os.access(each, os.X_OK, effective_ids=True)), "")


def user_name() -> str:
    """The name of the user whose rights we have now, or its number."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
