"""Reads content on its way in: DATA with its dots, BDAT with its chunks, and the rules that both must obey.

What always holds: content that is handed on ends its lines with CRLF only, unless it is BINARYMIME; the end of DATA is
CRLF "." CRLF and nothing else (RFC 5321 §4.1.1.4, §4.5.2), wherever the stream was split; content that breaks a rule is
read and dropped to its true end, never parsed as commands, and `Scrutiny.fault` says why. How the stream was split
changes where pieces end, but not their octets. A reader holds at most a piece and one line; all work is done on whole
pieces with `find`, `count` and `replace`. If content has several faults, the split may decide which one is reported.

RFC 5321 §2.3.8, §4.5.2, §4.5.3.1; RFC 3030 §2. Not here: commands, and what is answered (`server`).
"""

from __future__ import annotations

import re
from typing import Final

from postroad.mail.message import FIELD_NAME, lines_fit, mbox_end, only_crlf
from postroad.mail.reply import Reply, reply
from postroad.protocol.limits import ProtocolLimits

STRAY: Final = reply(550, "5.5.2", "Bare CR or LF in content, lines must end with CRLF")
NUL: Final = reply(550, "5.5.2", "NUL in content")


def too_big(limits: ProtocolLimits) -> Reply:  # RFC 1870 §6.3
    return reply(552, "5.3.4", f"Message size exceeds the limit of {limits.size_max} octets")


def line_too_long(limits: ProtocolLimits) -> Reply:
    return reply(554, "5.6.0", f"Line of content longer than {limits.text_line_max} octets")


def header_too_large(limits: ProtocolLimits) -> Reply:
    return reply(552, "5.3.4", f"Header section larger than {limits.header_size_max} octets")


def too_many_fields(limits: ProtocolLimits) -> Reply:
    return reply(554, "5.6.0", f"More than {limits.header_fields_max} header fields")


# An unfinished line is handed on as far as it has come once this much of it is held, so that no buffer depends on how
# long lines may be. More than a field's name with the white space behind it, so that what has come decides.
LINE_HELD_MAX: Final = 8_192
_BLANK: Final = (b" ", b"\t")

_FIELD: Final = re.compile(rb"(?:\A|\r\n)" + FIELD_NAME)
_NO_FIELD: Final = re.compile(rb"(?:\A|\r\n)(?!" + FIELD_NAME + rb"|[ \t]|\Z)")
_FIELD_WITHIN: Final = re.compile(rb"\r\n" + FIELD_NAME)  # of a piece that begins within a line
_NO_FIELD_WITHIN: Final = re.compile(rb"\r\n(?!" + FIELD_NAME + rb"|[ \t]|\Z)")


class Scrutiny:
    """What the content of one transaction is held to, whichever command brings it.

    Pieces come in order and end with CRLF, or, if a line is long, anywhere but between CR and LF; so do pieces of
    `binary` content. `size`: octets of content so far. `repairs`: stray CR and LF are mended, not refused.
    `fault`: the reply that content deserves, once it has broken a rule; it is not looked at any further then.
    """

    __slots__ = (
        "_fields", "_header_size", "_limits", "_line", "_on_top", "_strays", "_within", "binary", "fault", "in_header",
        "repairs", "size",
    )  # fmt: skip

    def __init__(self, limits: ProtocolLimits, *, binary: bool, repairs: bool = False) -> None:
        self._limits = limits
        self.in_header = True
        self._on_top = True  # no field has come yet, nor anything else but lines of an mbox file
        self._header_size = 0
        self._fields = 0
        self._within = False  # the last piece has left its line unfinished
        self._line = 0  # octets of that line
        self._strays = 0  # CRs at its end, of which nobody knows yet whether they belong to a line end
        self.binary = binary  # BODY=BINARYMIME: octets, not lines (RFC 3030 §3)
        self.repairs = repairs
        self.size = 0
        self.fault: Reply | None = None

    def pass_on(self, piece: bytes) -> bytes:
        """The piece as it may be handed on; b"" when it, or one before it, has broken a rule."""
        limits = self._limits
        if not self.binary:
            if self._strays or not only_crlf(piece):
                if not self.repairs:
                    return self._refuse(STRAY)
                piece = self._mended(piece)
            if limits.nul_refused and 0 in piece:
                return self._refuse(NUL)
            # Most often all of it would fit into one line.
            if self._line + len(piece) > limits.text_line_max and not lines_fit(
                piece, limits.text_line_max, self._line
            ):
                return self._refuse(line_too_long(limits))
            if self._strays or not piece.endswith(b"\n"):
                last = piece.rfind(b"\n") + 1
                self._line = len(piece) - last + (0 if last else self._line)
                if self.line_too_long(self._strays):
                    return b""
            else:
                self._line = 0
        self.size += len(piece)
        if self.size > limits.size_max:
            return self._refuse(too_big(limits))
        if self.in_header and piece and (fault := self._read_header(piece)) is not None:
            return self._refuse(fault)
        return piece

    def rest(self) -> bytes:
        """What is still to be handed on behind the last piece: the content has ended."""
        strays, self._strays = self._strays, 0
        return self.pass_on(b" " * strays) if strays and self.fault is None else b""

    def exceeds(self, more: int) -> bool:
        """Whether `more` octets make the content too big; they are then refused."""
        if self.fault is None and self.size + more > self._limits.size_max:
            self._refuse(too_big(self._limits))
        return self.fault is not None

    def line_too_long(self, length: int) -> bool:
        """Whether an unfinished line, of which `length` octets are held, is too long already; it is then refused."""
        if self.fault is None and not self.binary and self._line + length > self._limits.text_line_max:
            self._refuse(line_too_long(self._limits))
        return self.fault is not None

    def _refuse(self, fault: Reply) -> bytes:
        self.fault = self.fault or fault
        return b""

    def _mended(self, piece: bytes) -> bytes:
        """The piece with CRLF for each LF, together with all CRs in front of it: what clients send whose line ends
        were translated twice is one line end. A CR alone is none (RFC 5321 §2.3.8) and becomes a space, lest it begin
        a line, a header field say, of which no other reader knows."""
        kept = piece.rstrip(b"\r")
        strays = len(piece) - len(kept)
        if not kept:
            self._strays += strays
            return b""
        lines = (b"\r" * self._strays + kept).split(b"\n")
        self._strays = strays
        last = lines.pop()
        return b"\r\n".join([*[line.rstrip(b"\r").replace(b"\r", b" ") for line in lines], last.replace(b"\r", b" ")])

    def _read_header(self, piece: bytes) -> Reply | None:
        """Size and number of fields of the header section, up to its end (`mail.message`)."""
        limits = self._limits
        found = -2 if piece.startswith(b"\r\n") and not self._within else piece.find(b"\r\n\r\n")
        end = found + 2 if found != -1 else len(piece)
        fields = piece.count(b"\r\n", 0, end)
        self.in_header = found == -1
        if (
            self.in_header
            or self._fields + fields > limits.header_fields_max
            or self._header_size + end > limits.header_size_max
        ):  # no usual message: look closer
            end, fields = self._measure(piece, end)
        self._within = not piece.endswith(b"\r\n")
        self._header_size += end
        self._fields += fields
        if self._header_size > limits.header_size_max:
            return header_too_large(limits)
        return too_many_fields(limits) if self._fields > limits.header_fields_max else None

    def _measure(self, piece: bytes, end: int) -> tuple[int, int]:
        """Where the header section really ends, and how many fields stand before it: what is no field ends it too, and
        a folded field counts once (RFC 5322 §2.2.3)."""
        top, lines = 0, 0
        if self._on_top:  # mbox lines become fields; behind them white space goes on with nothing
            top = mbox_end(piece, (piece.find(b"\n") + 1 or len(piece)) if self._within else 0)
            lines = piece.count(b"\n", 0, top)
            self._on_top = top == len(piece)
            if piece.startswith(_BLANK, top):
                self.in_header = False
                return top, lines
        field, no_field = (_FIELD_WITHIN, _NO_FIELD_WITHIN) if self._within else (_FIELD, _NO_FIELD)
        start = max(top - 2, 0)
        other = no_field.search(piece, start, end)
        if other is not None:
            end = other.end()
            self.in_header = False
        return end, lines + len(field.findall(piece, start, end))


class DataReader:
    """The content behind DATA, to its end (RFC 5321 §4.5.2). One for each message.

    Pieces end with a line, or within one that is long, so that dots and line ends are never divided between two.
    """

    __slots__ = ("_fresh", "_held", "_piece_size", "scrutiny", "swallowed")

    def __init__(self, scrutiny: Scrutiny, piece_size: int) -> None:
        self.scrutiny = scrutiny
        self.swallowed = 0
        self._piece_size = piece_size
        self._held = b""  # not yet handed on; once there is a fault, the last octets of what was swallowed
        self._fresh = True  # what is held begins behind a CRLF, the one that ended DATA itself included

    def read(self, octets: bytes, at: int) -> tuple[int, bytes, bool]:
        """Take octets from `at` on: the offset behind what was taken, a piece (b"": none), whether the data ended."""
        if self.scrutiny.fault is not None:
            return self._swallow(octets, at)
        held = self._held
        if held:
            buffer, begin = held + octets[at:], 0
            search, shift = max(len(held) - 4, 0), at - len(held)
        else:
            buffer, begin, search, shift = octets, at, at, 0
        if self._fresh and buffer.startswith(b".\r\n", begin):
            end, behind, stuffed = begin, begin + 3, False
        else:
            # A single octet is found much faster, and most of a large message (Base64) has no dot at all.
            found = buffer.find(b"\r\n.", search) if buffer.find(b".", search) >= 0 else -1
            stuffed = found >= 0 and buffer[found + 3 : found + 5] != b"\r\n"
            if stuffed:
                found = buffer.find(b"\r\n.\r\n", found + 1)
            end, behind = found + 2, found + 5
            if found < 0:
                return len(octets), self._hold(buffer, begin), False
        self._held = b""
        piece = self._unstuff(buffer[begin:end], stuffed or search > begin)
        return behind + shift, self.scrutiny.pass_on(piece), True

    def _hold(self, buffer: bytes, begin: int) -> bytes:
        """Keep what has no end yet; give whole lines of it once there is enough for a piece."""
        if len(buffer) - begin < self._piece_size:
            self._held = buffer[begin:] if begin else buffer
            return b""
        cut = buffer.rfind(b"\n", begin) + 1 or begin
        if len(buffer) - cut >= LINE_HELD_MAX:
            cut = len(buffer) - buffer.endswith(b"\r")
        self._held = buffer[cut:]
        piece = b""
        if cut > begin:
            piece = self.scrutiny.pass_on(self._unstuff(buffer[begin:cut], True))
            self._fresh = buffer.startswith(b"\r\n", cut - 2)
        if self.scrutiny.line_too_long(len(self._held)):
            self._swallow_held()
        return piece

    def _unstuff(self, lines: bytes, stuffed: bool) -> bytes:
        """RFC 5321 §4.5.2: a period that begins a line is taken away. A line begins behind a CRLF only."""
        if self._fresh and lines.startswith(b"."):
            lines = lines[1:]
        return lines.replace(b"\r\n.", b"\r\n") if stuffed and b"." in lines else lines

    def _swallow_held(self) -> None:
        held = b"\r\n" + self._held if self._fresh else self._held
        self._held = held[-4:]

    def _swallow(self, octets: bytes, at: int) -> tuple[int, bytes, bool]:
        """Look for the end of data only."""
        held = self._held
        buffer = held + octets[at:]
        found = buffer.find(b"\r\n.\r\n")
        if found < 0:
            self.swallowed += len(octets) - at
            self._held = buffer[-4:]
            return len(octets), b"", False
        self._held = b""
        return at + found + 5 - len(held), b"", True


class ChunkReader:
    """The chunks of BDAT (RFC 3030 §2). One for each message; `begin` announces a chunk, `read` takes its octets.

    Small chunks are held together until there is enough for a piece, so content may be handed on after the end of the
    chunk that brought it, at the latest with the last. Whole lines are looked at with the chunk that brought their end,
    so that it is this chunk that is refused, wherever the stream was cut.
    """

    __slots__ = ("_held", "_left", "_passed", "_piece_size", "last", "scrutiny", "size", "swallowed")

    def __init__(self, scrutiny: Scrutiny, piece_size: int) -> None:
        self.scrutiny = scrutiny
        self.swallowed = 0
        self.size = 0
        self.last = False
        self._left = 0
        self._held = b""  # not looked at yet
        self._passed = b""  # looked at, not handed on yet
        self._piece_size = piece_size

    def begin(self, size: int, *, last: bool) -> None:
        """A chunk of `size` octets comes now."""
        self.size, self.last, self._left = size, last, size
        if self.scrutiny.exceeds(len(self._held) + size):
            self._held = self._passed = b""

    def read(self, octets: bytes, at: int) -> tuple[int, bytes, bool]:
        """As `DataReader.read`; the end is that of the chunk."""
        end = min(len(octets), at + self._left)
        self._left -= end - at
        done = self._left == 0
        if self.scrutiny.fault is not None:
            self.swallowed += end - at
            return end, b"", done
        buffer = self._held + octets[at:end]
        if not done and len(self._passed) + len(buffer) < self._piece_size:
            self._held = buffer
            return end, b"", False
        ended = done and self.last
        passed = self._pass_on(buffer, len(buffer) if ended else self._cut(buffer))
        if ended:
            passed += self.scrutiny.rest()
        if not ended and len(passed) < self._piece_size:
            self._passed = passed
            return end, b"", done
        self._passed = b""
        return end, passed, done

    def _cut(self, buffer: bytes) -> int:
        """How much to look at: whole lines, so that no CRLF is divided, but for long ones; binary content has none
        behind its header."""
        scrutiny = self.scrutiny
        cut = buffer.rfind(b"\n") + 1
        left_max = self._piece_size if scrutiny.binary else LINE_HELD_MAX
        if (scrutiny.binary and not scrutiny.in_header) or len(buffer) - cut >= left_max:
            return len(buffer) - buffer.endswith(b"\r")
        return cut

    def _pass_on(self, buffer: bytes, cut: int) -> bytes:
        """What may be handed on, with what was so before; b"" once there is a fault."""
        passed = self._passed
        if cut:
            piece = self.scrutiny.pass_on(buffer[:cut] if cut < len(buffer) else buffer)
            passed = passed + piece if passed else piece
        self._held = buffer[cut:]
        if self.scrutiny.line_too_long(len(self._held)):
            self._held = passed = b""
        return passed


class RefusedChunk:
    """A chunk that was refused on sight: its octets are swallowed all the same (RFC 3030 §2), then it is answered.

    `counts`: as an error of the client; `replies`: how many it has. Both are for the server machine.
    """

    __slots__ = ("_left", "answer", "counts", "last", "replies", "swallowed")

    def __init__(
        self, size: int, answer: Reply, *, last: bool = False, counts: bool = True, replies: int = 1
    ) -> None:
        self.answer = answer
        self.last = last
        self.counts = counts
        self.replies = replies
        self.swallowed = 0
        self._left = size

    def read(self, octets: bytes, at: int) -> tuple[int, bytes, bool]:
        """As `ChunkReader.read`; there is never a piece."""
        end = min(len(octets), at + self._left)
        self._left -= end - at
        self.swallowed += end - at
        return end, b"", self._left == 0
