"""What a server must make of a wire, said as simply as can be: one command, one reply, one content after the other.

An oracle to compare the server machine with. It looks at the whole wire at once, knows no limits and no buffers, and
decides nothing that the server decides: it takes the replies that were given and says which octets each belongs to
(RFC 5321 §4.1.1.4, RFC 2033 §4.2, RFC 3030 §2). AssertionError where they cannot belong together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from postroad.protocol.limits import ProtocolLimits

_REPLY = re.compile(rb"(?:([2-5]\d\d)-[^\r\n\0]*\r\n)*([2-5]\d\d)(?: [^\r\n\0]*)?\r\n")
_LINE = re.compile(rb"([2-5]\d\d)([ -][^\r\n\0]*)?")
_BDAT = re.compile(rb"BDAT +(\d{1,20})( +LAST)?[ \t]*", re.IGNORECASE)
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def replies(output: bytes) -> list[tuple[int, bytes]]:
    """Code and last line of each reply. The output must be whole replies and nothing else (RFC 5321 §4.2)."""
    found: list[tuple[int, bytes]] = []
    assert not output or output.endswith(b"\r\n"), output[-80:]
    code: bytes | None = None
    for line in output.split(b"\r\n")[:-1]:
        match = _LINE.fullmatch(line)
        assert match is not None and len(line) <= 510, line
        assert code is None or code == match[1], (code, line)
        more = (match[2] or b"").startswith(b"-")
        code = match[1] if more else None
        if not more:
            found.append((int(match[1]), line))
    assert code is None, "a reply without its last line"
    return found


@dataclass
class Walk:
    """`contents`: of the messages that were answered 2yz, dots unstuffed."""

    wire: bytes
    answers: list[tuple[int, bytes]]
    lmtp: bool
    limits: ProtocolLimits
    contents: list[bytes] = field(default_factory=list)
    at: int = 0
    taken: int = 0  # replies
    esmtp: bool = False  # EHLO or LHLO was said
    is_open: bool = False  # a transaction
    accepted: int = 0
    failed: int = 0  # recipients of a transaction that one of its chunks has ended
    binary: bool = False
    chunks: bytes = b""
    closed: bool = False

    def go(self) -> Walk:
        self._next()  # the greeting
        while not self.closed and self._command():
            pass
        rest = self.answers[self.taken :]
        if not self.closed and rest:  # a line or a content without an end may be ended by the server
            assert self._next() == 421, rest
            rest = rest[1:]
        assert not rest, f"replies to nothing: {rest}"
        return self

    def _next(self) -> int:
        assert self.taken < len(self.answers), f"no reply for what ends at {self.at}: {self.wire[:self.at][-80:]!r}"
        code, line = self.answers[self.taken]
        self.taken += 1
        if code in (221, 421) or line.startswith(b"554 5.5.0 "):
            self.closed = True
        return code

    def _line(self) -> bytes | None:
        end = self.wire.find(b"\r\n", self.at)
        if end < 0:
            return None
        line = self.wire[self.at : end]
        self.at = end + 2
        return line

    def _command(self) -> bool:
        line = self._line()
        if line is None:
            return False
        chunk = _BDAT.fullmatch(line)
        if line[:5].upper() == b"BDAT " and (chunk is None or len(line) + 2 > self.limits.command_line_max):
            assert self._next() == 421, "where the chunk ends is unknown"
            return False
        if chunk is not None:
            return self._chunk(int(chunk[1]), last=chunk[2] is not None)
        code = self._next()
        if _CONTROL.search(line):
            assert code >= 400, (code, line)
        verb = line[:4].upper()
        if code == 354:
            assert verb == b"DATA", line
            return self._data()
        if verb == b"AUTH":
            while code == 334:
                if self._line() is None:
                    return False
                code = self._next()
        elif line[:5].upper() in (b"MAIL", b"MAIL ") and code not in (250, 500):
            self.failed = 0
        elif verb == b"MAIL" and code == 250:
            assert not self.is_open, line
            self._begin(is_open=True)
            self.binary = b"BODY=BINARYMIME" in line.upper()
        elif verb == b"RCPT" and code == 250:
            assert self.is_open, line
            self.accepted += 1
        elif code in (220, 250) and verb in (b"EHLO", b"HELO", b"LHLO", b"RSET", b"XCLI", b"STAR"):
            self._begin(is_open=False)
            if verb != b"RSET":
                self.esmtp = verb in (b"EHLO", b"LHLO")
        return not self.closed

    def _begin(self, *, is_open: bool) -> None:
        self.is_open, self.accepted, self.binary, self.chunks = is_open, 0, False, b""
        self.failed = 0

    def _answered(self, recipients: int | None = None) -> list[int]:
        """The replies to a content (RFC 2033 §4.2: over LMTP one for each accepted recipient)."""
        codes = []
        for _ in range((recipients or self.accepted) if self.lmtp else 1):
            codes.append(self._next())
            if self.closed:
                break
        return codes

    def _data(self) -> bool:
        assert self.accepted, "354 with nobody to send to"
        rest = self.wire[self.at :]
        end = (b"\r\n" + rest).find(b"\r\n.\r\n")  # the CRLF of DATA itself counts (RFC 5321 §4.1.1.4)
        if end < 0:
            return False
        self.at += end + 3
        codes = self._answered()
        if 250 in codes:
            self._taken((b"\r\n" + rest[:end]).replace(b"\r\n.", b"\r\n")[2:], codes)
        self._begin(is_open=False)
        return not self.closed

    def _chunk(self, size: int, *, last: bool) -> bool:
        octets = self.wire[self.at : self.at + size]
        if len(octets) < size:
            return False
        self.at += size
        if self.failed and last:  # RFC 2033 §4.3: it was in the pipeline behind the one that failed
            assert min(self._answered(self.failed)) >= 400
            self.failed = 0
        elif not self.accepted or not self.esmtp:  # nothing to take it: one reply, whatever stands in it
            assert self._next() >= 400
        elif last:
            codes = self._answered()
            if 250 in codes:
                self._taken(self.chunks + octets, codes)
            self._begin(is_open=False)
        elif self._next() == 250:
            self.chunks += octets
        else:
            failed = self.accepted
            self._begin(is_open=False)
            self.failed = failed
        return not self.closed

    def _taken(self, content: bytes, codes: list[int]) -> None:
        assert set(codes) == {250}, codes
        assert len(content) <= self.limits.size_max
        if not self.binary:
            stray = content.replace(b"\r\n", b"")
            assert b"\r" not in stray and b"\n" not in stray and b"\0" not in stray, content
            assert all(len(line) + 2 <= self.limits.text_line_max for line in content.split(b"\r\n")[:-1]), content
        self.contents.append(content)
