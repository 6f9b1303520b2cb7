"""The content of a message: immutable octets, in memory or in a file, and a view of its header section.

What always holds: content ends lines with CRLF only and holds no bare CR or LF, unless its body is BINARYMIME; it is
never written anew, fields are only put on top (so signatures stay valid). The header section is split by code of our
own (RFC 5322 §2.2), because we need a few fields quickly, and exactly as they are. If the content is larger than the
spool's threshold, its octets are in a file: read it through `store`.

Only this module says where a header section ends. A header section is a run of fields from the first octet on. A field
is a name of printable ASCII, perhaps white space (RFC 5322 §4.5), a colon, and a value; lines that begin with white
space go on with the value of the field above them. An empty line ends the section, and so does any line that is no
field. So content that begins with white space, or with text, has no header section. Each function here is linear in the
length of its input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final, cast

import msgspec

from postroad.mail.envelope import Envelope

HEADER_MAX: Final = 262_144  # octets of header section that are ever looked at; a longer one is refused at the door
FIELD_NAME_MAX: Final = 2_000  # octets of a field's name, and of the white space behind it; a longer one is no field
MESSAGE_ID_MAX: Final = 998  # characters of a Message-ID that envelope, log and history hold (RFC 5322 §2.1.1)
LINE_MAX: Final = 998  # octets of a line without its CRLF (RFC 5322 §2.1.1, RFC 5321 §4.5.3.1.6)

# RFC 5322 §3.6.8: field-name = 1*ftext; ftext = %d33-57 / %d59-126; §4.5: obs-optional = field-name *WSP ":" …
FIELD_NAME: Final = rb"[!-9;-~]{1,%d}[ \t]{0,%d}:" % (FIELD_NAME_MAX, FIELD_NAME_MAX)
_VALUE: Final = rb"[^\r]*(?:\r(?!\n(?![ \t]))[^\r]*)*"  # up to a CRLF that no white space follows (§2.2.3)
FIELDS: Final = rb"(?:" + FIELD_NAME + _VALUE + rb"(?:\r\n|\Z))*"
_SECTION: Final = re.compile(FIELDS)
_VALUE_RULE: Final = re.compile(_VALUE)
_NAME_RULE: Final = re.compile(rb"([!-9;-~]{1,%d})[ \t]{0,%d}:" % (FIELD_NAME_MAX, FIELD_NAME_MAX))

# What may stand under fields that we add: a field, the empty line, or nothing at all.
_JOINS: Final = re.compile(FIELD_NAME + rb"|\r\n|\Z")
# The line that files in mbox format put above each message, quoted perhaps (RFC 4155).
_MBOX: Final = re.compile(rb">*From [^\r]*(?:\r(?!\n)[^\r]*)*(?:\r\n|\Z)")
_MBOX_FIELD: Final = b"X-Mailbox-Line: "  # the name by which Postfix keeps such a line


class Field(msgspec.Struct, frozen=True):
    """One header field: its name as written, and its raw value, unfolded, otherwise untouched, no CRLF at its end."""

    name: str
    value: bytes

    @property
    def text(self) -> str:
        """The value for reading: UTF-8, else octets escaped; outer white space gone."""
        return self.value.decode("utf-8", "backslashreplace").strip()


def header_end(octets: bytes) -> int:
    """Where the header section ends: the offset just behind its last line's CRLF, the empty line not included.

    Where only fields stand in `octets`, all of it is header section.
    """
    found = _SECTION.match(octets)
    assert found is not None, "it matches nothing, too"
    return found.end()


def header_is_whole(octets: bytes) -> bool:
    """Whether `octets`, the first of some content as it came, hold all of its header section."""
    last = octets.rfind(b"\r\n")
    if last < 0:  # the first line has not ended
        return False
    lines = octets[mbox_end(octets) : last + 2]
    return header_end(lines) < len(lines)


def joining(octets: bytes) -> bytes:
    """The content as it may stand under fields that we add: nothing of it goes on with our last field, and what was no
    header section does not become one.

    A line of an mbox file on top ("From ada Mon Jan …") is kept as the field X-Mailbox-Line. Before anything else that
    is no field stands an empty line.
    """
    if _JOINS.match(octets):
        return octets
    end = mbox_end(octets)
    top = octets[:end]
    if top:
        top = b"".join([_MBOX_FIELD + line for line in top.splitlines(keepends=True)])
    return top + (b"" if _JOINS.match(octets, end) else b"\r\n") + octets[end:]


def joins(octets: bytes) -> bool:
    """Whether content that begins so may stand under fields that we add."""
    return _JOINS.match(octets) is not None


def mbox_end(octets: bytes, start: int = 0) -> int:
    """Where the lines of an mbox file on top of the content, which begins at `start`, end; `start` for none."""
    end = start
    while end < len(octets) and (found := _MBOX.match(octets, end)):
        end = found.end()
    return end


def only_crlf(octets: bytes) -> bool:
    """Whether there is no CR and no LF outside a CRLF (RFC 5321 §2.3.8). The last line need not be ended.

    `splitlines` takes one octet away for each bare CR or LF and two for each CRLF, so they are all CRLF if and only if
    two octets went for each line that was ended. All in C; a third of the time of counting, at lines of usual length.
    """
    lines = octets.splitlines()
    ended = len(lines)
    if not octets.endswith(b"\n"):
        if octets.endswith(b"\r"):
            return False
        ended -= 1 if octets else 0
    return len(octets) - len(b"".join(lines)) == 2 * ended


def lines_fit(octets: bytes, line_max: int, before: int = 0) -> bool:
    """Whether no line, CRLF included, has more than `line_max` octets. `before`: octets of the first line that came
    before these. Looks at two lines per `line_max` octets."""
    start, end = 0, len(octets)
    if before:
        if before + end <= line_max:
            return True
        start = octets.find(b"\n", 0, max(line_max - before, 0)) + 1
        if start == 0:
            return False
    rfind, last = octets.rfind, end - line_max
    while start < last:
        start = rfind(b"\n", start, start + line_max) + 1
        if not start:
            return False
    return True


def fields(octets: bytes) -> Iterator[Field]:
    """The header fields from the top (RFC 5322 §2.2; unfolding §2.2.3). `octets`: content, or its header section."""
    section = octets[: header_end(octets)]
    unfolded = section.replace(b"\r\n ", b" ").replace(b"\r\n\t", b"\t")
    for line in unfolded.split(b"\r\n"):
        if line:
            name, _, value = line.partition(b":")
            yield Field(name.rstrip(b" \t").decode("ascii"), value)


def raw_fields(section: bytes) -> Iterator[tuple[bytes, int, int, int]]:
    """The name of each field of a header section in lower case, where the field begins, and where its value begins and
    ends, its last CRLF not included."""
    at = 0
    while at < len(section):
        named = _NAME_RULE.match(section, at)
        start = at if named is None else named.end()
        end = cast("re.Match[bytes]", _VALUE_RULE.match(section, start)).end()
        if named is not None:
            yield named[1].lower(), at, start, end
        at = end + 2


def first(section: bytes, name: bytes) -> str | None:
    """The text of the first field called `name` (in lower case), or None. `section`: a header section, and no more
    than that. One search, no split: for the way of a message."""
    lowered = b"\r\n" + section.lower()
    at = lowered.find(b"\r\n" + name)
    if at < 0:
        return None
    start = at + 2 + len(name)
    if lowered[start : start + 1] != b":":  # white space before the colon, or a longer name
        found = _named(name).search(lowered, at)
        if found is None:
            return None
        start = found.end() - 1
    start -= 1  # in `section`, which has no CRLF in front, behind the colon
    matched = _VALUE_RULE.match(section, start)
    assert matched is not None, "it matches nothing, too"
    value = matched[0].replace(b"\r\n", b"")
    return value.decode("utf-8", "backslashreplace").strip()


def count(section: bytes, name: bytes) -> int:
    """How many fields are called `name` (in lower case). `section` as for `first`."""
    lowered = b"\r\n" + section.lower()
    mark = b"\r\n" + name
    alike, usual = lowered.count(mark), lowered.count(mark + b":")
    return usual if alike == usual else len(_named(name).findall(lowered))


def without(octets: bytes, name: bytes, only: Callable[[bytes], bool] | None = None) -> bytes:
    """`octets` without any field called `name` (in lower case) in the header section. `only`: without those for whose
    value it is true."""
    end = header_end(octets)
    section = b"\r\n" + octets[:end]
    kept: list[bytes] = []
    start = 0
    for found in _named(name).finditer(section.lower()):
        ends = cast("re.Match[bytes]", _VALUE_RULE.match(section, found.end())).end()
        if only is None or only(section[found.end() : ends]):
            kept.append(section[start : found.start()])
            start = ends
    kept.append(section[start:])
    return b"".join(kept)[2:] + octets[end:]


def replaced(section: bytes, name: bytes, field: bytes) -> bytes:
    """A header section with `field` (whole, with its CRLF) in the place of the first field called `name`, and without
    further ones of the name."""
    lowered = b"\r\n" + section.lower()
    found = _named(name).search(lowered)
    if found is None:
        return section
    end = cast("re.Match[bytes]", _VALUE_RULE.match(section, found.end() - 2)).end()
    return section[: found.start()] + field + without(section[end + 2 :], name)


@lru_cache(maxsize=64)
def _named(name: bytes) -> re.Pattern[bytes]:
    """A field of this name in a header section in lower case that has a CRLF in front."""
    return re.compile(rb"\r\n" + re.escape(name) + rb"[ \t]{0,%d}:" % FIELD_NAME_MAX)


class ContentFile(msgspec.Struct, frozen=True, array_like=True):
    """Content that stands in a file because it is large: where, and how many octets. A value: reading is `store`'s.
    `start`: octets at the beginning of the file that do not belong to it, as a next hop gets other ones instead."""

    path: str
    size: int
    start: int = 0


Content = bytes | ContentFile


def size(envelope: Envelope, content: Content) -> int:
    """Octets of the message: of the fields that stand in the envelope (`Envelope.prefix`) and of the content."""
    return len(envelope.prefix) + (len(content) if isinstance(content, bytes) else content.size)
