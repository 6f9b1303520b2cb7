"""Answers of several maps that are used again: never beyond the files by which they were found."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Awaitable
from pathlib import Path

import pytest

from postroad.maps.asked import AT_ONCE, Asked, answered
from postroad.maps.editions import MapAnswers
from postroad.maps.face import Map, NotNow
from postroad.maps.maps import Maps, make
from postroad.maps.options import MapKind, MapOptions
from postroad.world.clock import SystemClock

SLOW = """
import asyncio
gate = asyncio.Event()

async def look_up(key):
    await gate.wait()
    return "slow"
"""


def maps_of(*options: MapOptions) -> Maps:
    made = make(options, SystemClock(), lambda level, text: None)
    assert isinstance(made, Maps), made
    return made


def sqlite_map(path: Path, value: str) -> MapOptions:
    new = path.with_name("new")
    connection = sqlite3.connect(new)
    connection.execute("CREATE TABLE people (name TEXT, value TEXT)")
    connection.execute("INSERT INTO people VALUES ('ada', ?)", (value,))
    connection.commit()
    connection.close()
    new.rename(path)
    return MapOptions("table", MapKind.SQLITE, str(path), query="SELECT value FROM people WHERE name = %s")


def text_map(path: Path, value: str) -> MapOptions:
    path.write_text(f"ada {value}\n")
    return MapOptions("table", MapKind.TEXT, str(path))


@pytest.mark.parametrize("made", [sqlite_map, text_map])
async def test_what_a_file_said_before_a_wait_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: object
) -> None:
    (tmp_path / "editions_slow.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    options = sqlite_map(tmp_path / "file", "old") if made is sqlite_map else text_map(tmp_path / "file", "old")
    maps = maps_of(options, MapOptions("slow", MapKind.PYTHON, function="editions_slow:look_up"))
    table, slow = maps
    answers: MapAnswers[str, str] = MapAnswers(10, maps)
    assert answers.may_keep

    def question(asked: Asked) -> str:
        found = f"{asked.look_up(table, 'ada')} {asked.look_up(slow, 'ada')}"
        answers.keep("ada", found, asked)
        return found

    pending = answered(question)
    assert isinstance(pending, Awaitable) and answers.get("ada") is None
    task = asyncio.ensure_future(pending)
    await asyncio.sleep(0)
    sys.modules.pop("editions_slow").gate.set()
    assert await task == "old slow"
    assert answers.get("ada") is None
    assert answered(question) == "old slow"  # now nothing is waited for
    assert answers.get("ada") == "old slow"


@pytest.mark.parametrize("kind", [None, MapKind.FIRST, MapKind.UNION])
async def test_an_answer_ends_with_its_file_wherever_this_stands(tmp_path: Path, kind: MapKind | None) -> None:
    path = tmp_path / "file"
    inner = text_map(path, "old")
    maps = maps_of(inner) if kind is None else maps_of(inner, MapOptions("outer", kind, maps=("table",)))
    map = next(reversed(tuple(maps)))
    answers: MapAnswers[str, str] = MapAnswers(10, (map,))
    answers.keep("ada", "old", Asked())
    assert answers.get("ada") == "old"
    text_map(path.with_name("new"), "new")
    path.with_name("new").rename(path)
    for _ in range(2):
        maps.look(lambda work, done: done(work()))
    assert answers.get("ada") is None


async def test_what_is_not_an_answer_is_not_kept() -> None:
    maps = maps_of(MapOptions("one", MapKind.STATIC, value="x"))
    answers: MapAnswers[str, str] = MapAnswers(10, maps)
    answers.keep("ada", "x", AT_ONCE)
    stopped = Asked()
    stopped.refuse("cannot be used")
    answers.keep("ada", "x", stopped)
    assert answers.get("ada") is None
    answers.keep("ada", "x", Asked())
    assert answers.get("ada") == "x"
    answers.forget("ada")
    assert answers.get("ada") is None


class Unknown:
    """A source that says nothing of whether its answers may be kept."""

    waits = False

    def look_up(self, key: str, part: bool = False) -> str | NotNow | None:
        return None

    def close(self) -> None: ...


async def test_one_map_that_allows_nothing_is_enough() -> None:
    (good,) = maps_of(MapOptions("one", MapKind.STATIC, value="x"))
    answers: MapAnswers[str, str] = MapAnswers(10, (good, Map("odd", "odd", Unknown(), print)))
    answers.keep("ada", "x", Asked())
    assert not answers.may_keep and answers.get("ada") is None
