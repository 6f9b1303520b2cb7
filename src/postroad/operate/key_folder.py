"""The folder of the keys that sign mail, for commands: with the rights of the node's user, and made if it is missing.

What always holds: the folder and its files belong to the owner of the state folder, so that the node can read them,
whoever calls the command. How it fails: CannotRead says what is wrong, and whose rights are needed.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from postroad.config import options
from postroad.operate.view import CannotRead, become_owner, cannot_read
from postroad.trust.key_store import KeyStore
from postroad.world import files

if TYPE_CHECKING:
    from postroad.config.settings import Settings

_STATE_MODE: Final = 0o750  # as the node makes it
_KEYS_MODE: Final = 0o700


def open_store(settings: Settings, now_us: Callable[[], int], *, make: bool = False) -> KeyStore:
    """The store. From here on root works as the owner of the state folder. `make`: folders that are missing are made.
    Raises CannotRead."""
    folder = Path(options.key_options(settings).folder)
    if make:
        _make(settings, folder)
    become_owner(settings.state_dir)
    return KeyStore(folder, now_us)


def _make(settings: Settings, folder: Path) -> None:
    try:
        if not settings.state_dir.exists():
            settings.state_dir.mkdir(_STATE_MODE, parents=True)
            files.sync_folder(str(settings.state_dir.parent))
        if _is_left_to_root(settings.state_dir):
            _give(settings.state_dir, *_node_user(settings))
        if not folder.exists():
            folder.mkdir(_KEYS_MODE, parents=True)
            files.sync_folder(str(folder.parent))
        if _is_left_to_root(folder):
            owner = settings.state_dir.stat()
            _give(folder, owner.st_uid, owner.st_gid)
    except FileExistsError:
        return  # another command was faster, or `changing` says what is wrong
    except OSError as error:
        raise CannotRead(cannot_read(Path(error.filename or folder), error)) from error


def _is_left_to_root(folder: Path) -> bool:
    """Whether it was just made, now or by a command that was ended before it could give it away."""
    return folder.stat().st_uid == 0 == os.geteuid() and not any(folder.iterdir())


def _node_user(settings: Settings) -> tuple[int, int]:
    """As whom the node will run."""
    if not settings.user:
        return os.geteuid(), os.getegid()
    try:
        account = pwd.getpwnam(settings.user)
        return account.pw_uid, grp.getgrnam(settings.group).gr_gid if settings.group else account.pw_gid
    except KeyError:
        text = f"there is no user {settings.user!r} or no group {settings.group!r}; make them, or name others"
        raise CannotRead(text) from None


def _give(folder: Path, user: int, group: int) -> None:
    if os.geteuid() == 0:
        os.chown(folder, user, group, follow_symlinks=False)
