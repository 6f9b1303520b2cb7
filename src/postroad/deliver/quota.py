"""Maildir++ quota: how much a mailbox may hold, and the file ``maildirsize`` that says how much it holds.

https://www.courier-mta.org/imap/README.maildirquota.html. The first line of the file is the quota (``1000000S,100C``),
each further line adds octets and messages. Other programs (Dovecot, Courier's deliverquota) read and write the same
file. The mailbox is counted again if the file is missing, broken, of another quota, or longer than `_FILE_SIZE_MAX`,
and if the mailbox seems to be over its quota and the file is older than `_YOUNG_S`. The files in ``cur`` and ``new`` of
the mailbox and of its subfolders count, with the size in the file's name (``,S=123``), else with their own. The folder
Trash and files marked as deleted (flag ``T``) do not count.

What always holds: no symbolic link is followed. Two deliveries at the same moment may exceed a quota by one message.
How it fails: OSError. If a line cannot be read, the mailbox is counted again.

`QuotaTable`: the quotas of single mailboxes, from a file of the operator that is read again when it changes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import re
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from postroad.mail.route import Quota
from postroad.world.files import Posix, Stamp, stamp
from postroad.world.problem import Problem, unreadable

NAME: Final = "maildirsize"
_FILE_SIZE_MAX: Final = 5120  # octets, as all programs have it
_YOUNG_S: Final = 900  # a file that is younger is believed though it says that the quota is used up
_FILES_MAX: Final = 1_000_000  # files of a mailbox that are counted
_FOLDERS_MAX: Final = 10_000
_UNCOUNTED: Final = ".Trash"
_SIZE: Final = re.compile(r",S=(\d{1,18})")
_FLAGS: Final = re.compile(r":2,[A-Za-z]*T")
_LINE: Final = re.compile(rb" *(-?\d{1,18}) +(-?\d{1,18}) *")
_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_ADD: Final = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOG: Final = logging.getLogger(__name__)
_COUNT: Final = itertools.count(1)


class Usage(msgspec.Struct, frozen=True):
    """What a mailbox holds."""

    size: int
    messages: int

    def with_one(self, size: int) -> Usage:
        return Usage(self.size + size, self.messages + 1)


def first_line(quota: Quota) -> str:
    """The quota as ``maildirsize`` has it."""
    parts = ((quota.size, "S"), (quota.messages, "C"))
    return ",".join(f"{value}{letter}" for value, letter in parts if value)


def exceeds(usage: Usage, quota: Quota) -> bool:
    return bool(quota.size and usage.size > quota.size) or bool(quota.messages and usage.messages > quota.messages)


def share(usage: Usage, quota: Quota) -> float:
    """How much of the quota is used, from 0.0."""
    return max(
        usage.size / quota.size if quota.size else 0.0, usage.messages / quota.messages if quota.messages else 0.0
    )


def usage_with(posix: Posix, box: int, quota: Quota, size: int, now_us: int) -> Usage:
    """What the mailbox with the descriptor `box` will hold with one message of `size` octets more. It is counted from
    the folders if `maildirsize` does not know, or if there seems to be no room."""
    known = _told(posix, box, quota, now_us)
    if known is not None:
        usage, young = known
        if young or not exceeds(usage.with_one(size), quota):
            return usage.with_one(size)
    usage = _counted(posix, box)
    _write(posix, box, f"{first_line(quota)}\n{usage.size} {usage.messages}\n".encode())
    return usage.with_one(size)


def add(posix: Posix, box: int, size: int) -> None:
    """One message more. If the line cannot be written, another delivery counts anew some time."""
    with contextlib.suppress(OSError):
        handle = posix.open(NAME, _ADD, dir_fd=box)
        try:
            posix.write(handle, b"%d 1\n" % size)
        finally:
            posix.close(handle)


def _told(posix: Posix, box: int, quota: Quota, now_us: int) -> tuple[Usage, bool] | None:
    """What `maildirsize` says, and whether it is young; None if it cannot be used."""
    try:
        handle = posix.open(NAME, _READ, dir_fd=box)
    except OSError:
        return None
    try:
        found = posix.fstat(handle)
        octets = os.read(handle, _FILE_SIZE_MAX + 1) if stat.S_ISREG(found.st_mode) else b""
    finally:
        posix.close(handle)
    first, _, rest = octets.partition(b"\n")
    if len(octets) > _FILE_SIZE_MAX or not octets.endswith(b"\n") or first.strip() != first_line(quota).encode():
        return None
    usage = _summed(rest.splitlines())
    return None if usage is None else (usage, abs(now_us / 1_000_000 - found.st_mtime) < _YOUNG_S)


def _summed(lines: Iterable[bytes]) -> Usage | None:
    size = messages = 0
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is None:
            return None
        size, messages = size + int(found[1]), messages + int(found[2])
    return None if size < 0 or messages < 0 else Usage(size, messages)


def _write(posix: Posix, box: int, octets: bytes) -> None:
    """In one step, by way of ``tmp``. If that fails, another delivery counts anew."""
    name = f"tmp/{NAME}.{os.getpid()}.{threading.get_ident()}.{next(_COUNT)}"
    with contextlib.suppress(OSError):
        handle = posix.open(name, _NEW, 0o600, dir_fd=box)
        try:
            posix.write(handle, octets)
        finally:
            posix.close(handle)
        posix.rename(name, NAME, src_dir_fd=box, dst_dir_fd=box)


def _counted(posix: Posix, box: int) -> Usage:
    size = messages = 0
    for folder in itertools.islice(_folders(box), _FOLDERS_MAX):
        for part in ("cur", "new"):
            place = f"{folder}/{part}" if folder else part
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), _opened(posix, box, place) as handle:
                for each in _files(handle):
                    size, messages = size + each, messages + 1
                    if messages >= _FILES_MAX:
                        return Usage(size, messages)
    return Usage(size, messages)


def _folders(box: int) -> Iterator[str]:
    yield ""
    with os.scandir(box) as entries:
        for entry in entries:
            if entry.name.startswith(".") and entry.name != _UNCOUNTED and entry.is_dir(follow_symlinks=False):
                yield entry.name


@contextlib.contextmanager
def _opened(posix: Posix, box: int, place: str) -> Iterator[int]:
    handle = posix.open(place, _FOLDER, dir_fd=box)
    try:
        yield handle
    finally:
        posix.close(handle)


def _files(folder: int) -> Iterator[int]:
    """The sizes of the messages of a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or _FLAGS.search(entry.name):
                continue
            found = _SIZE.search(entry.name)
            with contextlib.suppress(FileNotFoundError):  # a mail reader was faster
                yield int(found[1]) if found is not None else entry.stat(follow_symlinks=False).st_size


# -- the quotas of single mailboxes

_TEXT_MAX: Final = 268_435_456  # octets of the file
_WORDS: Final = re.compile(r"(size|messages)=(\d{1,15})([KMGT]?)", re.IGNORECASE)
_FACTOR: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def parse_quotas(text: str, path: str) -> dict[str, Quota] | Problem:
    """Lines such as ``ada size=2G messages=10000``; names in lower case. 0 is for "no limit"."""
    found: dict[str, Quota] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, *words = line.partition("#")[0].split()[:4] or [""]
        if not name:
            continue
        values = {}
        for word in words:
            matched = _WORDS.fullmatch(word)
            if matched is None or (matched[1].lower() == "messages" and matched[3]):
                return Problem(f"{path}:{number}", f"{word!r} is not a quota", _REMEDY)
            values[matched[1].lower()] = int(matched[2]) * _FACTOR[matched[3].upper()]
        if not values:
            return Problem(f"{path}:{number}", f"{name!r} has no quota", _REMEDY)
        found[name.lower()] = Quota(values.get("size", 0), values.get("messages", 0))
    return found


_REMEDY: Final = 'Write a line such as "ada size=2G messages=10000".'


def read_quotas(path: str) -> dict[str, Quota] | Problem:
    try:
        with open(path, "rb") as file:
            octets = file.read(_TEXT_MAX + 1)
        text = octets[:_TEXT_MAX].decode()
    except OSError as error:
        return unreadable(path, error)
    except UnicodeDecodeError:
        return Problem(path, "is not UTF-8", "Write it in UTF-8.")
    if len(octets) > _TEXT_MAX:
        return Problem(path, f"is larger than {_TEXT_MAX} octets", "Is it the right file?")
    return parse_quotas(text, path)


class QuotaTable:
    """The quotas of mailboxes by files. A file that is broken leaves what was known before in force."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Stamp, Mapping[str, Quota]]] = {}
        self._lock = threading.Lock()

    def of(self, path: str, mailbox: str, otherwise: Quota) -> Quota:
        """The quota of a mailbox, which its file may name. Reads files: call it on a thread."""
        return self._quotas(path).get(mailbox.lower(), otherwise) if path else otherwise

    def _quotas(self, path: str) -> Mapping[str, Quota]:
        now = stamp(path)
        with self._lock:
            known = self._files.get(path)
            if known is not None and known[0] == now:
                return known[1]
            read = read_quotas(path)
            before: Mapping[str, Quota] = known[1] if known is not None else {}
            if isinstance(read, Problem):
                _LOG.error("%s; the quotas that were known before stay in force", read)
            self._files[path] = (now, before if isinstance(read, Problem) else read)
            return self._files[path][1]
