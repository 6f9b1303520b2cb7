"""What the commands read: spool and history of a state folder, whether a node has them open or not.

How it fails: `CannotRead` if nothing can be read at all; a single file that cannot be read is left out and named in
`faults`.
"""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from postroad.mail.envelope import Envelope
from postroad.mail.event import Authenticated, Event, Refused
from postroad.store.sqlite.reader import SpoolReader, WaitingMail
from postroad.store.sqlite.searching import HistoryReader
from postroad.store.values import Loaded, Selection
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


class SpoolView(Protocol):
    """The spool as it stands, all shards; see `store.sqlite.reader`."""

    @property
    def faults(self) -> list[str]: ...

    def backlog(self, limit: int = 0, destination: str = "") -> WaitingMail:
        """What waits, by destination, those with the most first, at most `limit` of them (0: all)."""

    def oldest(self, destinations: Sequence[str]) -> dict[str, Loaded]:
        """The oldest message that waits for each destination, with what of it waits there."""

    def fresh(self, limit: int) -> list[Envelope]:
        """Messages accepted and never settled, the oldest first."""

    def select(self, selection: Selection) -> list[int]:
        """The ids that are meant, the oldest first."""

    def load(self, id: int) -> Loaded | None:
        """One message with all its waiting recipients."""

    def head(self, envelope: Envelope, limit: int) -> bytes:
        """The first octets of the content; b"" where there is none."""

    def unmoved(self, now_us: int) -> list[str]:
        """Journals that the history has not had for long, one line for each."""


class HistoryView(Protocol):
    """All events that are kept, journals of the spool included; see `store.sqlite.searching`."""

    @property
    def faults(self) -> list[str]: ...

    def events(self, id: int) -> list[Event]:
        """The events of one message, in the order of time."""

    def find(
        self,
        *,
        message_id: str = "",
        address: str = "",
        client: str = "",
        account: str = "",
        since_us: int = 0,
        until_us: int = 0,
        limit: int = 100,
    ) -> Iterable[int]:
        """Queue ids of messages with this Message-ID, sender or recipient, client or account, the newest first.
        `until_us`: those made before then; 0 for all."""

    def refusals(
        self,
        address: str = "",
        *,
        client: str = "",
        account: str = "",
        since_us: int = 0,
        until_us: int = 0,
        limit: int = 100,
    ) -> Sequence[Refused | Authenticated]:
        """Refused commands with this sender or recipient, of this client or account, and log-ins of the latter two."""

    def first_us(self) -> int:
        """The beginning of the oldest day that is kept; 0 if there is none yet."""


def spool_directory(state_dir: Path) -> Path:
    """Where the spool of a node is."""
    return state_dir / "spool"


def open_spool(state_dir: Path) -> SpoolView:
    """Raises CannotRead."""
    directory = spool_directory(state_dir)
    become_owner(directory)
    try:
        os.listdir(directory)
    except FileNotFoundError:
        raise CannotRead(f"{directory}: there is no spool. Check whether a node has run with this state_dir") from None
    except OSError as error:
        raise CannotRead(cannot_read(directory, error)) from error
    return SpoolReader(directory)


def open_history(state_dir: Path) -> HistoryView:
    """Raises CannotRead. Where there is none, the journals of the spool are all that is found."""
    directory = state_dir / "history"
    if directory.exists() and not os.access(directory, os.R_OK | os.X_OK):
        raise CannotRead(f"{directory}: cannot be read: Permission denied. {who_may(directory)}")
    return HistoryReader(directory, spool_directory(state_dir))


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
    where these are not enough for it: a Python below /root, for instance."""
    for module in (os.__file__, __file__):
        if folder := closed_folder(module):
            who = f"the user {user_name()!r} may not enter {folder}"
            raise PermissionError(errno.EACCES, f"{who}, where Postroad or its Python is: install it elsewhere")
