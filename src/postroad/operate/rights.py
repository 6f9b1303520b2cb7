"""Two sets of rights in one command of root: those of the spool's owner for the spool, those of root for the files that
root named.

What always holds: files in the spool are made by its owner, so that the node can open them; files outside (what
`export` writes and `import` reads and marks) are opened as the user who called, in whose folders they are. A caller who
is not root has one set of rights only, and nothing changes here. The whole process changes, all of its threads: within
`as_owner` and `as_caller` no other thread may open files.

How it fails: OSError if the rights cannot be taken.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from postroad.operate.view import demand_programs


class Rights:
    """The rights of who called the command, and of the owner of `directory`, which must exist. Raises OSError."""

    def __init__(self, directory: Path) -> None:
        found = directory.stat()
        self._is_other = os.geteuid() == 0 and found.st_uid != 0
        self._owner = (found.st_uid, found.st_gid, [found.st_gid])
        self._caller = (os.geteuid(), os.getegid(), os.getgroups())

    @contextlib.contextmanager
    def as_owner(self) -> Iterator[None]:
        """Within it, the process has the rights of the owner."""
        with self._change(self._owner, self._caller):
            demand_programs()
            yield

    @contextlib.contextmanager
    def as_caller(self) -> Iterator[None]:
        """For a moment within `as_owner`: the rights of who called."""
        with self._change(self._caller, self._owner):
            yield

    @contextlib.contextmanager
    def _change(self, to: tuple[int, int, list[int]], back: tuple[int, int, list[int]]) -> Iterator[None]:
        if not self._is_other:
            yield
            return
        _take(*to)
        try:
            yield
        finally:
            _take(*back)


def _take(user: int, group: int, groups: list[int]) -> None:
    """Root's own rights come back first: only root may change groups."""
    os.seteuid(0)
    os.setgroups(groups)
    os.setegid(group)
    os.seteuid(user)
