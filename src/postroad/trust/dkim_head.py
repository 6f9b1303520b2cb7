"""The fields of a header section in the forms in which they are signed (RFC 6376 §3.4.1, §3.4.2, §5.4.2). Pure.

What always holds: a section is split once, and made canonical once for all its signatures. Of fields with one name the
last one is taken first. A name for which no field is left gives nothing, as for fields that are signed to keep them
away ("oversigned").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from postroad.mail.message import header_end
from postroad.trust.dkim_body import Canonicalization, reduced

_WHITE: Final = b" \t"
_BETWEEN_FIELDS: Final = re.compile(rb"\r\n(?![ \t])")
# The tag b= of a field: it may be the first one. A name in h= may hold "b=", but no ";" stands before it.
_SIGNATURE_DATA: Final = re.compile(rb"((?:\A[^:]*+:|;)[ \t\r\n]*+b[ \t\r\n]*+=)[^;]*+")

_Lines = dict[bytes, list[bytes]]


class SignedHead:
    """A header section from which signed data are taken."""

    __slots__ = ("_raw", "_relaxed", "section")

    def __init__(self, section: bytes) -> None:
        self.section = section.removesuffix(b"\r\n")
        self._raw: _Lines | None = None
        self._relaxed: _Lines | None = None

    def fields(self, name: bytes) -> list[bytes]:
        """All fields of this name (in lower case) as they came, from the top, each without its last CRLF."""
        return self.lines(Canonicalization.SIMPLE).get(name, [])

    def relaxed(self, name: bytes) -> list[bytes]:
        """The same in the relaxed form, in which signers and verifiers mostly need the section anyway."""
        return self.lines(Canonicalization.RELAXED).get(name, [])

    def names(self) -> list[bytes]:
        """The name of each field in lower case, once, in the order in which they first stand."""
        return list(self.lines(Canonicalization.SIMPLE))

    def data(self, names: Iterable[bytes], signature: bytes, canonicalization: Canonicalization) -> bytes:
        """What is signed: the fields that `names` (in lower case) take, then the signature's own field without its
        signature and without a CRLF (§3.7)."""
        taken = self.taken(names, canonicalization)
        taken.append(canonical(without_signature_data(signature), canonicalization))
        return b"\r\n".join(taken)

    def taken(self, names: Iterable[bytes], canonicalization: Canonicalization) -> list[bytes]:
        return self.picked(self.picks(names, canonicalization), canonicalization)

    def picks(self, names: Iterable[bytes], canonicalization: Canonicalization) -> list[tuple[bytes, int]]:
        """Which fields `names` take: the name of each, and its place among those of the name."""
        lines = self.lines(canonicalization)
        left: dict[bytes, int] = {}
        picks = []
        for name in names:
            of_name = lines.get(name)
            if of_name is None:
                continue
            at = left.get(name, len(of_name)) - 1
            if at >= 0:
                left[name] = at
                picks.append((name, at))
        return picks

    def picked(self, picks: Iterable[tuple[bytes, int]], canonicalization: Canonicalization) -> list[bytes]:
        lines = self.lines(canonicalization)
        return [lines[name][at] for name, at in picks]

    def counts(self, canonicalization: Canonicalization) -> tuple[tuple[bytes, int], ...]:
        """How many fields there are of each name. Equal counts lead to equal `picks`."""
        return tuple([(name, len(of_name)) for name, of_name in self.lines(canonicalization).items()])

    def lines(self, canonicalization: Canonicalization) -> Mapping[bytes, list[bytes]]:
        """All fields by their names in lower case, made once."""
        if canonicalization is Canonicalization.RELAXED:
            if self._relaxed is None:
                self._relaxed = _relaxed_lines(self.section)
            return self._relaxed
        if self._raw is None:
            self._raw = _raw_lines(self.section)
        return self._raw


def body_start(content: bytes) -> int:
    """Where the body begins: behind the header section and the empty line. `content`: all of it, or its first part
    with the whole header section."""
    end = header_end(content)
    return end + 2 if content.startswith(b"\r\n", end) else end


def canonical(field: bytes, canonicalization: Canonicalization) -> bytes:
    """One field, without its last CRLF."""
    if canonicalization is Canonicalization.SIMPLE:
        return field
    name, _, value = unfolded(field).partition(b":")
    return name.rstrip(b" ").lower() + b":" + value.strip(b" ")


def without_signature_data(field: bytes) -> bytes:
    """The field with an empty tag b=."""
    return _SIGNATURE_DATA.sub(rb"\1", field, count=1)


def unfolded(octets: bytes) -> bytes:
    """Lines that go on put together, runs of white space as one space."""
    return reduced(octets.replace(b"\r\n\t", b" ").replace(b"\r\n ", b" "))


def _relaxed_lines(section: bytes) -> _Lines:
    lines: _Lines = {}
    for line in unfolded(section).split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.rstrip(b" ").lower()
        lines.setdefault(name, []).append(name + b":" + value.strip(b" "))
    return lines


def _raw_lines(section: bytes) -> _Lines:
    lines: _Lines = {}
    for line in _BETWEEN_FIELDS.split(section):
        name = line.partition(b":")[0].rstrip(_WHITE).lower()
        lines.setdefault(name, []).append(line)
    return lines
