"""The SMTP reply: a three-digit code, an enhanced status code and lines of text (RFC 5321 §4.2, RFC 2034).

What always holds of a Reply that we send: `code` is 200..599, no line holds CR, LF or NUL, and a line with its code
and status fits in 512 octets (RFC 5321 §4.5.3.1.5). A Reply that a peer sent is made by the client machine, which has
bounded and cleaned it.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec


class Reply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A reply. `status` is the enhanced status code or "" if there is none (greeting, EHLO, 3xx; RFC 2034 §4)."""

    code: int
    status: str = ""
    lines: tuple[str, ...] = ("",)

    @property
    def ok(self) -> bool:
        return 200 <= self.code < 300

    @property
    def intermediate(self) -> bool:
        return 300 <= self.code < 400

    @property
    def transient(self) -> bool:
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        return self.code >= 500

    @property
    def text(self) -> str:
        """All lines as one, joined by a space, without the code."""
        return " ".join(self.lines)

    def __str__(self) -> str:
        head = f"{self.code} {self.status}" if self.status else str(self.code)
        return f"{head} {self.text}".rstrip()


def reply(code: int, status: str, text: str) -> Reply:
    """A reply of one line (or of several: `text` is split at LF)."""
    return Reply(code, status, tuple(text.split("\n")))


@lru_cache(maxsize=4096)
def encode(answer: Reply) -> bytes:
    """The octets of a reply with CRLF line ends (RFC 5321 §4.2.1); the status goes on every line (RFC 2034 §4).

    Control octets in the text become ``?``: a reply may quote what a peer or a remote said.
    """
    middle = f"{answer.status} " if answer.status else ""
    lines = answer.lines or ("",)
    if len(lines) == 1 and lines[0].strip():
        return _cut(f"{answer.code} {middle}{_clean(lines[0])}".encode()).rstrip() + b"\r\n"
    last = len(lines) - 1
    return b"".join(
        _cut(f"{answer.code}{' ' if number == last else '-'}{middle}{_clean(line)}".encode()).rstrip() + b"\r\n"
        if line.strip() or middle
        else f"{answer.code}{' ' if number == last else '-'}\r\n".encode()
        for number, line in enumerate(lines)
    )


def said(answer: Reply) -> str:
    """What the octets of `encode` say, on one line: for the log and the history."""
    middle = f" {answer.status}" if answer.status else ""
    lines = encode(answer).decode().split("\r\n")[:-1]
    texts = (line[4 + len(middle) :] for line in lines)
    return f"{answer.code}{middle} {' '.join(texts)}".rstrip()


def _cut(octets: bytes) -> bytes:
    """At most 510 octets, no character divided (RFC 5321 §4.5.3.1.5)."""
    return octets if len(octets) <= 510 else octets[:510].decode("utf-8", "ignore").encode()


def _clean(line: str) -> str:
    return line if line.isprintable() else "".join(char if char.isprintable() else "?" for char in line)
