"""What reads the reports of strangers is linear: four times the input costs a little more than four times."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from postroad.mail import message
from postroad.protocol import mailboxes, mime
from postroad.trust import author, authres_reading
from postroad.trust.inbound import aggregate, feedback, report_mail, standing, tls, values, xml
from postroad.trust.inbound.limits import UnreadableReport
from tests.unit.linear import assert_linear
from tests.unit.trust.inbound import samples

BOMBS = (
    b"name=", b"name1", b'name="', b"name ", b"a: b\r\n", b"\r\n", b"\n", b"\r", b"report ", b"report domain", b"<",
    b"Received: (Postroad) with x id 0\r\n", b">", b"<>", b"@", b"a@b,", b"(", b'"', b";", b"&", b"&#", b"&amp",
    b"<?xml ", b"<?xml?>", b" ", b"\xff", b"=?", b"--", b"<a>", b"<a/>", b"{", b'{"policies":',
)  # fmt: skip
MODULES: list[ModuleType] = [
    message, mailboxes, mime, author, authres_reading, aggregate, feedback, report_mail, standing, tls, values, xml
]  # fmt: skip


def _calmly(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def reading(octets: bytes) -> None:
        with contextlib.suppress(UnreadableReport):
            read(octets)

    return reading


def _pieces(octets: bytes) -> list[bytes]:
    """A look for the end of a line counts as long as the piece, of which it sees only the line."""
    return [octets[at : at + 64] for at in range(0, len(octets), 64)]


READERS: dict[str, Callable[[bytes], Any]] = {
    "fields": lambda octets: feedback.read(b"Feedback-Type: abuse\r\n" + octets, b"", "x.example"),
    "original": lambda octets: feedback.read(b"Feedback-Type: abuse\r\n", b"Subject: x\r\n" + octets, "x.example"),
    "a part's head": lambda octets: report_mail.read([samples.mail(b"Content-Type: x/y; " + octets + b"\r\n\r\nx")]),
    "a mail's head": lambda octets: report_mail.read([b"From: a@b.example\r\nSubject: " + octets + b"\r\n\r\nx"]),
    "a mail": lambda octets: report_mail.read(_pieces(samples.mail(b"Content-Type: text/plain\r\n\r\n" + octets))),
    "mending": _calmly(xml.mended),
    "xml": _calmly(lambda octets: aggregate.read(b"<feedback>" + octets)),
    "json": _calmly(tls.read),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("reader", READERS)
def test_a_bomb_takes_linear_time(reader: str, bomb: bytes) -> None:
    def call(length: int) -> Callable[[], Any]:
        octets = bomb * (length // len(bomb))
        return lambda: READERS[reader](octets)

    assert_linear(MODULES, call, 1_500)
