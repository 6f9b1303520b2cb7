"""Replies of a remote server, read strictly and bounded (RFC 5321 §4.2, RFC 2034 §4).

What always holds: a Reply that comes out has a code of 200..599, at most `lines_max` lines, and no control octet in its
text: characters that cannot be printed become ``?``, octets that are no UTF-8 are escaped. If its lines have several
codes, the last one decides, and all words are kept ("220-welcome", then "554 not you"). Its `status` is the enhanced
code of the first line with that code, if the class agrees with the code (RFC 2034 §4), else "".

Lines end with CRLF. A bare LF does not end a line: if a server quotes what it was sent (``550 <a\\n250 ok>``), all
later replies would be shifted, and a 250 that belongs to nothing loses mail. A lone CR is a control octet like any
other.

How it fails: if octets are no reply, or too long, the reader answers `BadReply`, now and at each later call, because no
octet after them can be trusted. It is a value; nothing here raises.

Not here: which command a reply answers (`client`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import msgspec

from postroad.mail.reply import Reply

# RFC 5321 §4.2: Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
# A second digit of 6 to 9 is tolerated: the first one decides (RFC 5321 §4.3.2).
_LINE: Final = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?", re.DOTALL)
# RFC 2034 §4: status-code SP text
_STATUS: Final = re.compile(r"([245]\.(?:0|[1-9]\d{0,2})\.(?:0|[1-9]\d{0,2}))(?: +|$)")
_CACHED_MAX: Final = 200  # longer lines are not worth keeping
_QUOTED_MAX: Final = 200  # octets of what is no reply that are told


class ReplyLimits(msgspec.Struct, frozen=True):
    """In octets, line ends counted: of a line (the RFC asks for 512), of a whole reply; and lines of a reply."""

    line_max: int = 4096
    lines_max: int = 128
    reply_max: int = 65_536


class BadReply(msgspec.Struct, frozen=True):
    """What came is no SMTP reply; `text` says why."""

    text: str


class ReplyReader:
    """Octets in by `feed`, replies out by `next` until it gives None."""

    __slots__ = ("_at", "_broken", "_code", "_decisive", "_held", "_limits", "_lines", "unread")

    def __init__(self, limits: ReplyLimits | None = None) -> None:
        self._limits = limits or ReplyLimits()
        self.unread = b""  # octets that were fed, as long as some of them have not come out, else b""
        self._at = 0  # how many of these have
        self._lines: list[str] = []  # of a reply that is not complete
        self._code = 0  # of the last of them
        self._decisive = 0  # the first of them that has this code
        self._held = 0  # octets of those lines
        self._broken: BadReply | None = None

    def feed(self, octets: bytes) -> None:
        """More octets from the remote."""
        if self._broken is None:
            buffer = self.unread
            self.unread = buffer[self._at :] + octets if buffer else octets
            self._at = 0

    @property
    def pending(self) -> bool:
        """Whether octets are held that have not come out as a reply."""
        return self.unread != b"" or bool(self._lines)

    @property
    def held(self) -> str:
        """The beginning of what is held, as text that may be quoted."""
        lines = [f"{self._code}-{line}" for line in self._lines]
        rest = self.unread[self._at : self._at + _QUOTED_MAX].replace(b"\r\n", b" ")
        return " ".join([*lines, *([_text(rest).rstrip()] if rest else [])])[:_QUOTED_MAX]

    def forget(self) -> None:
        """Drop all that is held: the octets belong to a session that is over (RFC 3207 §4.2)."""
        self.unread, self._at, self._held = b"", 0, 0
        self._lines = []

    def next(self) -> Reply | BadReply | None:
        """The next reply; None if more octets are needed."""
        while True:
            buffer = self.unread
            if not buffer:
                return self._broken
            start = self._at
            end = buffer.find(b"\n", start, start + self._limits.line_max) + 1
            if end == 0:
                return self._unfinished(start)
            line = buffer[start:end]
            if not self._lines:
                answer = _single(line) if end - start <= _CACHED_MAX else _parse_single(line)
                if answer is not None:
                    if end == len(buffer):
                        self.unread, self._at = b"", 0
                    else:
                        self._at = end
                    return answer
            if not line.endswith(b"\r\n"):
                return self._break(f"a line of the reply does not end with CRLF: {self.held}")
            if end == len(buffer):
                self.unread, self._at = b"", 0
            else:
                self._at = end
            if self._add(line[:-2], end - start):
                return self._complete()

    def _unfinished(self, start: int) -> BadReply | None:
        held = len(self.unread) - start
        if held >= self._limits.line_max:
            return self._break(f"a line of the reply is longer than {self._limits.line_max} octets: {self.held}")
        if self.unread[start] not in b"2345":
            return self._break(f"not an SMTP reply: {_text(self.unread[start : start + 80])}")
        return None

    def _add(self, line: bytes, octets: int) -> bool:
        """Take up one line of a reply of several; True if it is the last."""
        match = _LINE.fullmatch(line)
        if match is None:
            self._break(f"not an SMTP reply: {_text(line[:80])}")
            return False
        code = int(match[1])
        self._held += octets
        if len(self._lines) >= self._limits.lines_max or self._held > self._limits.reply_max:
            limits = f"{self._limits.lines_max} lines or {self._limits.reply_max} octets"
            self._break(f"a reply of more than {limits}: {self.held}")
            return False
        if code != self._code or not self._lines:  # RFC 5321 §4.2.1 wants one code; with several the last one decides
            self._code, self._decisive = code, len(self._lines)
        self._lines.append(_text(match[3] or b""))
        return match[2] != b"-"

    def _complete(self) -> Reply:
        lines, self._lines, self._held = self._lines, [], 0
        status = self._status(lines)
        if not status:
            return Reply(self._code, "", tuple(lines))
        return Reply(self._code, status, tuple(_without(line, status) for line in lines))

    def _status(self, lines: list[str]) -> str:
        """RFC 2034 §4 wants the enhanced code on every line; Cyrus has it only on the last one. "" if there is none."""
        for line in lines[self._decisive :]:
            match = _STATUS.match(line)
            if match is not None and match[1][0] == str(self._code)[0]:
                return match[1]
        return ""

    def _break(self, text: str) -> BadReply:
        self._broken = BadReply(text)
        self.forget()
        return self._broken


def _parse_single(line: bytes) -> Reply | None:
    """A reply of one line, its CRLF included; None if it is no reply or not the whole of one."""
    match = _LINE.fullmatch(line[:-2])
    if match is None or match[2] == b"-" or not line.endswith(b"\r\n"):
        return None
    code, text = int(match[1]), _text(match[3] or b"")
    found = _STATUS.match(text)
    if found is None or ord(found[1][0]) != line[0]:  # RFC 2034 §4: its class agrees with the code
        return Reply(code, "", (text,))
    return Reply(code, found[1], (text[found.end() :],))


_single = lru_cache(maxsize=1024)(_parse_single)


def _without(line: str, status: str) -> str:
    """The line without the enhanced code in front of it (RFC 2034 §4: it stands on every line)."""
    if line.startswith(status):
        rest = line[len(status) :]
        if not rest or rest[0] == " ":
            return rest.lstrip(" ")
    return line


def _text(octets: bytes) -> str:
    """Octets of a remote as text that is safe in logs and DSNs."""
    text = octets.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else "?" for char in text.replace("\t", " "))
