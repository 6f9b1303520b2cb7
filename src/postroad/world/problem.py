"""What an operator must mend before a door can open: a file, an address, a right. A value, never an exception.

Whoever opens a door at start (certificates, sockets, users, tables) answers with a Problem or several, so that all of
them can be shown at once, each with its remedy.
"""

from __future__ import annotations

import msgspec


class Problem(msgspec.Struct, frozen=True):
    """`where`: the file (with ``:line`` where there is one), address or setting. `remedy`: what to do, a sentence."""

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
            return Problem(path, "may not be read", "Give the user that Postroad runs as the right to read it.")
        case IsADirectoryError():
            return Problem(path, "is a directory", "Name a file in the configuration.")
        case _:
            return Problem(path, f"cannot be read ({error.strerror or error})", "Check the file and its disk.")
