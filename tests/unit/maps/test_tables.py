"""SQL queries with a key, and files that are looked up where they are."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.maps.face import NotNow
from postroad.maps.maps import Maps, make
from postroad.maps.options import MapKind, MapOptions
from postroad.maps.sql import SqlForm, SqlStatement, joined, statement
from postroad.maps.tables import SQLITE, CdbTable, SqliteTable
from postroad.world.clock import SystemClock
from postroad.world.problem import Problem

NUMBERED = SqlForm(
    lambda number: f"${number}", lambda number: f"${number}::text", lambda parts: f"concat({', '.join(parts)})"
)


@pytest.mark.parametrize(
    ("query", "text", "letters"),
    [
        ("SELECT a FROM t WHERE k = '%s'", "SELECT a FROM t WHERE k = $1", "s"),
        ("SELECT a FROM t WHERE k = %s AND d='%d'", "SELECT a FROM t WHERE k = $1 AND d=$2", "sd"),
        ("SELECT '%u@%d' , 'x'", "SELECT concat($1::text, '@', $2::text) , 'x'", "ud"),
        ("SELECT a WHERE b LIKE '%%x' AND k='%s'", "SELECT a WHERE b LIKE '%x' AND k=$1", "s"),
        ("SELECT a WHERE b = 'it''s %s'", "SELECT a WHERE b = concat('it''s ', $1::text)", "s"),
        ("SELECT 5 %% 3, '%2.%1'", "SELECT 5 % 3, concat($1::text, '.', $2::text)", "21"),
    ],
)
def test_placeholders_become_parameters(query: str, text: str, letters: str) -> None:
    assert statement(query, NUMBERED) == SqlStatement(text, tuple(letters))


@pytest.mark.parametrize(
    ("letters", "key", "arguments"),
    [
        ("s", "ada@x.org", ("ada@x.org",)), ("ud", "ada@x.org", ("ada", "x.org")), ("ud", "ada", None),
        ("d", "x.org", None),
        ("21", "ada@mx.x.org", ("x", "org")), ("2", "x.org", ("x",)), ("3", "x.org", None), ("s", "", None),
        ("u", '"a@b"@x.org', ('"a@b"',)), ("d", "@x.org", ("x.org",)), ("u", "@x.org", None),
        ("u", "ada", ("ada",)), ("u", "x.org", ("x.org",)), ("us", "ada", ("ada", "ada")),
    ],
)  # fmt: skip
def test_the_parameters_of_a_key(letters: str, key: str, arguments: tuple[str, ...] | None) -> None:
    assert SqlStatement("", tuple(letters)).arguments(key) == arguments


def test_a_query_without_a_key_is_none() -> None:
    assert isinstance(statement("SELECT 1", NUMBERED), str)


def test_rows_are_one_value() -> None:
    assert joined([("a", None), ("b", ""), (3, "c")]) == "a,b,3,c"
    assert joined([]) is None and joined([(None,), ("",)]) is None
    with pytest.raises(ValueError, match="more than 100,000 rows"):
        joined([("a",)] * 100_001)


# ---- SQLite


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "a?b #%.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE alias (address TEXT, goto TEXT); INSERT INTO alias VALUES ('sales@x.org', 'ada@x.org'),"
            "('sales@x.org', 'bob@x.org'), ('@x.org', NULL), ('o''brien@x.org', 'quote');"
        )
    return path


def sqlite_map(path: Path, query: str = "SELECT goto FROM alias WHERE address = '%s'") -> Maps | tuple[Problem, ...]:
    return make(
        [MapOptions("it", MapKind.SQLITE, file=str(path), query=query)], SystemClock(), lambda level, text: None
    )


def test_sqlite(database: Path) -> None:
    maps = sqlite_map(database)
    assert isinstance(maps, Maps)
    for key, value in (
        ("Sales@X.org", "ada@x.org,bob@x.org"), ("nobody@x.org", None), ("@x.org", None), ("o'brien@x.org", "quote"),
        ("' OR '1'='1", None), ("x'; DROP TABLE alias; --", None), ("\ud800", None), ("\0", None),
    ):  # fmt: skip
        assert maps["it"].look_up(key) == value
    assert maps["it"].look_up("sales@x.org") == "ada@x.org,bob@x.org"
    maps.close()
    assert isinstance(maps["it"].look_up("sales@x.org"), NotNow)


def test_a_list_in_sqlite_is_whole_or_not_given(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with sqlite3.connect(database) as connection:
        connection.executemany("INSERT INTO alias VALUES ('all@x.org', ?)", [(f"u{n}",) for n in range(3_000)])
    maps = sqlite_map(database)
    assert isinstance(maps, Maps)
    answer = maps["it"].look_up("all@x.org")
    assert isinstance(answer, str) and len(answer.split(",")) == 3_000
    monkeypatch.setattr("postroad.maps.sql.ROWS_MAX", 2_999)
    monkeypatch.setattr("postroad.maps.tables.ROWS_MAX", 2_999)
    answer = maps["it"].look_up("all@x.org")
    assert isinstance(answer, NotNow) and "more than 2,999 rows" in answer.text
    maps.close()


@given(st.text())
def test_no_key_breaks_a_query(key: str) -> None:
    query = statement("SELECT '%u|%d|%s'", SQLITE)
    assert isinstance(query, SqlStatement)
    connection = sqlite3.connect(":memory:")
    arguments = query.arguments(key)
    try:
        row = connection.execute(query.text, arguments).fetchone() if arguments is not None else None
    except UnicodeEncodeError:
        return
    finally:
        connection.close()
    assert row is None or row[0] == "|".join((*key.rpartition("@")[::2], key))


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("SELECT goto FROM nowhere WHERE a='%s'", "no such table"), ("SELECT 1", "no placeholder"),
        ("SELEC '%s'", "syntax"),
    ],
)
def test_a_wrong_query_is_told_at_the_start(database: Path, query: str, word: str) -> None:
    found = sqlite_map(database, query)
    assert isinstance(found, tuple) and word in str(found[0])


def test_a_database_that_somebody_writes_to_is_not_now(database: Path) -> None:
    query = statement("SELECT goto FROM alias WHERE address='%s'", SQLITE)
    assert isinstance(query, SqlStatement)
    table = SqliteTable(str(database), query)
    with sqlite3.connect(database, isolation_level=None) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError):
            table.get("sales@x.org")
        writer.execute("ROLLBACK")
    assert table.get("sales@x.org") == "ada@x.org,bob@x.org"


class Clock:
    us = 10_000_000

    def now_us(self) -> int:
        return self.us


def test_a_replaced_file_is_opened_anew_and_one_that_is_gone_goes_on(database: Path) -> None:
    clock = Clock()
    options = MapOptions("it", MapKind.SQLITE, file=str(database), query="SELECT goto FROM alias WHERE address = '%s'")
    maps = make([options], clock, lambda level, text: None)
    assert isinstance(maps, Maps) and maps["it"].look_up("new") is None
    other = database.with_name("other")
    with sqlite3.connect(other) as connection:
        connection.executescript("CREATE TABLE alias (address, goto); INSERT INTO alias VALUES ('new', '1')")
    other.replace(database)
    assert maps["it"].look_up("new") is None
    clock.us += 1_000_000
    assert maps["it"].look_up("new") == "1"
    database.unlink()
    clock.us += 1_000_000
    assert maps["it"].look_up("new") == "1"
    database.write_bytes(b"no database" * 100)
    clock.us += 1_000_000
    assert maps["it"].look_up("new") == "1"


# ---- CDB (tests/peers/test_maps.py has files of postmap)


@given(st.binary(max_size=4000))
def test_a_file_that_is_no_cdb_never_hangs(octets: bytes) -> None:
    path = f"/tmp/postroad-cdb-{os.getpid()}"
    Path(path).write_bytes(octets)
    try:
        table = CdbTable(path)
    except ValueError:
        return
    finally:
        os.unlink(path)
    try:
        assert table.get("a") is None or True
    except ValueError:
        pass
    finally:
        table.close()
