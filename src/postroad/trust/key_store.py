"""The folder of the keys that sign mail: one file for each domain, ``example.org.json`` (`trust.keyring`).

The commands `postroad dkim …` and the supervisor write it, all workers read it. What always holds:
- A file is replaced as a whole (written beside, synced, renamed), so it is never half, and all that changes at a domain
  changes at once: there is no moment at which two keys or none would sign because of a crash.
- Who changes something holds the lock of the folder from reading to writing (`KeyStore.changing`). Nobody holds it for
  long: keys are generated before.
- The folder has the mode 0700 and its files 0600. A file that others may read, or that belongs to another user than
  root or us, is not used: who may write it could sign as us.

How it fails: with Problems. The keys of a file that cannot be used stay as they were when it last could be; the other
domains are not affected.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from postroad.trust import keyring
from postroad.trust.keyring import DomainKeys, KeyringFault
from postroad.world import files
from postroad.world.files import Stamp
from postroad.world.problem import Problem, unreadable, user_name

SUFFIX: Final = ".json"
DOMAINS_MAX: Final = 100_000
_FOLDER_MODE: Final = 0o700
_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022
# Two changes within one tick of the file system's clock leave one time: a folder that changed so lately is read again.
_TICK_US: Final = 2_000_000
_AGAIN_US: Final = 30_000_000  # between two looks at all files


class KeyOptions(msgspec.Struct, frozen=True):
    """Where the keys are."""

    folder: Annotated[
        str,
        Meta(
            description="The folder of the keys that sign mail. Only the node's user and root may read it. Unset: the "
            "folder `dkim` in `state_dir`.",
        ),
    ]


class KeyStore:
    """The keys of one folder. `load` reads what has changed; `domains` is what it has found, by domain: another mapping
    after each change, with the same values for domains that have not changed."""

    def __init__(self, folder: Path, now_us: Callable[[], int]) -> None:
        self.folder = folder
        self._now_us = now_us
        self.domains: Mapping[str, DomainKeys] = {}
        self._states: dict[str, _FileState] = {}  # by the name of the file
        self._folder_stamp: Stamp | None = None
        self._told: tuple[Problem, ...] = ()
        self._read_us = 0

    def load(self) -> tuple[Problem, ...]:
        """Read files that are new or have changed, and let go of those that are gone. What is wrong, once. It costs one
        question to the file system if nothing of the folder has changed. Now and then all files are looked at: a right
        to read a file changes nothing of its folder, and neither does a file that is written in place."""
        now, now_us = files.stamp(str(self.folder)), self._now_us()
        is_due = abs(now_us - self._read_us) >= _AGAIN_US
        if now == self._folder_stamp and not is_due:
            return ()
        young = abs(now_us - now.modified_ns // 1000) < _TICK_US
        self._folder_stamp = None if young else now
        self._read_us = now_us
        problems = self._read()
        told, self._told = self._told, problems
        return tuple(each for each in problems if each not in told)

    def _read(self) -> tuple[Problem, ...]:
        try:
            wrong = _folder_problem(self.folder)
            names = [] if wrong else sorted(each.name for each in os.scandir(self.folder) if _domain_of(each.name))
        except FileNotFoundError:
            names, wrong = [], None
        except OSError as error:
            wrong = unreadable(str(self.folder), error)
        if wrong is not None:
            return (wrong,)
        problems: list[Problem] = []
        if len(names) > DOMAINS_MAX:
            problems.append(Problem(str(self.folder), f"has the keys of more than {DOMAINS_MAX} domains"))
            del names[DOMAINS_MAX:]
        found: dict[str, DomainKeys] = {}
        states: dict[str, _FileState] = {}
        for name in names:
            self._read_file(name, found, states, problems)
        if found != self.domains:
            self.domains = found
        self._states = states
        return tuple(problems)

    def _read_file(
        self, name: str, found: dict[str, DomainKeys], states: dict[str, _FileState], problems: list[Problem]
    ) -> None:
        domain = _domain_of(name)
        before = self.domains.get(domain)
        now = _state_of(self.folder / name)
        if before is not None and now is not None and self._states.get(name) == now:
            found[domain], states[name] = before, now
            return
        read = self.domain(domain)
        if isinstance(read, Problem):
            problems.append(read)
            read = before
        elif now is not None and read is not None and abs(self._now_us() - now.changed_ns // 1000) >= _TICK_US:
            states[name] = now  # else it may change again without another time
        if read is not None:
            found[domain] = read

    def domain(self, domain: str) -> DomainKeys | Problem | None:
        """The keys of one domain, from the disk; None if there are none."""
        path = self._path(domain)
        try:
            octets = _checked(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            return unreadable(str(path), error)
        if isinstance(octets, Problem):
            return octets
        found = keyring.decode(octets)
        if isinstance(found, KeyringFault):
            return Problem(str(path), found.text, _RESTORE)
        if found.domain != domain:
            return Problem(str(path), f"has the keys of {found.domain}", f"Name it {found.domain}{SUFFIX}.")
        return found

    # ---- Changes

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody else changes keys meanwhile. The folder is made if it is not there. Raises OSError: BlockingIOError if
        somebody else changes keys just now."""
        try:
            os.mkdir(self.folder, _FOLDER_MODE)
        except FileExistsError:
            pass
        else:
            with contextlib.suppress(PermissionError):  # who may write to a folder need not have the right to read it
                files.sync_folder(str(self.folder.parent))
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            wrong = _folder_problem(self.folder)
            if wrong is not None:
                raise PermissionError(errno.EPERM, wrong.text, str(self.folder))
            yield
        finally:
            os.close(folder)

    def write(self, keys: DomainKeys) -> None:
        """The keys of a domain, within `changing`; without keys the file goes. Raises OSError; the file is then as it
        was."""
        path = self._path(keys.domain)
        if keys.keys:
            files.replace(str(path), keyring.encode(keys))
            return
        for each in (Path(f"{path}{files.BESIDE}"), path):  # the first one is of a change that was ended
            with contextlib.suppress(FileNotFoundError):
                each.unlink()
        files.sync_folder(str(self.folder))

    def _path(self, domain: str) -> Path:
        return self.folder / f"{domain}{SUFFIX}"


_RESTORE: Final = "Take it from a backup, or remove it and make new keys by `postroad dkim add`."


class _FileState(msgspec.Struct, frozen=True):
    """What a file is, and when its octets, owner or mode were changed last."""

    changed_ns: int
    inode: int
    size: int
    mode: int


def _state_of(path: Path) -> _FileState | None:
    """None if it cannot be asked."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return _FileState(found.st_ctime_ns, found.st_ino, found.st_size, found.st_mode)


def _domain_of(name: str) -> str:
    """The domain whose keys a file of this name has; "" for other files."""
    domain = name.removesuffix(SUFFIX)
    return domain if domain != name and keyring.canonical(domain) == domain else ""


def _folder_problem(folder: Path) -> Problem | None:
    """Why keys of this folder must not be used. Raises OSError."""
    found = folder.stat()
    if not stat.S_ISDIR(found.st_mode):
        return Problem(str(folder), "is no folder", "Remove it, or set another `folder` under [dkim].")
    if found.st_uid not in (0, os.geteuid()):
        remedy = f"Run `chown {user_name()} {folder}`."
        return Problem(str(folder), f"belongs to another user than {user_name()!r}", remedy)
    if found.st_mode & _OTHERS_WRITE:
        remedy = f"Run `chmod 700 {folder}`."
        return Problem(str(folder), "other users may write to it, and so give the node other keys", remedy)
    return None


def _checked(path: Path) -> bytes | Problem:
    """The octets of a file that nobody else may read or write. Raises OSError."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        problem = _file_problem(str(path), os.fstat(handle))
        return os.read(handle, keyring.OCTETS_MAX + 1) if problem is None else problem
    finally:
        os.close(handle)


def _file_problem(where: str, found: os.stat_result) -> Problem | None:
    if not stat.S_ISREG(found.st_mode):
        return Problem(where, "is no regular file", "Remove it.")
    if found.st_uid not in (0, os.geteuid()):
        return Problem(where, f"belongs to another user than {user_name()!r}", f"Run `chown {user_name()} {where}`.")
    if found.st_mode & _OTHERS:
        return Problem(where, "other users may read or write it, but it has private keys", f"Run `chmod 600 {where}`.")
    if found.st_size > keyring.OCTETS_MAX:
        return Problem(where, f"has more than {keyring.OCTETS_MAX} octets", _RESTORE)
    return None
