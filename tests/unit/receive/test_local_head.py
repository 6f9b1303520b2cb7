"""The header section of a message that a user of this machine hands over."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postroad.mail import message
from postroad.mail.address import Address
from postroad.protocol import grammar, mailboxes
from postroad.receive import local_head
from postroad.receive.local_head import LocalHead, prepared
from tests.unit.linear import assert_linear


def _prepared(octets: str, *, name: str = "") -> LocalHead:
    return prepared(
        octets.replace("\n", "\r\n").encode(), extract=True, domain="h.test", author="me@h.test", name=name,
        date="today", message_id="<m@h.test>",
    )


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        ("From: a\n\nx\n", "From: a@h.test\n\nx\n"),
        ("From: root (Cron Daemon)\nTo: root\n\n", "From: root@h.test (Cron Daemon)\nTo: root@h.test\n\n"),
        ("From: Ann <ann>\nTo: b@c.test,\n d\n\n", "From: Ann <ann@h.test>\nTo: b@c.test,\n d@h.test\n\n"),
        ("From: a@b.test\nBcc: y,\n z\nReturn-Path: <q>\nContent-Length: 7\nX: b\n\n",
         "From: a@b.test\nX: b\n\n"),
        ("From: a@b.test\nSubject: root\nX-To: root\n\n", "From: a@b.test\nSubject: root\nX-To: root\n\n"),
        ("Subject: x\n\nFrom: y\n", "Subject: x\nFrom: me@h.test\n\nFrom: y\n"),
        ("no header here\n", "From: me@h.test\n\nno header here\n"),
        ("From: a@b.test\nno field\n", "From: a@b.test\n\nno field\n"),
        ("", "From: me@h.test\n\n"),
        ("From: a@b.test\nTo: undisclosed-recipients:;\n\n", "From: a@b.test\nTo: undisclosed-recipients:;\n\n"),
        ("From: a@b.test\nResent-Bcc: c\nResent-To: c\n\n",
         "From: a@b.test\nResent-To: c@h.test\nResent-From: me@h.test\nResent-Date: today\n"
         "Resent-Message-ID: <m@h.test>\n\n"),
        ("From: a@b.test\nResent-From: c@d.test\nResent-Date: x\nResent-Message-ID: <y@z>\n\n",
         "From: a@b.test\nResent-From: c@d.test\nResent-Date: x\nResent-Message-ID: <y@z>\n\n"),
        ("From: =?utf-8?q?J=C3=BCrgen?= <j>\n\n", "From: =?utf-8?q?J=C3=BCrgen?= <j@h.test>\n\n"),
    ],
)  # fmt: skip
def test_what_is_changed(octets: str, expected: str) -> None:
    assert _prepared(octets).octets.decode() == expected.replace("\n", "\r\n")


def test_octets_that_are_no_text_stay() -> None:
    octets = b"From: \xff <a>\r\n\r\n"
    found = prepared(octets, extract=False, domain="h.test", author="", name="", date="", message_id="")
    assert found.octets == b"From: \xff <a@h.test>\r\n\r\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Ann Example", "From: Ann Example <me@h.test>"),
        ('A. "B" \\', 'From: "A. \\"B\\" \\\\" <me@h.test>'),
        ("Jürgen", "From: =?utf-8?B?SsO8cmdlbg==?= <me@h.test>"),
        ("two\r\nlines", "From: two lines <me@h.test>"),
    ],
)
def test_a_missing_from_gets_the_full_name(name: str, expected: str) -> None:
    assert _prepared("X: y\n\n", name=name).octets.decode() == f"X: y\r\n{expected}\r\n\r\n"


def test_a_long_name_is_folded_into_encoded_words() -> None:
    lines = _prepared("X: y\n\n", name="ü" * 100).octets.decode().split("\r\n")
    assert all(len(line) <= 90 for line in lines) and sum("=?utf-8?B?" in line for line in lines) > 3


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        ("To: a@b.test, c\nCc: d (x, y)\nBcc: <e>\n\n", ["a@b.test", "c@h.test", "d@h.test", "e@h.test"]),
        ('To: "x, y" <a@b.test>, g: c, d@e.test;\n\n', ["a@b.test", "c@h.test", "d@e.test"]),
        ("To: a@b.test\nResent-To: c@d.test\nResent-Bcc: e\nBcc: f\n\n", ["c@d.test", "e@h.test"]),
        ("To: a@b.test\nResent-From: c@d.test\n\n", []),
        ("To: undisclosed-recipients:;\n\n", []),
        ("Subject: x\n\nTo: a@b.test\n", []),
        ("To: a b\n\n", [None]),
        ("To: a@b.test,\n c\n\n", ["a@b.test", "c@h.test"]),  # dma 0.13 reads the first line of a field only
        ("To:\n Bob\n\t<a@b.test>\nBcc:\n c\n\n", ["a@b.test", "c@h.test"]),
        ("To: <@r.test:a@b.test>\n\n", ["a@b.test"]),
    ],
)
def test_recipients_of_the_header_section(octets: str, expected: list[str | None]) -> None:
    found = _prepared(octets).recipients
    assert [None if each is None else str(each) for each in found] == expected


def test_more_recipients_than_a_common_address_field_has() -> None:
    names = [f"user{number}@example.test" for number in range(2000)]
    found = _prepared(f"To: {','.join(names)}\n\n").recipients
    assert found == tuple(Address(*name.split("@")) for name in names)


@pytest.mark.parametrize("unit", ["a,", "a", "(", "<", '"', "(a)", "a@b,", "a\r\n ", "<a>,", "a b "])
def test_its_work_is_linear_in_the_length(unit: str) -> None:
    def call(length: int) -> Callable[[], LocalHead]:
        octets = b"To: " + unit.encode() * (length // len(unit))
        return lambda: prepared(octets, extract=True, domain="h.test", author="a@b", name="", date="", message_id="")

    assert_linear([local_head, mailboxes, message, grammar], call, 1_000)
