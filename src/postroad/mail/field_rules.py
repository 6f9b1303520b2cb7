"""Header fields that go, change or come, as an operator wants it for a listener or for a next hop.

What always holds: a field that no rule names stays as it is, octet for octet; a section of whole fields is one
afterwards, without lines that are longer than before and than `LINE_MAX`; all rules together take time linear in
the length of the section. A field goes or changes by the first rule that fits it, names first. How it fails: a new text
that would be no field, or could not be folded, is not taken, and the field stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from itertools import islice
from typing import Final

import msgspec

from postroad.mail.message import FIELD_NAME, LINE_MAX, raw_fields

RULES_MAX: Final = 100  # entries of one setting
SAID_MAX: Final = 20  # changes that are told one by one

Matches = Callable[[str], bool]
Changed = Callable[[str], str | None]
"""The text that takes the place of a field, or None if the rule does not fit."""

_WHOLE: Final = re.compile(FIELD_NAME + rb"(?:[^\r\n\0]|\r\n[ \t](?=[^\r\n]))*")
_FOLD_PLACE: Final = re.compile(rb"[ \t]+(?=[^ \t\r])")


class FieldRules(msgspec.Struct, frozen=True):
    """`names`: fields that go, in lower case. `removed`: whether one goes, by its text, with LF if it is folded.
    `changed`: what it becomes. `added`: fields that come if there is none of the name (in lower case), with CRLF."""

    names: frozenset[bytes] = frozenset()
    removed: tuple[Matches, ...] = ()
    changed: tuple[Changed, ...] = ()
    added: tuple[tuple[bytes, bytes], ...] = ()

    def applied(self, section: bytes) -> tuple[bytes, tuple[str, ...]]:
        """The section with its fields as the rules want them, without those that come; and what was done, in words."""
        kept: list[bytes] = []
        done: dict[str, None] = {}
        at = 0
        for name, start, _, end in raw_fields(section):
            field = section[start:end]
            became = self._became(name, field)
            if became is field:
                continue
            kept.append(section[at:start])
            at = end + 2
            word = field.partition(b":")[0].rstrip(b" \t").decode("ascii", "replace")
            done.setdefault(f"removed {word}" if became is None else f"changed {word}")
            if became is not None:
                kept.append(became + section[end:at])
        if not done:
            return section, ()
        kept.append(section[at:])
        return b"".join(kept), bounded(done)

    def coming(self, *sections: bytes) -> tuple[bytes, tuple[str, ...]]:
        """The fields that come, if these are the header sections of a message; and the same in words."""
        if not self.added:
            return b"", ()
        there = {name for section in sections for name, _, _, _ in raw_fields(section)}
        new = [field for name, field in self.added if name not in there]
        return b"".join(new), tuple([f"added {field.partition(b':')[0].decode()}" for field in new])

    def _became(self, name: bytes, field: bytes) -> bytes | None:
        if name in self.names:
            return None
        if not (self.removed or self.changed):
            return field
        text, charset = _text(field)
        if any(matches(text) for matches in self.removed):
            return None
        for change in self.changed:
            found = change(text)
            if found is not None:
                return _field(found, charset, field)
        return field


def bounded(words: Collection[str]) -> tuple[str, ...]:
    """As many of these words as log and history keep."""
    more = len(words) - SAID_MAX
    told = tuple(islice(words, SAID_MAX))
    return (*told, f"and {more} more") if more > 0 else told


def _text(field: bytes) -> tuple[str, str]:
    unfolded = field.replace(b"\r\n", b"\n")
    try:
        return unfolded.decode(), "utf-8"
    except UnicodeDecodeError:
        return unfolded.decode("latin-1"), "latin-1"


def _field(text: str, charset: str, before: bytes) -> bytes:
    """A text as a field; `before` if it can be none."""
    try:
        octets = text.encode(charset)
    except UnicodeEncodeError:  # another text than before, and not in Latin-1
        return before
    found = folded(re.sub(rb"\r?\n", b"\r\n", octets.rstrip(b" \t\r\n")))
    fits = max(map(len, found.split(b"\r\n"))) <= max(LINE_MAX, *map(len, before.split(b"\r\n")))
    return found if fits and _WHOLE.fullmatch(found) else before


def folded(field: bytes) -> bytes:
    """A field with folds at white space if its lines are too long, as far as there is any."""
    lines: list[bytes] = []
    for line in field.split(b"\r\n"):
        while len(line) > LINE_MAX:
            places = [found.start() for found in _FOLD_PLACE.finditer(line, 1, LINE_MAX)]
            if not places or not line[: places[-1]].strip():
                break
            lines.append(line[: places[-1]])
            line = line[places[-1] :]
        lines.append(line)
    return b"\r\n".join(lines)
