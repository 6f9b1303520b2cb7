"""Maps whose entries stand in a file that is read as a whole, and again when it has changed.

What always holds: look-ups use the old entries until the new ones are complete. A changed file is read when two looks
have found it the same, so that no half of a file that is being written comes into force. A file is read on a thread (at
start, at reload and in commands it is read at once), one at a time. How it fails: if a file cannot be used, the old
entries stay in force, and this is logged once for each state of the file; lines that are left out are logged, too. If
there are no old entries, each answer is "not now".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import BinaryIO, Protocol

import msgspec

from postroad.maps.face import Answer, LookUp, MapSource, NotNow
from postroad.maps.text import FILE_MAX
from postroad.world.files import Watch, open_file, stamp
from postroad.world.problem import Problem, unreadable


class FileEntries(msgspec.Struct, frozen=True):
    """A file as it was read. `doubts`: lines that do not count."""

    source: MapSource
    count: int
    doubts: tuple[Problem, ...] = ()


Read = Callable[[BinaryIO, str], FileEntries | Problem]
"""From an open file to its entries; `where` names it."""


class InBackground(Protocol):
    """Runs `work` off the loop, then `done` on it, with what work returned."""

    def __call__(
        self, work: Callable[[], FileEntries | Problem], done: Callable[[FileEntries | Problem], None]
    ) -> None: ...


class FileSource:
    """The entries of a file. `load` before use. `edition`: how often the file was taken."""

    waits = False
    may_keep = True

    def __init__(self, path: str, read: Read) -> None:
        self.path = path
        self._read = read
        self._watch = Watch()
        self._reading = False
        self._entries: FileEntries | None = None
        self.edition = 0
        # Of the entries in force, without a call of our own between: there are several look-ups for each message.
        self.look_up: LookUp = self._not_loaded
        self.refused = False  # whether the file as it stands was not taken
        self._why = "the file was not read"

    def _not_loaded(self, key: str, part: bool = False) -> Answer:
        return NotNow(self._why)

    @property
    def away(self) -> str:
        """Why there are no entries, not even old ones; "" if there are."""
        return "" if self._entries is not None else self._why

    def may_begin(self, prefix: str) -> bool:
        """Whether a key may begin so."""
        asked = getattr(self.current, "may_begin", None)
        return True if asked is None else bool(asked(prefix))

    def has_addresses(self) -> bool:
        """Whether a key may be a mailbox with its domain."""
        asked = getattr(self.current, "has_addresses", None)
        return True if asked is None else bool(asked())

    def load(self) -> tuple[Problem, ...]:
        """Read the file now, if it has changed since."""
        if not self._watch.has_changed(stamp(self.path)):
            return ()
        return self._take(self.read())

    def look(self, in_background: InBackground, told: Callable[[FileSource, tuple[Problem, ...]], None]) -> None:
        """Begin to read the file if it has changed, and nobody seems to be writing it. `told` is called when it is in
        force, or why it is not."""
        if self._reading or not self._watch.has_changed(stamp(self.path), patient=True):
            return
        self._reading = True

        def done(found: FileEntries | Problem) -> None:
            self._reading = False
            told(self, self._take(found))

        in_background(self.read, done)

    def read(self) -> FileEntries | Problem:
        """The file as it is now."""
        try:
            with open_file(self.path) as file:
                if os.fstat(file.fileno()).st_size > FILE_MAX:
                    return Problem(self.path, f"has more than {FILE_MAX} octets", "Use a map of kind lmdb or cdb.")
                return self._read(file, self.path)
        except OSError as error:
            return unreadable(self.path, error)

    def _take(self, found: FileEntries | Problem) -> tuple[Problem, ...]:
        self.refused = isinstance(found, Problem)
        if isinstance(found, Problem):
            self._why = f"{found.where}: {found.text}"
            return (found,)
        before, self._entries = self._entries, found
        self.edition += 1
        self.look_up = found.source.look_up
        if before is not None:
            before.source.close()
        return found.doubts

    @property
    def current(self) -> MapSource | None:
        """The source of the entries in force."""
        return None if self._entries is None else self._entries.source

    def __len__(self) -> int:
        return 0 if self._entries is None else self._entries.count

    def close(self) -> None:
        if self._entries is not None:
            self._entries.source.close()
