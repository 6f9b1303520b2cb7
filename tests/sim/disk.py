"""The simulated disk of a worker: real files in a folder in memory, with faults, and what a crash leaves of them.

Commits of the spool can be refused (no space, I/O error) before they are written or, the disk being as it is, after.
Maildirs and content files are written by the real calls, which may fail; each file that comes into ``new`` is an entry
of the ledger.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from postroad.deliver.mbox import LOCK
from postroad.store.sqlite import codec, schema
from postroad.store.sqlite.quickness import Quickness
from postroad.world.files import Posix
from tests.sim import signing
from tests.sim.ledger import Delivery, Ledger, message_id_of
from tests.sim.mboxes import messages


class SimDisk:
    """`trouble`: "" | "budget" (less space free than is to be kept) | "full" (now and then a little is free) | "packed"
    (nothing is free but what a shard gives up of its reserve) | "io" | "written" (commits fail and are on the
    disk)."""

    def __init__(self, chance: random.Random, ledger: Ledger, owner: str, now: Callable[[], float]) -> None:
        self.trouble = ""
        self.quota_share = 0.0  # of writes, how many fail because somebody's quota is used up
        self.troubled_until = 0.0  # the last moment at which there was any
        self._chance = chance
        self._ledger = ledger
        self._owner = owner
        self._now = now
        self._opened: list[sqlite3.Connection] = []  # all there were, so that none has the id of another
        self._reserves: dict[int, Path] = {}  # by the id of a connection
        self._in_new: dict[str, Delivery] = {}
        self._factory = _connection_class(self)

    def connect(self, path: Path) -> sqlite3.Connection:
        made = partial(schema.connect, factory=self._factory)(path)
        self._reserves[id(made)] = path.with_suffix(".reserve")
        self._opened.append(made)
        return made

    def free(self, directory: Path) -> int:
        return 0 if self.trouble in ("budget", "full", "packed") else 1 << 40

    def close(self) -> None:
        """As the system closes the files of a process that has died: what was not committed is rolled back."""
        self.trouble = ""
        for connection in self._opened:
            connection.close()
        self._opened.clear()

    # -- SQLite -----------------------------------------------------------------------------------------------

    def fault_before(self, connection: sqlite3.Connection, sql: str) -> int:
        if not self.trouble or self.trouble == "budget":
            return 0
        self.troubled_until = self._now()
        if self.trouble == "packed":
            writes = sql.startswith("INSERT") or sql == "COMMIT"
            return sqlite3.SQLITE_FULL if writes and self._is_whole(connection) else 0
        if self.trouble == "full":
            writes = sql.startswith("INSERT") or sql == "COMMIT"
            return sqlite3.SQLITE_FULL if writes and self._chance.random() < 0.5 else 0
        if self.trouble == "written":
            return 0
        return sqlite3.SQLITE_IOERR_FSYNC if sql == "COMMIT" and self._chance.random() < 0.4 else 0

    def _is_whole(self, connection: sqlite3.Connection) -> bool:
        """Whether the reserve of this database takes its space still."""
        path = self._reserves.get(id(connection))
        return path is None or not path.exists() or path.stat().st_size > 0

    def fault_after(self, sql: str) -> int:
        """The statement is carried out, and then fails."""
        share = {"io": 0.3, "written": 0.7}.get(self.trouble, 0.0) if sql == "COMMIT" else 0.0
        fails = share > 0 and self._chance.random() < share
        return sqlite3.SQLITE_IOERR_FSYNC if fails else 0

    # -- Maildirs and content files ------------------------------------------------------------------------------

    def posix(self) -> Posix:
        return Posix(
            write=self._write, fsync=self._fsync, fdatasync=self._fsync, rename=self._rename, unlink=self._unlink,
            ftruncate=self._ftruncate,
        )

    def _write(self, handle: int, octets: Any) -> int:
        if self.quota_share and self._chance.random() < self.quota_share:
            raise OSError(errno.EDQUOT, "Disk quota exceeded")
        if self.trouble == "packed" or (self.trouble == "full" and self._chance.random() < 0.5):
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(handle, octets)

    def _fsync(self, handle: int) -> None:
        if self.trouble == "io" and self._chance.random() < 0.3:
            raise OSError(errno.EIO, "Input/output error")
        # Nothing is lost when a process dies: the file is in memory.

    def _ftruncate(self, handle: int, size: int) -> None:
        """When the note in NAME.lock is taken away, the message in the mbox file is delivered."""
        os.ftruncate(handle, size)
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        if path.suffix != LOCK:
            return
        content = messages(path.with_suffix("").read_bytes())[-1]
        fields = dict(line.split(": ", 1) for line in content.decode("utf-8", "replace").split("\n")[:2])
        is_of_alias = path.parent.name == "targets"  # whose recipient is the file
        self._ledger.deliveries.append(Delivery(
            message_id_of(content), str(path.with_suffix("")) if is_of_alias else fields["Delivered-To"], self._now(),
            "mbox", content, self._owner,
            signing.plain(fields["Return-Path"].strip("<>")), path=fields["Return-Path"].strip("<>"),
        ))

    def _rename(self, old: Any, new: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
        if src_dir_fd is None:  # content that was changed takes the place of what came
            os.rename(old, new)
            return
        os.rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        handle = os.open(new, os.O_RDONLY, dir_fd=dst_dir_fd)
        try:
            content = os.read(handle, 1 << 24)
        finally:
            os.close(handle)
        head = content.partition(b"\n\n")[0].decode()
        fields = dict(line.split(": ", 1) for line in head.split("\n")[:2])
        delivery = Delivery(
            message_id_of(content), fields["Delivered-To"], self._now(), "maildir", content, self._owner,
            signing.plain(fields["Return-Path"].strip("<>")), path=fields["Return-Path"].strip("<>"),
        )
        self._in_new[new] = delivery
        self._ledger.deliveries.append(delivery)

    def _unlink(self, name: Any, *, dir_fd: int | None = None) -> None:
        os.unlink(name, dir_fd=dir_fd)
        delivery = self._in_new.pop(str(name), None)
        if delivery is not None:
            self._ledger.deliveries.remove(delivery)


class SimQuickness(Quickness):
    """The disk is quick for some commits, and then slow for some."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(lambda: 0.0)
        self._chance = chance
        self._quick = False

    def may_be_on_loop(self) -> bool:
        if self._chance.random() < 0.1:
            self._quick = not self._quick
        return self._quick


def _connection_class(disk: SimDisk) -> type[sqlite3.Connection]:
    class Faulty(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            if disk.trouble and (code := disk.fault_before(self, sql)):
                raise _error(code)
            cursor = super().execute(sql, parameters)
            if disk.trouble and (code := disk.fault_after(sql)):
                raise _error(code)
            return cursor

    return Faulty


def _error(code: int) -> sqlite3.OperationalError:
    made = sqlite3.OperationalError("made by the simulation")
    made.sqlite_errorcode = code
    made.sqlite_errorname = "SQLITE_FULL" if code == sqlite3.SQLITE_FULL else "SQLITE_IOERR_FSYNC"
    return made


def crash_image(spool: Path, shards: list[int], close: Callable[[], None]) -> None:
    """Leave the shards' files as they are at this moment, whatever the dead process's files do when they are closed."""
    aside = spool.parent / "image"
    aside.mkdir()
    kept = [path for shard in shards for path in spool.glob(f"{shard:02}*") if not path.name.endswith("-shm")]
    for path in kept:
        if path.is_dir():
            shutil.copytree(path, aside / path.name)
        else:
            shutil.copyfile(path, aside / path.name)
    close()
    for shard in shards:
        for path in spool.glob(f"{shard:02}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in aside.iterdir():
        path.chmod(0o700 if path.is_dir() else 0o600)
        path.rename(spool / path.name)
    aside.rmdir()


def rows(spool: Path, shards: list[int]) -> list[tuple[int, str, str, int, bool]]:
    """What the files say waits: (queue id, Message-ID, recipient, due, held); due is 0 for what is fresh."""
    found: list[tuple[int, str, str, int, bool]] = []
    for shard in shards:
        path = schema.database(spool, shard)
        if not path.exists():
            continue
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            for (octets,) in connection.execute("SELECT envelope FROM fresh"):
                envelope = codec.decode_envelope(octets)
                names = [each.name for each in envelope.recipients]
                found += [(envelope.id, envelope.message_id, name, 0, False) for name in names]
            query = "SELECT envelope, number, due_us, held FROM recipient JOIN message USING (id)"
            for octets, number, due_us, held in connection.execute(query):
                envelope = codec.decode_envelope(octets)
                found.append((envelope.id, envelope.message_id, envelope.recipients[number].name, due_us, bool(held)))
        finally:
            connection.close()
    return found
