"""A disk that remembers every write and every sync, and can tell what it may hold after the power was cut.

Operations are recorded in the order in which they were asked for. `Platter.after` gives the files that a computer may
find when it starts again after some of them. What was synced is there. Of the rest anything may be: nothing, all, or
any choice of sectors (512 octets) in any order, also a file that has grown, with zeros or garbage in the place of what
was written. An entry of a folder (a new file, a rename, a removal) is there for certain only after the folder was
synced; this is stricter than most file systems are.
"""

from __future__ import annotations

import enum
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from postroad.world.files import Posix

SECTOR = 512


class Loss(enum.Enum):
    """What becomes of what was not synced."""

    ALL = "all is lost"
    NOTHING = "nothing is lost"
    SOME = "any sectors and entries are lost, as if they had been written in any order"
    TORN = "as SOME; what is lost is garbage where the file has grown"


@dataclass
class Inode:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes] | int] = field(default_factory=list)  # (offset, octets) or a new size

    def sync(self) -> None:
        for each in self.pending:
            _apply(self.durable, each)
        self.pending.clear()

    def after(self, chance: random.Random, loss: Loss) -> bytes:
        octets = bytearray(self.durable)
        if loss is Loss.ALL:
            return bytes(octets)
        for each in self.pending:
            if loss is Loss.NOTHING:
                _apply(octets, each)
            elif isinstance(each, int):
                if chance.random() < 0.5:
                    _apply(octets, each)
            else:
                _tear(octets, *each, chance, loss)
        return bytes(octets)


def _apply(octets: bytearray, change: tuple[int, bytes] | int) -> None:
    if isinstance(change, int):
        del octets[change:]
        octets.extend(bytes(change - len(octets)))
        return
    offset, written = change
    if len(octets) < offset:
        octets.extend(bytes(offset - len(octets)))
    octets[offset : offset + len(written)] = written


def _tear(octets: bytearray, offset: int, written: bytes, chance: random.Random, loss: Loss) -> None:
    """Some sectors of one write. The sectors are the disk's: they do not begin where the write does."""
    end = offset + len(written)
    at = offset
    grown = chance.random() < 0.5
    while at < end:
        until = min(end, (at // SECTOR + 1) * SECTOR)
        if chance.random() < 0.5:
            _apply(octets, (at, written[at - offset : until - offset]))
        elif loss is Loss.TORN and grown and at >= len(octets):
            _apply(octets, (at, chance.randbytes(until - at)))
        at = until


@dataclass(frozen=True)
class Entry:
    """A change of a folder: `name` is now `inode`, a folder (True), or gone (None)."""

    name: str
    inode: Inode | bool | None


class Disk:
    """The recording. `log` holds functions that carry an operation out on a `Platter`, or marks."""

    def __init__(self) -> None:
        self.log: list[Callable[[Platter], None]] = []
        self.marks: list[tuple[int, Any]] = []

    def __len__(self) -> int:
        return len(self.log)

    def mark(self, value: Any) -> None:
        """Something that the outside has learnt by now."""
        self.marks.append((len(self.log), value))

    def learnt(self, cut: int) -> list[Any]:
        """The marks before a cut."""
        return [value for place, value in self.marks if place <= cut]

    # What can happen to a file. Paths are those at the time of recording.

    def create(self, path: str) -> None:
        self.log.append(lambda platter: platter.enter(path, Inode()))

    def write(self, path: str, offset: int, octets: bytes) -> None:
        self.log.append(lambda platter: platter.file(path).pending.append((offset, octets)))

    def truncate(self, path: str, size: int) -> None:
        self.log.append(lambda platter: platter.file(path).pending.append(size))

    def sync(self, path: str) -> None:
        self.log.append(lambda platter: platter.file(path).sync())

    def mkdir(self, path: str) -> None:
        self.log.append(lambda platter: platter.enter(path, True))

    def rename(self, path: str, to: str) -> None:
        self.log.append(lambda platter: platter.rename(path, to))

    def unlink(self, path: str) -> None:
        self.log.append(lambda platter: platter.enter(path, None))

    def sync_folder(self, path: str) -> None:
        self.log.append(lambda platter: platter.sync_folder(path))


class Platter:
    """The disk while its operations are carried out one by one."""

    def __init__(self, disk: Disk, folders: set[str]) -> None:
        self._disk = disk
        self._done = 0
        self._names: dict[str, Inode | bool] = dict.fromkeys(folders, True)  # as programs see them
        self._durable: dict[str, Inode | bool] = dict(self._names)
        self._pending: list[Entry] = []

    def advance(self, cut: int) -> None:
        """Carries out all before `cut`."""
        while self._done < cut:
            self._disk.log[self._done](self)
            self._done += 1

    def file(self, path: str) -> Inode:
        found = self._names[path]
        assert isinstance(found, Inode)
        return found

    def enter(self, path: str, inode: Inode | bool | None) -> None:
        if inode is None:
            del self._names[path]
        else:
            self._names[path] = inode
        self._pending.append(Entry(path, inode))

    def rename(self, path: str, to: str) -> None:
        inode = self._names[path]
        self.enter(to, inode)
        self.enter(path, None)

    def sync_folder(self, path: str) -> None:
        kept = []
        for entry in self._pending:
            if os.path.dirname(entry.name) == path:
                _enter(self._durable, entry)
            else:
                kept.append(entry)
        self._pending = kept

    def after(self, chance: random.Random, loss: Loss) -> dict[str, bytes | None]:
        """The files (and folders: None) that are found after the power was cut now."""
        names = dict(self._durable)
        for entry in self._pending:
            if loss is Loss.NOTHING or (loss is not Loss.ALL and chance.random() < 0.5):
                _enter(names, entry)
        found: dict[str, bytes | None] = {}
        for name in sorted(names):
            inode = names[name]
            parent = os.path.dirname(name)
            if parent in names or not any(name.startswith(each + "/") for each in names):
                found[name] = inode.after(chance, loss) if isinstance(inode, Inode) else None
        return found


def _enter(names: dict[str, Inode | bool], entry: Entry) -> None:
    if entry.inode is None:
        names.pop(entry.name, None)
    else:
        names[entry.name] = entry.inode


def lay_out(found: dict[str, bytes | None], base: Path, target: Path) -> None:
    """Writes what was found, as it stood below `base`, below `target`, which must be empty."""
    for name, octets in found.items():
        path = target / os.path.relpath(name, base)
        if not path.parent.is_dir():
            continue  # the folder's own name was lost
        if octets is None:
            path.mkdir(exist_ok=True, mode=0o700)
        else:
            path.write_bytes(octets)
            path.chmod(0o600)


class Recorder:
    """The calls of the operating system, carried out and recorded; descriptors are known by their paths."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._paths: dict[int, str] = {}
        self._sizes: dict[int, int] = {}

    def posix(self) -> Posix:
        return Posix(
            open=self._open, close=self._close, write=self._write, fsync=self._sync, fdatasync=self._sync,
            mkdir=self._mkdir, rename=self._rename, unlink=self._unlink,
        )  # fmt: skip

    def _path(self, path: Any, folder: int | None) -> str:
        return os.path.join(self._paths[folder], path) if folder is not None else str(path)

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        handle = os.open(path, flags, mode, dir_fd=dir_fd)
        self._paths[handle] = name = self._path(path, dir_fd)
        self._sizes[handle] = 0
        if flags & os.O_CREAT:
            assert flags & os.O_EXCL, "only new files are known"
            self._disk.create(name)
        return handle

    def _close(self, handle: int) -> None:
        del self._paths[handle]
        os.close(handle)

    def _write(self, handle: int, octets: Any) -> int:
        count = os.write(handle, octets)
        self._disk.write(self._paths[handle], self._sizes[handle], bytes(octets[:count]))
        self._sizes[handle] += count
        return count

    def _sync(self, handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            self._disk.sync_folder(self._paths[handle])
        else:
            self._disk.sync(self._paths[handle])

    def _mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        os.mkdir(path, mode, dir_fd=dir_fd)
        self._disk.mkdir(self._path(path, dir_fd))

    def _rename(self, path: Any, to: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        os.rename(path, to, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        self._disk.rename(self._path(path, src_dir_fd), self._path(to, dst_dir_fd))

    def _unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        os.unlink(path, dir_fd=dir_fd)
        self._disk.unlink(self._path(path, dir_fd))
