"""The MIME structure of a message, read from pieces: header sections, bodies of parts, and what stands between them.

RFC 2045, RFC 2046 §5.1 and §5.2, RFC 6532 §3.7. `walk` gives the whole content as tokens, in order: joined together,
their octets are the content.

What always holds: at most one piece, one header section and the beginning of one line are held; all work is done for
pieces, header sections and lines that begin with "--", not for each line. A delimiter is a line of two hyphens, the
boundary, two more hyphens at the end of a multipart, and white space; if an inner multipart has the boundary of an
outer one, the line belongs to the outer one. A header section ends at an empty line, at a delimiter, or before a line
that is no header field.

How it fails: `TooComplex`, if a limit is exceeded. The limits: MimeLimits.

Not here: what is done with a part (`protocol.seven_bit`).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from typing import Final

import msgspec

from postroad.mail.message import FIELDS, HEADER_MAX, fields


class MimeLimits(msgspec.Struct, frozen=True):
    """`depth_max`: how deep parts are nested. `parts_max`: header sections in all. `lines_max`: lines that begin as a
    delimiter does."""

    depth_max: int = 100
    parts_max: int = 10_000
    lines_max: int = 1_000_000


DEFAULT_LIMITS: Final = MimeLimits()


class TooComplex(Exception):
    """The message passes a limit; the text says which."""


class Entity(msgspec.Struct, frozen=True):
    """What a header section says of its body. `type`, `encoding`: in lower case, with their defaults. `message`: the
    section is that of a message, not of a part. `typed`, `versioned`: there is a Content-Type, a MIME-Version."""

    number: int
    depth: int
    message: bool
    type: str
    encoding: str
    boundary: bytes = b""
    typed: bool = False
    versioned: bool = False

    @property
    def multipart(self) -> bool:
        return self.type.startswith("multipart/")

    @property
    def nested(self) -> bool:
        """Its body is a message, with a header section of its own."""
        return self.type in _MESSAGES and self.encoding in IDENTITIES

    @property
    def leaf(self) -> bool:
        return not (self.multipart or self.nested)


class Head(msgspec.Struct, frozen=True):
    """A header section. `separated`: the empty line follows as a Framing. `parent`: the number of the multipart or
    message that it stands in, -1 for the first."""

    entity: Entity
    octets: bytes
    separated: bool
    parent: int


class BodyOctets(msgspec.Struct, frozen=True):
    """Octets of the body of a leaf. An empty one follows each header section of a leaf, so that none is missed."""

    entity: Entity
    octets: bytes


class Framing(msgspec.Struct, frozen=True):
    """A delimiter with its line ends, or the empty line behind a header section."""

    octets: bytes


class Aside(msgspec.Struct, frozen=True):
    """Octets before the first and behind the last delimiter of the multipart `entity` (RFC 2046 §5.1.1: to be
    ignored)."""

    entity: Entity
    octets: bytes


Token = Head | BodyOctets | Framing | Aside

IDENTITIES: Final = frozenset({"7bit", "8bit", "binary"})  # encodings that change nothing
_MESSAGES: Final = frozenset({"message/rfc822", "message/news"})
_LINE_MAX: Final = 1000  # octets of a line that may be a delimiter
_AROUND: Final = ' \t;"'  # what careless writers put around a word
# As `mail.message` has it, in a part of a message, too. A "From " line is what a mailbox had before.
_SECTION: Final = re.compile(rb"(?:>?From [^\r\n]*\r\n)?" + FIELDS)
_FROM_LINE: Final = re.compile(rb">?From [^\r\n]*\r\n")
_TYPE: Final = re.compile(r"\s*([!-.0-~]+/[!-.0-:<-~]+)")  # RFC 2045 §5.1
# A parameter with its semicolon, or what stands between two; each matches, so that no text is read twice.
PARAMETER: Final = re.compile(
    rb';(\s*)([^\s=;"]+)\s*=\s*("(?:[^"\\]|\\.)*(?:"|\Z)|[^;\s"]*)|;|"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[^;"]+', re.DOTALL
)
_ESCAPED: Final = re.compile(rb"\\(.)", re.DOTALL)


def entity_of(section: bytes, number: int, depth: int, *, message: bool, default: str = "text/plain") -> Entity:
    """What a header section says; of two fields of one name the first counts."""
    type, boundary, encoding, typed, versioned = default, b"", "", False, False
    mailbox_line = _FROM_LINE.match(section)
    for field in fields(section[mailbox_line.end() :] if mailbox_line else section):
        name = field.name.lower()
        if name == "content-type" and not typed:
            typed = True
            found = _TYPE.match(field.text)
            # RFC 2045 §5.2: what cannot be read counts as text/plain
            type = found[1].lower() if found else "text/plain"
            if type.startswith("multipart/"):
                boundary = _boundary(field.value)
        elif name == "content-transfer-encoding" and not encoding:
            encoding = field.text.split("(")[0].strip(_AROUND).lower() or "7bit"
        elif name == "mime-version":
            versioned = True
    return Entity(number, depth, message, type, encoding or "7bit", boundary, typed, versioned)


def unquoted(octets: bytes) -> bytes:
    """What a quoted string stands for; anything else as it is."""
    return _ESCAPED.sub(rb"\1", octets[1:].removesuffix(b'"')) if octets.startswith(b'"') else octets


def _boundary(value: bytes) -> bytes:
    for found in PARAMETER.finditer(value):
        if found[2] is not None and found[2].lower() == b"boundary":
            return unquoted(found[3]).rstrip(b" \t")
    return b""


class _Input:
    """The pieces, of which one and what is left of the one before are held. `at`: what is before has been told."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self.octets = b""
        self.at = 0
        self.ended = False
        self._blank = -1  # where the empty line is that was found last
        self._searched = 0  # up to where there is certainly none

    def more(self) -> None:
        """Add a piece, or learn that there is none."""
        piece = next(self._pieces, None)
        if piece is None:
            self.ended = True
        else:
            self.octets = self.octets[self.at :] + piece
            self._blank -= self.at
            self._searched -= self.at
            self.at = 0

    def find_blank(self) -> int:
        """Where the next CRLF is that an empty line follows, -1 for nowhere yet. No octet is looked at again for each
        of many small parts."""
        if self._blank < self.at:
            self._blank = self.octets.find(b"\r\n\r\n", max(self.at, self._searched - 3))
            self._searched = len(self.octets) if self._blank < 0 else self._blank
        return self._blank

    def take(self, end: int) -> bytes:
        octets = self.octets[self.at : end]
        self.at = end
        return octets


class _Delimiter(msgspec.Struct, frozen=True):
    """A delimiter that was found: from `start`, with the CRLF before it, to `end`. `level`: of its multipart."""

    start: int
    end: int
    level: int
    close: bool


class _Walker:
    def __init__(self, pieces: Iterable[bytes], limits: MimeLimits) -> None:
        self._input = _Input(pieces)
        self._limits = limits
        self._open: list[Entity] = []  # multiparts and nested messages, the outermost first
        self._levels: dict[bytes, int] = {}  # boundary → place in `_open`
        self._current: Entity | None = None  # the leaf whose body is read, or the multipart whose aside it is
        self._sections = 0
        self._lines = 0
        self._line_start = True  # what is next stands at the start of a line, whose CRLF has been told

    def walk(self) -> Iterator[Token]:
        yield from self._heads(message=True, default="text/plain")
        while True:
            found = yield from self._text()
            if found is None:
                return
            yield Framing(self._input.take(found.end))
            multipart = self._open[found.level]
            self._line_start = not found.close
            if found.close:
                self._close(found.level)
                self._current = multipart
            else:
                self._close(found.level + 1)
                # RFC 2046 §5.1.5
                default = "message/rfc822" if multipart.type == "multipart/digest" else "text/plain"
                yield from self._heads(message=False, default=default)

    # -- header sections -----------------------------------------------------------------------------------------------

    def _heads(self, *, message: bool, default: str) -> Iterator[Token]:
        """A header section, and those of the messages nested in it, up to where a body or a preamble begins."""
        while True:
            head = self._head(message=message, default=default)
            yield head
            if head.separated:
                yield Framing(self._input.take(self._input.at + 2))
            entity = self._current = head.entity
            self._line_start = head.octets.endswith(b"\r\n") or head.separated or not head.octets
            if entity.leaf:
                yield BodyOctets(entity, b"")
                return
            self._push(entity)
            if entity.multipart:
                return
            message, default = True, "text/plain"

    def _head(self, *, message: bool, default: str) -> Head:
        """The header section that begins here."""
        self._sections += 1
        if self._sections > self._limits.parts_max:
            raise TooComplex(f"it has more than {self._limits.parts_max} parts")
        source = self._input
        end = self._gathered()
        found = self._find(source.at, end)
        delimiter = found if isinstance(found, _Delimiter) else None
        if delimiter is not None:
            end = delimiter.start + 2 if delimiter.start > source.at or not self._line_start else source.at
        whole = _SECTION.match(source.octets, source.at, end)
        stop = whole.end() if whole is not None else source.at
        if stop - source.at > HEADER_MAX:
            raise TooComplex(f"a header section has more than {HEADER_MAX} octets")
        separated = delimiter is None and source.octets.startswith(b"\r\n", stop)
        if delimiter is not None and stop == end > source.at:
            stop = delimiter.start  # the last CRLF is the delimiter's
        section = source.take(stop)
        entity = entity_of(section, self._sections - 1, len(self._open), message=message, default=default)
        return Head(entity, section, separated, self._open[-1].number if self._open else -1)

    def _gathered(self) -> int:
        """Read on until the header section is there, or there is too much of it: where to look for it ends there."""
        source = self._input
        while True:
            if source.octets.startswith(b"\r\n", source.at):
                return source.at + 2
            blank = source.find_blank()
            if blank >= 0:
                return blank + 4
            if source.ended or len(source.octets) - source.at > HEADER_MAX + _LINE_MAX:
                return len(source.octets)
            source.more()

    # -- bodies --------------------------------------------------------------------------------------------------------

    def _text(self) -> Generator[Token, None, _Delimiter | None]:
        """What stands before the next delimiter; None if the content ends without one."""
        source = self._input
        while True:
            found = self._find(source.at, len(source.octets))
            end = found.start if isinstance(found, _Delimiter) else found
            if end > source.at:
                octets = source.take(end)
                assert self._current is not None
                leaf = self._current.leaf
                yield BodyOctets(self._current, octets) if leaf else Aside(self._current, octets)
                self._line_start = False
            if isinstance(found, _Delimiter):
                return found
            if source.ended and source.at == len(source.octets):
                return None
            source.more()

    # -- delimiters ----------------------------------------------------------------------------------------------------

    def _find(self, start: int, end: int) -> _Delimiter | int:
        """The first delimiter in the octets from `start` to `end`, or up to where there is certainly none."""
        source = self._input
        octets = source.octets
        if not self._levels:
            return end
        if self._line_start:
            if end - start < 2 and not source.ended:
                return start
            if octets.startswith(b"--", start, end):
                found = self._delimiter(start, start, end)
                if found is not None:
                    return found
        at = octets.find(b"\r\n--", start, end)
        while at >= 0:
            found = self._delimiter(at, at + 2, end)
            if found is not None:
                return found
            at = octets.find(b"\r\n--", at + 2, end)
        if not source.ended:
            for size in (3, 2, 1):  # what may be the beginning of one
                if octets.endswith(b"\r\n-"[:size], start, end):
                    return end - size
        return end

    def _delimiter(self, start: int, line: int, end: int) -> _Delimiter | int | None:
        """What the line is; `start` if that is not known yet."""
        source = self._input
        self._lines += 1
        if self._lines > self._limits.lines_max:
            raise TooComplex(f"more than {self._limits.lines_max} of its lines begin with two hyphens")
        line_end = source.octets.find(b"\r\n", line, min(end, line + _LINE_MAX))
        if line_end < 0:
            if end - line >= _LINE_MAX:
                return None
            if not source.ended:
                return start
            line_end = end
        text = source.octets[line + 2 : line_end].rstrip(b" \t")
        level = self._levels.get(text)
        if level is not None:
            return _Delimiter(start, min(line_end + 2, end), level, close=False)
        level = self._levels.get(text[:-2]) if text.endswith(b"--") else None
        # The CRLF behind it stays: a delimiter of an outer multipart may begin with it.
        return None if level is None else _Delimiter(start, line_end, level, close=True)

    def _push(self, entity: Entity) -> None:
        if len(self._open) >= self._limits.depth_max:
            raise TooComplex(f"its parts are nested more than {self._limits.depth_max} deep")
        if entity.boundary:
            self._levels.setdefault(entity.boundary, len(self._open))
        self._open.append(entity)

    def _close(self, level: int) -> None:
        """Close what is open from this level on."""
        while len(self._open) > level:
            gone = self._open.pop()
            if self._levels.get(gone.boundary) == len(self._open):
                del self._levels[gone.boundary]


def walk(pieces: Iterable[bytes], limits: MimeLimits = DEFAULT_LIMITS) -> Iterator[Token]:
    """The tokens of a content that comes in pieces."""
    return _Walker(pieces, limits).walk()
