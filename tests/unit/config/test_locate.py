"""In which line each key of a TOML text stands."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.config.locate import Path, line_of, locate

CASES: list[tuple[str, str, dict[Path, int]]] = [
    ("a key", "a = 1\n", {("a",): 1}),
    ("keys behind comments and blank lines", "# x = 1\n\na = 1 # b = 2\nb = 2", {("a",): 3, ("b",): 4}),
    ("a table", "a = 1\n[t]\nb = 2\n", {("a",): 1, ("t",): 2, ("t", "b"): 3}),
    ("a table in a table", "[t.u]\nb = 2\n", {("t",): 1, ("t", "u"): 1, ("t", "u", "b"): 2}),
    ("a header with blanks", '[ t . "u v" ]\nb = 2\n', {("t", "u v", "b"): 2}),
    ("a dotted key", "[t]\n\na.b . c = 1\n", {("t", "a"): 3, ("t", "a", "b"): 3, ("t", "a", "b", "c"): 3}),
    ("quoted keys", "'a.b' = 1\n\"c\\u0064\" = 2\n", {("a.b",): 1, ("cd",): 2}),
    (
        "an array of tables",
        "[[l]]\na = 1\n[[l]]\n\na = 2\n",
        {("l",): 1, ("l", 0): 1, ("l", 0, "a"): 2, ("l", 1): 3, ("l", 1, "a"): 5},
    ),
    (
        "tables within an array's element",
        "[[l]]\n[l.t]\na = 1\n[[l.m]]\n[[l.m]]\nb = 1\n[[l]]\n[[l.m]]\nb = 2\n",
        {("l", 0, "t", "a"): 3, ("l", 0, "m", 1, "b"): 6, ("l", 1, "m", 0, "b"): 9},
    ),
    ("an array over lines", "a = [ # one\n 1,\n\n 2, # two\n]\nb = 3\n", {("a", 0): 2, ("a", 1): 4, ("b",): 6}),
    ("arrays in arrays", "a = [[1],\n[2,\n3]]\nb = 1", {("a", 0, 0): 1, ("a", 1, 0): 2, ("a", 1, 1): 3, ("b",): 4}),
    ("an inline table", "a = { b = 1, c.d = [1], 'e' = {} }\nf = 2", {("a", "b"): 1, ("a", "c", "d", 0): 1, ("f",): 2}),
    ("inline tables in an array", "a = [\n{ b = 1 },\n{ b = 2 }]", {("a", 0, "b"): 2, ("a", 1, "b"): 3}),
    ("a text with signs of its own", 'a = "[x]\\" # = "\nb = \'"\'\nc = 1', {("a",): 1, ("b",): 2, ("c",): 3}),
    ("a text over lines", 'a = """\nb = 1\n[t]\n"""\nc = 1\n', {("a",): 1, ("c",): 5}),
    ("a text over lines with quotes at its end", 'a = """x\n"""""\nb = 1\n', {("b",): 3}),
    ("a text over lines with quotes within", 'a = """x"" " \\""" \n"""\nb = 1\n', {("b",): 3}),
    ("a literal text over lines", "a = '''\n'' \\\n[t]\n'''''\nb = 1\n", {("b",): 5}),
    ("dates and times", "a = 1979-05-27 07:32:00Z\nb = 07:32:00 # c\nc = -1_0.5e+3\n", {("b",): 2, ("c",): 3}),
    ("keys that look like numbers", "1.2 = 3\n[4]\n-_ = 5\n", {("1", "2"): 1, ("4", "-_"): 3}),
    ("an empty array and table", "a = []\nb = {}\nc = [\n]\nd = 1", {("b",): 2, ("d",): 5}),
]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_key_is_found_in_its_line(text: str, expected: dict[Path, int]) -> None:
    found = locate(text)
    assert {path: found.get(path) for path in expected} == expected


@pytest.mark.parametrize("text", [case[1] for case in CASES], ids=[case[0] for case in CASES])
def test_every_key_that_tomllib_reads_has_a_line_and_no_other(text: str) -> None:
    assert set(locate(text)) == set(_paths(tomllib.loads(text), ()))


def _paths(value: Any, path: Path) -> list[Path]:
    here = [path] if path else []
    if isinstance(value, dict):
        return here + [each for key, inner in value.items() for each in _paths(inner, (*path, key))]
    if isinstance(value, list):
        return here + [each for index, inner in enumerate(value) for each in _paths(inner, (*path, index))]
    return here


@given(st.text("[]{}=.,\"'\\#ab1 \n", max_size=60))
def test_any_text_comes_to_an_end_and_every_toml_text_is_located_whole(text: str) -> None:
    try:
        read = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(locate(text)) == set(_paths(read, ()))


def test_the_innermost_thing_around_a_missing_key_is_to_blame() -> None:
    lines = locate("a = 1\n[[l]]\nb = 1\n")
    assert line_of(lines, ("l", 0, "missing")) == 2
    assert line_of(lines, ("l", 0, "b", 3)) == 3
    assert line_of(lines, ("nowhere", "at", "all")) == 0
