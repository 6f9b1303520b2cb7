"""Files that aliases include: lists of targets, read again when they change.

A line holds one or several targets with commas between them; ``#`` at its beginning makes it a comment. A bare name
means a mailbox at the domain of the recipient who is expanded, as in the file of aliases. An included file may include
others if the settings allow it.

What always holds: a file that was read well once keeps its targets in force if it is broken later; `told` says what is
wrong with it, once for each state of the file. No file includes itself, and at most `DEPTH_MAX` include one another.
How it fails: a file that was never read well is a text that names file and line; while `lenient` is set, it is a target
by which mail to the alias waits.
"""

from __future__ import annotations

from typing import Final

import msgspec

from postroad.route import outlets
from postroad.route.alias_file import AliasTarget, AwayTarget, PlainTargets, words
from postroad.route.outlets import OutletOptions, TargetSource
from postroad.route.recipients import read_text
from postroad.world.files import Stamp, stamp
from postroad.world.problem import Problem

DEPTH_MAX: Final = 20
SIZE_MAX: Final = 67_108_864  # octets of a file
FILES_MAX: Final = 10_000


class _Kept(msgspec.Struct):
    """`targets`: as they were read last, None if never well. `fault`: of the file as it stands. `round`: in which it
    was looked at; `includes`: whether it includes files."""

    seen: Stamp
    round: int
    targets: tuple[AliasTarget, ...] | None = None
    fault: str = ""
    includes: bool = False


class IncludingTargets(PlainTargets):
    """`alias_file.Targets` with included files. A file is looked at once between two calls of `begin`."""

    def __init__(self, options: OutletOptions) -> None:
        super().__init__(options)
        self._kept: dict[tuple[str, TargetSource], _Kept] = {}
        self._open: list[str] = []  # files that are being read, each included by the one before
        self._told: list[Problem] = []
        self._round = 0
        self.lenient = False

    def begin(self) -> None:
        """Files are looked at again from here on."""
        self._round += 1

    def changes(self) -> tuple[tuple[str, Stamp], ...]:
        """The files that are others now than when they were read, with their present state."""
        found = ((path, stamp(path), kept.seen) for (path, _), kept in self._kept.items())
        return tuple([(path, now) for path, now, seen in found if now != seen])

    def told(self) -> tuple[Problem, ...]:
        """What is wrong with files whose old targets stay in force, once for each state of a file."""
        found, self._told = tuple(dict.fromkeys(self._told)), []
        return found

    def _included(self, path: str, source: TargetSource) -> tuple[AliasTarget, ...] | str:
        found = self._read(path, source)
        if not self.lenient or not isinstance(found, str):
            return found
        self._told.append(Problem(path, f"cannot be included: {found}", "Correct it, or the line that includes it."))
        return (AwayTarget("", final=True, why=f"{path}: {found}"),)

    def _read(self, path: str, source: TargetSource) -> tuple[AliasTarget, ...] | str:
        source = TargetSource("includes", source.by, source.user)
        if path in self._open:
            return f"{path} includes itself"
        if len(self._open) >= DEPTH_MAX:
            return f"{path}: more than {DEPTH_MAX} files include one another"
        now = stamp(path)
        kept = self._kept.get((path, source))
        if kept is None:
            if len(self._kept) >= FILES_MAX:
                return f"more than {FILES_MAX} files are included"
            kept = self._kept[path, source] = _Kept(now, self._round)
        elif kept.round == self._round or (kept.seen == now and not kept.includes):
            kept.round = self._round
            return kept.fault if kept.targets is None else kept.targets
        kept.seen, kept.round = now, self._round
        self._open.append(path)
        try:
            found = self._targets(path, source, kept)
        finally:
            self._open.pop()
        if not isinstance(found, Problem):
            kept.targets, kept.fault = found, ""
            return found
        if kept.targets is None:
            kept.fault = f"{found.where}: {found.text}"
            return kept.fault
        self._told.append(msgspec.structs.replace(found, remedy=f"{found.remedy} Its old targets stay in force."))
        return kept.targets

    def _targets(self, path: str, source: TargetSource, kept: _Kept) -> tuple[AliasTarget, ...] | Problem:
        text = read_text(path, SIZE_MAX)
        if isinstance(text, Problem):
            return text
        found: dict[AliasTarget, None] = {}
        kept.includes = False
        for number, raw in enumerate(text.splitlines(), 1):
            line = raw.strip()
            if not line or line.startswith("#"):
                continue
            for word in words(line):
                kept.includes = kept.includes or outlets.is_include(word)
                read = self.read(word, source)
                if isinstance(read, str):
                    return Problem(f"{path}:{number}", read, "Correct the line.")
                found.update(dict.fromkeys(read))
        return tuple(found)
