"""Sources that stand in text: ``key value`` lines as postmap(1) reads them, and aliases(5) as postalias(1) reads them.

    # a comment
    sales@example.org   ada, "bob b"@example.net,
        carol           a line that begins with white space goes on with the one before
    "quoted key"@example.org  a value

What always holds: the first of several equal keys counts, as with Postfix's hash; an entry costs its text and little
more (octets, not texts: a table of a million entries is common). How it fails: a file that is no text in UTF-8, or is
too large, gives a Problem and is not taken; a line that is no entry, and a repeated key, give a Problem each, and the
other entries count, as in Postfix.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Final

import msgspec

from postroad.maps.folding import fold, fold_octets
from postroad.world.problem import Problem, not_utf8

FILE_MAX: Final = 1_073_741_824  # octets of a file
ENTRY_MAX: Final = 16 * 1024 * 1024  # octets of one entry, with the lines that continue it
FAULTS_MAX: Final = 100  # lines of a file that are complained of

_KEY: Final = re.compile(rb'((?:[^\s"\\]|\\.|"(?:[^"\\]|\\.)*"?)+)\s+(.*)', re.DOTALL)
_NAME: Final = re.compile(rb'((?:[^":\\]|\\.|"(?:[^"\\]|\\.)*")+):\s*(.*)', re.DOTALL)
_BLOCK: Final = 1024 * 1024  # octets that are read at once
# A line of an entry as nearly all are, and one without any.
_PLAIN: Final = re.compile(rb'^([^\s#"\\][^\s"\\]*)(?<!:)[^\S\n]+(\S(?:[^\n]*\S)?)[^\S\n]*\n', re.MULTILINE)
_COMMENT: Final = re.compile(rb"^[^\S\n]*(?:#[^\n]*)?\n", re.MULTILINE)
_BEGINS_NONE: Final = (b"", b" ", b"\t", b"#", b"\n", b"\r", b"\v", b"\f")  # no entry begins so
_REMEDY: Final = 'Write "key value" into each line.'
_ALIAS_REMEDY: Final = 'Write "name: target, target".'
_COLON_REMEDY: Final = 'Write "key value" without a colon, or kind = "aliases" if each line is "name: target, target".'
_BINARY_REMEDY: Final = "Name the text file from which postmap or postalias makes the table."

Table = dict[bytes, bytes]


class Parsed(msgspec.Struct):
    """The entries of a text, by folded key, and what is wrong with single lines. `problem`: why it is no such text."""

    table: Table
    doubts: list[Problem]
    problem: Problem | None = None


class TextSource:
    """The entries of a text. `used`: when each was last the answer; those that never were are not in it."""

    __slots__ = ("_has_addresses", "_now_us", "_prefixes", "_table", "used", "waits")

    may_keep = True

    def __init__(self, table: Table, now_us: Callable[[], int]) -> None:
        self.waits = False
        self._table = table
        self._now_us = now_us
        self.used: dict[bytes, int] = {}
        self._prefixes: dict[str, bool] = {}  # the few prefixes that the callers know
        self._has_addresses: bool | None = None

    def look_up(self, key: str, part: bool = False) -> str | None:
        try:
            folded = key.lower().encode() if key.isascii() else fold(key).encode()
        except UnicodeEncodeError:  # a lone surrogate: no text has it
            return None
        found = self._table.get(folded)
        if found is None:
            return None
        self.used[folded] = self._now_us()
        return found.decode()

    def may_begin(self, prefix: str) -> bool:
        """Whether a key begins so. All keys are looked at once for a prefix."""
        found = self._prefixes.get(prefix)
        if found is None:
            octets = prefix.encode()
            found = self._prefixes[prefix] = any(key.startswith(octets) for key in self._table)
        return found

    def has_addresses(self) -> bool:
        """Whether a key may be a mailbox with its domain. All keys are looked at once."""
        if self._has_addresses is None:
            self._has_addresses = any(b"@" in key for key in self._table)
        return self._has_addresses

    def __len__(self) -> int:
        return len(self._table)

    def entries(self) -> Iterator[tuple[str, str, int]]:
        """Each key, its value, and when it was last the answer (0: never)."""
        for key, value in self._table.items():
            yield key.decode(), value.decode(), self.used.get(key, 0)

    def close(self) -> None:
        """Nothing is held."""


def read(file: BinaryIO, where: str) -> Parsed:
    """The ``key value`` lines of a file, a block at a time."""
    found = Parsed({}, [])
    held, number = b"", 1
    while True:
        octets = file.read(_BLOCK)
        held += octets
        end = len(held) if not octets else _end_of_entries(held)
        if not octets and held and not held.endswith(b"\n"):
            held += b"\n"
            end += 1
        block, held = held[:end], held[end:]
        if b"\0" in block:
            found.problem = Problem(where, "is no text file; it may be a table that postmap has made", _BINARY_REMEDY)
            return found
        if not _add_plain(found.table, block):
            parse(io.BytesIO(block), where, found, number)
        if not octets or found.problem is not None:
            return found
        if len(held) > ENTRY_MAX:
            found.problem = Problem(f"{where}:{number}", f"an entry has more than {ENTRY_MAX} octets", _REMEDY)
            return found
        number += block.count(b"\n")


def _end_of_entries(octets: bytes) -> int:
    """Where the last line begins that surely begins an entry: what stands before it is whole."""
    at = octets.rfind(b"\n")
    while at >= 0 and octets[at + 1 : at + 2] in _BEGINS_NONE:
        at = octets.rfind(b"\n", 0, at)
    return at + 1


def _add_plain(table: Table, block: bytes) -> bool:
    """Add the entries of a block whose lines are all ``key value`` or comments, as nearly all lines are. False: they
    are not, and nothing was added."""
    if not block.isascii():
        return False
    entries = _PLAIN.findall(block)
    others = block.count(b"\n") - len(entries)
    if others and sum(1 for _ in _COMMENT.finditer(block)) != others:
        return False
    more = {key.lower(): value for key, value in entries}
    if len(more) != len(entries) or not table.keys().isdisjoint(more):
        return False
    table.update(more)
    return True


def parse(lines: Iterable[bytes], where: str, found: Parsed | None = None, first: int = 1) -> Parsed:
    """``key value`` lines. `found`: what they are added to; `first`: the number of the first line."""
    found = Parsed({}, []) if found is None else found
    table = found.table
    for number, line in logical_lines(lines, first):
        words = line.split(None, 1)
        if b'"' in words[0] or b"\\" in words[0]:
            match = _KEY.match(line)
            words = [match[1], match[2]] if match is not None and match[2] else words[:1]
        if len(words) < 2:
            _doubt(found, where, number, f"{_shown(line)} has no value", _REMEDY)
            continue
        try:
            key = fold_octets(words[0])
            if not words[1].isascii():
                words[1].decode()
        except UnicodeDecodeError:
            found.problem = not_utf8(f"{where}:{number}")
            return found
        if key in table:
            text = f"{_shown(words[0])} is given twice; the first one counts"
            _doubt(found, where, number, text, "Remove one of the two lines.")
        else:
            table[key] = words[1].rstrip()
            if key.endswith(b":") and key.count(b":") == 1:
                text = f"the colon at the end of {_shown(words[0])} counts as a part of the key"
                _doubt(found, where, number, text, _COLON_REMEDY)
    return found


def parse_aliases(lines: Iterable[bytes], where: str) -> Parsed:
    """``name: target, target`` entries. A name is kept without the quotes around it, a value as it stands."""
    found = Parsed({}, [])
    for number, line in logical_lines(lines):
        match = _NAME.match(line)
        name = b"" if match is None else match[1].strip().removeprefix(b"\\")
        value = b"" if match is None else match[2].strip()
        if not name or not value:
            _doubt(found, where, number, f"{_shown(line)} is not an entry", _ALIAS_REMEDY)
            continue
        if len(name) > 1 and name.startswith(b'"') and name.endswith(b'"'):
            name = re.sub(rb"\\(.)", rb"\1", name[1:-1])
        try:
            key = fold_octets(name)
            value.decode()
        except UnicodeDecodeError:
            found.problem = not_utf8(f"{where}:{number}")
            return found
        if key in found.table:
            text = f"{_shown(name)} is given twice; the first one counts"
            _doubt(found, where, number, text, "Remove one of the two entries.")
        else:
            found.table[key] = value
    return found


def logical_lines(lines: Iterable[bytes], number: int = 1) -> Iterator[tuple[int, bytes]]:
    """Lines with those that continue them, each with the number of its first one; comments and empty lines are left
    out, in the middle of an entry, too (readlline(3) of Postfix)."""
    first, held = 0, b""
    for at, raw in enumerate(lines, number):
        line = raw.rstrip(b"\r\n")
        start = line[:1]
        if start == b" " or start == b"\t":
            stripped = line.lstrip()
            if stripped and not stripped.startswith(b"#"):
                held = held + line if held else stripped
                first = first or at
            continue
        if not line or start == b"#" or line.isspace():
            continue
        if held:
            yield first, held
        first, held = at, line
    if held:
        yield first, held


def _doubt(found: Parsed, where: str, number: int, text: str, remedy: str) -> None:
    if len(found.doubts) < FAULTS_MAX:
        found.doubts.append(Problem(f"{where}:{number}", text, remedy))


def _shown(octets: bytes) -> str:
    return repr(octets[:60].decode("utf-8", "backslashreplace"))
