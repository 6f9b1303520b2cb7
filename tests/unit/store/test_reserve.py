"""The reserve: what is in the queue gets the space that new mail does not."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from postroad.mail.seldom import EVERY_US, Seldom
from postroad.store.reserve import Reserve
from postroad.store.sqlite import schema, wal_index, writer
from postroad.store.sqlite.spool import SpoolOptions
from postroad.store.values import FailureKind
from tests.unit.store.sqlite.material import message, open_spool

_SIZE = 65_536


def _allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_it_holds_real_space_and_gives_it_back(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "00.reserve", _SIZE)
    reserve.look()
    assert not reserve.whole
    assert reserve.fill() and reserve.whole
    assert _allocated(reserve.path) >= _SIZE
    assert reserve.path.stat().st_mode & 0o777 == 0o600
    assert reserve.release() and not reserve.whole
    assert _allocated(reserve.path) == 0
    assert not reserve.release(), "there is nothing left"
    assert reserve.fill()


def test_the_next_process_sees_whether_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "00.reserve"
    first = Reserve(path, _SIZE)
    first.look()
    first.fill()
    again = Reserve(path, _SIZE)
    again.look()
    assert again.whole
    larger = Reserve(path, 2 * _SIZE)
    larger.look()
    assert not larger.whole and larger.fill() and _allocated(path) >= 2 * _SIZE
    none = Reserve(path, 0)
    none.look()
    assert not none.whole and none.fill() and _allocated(path) == 0


def test_a_file_system_that_cannot_reserve_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """posix_fallocate(3) of musl says so, that of glibc writes. Without a reserve no new mail would ever be taken."""

    def cannot(handle: int, offset: int, size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    reserve = Reserve(tmp_path / "00.reserve", _SIZE + 1)
    reserve.look()
    assert reserve.fill() and reserve.whole
    assert reserve.path.stat().st_size == _SIZE + 1 and _allocated(reserve.path) > _SIZE


def test_a_part_of_it_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, offset: int, size: int) -> None:
        os.write(handle, b"x" * 8192)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    reserve = Reserve(tmp_path / "00.reserve", _SIZE)
    reserve.look()
    assert not reserve.fill() and not reserve.whole
    assert _allocated(reserve.path) == 0


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "00.reserve").symlink_to(tmp_path / "victim")
    reserve = Reserve(tmp_path / "00.reserve", _SIZE)
    reserve.look()
    assert not reserve.fill()
    assert not reserve.release()
    assert (tmp_path / "victim").read_text() == "precious"


class _Full(sqlite3.Connection):
    """While `on`: refuses each commit for lack of space, as long as the reserve takes any."""

    on = False
    reserve: Path

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql == "COMMIT" and self.on and self.reserve.stat().st_size:
            raise wal_index.full("database or disk is full")
        return super().execute(sql, parameters)


async def test_a_full_disk_takes_what_is_in_the_queue_and_no_new_mail(tmp_path: Path) -> None:
    _Full.reserve = tmp_path / "00.reserve"
    options = SpoolOptions(free_min=0, reserve=_SIZE)
    with open_spool(tmp_path, options=options, connect=lambda path: schema.connect(path, _Full)) as desk:
        stored = await desk.accept()
        _Full.on = True
        refused = await desk.try_accept(message(desk.new_id()))
        assert refused is not None and refused.kind is FailureKind.FULL
        await desk.settle(stored.envelope.id, 0)
        assert await desk.load(stored.envelope.id) is None, "its end was written with the space of the reserve"
        assert not _Full.reserve.stat().st_size
        assert desk.spool.refuses() == f"no space for the reserve {_Full.reserve}"
        assert sum("given up" in getattr(event, "text", "") for event in desk.noted) == 1
        _Full.on = False
        desk.clock.time_us += 1_000_000  # it looks at the free space again
        await desk.accept()
        assert _allocated(_Full.reserve) >= _SIZE, "new mail is taken when the reserve is whole again"
        assert desk.spool.refuses() == ""


async def test_without_space_for_the_reserve_new_mail_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_spool(tmp_path, options=SpoolOptions(free_min=0, reserve=_SIZE)) as desk:
        stored = await desk.accept()
        assert desk.spool._shards[0].reserve.release()
        monkeypatch.setattr(desk.spool._space, "_free_octets", lambda directory: 2 * _SIZE - 1)
        desk.clock.time_us += 1_000_000
        refused = await desk.try_accept(message(desk.new_id()))
        assert refused is not None and refused.kind is FailureKind.FULL and "00.reserve" in refused.text
        await desk.settle(stored.envelope.id, 0)


async def test_the_reserve_is_made_again_though_no_new_mail_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker may take the new mail, and the disk may be full again before this one gets any."""
    monkeypatch.setattr(writer, "_RESERVE_S", 0.05)
    free = [2 * _SIZE - 1]
    with open_spool(tmp_path, options=SpoolOptions(free_min=0, reserve=_SIZE)) as desk:
        monkeypatch.setattr(desk.spool._space, "_free_octets", lambda directory: free[0])
        stored = await desk.accept()
        [shard] = desk.spool._shards.values()
        assert shard.reserve.release()
        await desk.settle(stored.envelope.id, 0)
        await asyncio.sleep(0.2)
        assert not shard.reserve.whole, "there is no space for it"
        free[0] = 2 * _SIZE
        async with asyncio.timeout(20):
            while not shard.reserve.whole:
                desk.clock.time_us += 1_000_000
                await asyncio.sleep(0.01)
        assert _allocated(shard.reserve.path) >= _SIZE


async def test_the_shard_opens_with_the_space_of_the_reserve(tmp_path: Path) -> None:
    with open_spool(tmp_path, options=SpoolOptions(free_min=0, reserve=_SIZE)) as desk:
        stored = await desk.accept()

    def connect(path: Path) -> sqlite3.Connection:
        if (tmp_path / "00.reserve").stat().st_size:
            raise wal_index.full(f"{path}: no space for its WAL index")
        return schema.connect(path)

    with open_spool(tmp_path, options=SpoolOptions(free_min=0, reserve=_SIZE), connect=connect) as desk:
        assert await desk.fresh_ids() == [stored.envelope.id]
        assert (tmp_path / "00.reserve").stat().st_size == _SIZE, "and it is made again as soon as there is space"


def test_a_fault_that_lasts_is_told_once_a_minute() -> None:
    now = [0]
    seldom = Seldom(lambda: now[0])
    assert seldom.to_write("full") == "full"
    assert [seldom.to_write("full") for _ in range(5)] == [""] * 5
    assert seldom.to_write("other") == "other"
    now[0] += EVERY_US
    assert seldom.to_write("full") == "full (5 times more in the meantime)"
    now[0] -= 10 * EVERY_US
    assert seldom.to_write("full") == "full", "a clock that was set back does not silence it"
