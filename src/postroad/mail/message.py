"""The content of a message: immutable octets, in memory or in a file, and a view of its header section.

What always holds: content ends lines with CRLF only and holds no bare CR or LF, unless its body is BINARYMIME; it is
never re-serialised, fields are only prepended (so signatures stay whole). The header view is an own splitter over the
octets (RFC 5322 §2.2), because the way of a message needs a few fields of it, fast, and exactly as they stand.
A message whose content is larger than the spool's threshold has its octets in a file: read it through `store`.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

HEADER_MAX = 262_144  # octets of header section that are ever looked at; a longer one is refused at the door


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

    With no empty line in `octets` all of it is header section.
    """
    if octets.startswith(b"\r\n"):
        return 0
    found = octets.find(b"\r\n\r\n")
    return len(octets) if found < 0 else found + 2


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


def fields(octets: bytes) -> Iterator[Field]:
    """The header fields from the top (RFC 5322 §2.2; unfolding §2.2.3). What is no field ends the header section."""
    section = octets[: header_end(octets)]
    unfolded = section.replace(b"\r\n ", b" ").replace(b"\r\n\t", b"\t")
    for line in unfolded.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        name = name.rstrip(b" \t")
        if not colon or not name or not name.isascii() or b" " in name:
            return
        yield Field(name.decode("ascii"), value)


def first(octets: bytes, name: bytes) -> str | None:
    """The text of the first field called `name` (any case), or None. One search, no split: for the way of a message."""
    section = octets[: header_end(octets)]
    lowered = b"\r\n" + section.lower()
    at = lowered.find(b"\r\n" + name.lower() + b":")
    if at < 0:
        return None
    start = at + len(name) + 1  # in `section`, which has no leading CRLF: at + 2 + len + 1 - 2
    end = start
    while True:
        end = section.find(b"\r\n", end)
        if end < 0:
            end = len(section)
            break
        if section[end + 2 : end + 3] not in (b" ", b"\t"):
            break
        end += 2
    value = section[start:end].replace(b"\r\n", b"")
    return value.decode("utf-8", "backslashreplace").strip()


def count(octets: bytes, name: bytes) -> int:
    """How many fields are called `name` (any case)."""
    section = b"\r\n" + octets[: header_end(octets)].lower()
    return section.count(b"\r\n" + name.lower() + b":")


class ContentFile(msgspec.Struct, frozen=True, array_like=True):
    """Content that stands in a file because it is large: where, and how many octets. A value: reading is `store`'s."""

    path: str
    size: int


Content = bytes | ContentFile


def size(content: Content) -> int:
    """Octets of the content."""
    return len(content) if isinstance(content, bytes) else content.size
