"""In which line of a TOML text each key stands (https://toml.io/en/v1.0.0).

`tomllib` gives values without places. This scanner reads only as much of TOML as is needed to find keys: table
headers, dotted keys, and the ends of values. It expects a text that `tomllib` has read without error; of any other it
promises no more than to come to an end. What is not here: values, and the check that a text is TOML.
"""

from __future__ import annotations

import re
import tomllib
from typing import Final

Path = tuple[str | int, ...]

_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED: Final = re.compile(r'"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'")
# A multi-line string may end with up to two quotes of its own before the closing three.
_STRING: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}'
    r"|'''(?:[^']|'{1,2}(?!'))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR: Final = re.compile(r"[^\s,\]}#\"'\[{]+(?: (?=\d)[^\s,\]}#]+)?")  # "1979-05-27 07:32:00" has a blank within


def locate(text: str) -> dict[Path, int]:
    """The line, from 1, of every table, key and array element, by its path: ``("listener", 0, "port")``.

    A table that has several headers, or that a dotted key makes, stands in the line that names it first.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of `path`, or of the innermost thing around it that stands in the text; 0 if there is none."""
    return next((lines[path[:length]] for length in range(len(path), 0, -1) if path[:length] in lines), 0)


class _Scanner:
    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._counted_to = 0
        self._line = 1
        self._last: dict[Path, int] = {}  # array of tables: index of its last element

    def document(self) -> None:
        table: Path = ()
        while self._skip(_BLANK) < len(self._text):
            before = self._at
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            if self._at == before:
                return  # no TOML: come to an end all the same

    def _header(self) -> Path:
        many = self._text.startswith("[[", self._at)
        line = self._here()
        self._at += 2 if many else 1
        keys = self._keys()
        path: Path = ()
        for place, key in enumerate(keys):
            path = (*path, key)
            self.lines.setdefault(path, line)
            if many and place == len(keys) - 1:
                self._last[path] = self._last.get(path, -1) + 1
            if path in self._last:  # a header within an array of tables means the array's last element
                path = (*path, self._last[path])
                self.lines.setdefault(path, line)
        self._skip(_SPACE)
        self._at += 2 if many else 1
        return path

    def _pair(self, table: Path) -> None:
        line = self._here()
        path = table
        for key in self._keys():
            path = (*path, key)
            self.lines.setdefault(path, line)
        self._skip(_SPACE)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _keys(self) -> list[str]:
        keys: list[str] = []
        while True:
            self._skip(_SPACE)
            if bare := _BARE.match(self._text, self._at):
                keys.append(bare.group())
                self._at = bare.end()
            elif quoted := _QUOTED.match(self._text, self._at):
                keys.append(next(iter(tomllib.loads(f"{quoted.group()} = 0"))))
                self._at = quoted.end()
            self._skip(_SPACE)
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def _value(self, path: Path) -> None:
        match self._text[self._at : self._at + 1]:
            case "[":
                self._array(path)
            case "{":
                self._inline_table(path)
            case '"' | "'":
                self._skip(_STRING)
            case _:
                self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        self._at += 1
        index = 0
        while self._skip(_BLANK) < len(self._text) and self._text[self._at] != "]":
            before = self._at
            if self._text[self._at] == ",":
                self._at += 1
                index += 1
                continue
            self.lines[(*path, index)] = self._here()
            self._value((*path, index))
            if self._at == before:
                return
        self._at += 1

    def _inline_table(self, path: Path) -> None:
        self._at += 1
        while self._skip(_BLANK) < len(self._text) and self._text[self._at] != "}":
            before = self._at
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._pair(path)
            if self._at == before:
                return
        self._at += 1

    def _skip(self, pattern: re.Pattern[str]) -> int:
        if found := pattern.match(self._text, self._at):
            self._at = found.end()
        return self._at

    def _here(self) -> int:
        self._line += self._text.count("\n", self._counted_to, self._at)
        self._counted_to = self._at
        return self._line
