"""Lists of tags, ``v=1; a=b``, as signatures, keys and policies have them (RFC 6376 §3.2). Pure.

What always holds: names keep their case, for they are told apart by it; values have no white space at their ends, and
keep what is within. Unknown tags are in the result. A list has at most TAGS_MAX tags and LIST_MAX characters.

How it fails: `parse` gives a TagFault that says what is wrong and where. `gather` is for records whose RFC says that
what is wrong is to be passed over: it gives what can be read, and the faults beside it.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

LIST_MAX: Final = 65_536
TAGS_MAX: Final = 100
_SHOWN_MAX: Final = 40

_WHITE: Final = " \t\r\n"
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
# VALCHAR with the white space that may stand between: all but controls and ";" (RFC 6376 §3.2, RFC 8616 §5).
_VALUE: Final = re.compile(r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f;]*")
_NO_WHITE: Final = str.maketrans("", "", _WHITE)


class TagFault(msgspec.Struct, frozen=True):
    """Why a text is no list of tags. `text`: for people."""

    text: str


def parse(text: str) -> dict[str, str] | TagFault:
    """The tags in their order, or what is wrong with the first one that is wrong."""
    found, faults = gather(text)
    return faults[0] if faults else found


def gather(text: str) -> tuple[dict[str, str], tuple[TagFault, ...]]:
    """All tags that can be read, and what is wrong with the others. Of two with one name the first counts."""
    if len(text) > LIST_MAX:
        return {}, (TagFault(f"the list of tags has {len(text)} characters, more than {LIST_MAX}"),)
    parts = text.split(";", TAGS_MAX + 1)
    faults: list[TagFault] = []
    if len(parts) > 1 and not parts[-1].strip(_WHITE):
        parts.pop()  # a ";" may end the list
    if len(parts) > TAGS_MAX:
        faults.append(TagFault(f"the list has more than {TAGS_MAX} tags"))
        del parts[TAGS_MAX:]
    found: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        name, equals, value = part.partition("=")
        name, value = name.strip(_WHITE), value.strip(_WHITE)
        if equals and name not in found and _NAME.fullmatch(name) and _VALUE.fullmatch(value):
            found[name] = value
        else:
            faults.append(_fault(number, part, name, equals, name in found))
    return found, tuple(faults)


def compact(value: str) -> str:
    """The value without any white space: what base64 and lists with ":" mean."""
    return value.translate(_NO_WHITE)


def _fault(number: int, part: str, name: str, equals: str, twice: bool) -> TagFault:
    if not part.strip(_WHITE):
        return TagFault(f"tag {number} is empty")
    if not equals:
        return TagFault(f'tag {number} has no "=": {_shown(part)}')
    if not _NAME.fullmatch(name):
        return TagFault(f"tag {number} has a name that is not allowed: {_shown(name)}")
    if twice:
        return TagFault(f"the tag {_shown(name)} is there twice")
    return TagFault(f"the value of the tag {_shown(name)} has a control character")


def _shown(text: str) -> str:
    text = text.strip(_WHITE)
    return ascii(text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…")
