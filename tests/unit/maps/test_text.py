"""Texts as postmap and postalias read them (tests/peers/test_maps.py asks these programs)."""

from __future__ import annotations

import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postroad.maps import text
from postroad.maps.rules import DEPTH_MAX
from postroad.maps.simple import CidrSource, parse_cidr
from postroad.maps.text import TextSource, parse, parse_aliases, read
from postroad.world.problem import Problem


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        (b"", {}),
        (b"a b\n", {b"a": b"b"}),
        (b"a b", {b"a": b"b"}),
        (b"a \t b  c \n", {b"a": b"b  c"}),
        (b"A@Example.ORG  Bob@X\r\n", {b"a@example.org": b"Bob@X"}),
        (b"# x\n\n  # y\na b\n", {b"a": b"b"}),
        (b"a b\n c\n\td\ne f\n", {b"a": b"b c\td", b"e": b"f"}),
        (b"a b\n# in the middle\n\n c\n", {b"a": b"b c"}),
        (b"a b # no comment\n", {b"a": b"b # no comment"}),
        (b"a b\\\nc d\n", {b"a": b"b\\", b"c": b"d"}),
        (b'"quo ted"@x  y\n', {b'"quo ted"@x': b"y"}),
        (b" begins with space\n", {b"begins": b"with space"}),
        ("Ä@x ö\n".encode(), {"ä@x".encode(): "ö".encode()}),
        ("A\u0308@x y\n".encode(), {"ä@x".encode(): b"y"}),
    ],
)
def test_lines(text: bytes, entries: dict[bytes, bytes]) -> None:
    found = parse(text.splitlines(keepends=True), "file")
    assert (found.table, found.doubts, found.problem) == (entries, [], None)


def test_lines_that_do_not_count_are_told_and_the_others_stay() -> None:
    found = parse([b"a 1\n", b"novalue\n", b"A 2\n", b"b 3\n"], "file")
    assert found.table == {b"a": b"1", b"b": b"3"} and found.problem is None
    assert [(each.where, each.text) for each in found.doubts] == [
        ("file:2", "'novalue' has no value"), ("file:3", "'A' is given twice; the first one counts"),
    ]  # fmt: skip


@pytest.mark.parametrize("lines", [b"a: 1\nb 2\n", b"b 2\na: 1", b"x y\nx z\na: 1\nb 2\n"])
def test_a_key_with_the_colon_of_an_alias_is_told(lines: bytes) -> None:
    found = read(io.BytesIO(lines), "file")
    assert found.table[b"a:"] == b"1" and found.table[b"b"] == b"2"
    assert "the colon at the end of 'a:' counts as a part of the key" in found.doubts[-1].text


def test_a_colon_of_an_address_is_nothing_to_tell() -> None:
    assert read(io.BytesIO(b"2001:db8:: x\nb 2\n"), "file").doubts == []


def test_a_table_that_postmap_has_made_is_no_text() -> None:
    found = read(io.BytesIO(b"\0\x06\x15a info@example.org\0ada@example.org\0"), "virtual.db")
    assert found.table == {} and found.problem is not None
    assert found.problem.text.startswith("is no text file") and "Name the text file" in found.problem.remedy


@pytest.mark.parametrize("line", [b"a \xff\n", b"\xff b\n"])
def test_what_is_not_utf_8_is_no_text(line: bytes) -> None:
    found = parse([b"x y\n", line], "file")
    assert found.problem is not None and found.problem.where == "file:2"


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        (b"a: b, c\n", {b"a": b"b, c"}),
        (b"A:b\n", {b"a": b"b"}),
        (b'"quo ted": x\n', {b"quo ted": b"x"}),
        (b"a: b,\n# comment\n  c\n", {b"a": b"b,  c"}),
        (b"\\name: x\n", {b"name": b"x"}),
        (b"a: b,\n", {b"a": b"b,"}),
        (b'p: "|/bin/x a"\n', {b"p": b'"|/bin/x a"'}),
    ],
)
def test_aliases(text: bytes, entries: dict[bytes, bytes]) -> None:
    found = parse_aliases(text.splitlines(keepends=True), "file")
    assert (found.table, found.doubts, found.problem) == (entries, [], None)


def test_aliases_without_colon_or_value_are_told() -> None:
    found = parse_aliases([b"a b\n", b"empty:\n", b"c: d\n"], "file")
    assert found.table == {b"c": b"d"} and len(found.doubts) == 2


def test_when_an_entry_was_last_the_answer_is_kept() -> None:
    source = TextSource({b"a": b"1", b"b": b"2"}, iter(range(100, 200)).__next__)
    assert source.look_up("A") == "1" and source.look_up("nobody") is None and source.look_up("a") == "1"
    assert list(source.entries()) == [("a", "1", 101), ("b", "2", 0)]
    assert source.look_up("\ud800") is None


_LINES = st.lists(
    st.sampled_from([b"a b", b"A c", b"# x", b"", b"  goes on", b"\tx", b"novalue", b'"q k" v', b"k  v w \r",
                     b"\xc3\xa4 o", b"k\xff x", b" # c", b"\x0b", b"a\x0bb", b"b#c d # e", b"k\\ v", b"\r",
                     b"new1 x", b"new2 y", b"new3 z"]),
    max_size=20,
)  # fmt: skip


@given(_LINES, st.booleans(), st.integers(1, 40))
def test_reading_by_blocks_gives_what_reading_by_lines_gives(lines: list[bytes], ends: bool, block: int) -> None:
    octets = b"\n".join(lines) + b"\n" * ends
    expected = parse(octets.split(b"\n"), "file")
    before, text._BLOCK = text._BLOCK, block  # type: ignore[misc]
    try:
        found = read(io.BytesIO(octets), "file")
    finally:
        text._BLOCK = before  # type: ignore[misc]
    if expected.problem is not None:
        assert found.problem == expected.problem
    else:
        assert (found.table, found.doubts, found.problem) == (expected.table, expected.doubts, None)


def test_an_entry_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "_BLOCK", 10)
    monkeypatch.setattr(text, "ENTRY_MAX", 50)
    found = read(io.BytesIO(b"a b\n" + b" c\n" * 100), "file")
    assert found.problem is not None and "more than 50 octets" in found.problem.text


@given(st.binary(max_size=300))
@example(b"\x1c")  # white space to Unicode, not to ASCII
def test_any_octets(octets: bytes) -> None:
    lines = octets.splitlines(keepends=True)
    for found in (parse(lines, "file"), parse_aliases(lines, "file")):
        source = TextSource(found.table, lambda: 1)
        for key, value, _ in source.entries() if found.problem is None else ():
            assert source.look_up(key) == value
    made = parse_cidr(lines, "file", lambda: 1)
    assert isinstance(made, Problem) or made[0].look_up("192.0.2.1") is None or b"/" in octets or b"." in octets


# ---- cidr


CIDR = b"""
192.0.2.128/25   upper
192.0.2.1        one
[2001:db8::1]    six
2001:db8::/32    all
10.1.2.3/8       wrong
!198.51.100.0/24 REJECT elsewhere
if 198.51.100.0/24
198.51.100.7     seven
if !198.51.100.0/28
0.0.0.0/0        large
endif
endif
198.51.100.0/24
198.51.100.0/24  last
"""


@pytest.mark.parametrize(
    ("address", "value"),
    [
        ("192.0.2.200", "upper"), ("192.0.2.1", "one"), ("2001:db8::1", "six"), ("2001:DB8:0::2", "all"),
        ("203.0.113.9", "REJECT elsewhere"), ("198.51.100.7", "seven"), ("198.51.100.200", "large"),
        ("198.51.100.3", "last"), ("example.org", None), ("", None),
    ],
)  # fmt: skip
def test_networks(address: str, value: str | None) -> None:
    made = parse_cidr(CIDR.splitlines(), "file", lambda: 1)
    assert isinstance(made, tuple)
    assert made[0].look_up(address) == value
    assert len(made[1]) == 2 and "host bits" in made[1][0].text and made[1][1].text == "'198.51.100.0/24' has no value"


def test_networks_in_a_condition_that_cannot_be_read_match_nothing() -> None:
    text = b"if 192.0.2.0/24\nif 300.0.0.0/8\n192.0.2.1 inner\nendif\n192.0.2.1 middle\nendif\n0.0.0.0/0 outer"
    made = parse_cidr(text.splitlines(), "file", lambda: 1)
    assert isinstance(made, tuple)
    assert [made[0].look_up(each) for each in ("192.0.2.1", "192.0.2.2")] == ["middle", "outer"]
    assert [each.where for each in made[1]] == ["file:2"], made[1]


def test_too_many_conditions_within_each_other_are_an_error() -> None:
    text = [b"if 0.0.0.0/0"] * (DEPTH_MAX + 1) + [b"0.0.0.0/0 x"] + [b"endif"] * (DEPTH_MAX + 1)
    found = parse_cidr(text, "file", lambda: 1)
    assert isinstance(found, Problem) and found.where == f"file:{DEPTH_MAX + 1}"


@pytest.mark.parametrize(("text", "word"), [(b"if 0.0.0.0/0\n0.0.0.0/0 x", "endif"), (b"endif\n0.0.0.0/0 x", "endif")])
def test_conditions_that_do_not_end_are_told_and_the_rules_count(text: bytes, word: str) -> None:
    made = parse_cidr(text.splitlines(), "file", lambda: 1)
    assert isinstance(made, tuple) and isinstance(made[0], CidrSource)
    assert made[0].look_up("192.0.2.1") == "x" and word in made[1][0].text


def test_which_beginnings_keys_have() -> None:
    source = TextSource({b"owner-list@x.test": b"ada"}, lambda: 0)
    assert source.may_begin("owner-") and source.may_begin("owner-")
    assert not source.may_begin("list")
    assert not TextSource({b"list@x.test": b"ada"}, lambda: 0).may_begin("owner-")


def test_which_networks_were_the_answer_is_known() -> None:
    text = b"192.0.2.0/24 one\nif 2001:db8::/32\n!2001:db8:1::/48  two three\nendif\n[2001:db8::]/32 four\n"
    made = parse_cidr(text.splitlines(), "file", lambda: 7)
    assert isinstance(made, tuple)
    assert [made[0].look_up(key) for key in ("2001:db8:2::1", "192.0.3.1", "x")] == ["two three", None, None]
    assert list(made[0].entries()) == [
        ("line 1: 192.0.2.0/24", "one", 0), ("line 3: !2001:db8:1::/48", "two three", 7),
        ("line 5: [2001:db8::]/32", "four", 0),
    ]
