"""Statements over many rows, and that each goes by an index however large the tables are."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from postroad.store.sqlite import schema, selecting
from postroad.store.values import Selection

ROWS = {
    name: (template, template.row.count("?"))
    for name, template in vars(schema).items()
    if isinstance(template, schema.Rows)
}


def _connection() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(schema.TABLES + schema.DESTINATIONS)
    return connection


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("count", [1, 2, 64])
def test_no_statement_goes_through_a_table(name: str, count: int) -> None:
    template, width = ROWS[name]
    connection = _connection()
    sql = schema._text(template, count)
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", [1] * count * width)]
    tables = ("recipient", "message", "fresh", "destination")
    scans = [line for line in plan if line.startswith("SCAN") and line.split()[1] in tables]
    assert not scans, plan
    connection.close()


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT id, state FROM recipient WHERE destination = ? AND held = 0 AND due_us <= ? ORDER BY due_us LIMIT ?",
         "USING INDEX recipient_due (destination=? AND held=? AND due_us<?)"),
        ("SELECT due_us FROM recipient WHERE destination = ? AND held = 0 AND due_us > ? ORDER BY due_us LIMIT 1",
         "USING COVERING INDEX recipient_due (destination=? AND held=? AND due_us>?)"),
        (schema.BACKLOG, "USING COVERING INDEX recipient_due"),
        ("SELECT id FROM message WHERE " + selecting.waiting_where("message", Selection(destination="x"))[0][0],
         "SEARCH recipient USING PRIMARY KEY (id=?)"),
        ("SELECT id FROM message WHERE " + selecting.waiting_where("message", Selection(held=True))[0][0],
         "SEARCH recipient USING PRIMARY KEY (id=?)"),
        (schema.AHEAD, "USING COVERING INDEX destination_due ((due_us,name)>(?,?) AND due_us<?)"),
    ],
)  # fmt: skip
def test_the_queues_questions_go_by_the_index_without_sorting(sql: str, expected: str) -> None:
    connection = _connection()
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", [1] * sql.count("?"))]
    assert any(expected in line for line in plan), plan
    assert not any("TEMP B-TREE" in line for line in plan), plan
    connection.close()


@pytest.mark.parametrize("count", [0, 1, 2, 5, 63, 64, 65, 200])
def test_rows_are_written_and_read_in_pieces(count: int) -> None:
    connection = _connection()
    values = [value for id in range(count) for value in (id + 1, b"%d" % id)]
    assert schema.write_rows(connection, schema.INSERT_FRESH, values, 2) == count
    found = list(schema.read_rows(connection, schema.SELECT_FRESH, range(1, count + 1)))
    assert sorted(found) == [(id + 1, b"%d" % id) for id in range(count)]
    assert schema.write_rows(connection, schema.DELETE_FRESH, list(range(1, count + 1))) == count
    connection.close()


def test_the_pragmas_that_promises_rest_on(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.touch()
    connection = schema.connect(path)
    schema.create(connection)
    schema.create(connection)  # once more changes nothing
    pragmas = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in (
        "journal_mode", "synchronous", "page_size", "secure_delete", "auto_vacuum", "user_version", "fullfsync",
    )}  # fmt: skip
    assert pragmas == {
        "journal_mode": "wal", "synchronous": 2, "page_size": schema.PAGE_SIZE, "secure_delete": 0, "auto_vacuum": 0,
        "user_version": schema.VERSION, "fullfsync": 1,
    }  # fmt: skip
    connection.close()


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.touch()
    writer = schema.connect(path)
    schema.create(writer)
    reader = schema.connect_reader(path)
    with pytest.raises(sqlite3.OperationalError):
        reader.execute("DELETE FROM fresh")
    reader.close()
    writer.close()
    with pytest.raises(sqlite3.OperationalError):
        schema.connect_reader(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
