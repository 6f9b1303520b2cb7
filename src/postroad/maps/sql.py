"""Queries with the placeholders of Postfix's SQL tables, as statements with parameters. Pure.

    SELECT goto FROM alias WHERE address = '%s' AND active

``%s`` is the key, ``%u`` its local-part, ``%d`` its domain; ``%1`` to ``%9`` are the labels of its domain, the last
first; ``%%`` is a percent sign. What always holds: a key never becomes a part of the statement, whatever it holds: each
placeholder is a parameter. Quotation marks around a placeholder are dropped; ``'%u@%d'`` becomes a concatenation. A
query with ``%d`` has no answer for a key without a domain, and ``%u`` is the whole of such a key (mysql_table(5)).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

ROWS_MAX: Final = 100_000  # rows of an answer

_PLACEHOLDER: Final = re.compile(r"%([sud1-9%])")
# A text between quotation marks, or a placeholder outside of any.
_PART: Final = re.compile(r"'((?:[^']|'')*)'|%([sud1-9%])")


class SqlStatement(msgspec.Struct, frozen=True):
    """A statement with a mark for each parameter. `letters`: what each parameter is."""

    text: str
    letters: tuple[str, ...]

    def arguments(self, key: str) -> tuple[str, ...] | None:
        """The parameters for a key; None if the key lacks one of them."""
        if self.letters == ("s",):
            return (key,) if key else None
        local_part, at, domain = key.rpartition("@")
        labels = domain.split(".")[::-1] if domain else key.split(".")[::-1]
        found: list[str] = []
        for letter in self.letters:
            if letter == "s":
                value = key
            elif letter == "u":
                value = local_part if at else key
            elif letter == "d":
                value = domain if at else ""
            else:
                place = int(letter)
                value = labels[place - 1] if place <= len(labels) else ""
            if not value:
                return None
            found.append(value)
        return tuple(found)


class SqlForm(msgspec.Struct, frozen=True):
    """How a database writes things. `mark`: parameter number n; `text_mark`: the same if its type does not show;
    `concatenated`: several texts as one."""

    mark: Callable[[int], str]
    text_mark: Callable[[int], str]
    concatenated: Callable[[Sequence[str]], str]


def statement(query: str, form: SqlForm) -> SqlStatement | str:
    """The statement of a query, or what is wrong with it."""
    letters: list[str] = []

    def mark(letter: str, written: Callable[[int], str]) -> str:
        letters.append(letter)
        return written(len(letters))

    def part(found: re.Match[str]) -> str:
        if found[1] is None:
            return "%" if found[2] == "%" else mark(found[2], form.mark)
        literal = found[1]
        whole = _PLACEHOLDER.fullmatch(literal)
        if whole is not None and whole[1] != "%":
            return mark(whole[1], form.mark)
        pieces = _pieces(literal)
        if all(isinstance(piece, str) for piece in pieces):
            return f"'{''.join(map(str, pieces))}'"
        return form.concatenated(
            [f"'{piece}'" if isinstance(piece, str) else mark(piece.letter, form.text_mark) for piece in pieces]
        )

    text = _PART.sub(part, query)
    if not letters:
        return "the query has no placeholder for the key: %s, %u or %d"
    return SqlStatement(text, tuple(letters))


class _Letter(msgspec.Struct, frozen=True):
    letter: str


def _pieces(literal: str) -> list[str | _Letter]:
    """A text between quotation marks: its placeholders, and what stands between them."""
    found: list[str | _Letter] = []
    text = ""
    at = 0
    for each in _PLACEHOLDER.finditer(literal):
        text += literal[at : each.start()]
        at = each.end()
        if each[1] == "%":
            text += "%"
        else:
            found += [text, _Letter(each[1])] if text else [_Letter(each[1])]
            text = ""
    text += literal[at:]
    return [*found, text] if text or not found else found


def joined(rows: Sequence[Sequence[Any]]) -> str | None:
    """All values of all rows as one, with commas between them; None if there is nothing but NULL or nothing. Fetch at
    most `ROWS_MAX` + 1 rows. ValueError for more than `ROWS_MAX`: a part of the rows would be a list without some of
    its members."""
    if len(rows) > ROWS_MAX:
        raise ValueError(f"the answer has more than {ROWS_MAX:,} rows")
    values = [str(value) for row in rows for value in row if value is not None and value != ""]
    return ",".join(values) if values else None
