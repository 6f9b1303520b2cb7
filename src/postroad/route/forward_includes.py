"""Files that a file ``.forward`` includes, as a map hands them on: one value for the file with all of them.

Who reads the files is not here. What always holds: at most `INCLUDED_MAX` files are gathered, and each is read once,
even if it includes itself. How it fails: a `ForwardFile` with a fault, or with `not_now`. If a file includes itself,
`IncludedTexts.read` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from postroad.route import outlets
from postroad.route.alias_file import AliasTarget, OutletTarget, PlainTargets, words
from postroad.route.outlets import OutletOptions, TargetSource
from postroad.world.forward_file import INCLUDED_MAX, INCLUDED_SIZE_MAX, ForwardFile

_Texts = tuple[tuple[str, str], ...]


def lines_of(text: str) -> Iterator[tuple[int, str]]:
    """Lines that say something, with their numbers."""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line and not line.startswith("#"):
            yield number, line


def gathered(file: ForwardFile, read: Callable[[str], ForwardFile]) -> ForwardFile:
    """The file with all files that it includes, directly or through others. `read`: one of them, by its path."""
    texts: dict[str, str] = {}
    todo = _paths(file.text or "")
    size = 0
    while todo:
        path = todo.pop(0)
        if path in texts:
            continue
        found = read(path)
        if found.text is None:
            return ForwardFile(fault=found.fault, not_now=found.not_now)
        texts[path] = found.text
        size += len(path.encode("utf-8", "replace")) + len(found.text.encode())
        if len(texts) > INCLUDED_MAX:
            return ForwardFile(fault=f"{path}: more than {INCLUDED_MAX} files are included")
        if size > INCLUDED_SIZE_MAX:
            return ForwardFile(fault=f"{path}: the included files have more than {INCLUDED_SIZE_MAX} octets together")
        todo += _paths(found.text)
    return msgspec.structs.replace(file, included=tuple(texts.items()))


def _paths(text: str) -> list[str]:
    """Of the files that a text includes; those that are no whole path are left out, `outlets.include` tells of them."""
    found = (word for _, line in lines_of(text) for word in words(line) if outlets.is_include(word))
    return [path for path in map(outlets.include_path, found) if path.startswith("/") and path.isprintable()]


def value_of(text: str, included: _Texts = ()) -> str:
    """What the map says of a file."""
    return msgspec.json.encode((text, included)).decode()


def texts_in(value: str) -> tuple[str, _Texts]:
    """The file, and the included ones, in a value of the map."""
    return msgspec.json.decode(value, type=tuple[str, _Texts])


class IncludedTexts(PlainTargets):
    """`alias_file.Targets` that takes included files from texts that were read before. Programs and files in them must
    be allowed in .forward files and in included files."""

    def __init__(self, options: OutletOptions, texts: Mapping[str, str]) -> None:
        super().__init__(options)
        self._texts = texts
        self._open: list[str] = []

    def read_all(self, text: str, source: TargetSource) -> tuple[AliasTarget, ...] | str:
        """The targets in a text, or what is wrong with it."""
        found: dict[AliasTarget, None] = {}
        for number, line in lines_of(text):
            for word in words(line):
                read = self.read(word, source)
                if isinstance(read, str):
                    return f"line {number}: {read}"
                found.update(dict.fromkeys(read))
        return tuple(found)

    def _included(self, path: str, source: TargetSource) -> tuple[AliasTarget, ...] | str:
        if path in self._open:
            return f"{path} includes itself"
        text = self._texts.get(path)
        if text is None:
            return f"{path!r} was not read"
        self._open.append(path)
        try:
            found = self.read_all(text, source)
        finally:
            self._open.pop()
        return f"{path}: {found}" if isinstance(found, str) else found

    def _outlet(self, word: str, source: TargetSource) -> OutletTarget | str:
        if self._open:
            found = super()._outlet(word, msgspec.structs.replace(source, place="includes"))
            if isinstance(found, str):
                return found
        return super()._outlet(word, source)
