"""No write error is swallowed on the way to 250: each call that can fail, over SMTP and LMTP.

With a real spool on a real disk each call of the operating system and each statement of the database fails once, with a
full and with a failing disk, for content in the database and in a file. Then either every recipient heard 250 and the
message is on the disk, whole; or every recipient heard 4yz and nothing of it is there. The session goes on
and the next message is taken. And each door of the receive stage breaks once: nobody hears 250 for what is not stored.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from postroad.protocol.offer import Dialect
from postroad.receive.doors import Expansion
from postroad.receive.options import ListenerOptions, ReceiveOptions
from postroad.store import content
from postroad.store.sqlite import codec, schema
from postroad.store.sqlite.spool import SpoolOptions, SqliteSpool
from postroad.world.files import Posix
from tests.fuzz import framing
from tests.logic.talk import Talk
from tests.logic.talk import house as fake_house
from tests.unit.receive.fakes import House
from tests.unit.store.sqlite.material import Clock, Faults

GOOD = b"Good: yes\r\n\r\n"
SMALL = GOOD + b"Hello\r\n"
LARGE = GOOD + b"A line of text that is long enough.\r\n" * 1_000
OPENING = b"MAIL FROM:<eve@elsewhere.test>\r\nRCPT TO:<ann@local.test>\r\nRCPT TO:<bob@local.test>\r\n"
CALLS = ("open", "close", "write", "fsync", "fdatasync", "fstat", "mkdir", "rename", "unlink")


class Plan:
    """Lets the call number `at` fail: once, or (`stays`) with all behind it. `calls`: which came since `begin`."""

    def __init__(self, error: int, code: int, *, stays: bool) -> None:
        self.error, self.code, self.stays = error, code, stays
        self.at = -1
        self.calls: list[str] = []
        self.database = Faults()
        self.database.at = self.statement
        self.posix = Posix(**{name: self.call(name) for name in CALLS})

    def begin(self, at: int) -> None:
        self.at, self.calls = at, []

    def fails(self, name: str) -> bool:
        self.calls.append(name)
        count = len(self.calls) - 1
        return count == self.at or (self.stays and 0 <= self.at < count)

    def call(self, name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def called(*arguments: Any, **named: Any) -> Any:
            if self.fails(name):
                if name == "close":  # Linux has closed it all the same
                    real(*arguments, **named)
                raise OSError(self.error, os.strerror(self.error))
            return real(*arguments, **named)

        return called

    def statement(self, sql: str) -> int | None:
        return self.code if self.fails(sql) else None


@pytest.mark.slow
@pytest.mark.parametrize("stays", [False, True], ids=["once", "from then on"])
@pytest.mark.parametrize("dialect", Dialect, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("octets", [SMALL, LARGE], ids=["database", "file"])
@pytest.mark.parametrize(
    ("error", "code"),
    [(errno.ENOSPC, sqlite3.SQLITE_FULL), (errno.EIO, sqlite3.SQLITE_IOERR_WRITE)],
    ids=["full", "failing"],
)
async def test_each_call_that_can_fail(
    tmp_path: Path, dialect: Dialect, octets: bytes, error: int, code: int, stays: bool
) -> None:
    """What fails once may be tried again by the spool, so that the message is taken all the same."""
    plan = Plan(error, code, stays=stays)
    accepted: list[int] = []
    failed = 0
    spool = opened(tmp_path, plan)
    place = house(spool, dialect)
    talk = Talk(place)
    try:
        for at in range(200):
            plan.begin(at)
            heard = await sent(talk, octets)
            hit = len(plan.calls) > at
            plan.begin(-1)
            assert len(heard) == (2 if talk.lmtp else 1) and len({each for each, _ in heard}) == 1, plan.calls
            if heard[0][0] == 250:
                accepted.append(at)
            else:
                failed += 1
                assert hit and heard[0][0] in (451, 452), heard
            if not hit:
                break
            # The session is as it was, and so is the spool.
            assert {each for each, _ in await sent(talk, octets)} == {250}
            accepted.append(at)
        else:
            raise AssertionError("it never goes well")
        assert failed >= (3 if stays or octets is LARGE else 1)
    finally:
        spool.close()
    assert stored(tmp_path) == [octets] * len(accepted)


def opened(directory: Path, plan: Plan) -> SqliteSpool:
    options = SpoolOptions(free_min=0, reserve=0, inline_max=20_000)
    spool = SqliteSpool(
        directory, (0,), options, Clock(), asyncio.get_running_loop(), connect=plan.database.connect, threads=False,
        posix=plan.posix, log=lambda event: None,
    )  # fmt: skip
    spool.start()
    return spool


def house(spool: SqliteSpool, dialect: Dialect) -> House:
    return House(
        listener=ListenerOptions("front", protocol=dialect),
        options=ReceiveOptions(hostname="mx.local.test", default_domain="local.test", memory_content_max=20_000),
        loop=asyncio.get_running_loop(),
        new_id=spool.new_id,
        accept=spool.accept,
        incoming=spool.incoming,
    )


async def sent(talk: Talk, octets: bytes) -> list[tuple[int, bytes]]:
    """The replies to the content of one message."""
    assert [code for code, _ in talk.send(OPENING + b"DATA\r\n")] == [250, 250, 250, 354]
    heard = talk.send(octets + b".\r\n")
    async with asyncio.timeout(20):
        while not heard:
            await asyncio.sleep(0)
            heard = framing.replies(talk.client.heard())
    return heard


def stored(directory: Path) -> list[bytes]:
    """What the disk has, without our own field; and no file is left of anything else."""
    connection = schema.connect_reader(schema.database(directory, 0))
    try:
        rows = connection.execute("SELECT id, envelope FROM fresh ORDER BY id").fetchall()
        prefixes = {int(id): codec.decode_envelope(bytes(envelope)).prefix for id, envelope in rows}
        inline = [bytes(row[0]) for row in connection.execute("SELECT octets FROM content ORDER BY id")]
    finally:
        connection.close()
    paths = {id: content.file_path(directory, id) for id in prefixes}
    files = [path for path in paths.values() if path.exists()]
    assert len(inline) + len(files) == len(prefixes)
    all_files = {path for path in directory.rglob("*") if path.is_file() and path.parent.parent.parent == directory}
    assert all_files == set(files), "a file of a message that was refused"
    found = inline + [prefixes[id] + path.read_bytes() for id, path in paths.items() if path.exists()]
    assert all(each.startswith(b"Received: ") for each in found)
    return [each[each.index(b"\r\nGood: ") + 2 :] for each in found]


# ---- doors that break


def breaking(*arguments: Any, **named: Any) -> Any:
    raise RuntimeError("made by the test")


BEFORE = ("new_id", "incoming", "expand", "accept")  # what is called on the way to the commit
BEHIND = ("queued",)


@pytest.mark.parametrize("dialect", Dialect, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    ("memory_content_max", "door"),
    [(limit, door) for limit in (100, 1_000_000) for door in BEFORE if door != "incoming" or limit == 100],
)  # content that stays in memory asks for no file
def test_a_door_that_breaks_before_the_commit(dialect: Dialect, memory_content_max: int, door: str) -> None:
    octets = SMALL + b"x" * 70 + b"\r\n" + b"A line of text\r\n" * 1_200
    place = fake_house(dialect, memory_content_max=memory_content_max, **{door: breaking})
    talk = Talk(place)
    codes = [code for code, _ in talk.send(OPENING + b"DATA\r\n")]
    if codes == [250, 250, 250, 354]:
        codes += [code for code, _ in talk.send(octets + b".\r\n")]
    assert codes[:3] == [250, 250, 250] and not place.spool.stored and not place.queued
    behind = [code for code in codes[3:] if code != 354]
    assert behind == [421] or behind == [451] * (2 if talk.lmtp else 1)
    assert talk.is_open == (behind != [421])


@pytest.mark.parametrize("dialect", Dialect, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize("door", BEHIND)
def test_a_door_that_breaks_behind_the_commit(dialect: Dialect, door: str) -> None:
    """The message is ours: the client hears 250, once for each recipient, and the queue has it."""
    place = fake_house(dialect, **{door: breaking})
    place.spool.patient = True
    talk = Talk(place)
    assert [code for code, _ in talk.send(OPENING + b"DATA\r\n")][-1] == 354
    assert talk.send(SMALL + b".\r\n") == []
    with pytest.raises(RuntimeError, match="made by the test"):
        place.spool.commit()
    assert [code for code, _ in framing.replies(talk.client.heard())] == [250] * (2 if talk.lmtp else 1)
    assert len(place.spool.stored) == 1 and (door == "queued" or place.queued == place.spool.stored)


def test_where_nobody_is_left_the_events_are_written_before_250() -> None:
    """Aliases let a message go: its events are all that is left of it."""
    place = fake_house(Dialect.SMTP, expand=lambda id, now_us, recipients: Expansion(()), record=breaking)
    talk = Talk(place)
    talk.send(OPENING + b"DATA\r\n")
    assert [code for code, _ in talk.send(SMALL + b".\r\n")] == [421]
    assert not talk.is_open
