"""The table of destinations: it always says what the rows of the recipients say, whoever writes these."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from pathlib import Path

import pytest

from postroad.mail.event import Noted
from postroad.store.sqlite import checking, repair, schema
from postroad.store.sqlite.reader import SpoolReader
from postroad.store.values import Backlog, Selection
from tests.unit.store.sqlite.material import START_US, open_spool, waiting

NAMES = ("", "a.example", "b.example", "c.example")


def _kept(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    return sorted(connection.execute("SELECT name, count, held, due_us FROM destination"))


def _counted(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
    return sorted(connection.execute(schema.BACKLOG))


def _change(connection: sqlite3.Connection, chance: random.Random) -> None:
    """One of the ways in which rows are written, for a few recipients of a few messages."""
    keys = [(chance.randrange(4), chance.randrange(4)) for _ in range(chance.randrange(1, 9))]
    rows = [
        value
        for key in dict.fromkeys(keys)
        for value in (*key, chance.choice(NAMES), chance.randrange(3), chance.randrange(6), b"")
    ]
    match chance.randrange(5):
        case 0:
            schema.write_rows(connection, schema.INSERT_RECIPIENT, rows, 6)
        case 1:
            schema.write_rows(connection, schema.UPDATE_RECIPIENT, rows, 6)
        case 2:
            schema.write_rows(connection, schema.DELETE_RECIPIENT, [each for key in keys for each in key], 2)
        case 3:
            connection.execute("UPDATE recipient SET held = 2 WHERE id = ?", keys[0][:1])
        case _:
            connection.execute("DELETE FROM recipient WHERE id = ?", keys[0][:1])


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_written_it_is_what_the_rows_say(seed: int) -> None:
    chance = random.Random(seed)
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        schema.create(connection)
        most = 0
        for _ in range(200):
            connection.execute("BEGIN")
            before = _counted(connection)
            _change(connection, chance)
            assert _kept(connection) == _counted(connection)
            if chance.random() < 0.2:
                connection.execute("ROLLBACK")
                assert _kept(connection) == before
            else:
                connection.execute("COMMIT")
            most = max(most, len(before))
        assert most == len(NAMES)


def _old_shard(path: Path) -> None:
    """As the version before left it."""
    path.touch(0o600)
    with contextlib.closing(schema.connect(path)) as connection:
        connection.executescript(schema.TABLES + "PRAGMA user_version=1;")


async def _fill_old(directory: Path) -> dict[str, Backlog]:
    """A shard of the present layout with messages, taken back to the one before."""
    with open_spool(directory) as desk:
        for place in range(30):
            stored = await desk.accept("a@x.example", "b@x.example")
            name = NAMES[place % 4]
            rows = (waiting(0, name, START_US + place, held=place % 5 == 0), waiting(1, "x.example", START_US + 99))
            await desk.settle(stored.envelope.id, waiting=rows)
        await desk.accept("fresh@x.example")
    found = SpoolReader(directory).waiting([*NAMES, "x.example"])
    with contextlib.closing(schema.connect(schema.database(directory, 0))) as connection:
        connection.executescript(
            "DROP TRIGGER recipient_inserted; DROP TRIGGER recipient_updated; DROP TRIGGER recipient_deleted;"
            "DROP TABLE destination; PRAGMA user_version=1;"
        )
    return found


async def test_a_shard_of_the_layout_before_is_taken_over_whole(tmp_path: Path) -> None:
    expected = await _fill_old(tmp_path)
    assert len(expected) == 5
    old = SpoolReader(tmp_path)
    assert old.waiting([*NAMES, "x.example"]) == expected, "a reader need not wait for a node to start"
    waits = old.backlog(2)
    assert ([each.destination for each in waits.shown], waits.destinations) == (["x.example", ""], 5)
    assert (waits.recipients, waits.held) == (60, 6)
    assert old.counts().waiting == 60
    assert len(old.select(Selection(held=True))) == 6 and len(old.select(Selection(destination="x.example"))) == 30
    assert checking.check(tmp_path, running=False)[0].findings == ()
    with open_spool(tmp_path) as desk:
        page = await desk.ask(desk.spool.ahead, 0, (-1, ""), 1 << 62, 99)
        assert {name: due_us for due_us, name in page} == {name: each.due_us for name, each in expected.items()}
        assert len(await desk.fresh_ids()) == 1
        stored = await desk.accept("ann@y.example")
        await desk.settle(stored.envelope.id, waiting=(waiting(0, "y.example", START_US),))
    new = SpoolReader(tmp_path)
    assert new.waiting([*NAMES, "x.example"]) == expected
    assert new.backlog() == old.backlog()
    assert len(new.select(Selection(held=True))) == 6 and len(new.select(Selection(destination="a.example"))) == 8
    assert new.backlog().recipients == 61
    with contextlib.closing(schema.connect_reader(schema.database(tmp_path, 0))) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == schema.VERSION
        assert connection.execute("PRAGMA quick_check").fetchone()[0] == "ok"


@pytest.mark.parametrize("taken_over", [False, True])
async def test_a_shard_of_the_layout_before_is_saved_without_its_first_page(tmp_path: Path, taken_over: bool) -> None:
    expected = await _fill_old(tmp_path)
    if taken_over:
        with open_spool(tmp_path):
            pass
    path = schema.database(tmp_path, 0)
    with open(path, "r+b") as file:
        file.write(b"x" * schema.PAGE_SIZE)
    with open_spool(tmp_path) as desk:
        assert len(await desk.fresh_ids()) == 1
        assert any("damaged" in each.text for each in desk.noted if isinstance(each, Noted))
    assert SpoolReader(tmp_path).waiting([*NAMES, "x.example"]) == expected
    assert checking.check(tmp_path, running=False)[0].findings == ()


def test_a_layout_that_cannot_be_taken_over_now_stays_as_it_was(tmp_path: Path) -> None:
    path = schema.database(tmp_path, 0)
    _old_shard(path)
    with contextlib.closing(schema.connect(path)) as connection:
        connection.execute("INSERT INTO recipient VALUES (1, 0, 'a.example', 0, 7, x'')")
        connection.execute("PRAGMA max_page_count = 1")  # no more than there are
        with pytest.raises(sqlite3.OperationalError):
            schema.create(connection)
        assert not connection.in_transaction
        assert connection.execute("PRAGMA user_version").fetchone()[0] == 1
        connection.execute("PRAGMA max_page_count = 1000000")
        schema.create(connection)
        assert _kept(connection) == [("a.example", 1, 0, 7)]


async def test_counts_that_are_wrong_are_found_and_made_right(tmp_path: Path) -> None:
    with open_spool(tmp_path) as desk:
        stored = await desk.accept("ann@x.example")
        await desk.settle(stored.envelope.id, waiting=(waiting(0, "x.example", START_US),))
    path = schema.database(tmp_path, 0)
    with contextlib.closing(schema.connect(path)) as connection:
        connection.execute("UPDATE destination SET due_us = NULL")
    [checked] = checking.check(tmp_path, running=False)
    assert [(each.kind, "x.example" in each.text) for each in checked.findings] == [("destinations", True)]
    assert repair.repair(tmp_path, checked, lambda: START_US)
    assert checking.check(tmp_path, running=False)[0].findings == ()
    assert SpoolReader(tmp_path).backlog().shown == (Backlog("x.example", 1, 0, START_US),)


async def test_the_oldest_message_of_a_destination_over_all_shards(tmp_path: Path) -> None:
    with open_spool(tmp_path, (0, 1)) as desk:
        first = await desk.accept("a@x.example", "b@y.example", "c@x.example")
        await desk.settle(first.envelope.id, 2, waiting=(waiting(0, "x.example"), waiting(1, "y.example")))
        second = await desk.accept("a@x.example")
        await desk.settle(second.envelope.id, waiting=(waiting(0, "x.example", text="busy"),))
    found = SpoolReader(tmp_path).oldest(["x.example", "y.example", "z.example"])
    assert {name: each.envelope.id for name, each in found.items()} == {
        "x.example": first.envelope.id, "y.example": first.envelope.id
    }  # fmt: skip
    assert [row.index for row in found["x.example"].waiting] == [0], "only what waits there"
