"""KeyTable and SigningTable of OpenDKIM, read as they are (opendkim.conf(5)). Pure: files are read elsewhere.

A KeyTable gives names to keys: ``NAME DOMAIN:SELECTOR:KEY``. KEY is a path or the key itself; ``%`` as the domain, and
in a path, stands for the author's domain. A SigningTable says which of these names sign for which author:
``PATTERN NAME[:IDENTITY]``. In a plain file the pattern is an address or a domain in one of the forms of `_forms`; in a
``refile:`` it may have ``*`` anywhere, and the lines are tried from the top.

What always holds: letters of either case are equal, as for OpenDKIM; only the first line that fits counts, or all of
them if that is set. A private key never shows in a repr. How it fails: lines that cannot be understood are TableFaults,
each with its number; nothing is taken of a table that has one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from postroad.mail.address import canonical_domain

LINES_MAX: Final = 200_000
OCTETS_MAX: Final = 33_554_432  # of a file
FAULTS_MAX: Final = 20
ANY: Final = "%"  # the author's domain
_PREFIXES: Final = ("refile:", "file:")
_OTHER_KIND: Final = re.compile(r"[a-z]+:")
_BETWEEN: Final = re.compile(r"[ \t]+")


class TableFault(msgspec.Struct, frozen=True):
    """What is wrong with a line, counted from 1; 0: with the table as a whole."""

    line: int
    text: str


class KeyRow(msgspec.Struct, frozen=True):
    """A line of a KeyTable. `domain`: d=, or ANY. `path`: of the key's file, "" if `data` is the key."""

    name: str
    domain: str
    selector: str
    path: str = ""
    data: str = ""
    line: int = 0

    def __repr__(self) -> str:
        return f"KeyRow({self.name!r}, {self.domain!r}, {self.selector!r}, {self.path!r})"


class SignRow(msgspec.Struct, frozen=True):
    """A line of a SigningTable. `name`: of a line of the KeyTable, or ANY. `identity`: i=, "" for none."""

    pattern: str
    name: str
    identity: str = ""
    line: int = 0


def source_of(written: str) -> tuple[str, bool] | str:
    """The path of a table as a setting names it, and whether its patterns may have ``*``; or what is wrong."""
    for prefix in _PREFIXES:
        if written.startswith(prefix):
            path = written.removeprefix(prefix)
            return (path, prefix == "refile:") if path else "there is no path behind it"
    if _OTHER_KIND.match(written):
        return "only files can be read (a path, file: or refile:)"
    return (written, False) if written else "there is no path"


class KeyTable:
    """The keys of a KeyTable by their names."""

    __slots__ = ("_exact", "_patterns", "rows")

    def __init__(self, rows: tuple[KeyRow, ...], *, patterns: bool) -> None:
        self.rows = rows
        self._exact: dict[str, KeyRow] = {}
        self._patterns: list[tuple[re.Pattern[str], KeyRow]] = []
        for row in rows:
            if patterns and "*" in row.name:
                self._patterns.append((_pattern(row.name), row))
            else:
                self._exact.setdefault(row.name.lower(), row)

    @property
    def patterns(self) -> int:
        """How many lines must be tried one by one."""
        return len(self._patterns)

    def find(self, name: str) -> KeyRow | None:
        found = self._exact.get(name.lower())
        if found is not None:
            return found
        return next((row for pattern, row in self._patterns if pattern.fullmatch(name)), None)


class SigningTable:
    """Who signs for an author. `patterns`: it is a ``refile:``."""

    __slots__ = ("_by_key", "_patterns", "rows")

    def __init__(self, rows: tuple[SignRow, ...], *, patterns: bool) -> None:
        self.rows = rows
        self._patterns = [(_pattern(row.pattern), row) for row in rows] if patterns else None
        self._by_key: dict[str, list[SignRow]] = {}
        if not patterns:
            for row in rows:
                self._by_key.setdefault(row.pattern.lower(), []).append(row)

    @property
    def patterns(self) -> int:
        """How many lines must be tried one by one."""
        return len(self._patterns or ())

    def matches(self, local_part: str, domain: str) -> Iterator[SignRow]:
        """The lines that fit an author, in the order in which they count. `domain`: canonical."""
        if self._patterns is not None:
            address = f"{local_part}@{domain}"
            yield from (row for pattern, row in self._patterns if pattern.fullmatch(address))
            return
        for key in _forms(local_part.lower(), domain):
            yield from self._by_key.get(key, ())


def _forms(local_part: str, domain: str) -> Iterator[str]:
    """What may stand in a plain SigningTable for an author, the most exact form first."""
    yield f"{local_part}@{domain}"
    yield domain
    above = _above(domain)
    yield from (f"{local_part}@.{each}" for each in above)
    yield from (f".{each}" for each in above)
    yield f"{local_part}@*"
    yield "*"


def _above(domain: str) -> list[str]:
    """The domains above this one, the nearest first."""
    labels = domain.split(".")
    return [".".join(labels[at:]) for at in range(1, len(labels))]


def _pattern(written: str) -> re.Pattern[str]:
    """Whatever stands for ``*``; all else is meant as it is written. Nothing is tried twice."""
    first, *further = map(re.escape, re.split(r"\*+", written))
    if not further:
        return re.compile(first, re.IGNORECASE)
    *between, last = further
    middle = "".join(f"(?>.*?{each})" for each in between)
    return re.compile(f"{first}{middle}.*{last}", re.IGNORECASE | re.DOTALL)


def parse_key_table(text: str, *, patterns: bool) -> KeyTable | tuple[TableFault, ...]:
    """`patterns`: it is a ``refile:``."""
    rows, faults = [], []
    for number, key, value in _lines(text):
        if not value:
            faults.append(TableFault(number, f"there is no key behind the name {key[:100]!r}"))
            continue
        row = _key_row(number, key, value)
        if isinstance(row, TableFault):
            faults.append(row)
        else:
            rows.append(row)
    return _whole(text, faults) or KeyTable(tuple(rows), patterns=patterns)


def _key_row(number: int, name: str, value: str) -> KeyRow | TableFault:
    parts = [part.strip() for part in value.split(":", 2)]
    if len(parts) != 3 or not all(parts):
        return TableFault(number, f"the key {name[:100]!r} is not written as DOMAIN:SELECTOR:KEY")
    domain, selector, key = parts
    names = _name(domain, any_domain=True), _name(selector)
    if names[0] is None:
        return TableFault(number, f"{domain[:100]!r} is no domain name, and not %")
    if names[1] is None:
        return TableFault(number, f"{selector[:100]!r} is no selector")
    if key.startswith(("/", "./", "../")):
        return KeyRow(name, names[0], names[1], path=key, line=number)
    return KeyRow(name, names[0], names[1], data=key, line=number)


def parse_signing_table(text: str, *, patterns: bool) -> SigningTable | tuple[TableFault, ...]:
    """`patterns`: it is a ``refile:``."""
    rows, faults = [], []
    for number, key, value in _lines(text):
        name, _, identity = (part.strip() for part in value.partition(":"))
        if not name:
            faults.append(TableFault(number, f"there is no name of a key behind {key[:100]!r}"))
        else:
            rows.append(SignRow(key, name, identity, number))
    return _whole(text, faults) or SigningTable(tuple(rows), patterns=patterns)


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
    """The number, the key and the value of each line that has something. A comment goes from ``#`` to the end."""
    for number, line in enumerate(text.split("\n")[: LINES_MAX + 1], 1):
        line = line.partition("#")[0].strip(" \t\r")
        if line:
            key, *value = _BETWEEN.split(line, maxsplit=1)
            yield number, key, value[0] if value else ""


def _whole(text: str, faults: list[TableFault]) -> tuple[TableFault, ...]:
    if text.count("\n") > LINES_MAX:
        return (TableFault(0, f"it has more than {LINES_MAX} lines"),)
    return tuple(faults[:FAULTS_MAX])


def _name(written: str, *, any_domain: bool = False) -> str | None:
    """A domain or a selector in its canonical form; None if it is none."""
    if any_domain and written == ANY:
        return ANY
    try:
        return canonical_domain(written)
    except ValueError:
        return None


def dangling(keys: KeyTable, signers: SigningTable) -> tuple[TableFault, ...]:
    """Lines of a SigningTable that name a key which is not in the KeyTable. ``%`` depends on the author."""
    return tuple(
        TableFault(row.line, f"the key {row.name[:100]!r} is not in the key table")
        for row in signers.rows
        if row.name != ANY and keys.find(row.name) is None
    )[:FAULTS_MAX]
