"""What a remote says, and what is made of it for people and for the log: linear in the length of the words
(`tests.unit.linear` counts). A remote chooses the words, a stranger those of the message that is returned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from postroad.mail import message, status, trace
from postroad.mail.event import Attempted
from postroad.mail.reply import Reply
from postroad.mail.report import DsnAction
from postroad.protocol import capability, mime, replies, seven_bit
from postroad.protocol.replies import ReplyLimits, ReplyReader
from postroad.report import delivery_status, dsn, encoded_word, explain, line, own_mail, returned_part, text
from tests.unit import linear
from tests.unit.report.material import ID, NOW_US, attempt, made, recipient, report

MODULES = [
    message, trace, status, capability, mime, replies, seven_bit, delivery_status, dsn, encoded_word, explain, line,
    own_mail, returned_part, text,
]  # fmt: skip
LIMITS = ReplyLimits(line_max=100_000, lines_max=100_000, reply_max=1_000_000)
WORDS = [
    "a", " ", "a ", "  a", "ü", "ü ", "\t", "\n", "\x1b", "<", "a\\x{FC}", "\\x{", "=?", "?= ", "5.1.1 ", "-", "\u202e",
]  # fmt: skip


def of(seed: str, length: int) -> str:
    return (seed * (length // len(seed) + 1))[:length]


@pytest.mark.parametrize("seed", WORDS)
@pytest.mark.parametrize("start", ["", "x" * 80, "550 5.1.1 "])
def test_words_in_fields_and_lines_for_people(seed: str, start: str) -> None:
    def call(length: int) -> Callable[[], Any]:
        said = start + of(seed, length)

        def write() -> None:
            cleaned = text.clean(said)
            text.field("Diagnostic-Code", cleaned)
            text.field("Diagnostic-Code", text.ascii_of(said))
            text.wrapped(cleaned, "    ")
            text.shorten(said, 100)
            encoded_word.decode(said)
            status.parse(said)
            line.escaped(said)
            delivery_status._original(f"utf-8;{said}", utf8=False)
            delivery_status._original(said, utf8=True)

        return write

    linear.assert_linear(MODULES, call, 300)


@pytest.mark.parametrize("seed", WORDS)
def test_an_attempt_in_the_log(seed: str) -> None:
    def call(length: int) -> Callable[[], Any]:
        told = attempt(reply=Reply(550, "5.1.1", tuple(of(seed, length).split("\n"))), text=of(seed, length))
        event = Attempted(NOW_US, ID, ("bob@example.net",), "example.net", told)
        return lambda: (line.json_line(event), line.human_line(event))

    linear.assert_linear(MODULES, call, 300)


@pytest.mark.parametrize("seed", [b"a", b"A: b\r\n", b"\r\n ", b" ", b"=?a?q?b?= ", b"=?", b"\xc3\xbc", b"\r\n--b\r\n"])
@pytest.mark.parametrize(
    "start",
    [
        b"", b"Subject: ", b"Subject: x\r\n\r\n",
        b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n',
    ],
)  # fmt: skip
def test_a_whole_report(start: bytes, seed: bytes) -> None:
    def call(length: int) -> Callable[[], Any]:
        content = start + (seed * (length // len(seed) + 1)) + b"\r\n"
        reply = Reply(550, "", (seed.decode() * (length // len(seed)),))
        return lambda: made(report(recipient(), DsnAction.FAILED, attempt(reply=reply)), content=content)

    linear.assert_linear(MODULES, call, 1_500)


@pytest.mark.parametrize(
    "seed", [b"250-a\r\n", b"250-5.1.1 a\r\n", b"250-\r\n", b"250-AUTH=A B\r\n", b"250-LIMITS RCPTMAX=1 A=2\r\n"]
)
@pytest.mark.parametrize("cut", [64, 100])
def test_replies_as_they_come(seed: bytes, cut: int) -> None:
    """An unfinished line is looked through with each piece: `line_max` bounds that, 4,096 octets unless it is set."""
    def call(length: int) -> Callable[[], Any]:
        octets = seed * (length // len(seed)) + b"250 a\r\n"
        pieces = [octets[at : at + cut] for at in range(0, len(octets), cut)]

        def read() -> None:
            reader = ReplyReader(LIMITS)
            found: Any = None
            for piece in pieces:
                reader.feed(piece)
                found = reader.next()
            if isinstance(found, Reply):
                capability.parse(found.lines)

        return read

    linear.assert_linear(MODULES, call, 600)


@pytest.mark.parametrize("seed", [b" ", b"a ", b"5.1.1 ", b"\t", b"\xff", b"-", b"=", b"A=1 "])
@pytest.mark.parametrize("start", [b"250 ", b"250 5.1.1 ", b"250-x\r\n250 LIMITS ", b"250-x\r\n250 AUTH ", b""])
def test_a_reply_of_long_lines(start: bytes, seed: bytes) -> None:
    def call(length: int) -> Callable[[], Any]:
        octets = start + seed * (length // len(seed)) + b"\r\n"

        def read() -> None:
            reader = ReplyReader(LIMITS)
            reader.feed(octets)
            found = reader.next()
            if isinstance(found, Reply):
                capability.parse(found.lines)

        return read

    linear.assert_linear(MODULES, call, 600)
