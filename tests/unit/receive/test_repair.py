"""Repairs of a submission server: what is added, what is put in place of rubbish, and what is left."""

from __future__ import annotations

import pytest

from postroad.mail import message
from postroad.mail.address import Address
from postroad.protocol.mailboxes import mailboxes
from postroad.receive import repair

ANN = Address("ann", "local.test")
NOW_US = 1_795_000_000_000_000
DATE, ID = b"Date: Wed, 18 Nov 2026 11:06:40 +0000\r\n", b"Message-ID: <new@mx>\r\n"
SOUND = b"Date: Mon, 23 Nov 2026 12:00:00 +0100\r\nMessage-ID: <a@b>\r\n"


def repaired(octets: bytes, reverse_path: Address | None = ANN, *, known: bool = True) -> bytes:
    added, content = repair.repaired(
        octets,
        reverse_path=reverse_path,
        owns=(lambda address: address == ANN) if known else None,
        message_id="<new@mx>",
        submitted_us=NOW_US,
    )
    assert message.joins(content), "it can stand under our fields"
    return added + content


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"", DATE + ID + b"From: <ann@local.test>\r\n\r\n"),
        (b"no header\r\n", DATE + ID + b"From: <ann@local.test>\r\n\r\nno header\r\n"),
        (b"\r\nBody\r\n", DATE + ID + b"From: <ann@local.test>\r\n\r\nBody\r\n"),
        (b"From: ann@local.test\r\n", DATE + ID + b"From: ann@local.test\r\n"),
        (SOUND + b"From: ann@local.test\r\n\r\n", SOUND + b"From: ann@local.test\r\n\r\n"),
        (b"DATE:\r\nFrom: ann@local.test\r\nMessage-ID: <a@b>\r\n\r\nx",
         DATE + b"From: ann@local.test\r\nMessage-ID: <a@b>\r\n\r\nx"),
        (SOUND + b"From:\r\n\r\n", b"From: <ann@local.test>\r\n" + SOUND + b"\r\n"),
        (b"Date: yesterday\r\n at noon\r\nMessage-ID: none\r\nFrom: ann@local.test\r\n\r\nDate: body\r\n",
         DATE + ID + b"From: ann@local.test\r\n\r\nDate: body\r\n"),
    ],
)  # fmt: skip
def test_what_is_missing_or_useless(octets: bytes, expected: bytes) -> None:
    assert repaired(octets) == expected


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 23 Nov 2026 12:00:00 +0100", "23 Nov 2026 12:00 GMT", "Mon, 3 Nov 98 12:00:00 EST",
        "Mon,  23 Nov 2026 12:00:00 +0100 (CET)", "mon, 23 nov 2026 12:00:00 -0000",
    ],
)  # fmt: skip
def test_dates_that_are_left(date: str) -> None:
    octets = f"Date: {date}\r\nMessage-ID: <a@b>\r\nFrom: ann@local.test\r\n\r\n".encode()
    assert repaired(octets) == octets


@pytest.mark.parametrize(
    ("fields", "sender"),
    [
        (b"From: Ann <ann@local.test>\r\n", False),
        (b"From: boss@local.test\r\n", True),
        (b"From: boss@local.test\r\nSender: ann@local.test\r\n", False),
        (b"From: boss@local.test\r\nSender: eve@local.test\r\n", True),
        (b"From: ann@local.test, bob@local.test\r\n", True),
        (b"From: ann@local.test, bob@local.test\r\nSender: Ann <ann@local.test>\r\n", False),
        (b"From: undisclosed\r\n", False),
    ],
)
def test_sender(fields: bytes, sender: bool) -> None:
    octets = SOUND + fields + b"\r\nBody\r\n"
    mended = repaired(octets)
    assert mended.startswith(b"Sender: <ann@local.test>\r\n") is sender
    assert mended.lower().count(b"\r\nsender:") <= (0 if sender else 1)
    assert mended.endswith(b"\r\nBody\r\n")
    assert repaired(octets, known=False) == octets
    assert repaired(octets, None) == octets


@pytest.mark.parametrize("given", [b"<" + b"@" * 200_000, b"<a@" + b"b" * 998 + b">", b"<a@b", b"<a b@c>"])
def test_message_ids_that_are_none(given: bytes) -> None:
    octets = b"Date: 23 Nov 2026 12:00 GMT\r\nMessage-ID: " + given + b"\r\nFrom: ann@local.test\r\n\r\n"
    assert repaired(octets) == ID + b"Date: 23 Nov 2026 12:00 GMT\r\nFrom: ann@local.test\r\n\r\n"


def test_a_null_reverse_path_makes_no_author() -> None:
    assert repaired(b"Subject: receipt\r\n\r\n", None) == DATE + ID + b"Subject: receipt\r\n\r\n"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ann@local.test", ["ann@local.test"]),
        ("Ann <ann@local.test>", ["ann@local.test"]),
        ('"Smith, <x@y.test>" <ann@local.test>', ["ann@local.test"]),
        ("ann@local.test (also <x@y.test> (deep))", ["ann@local.test"]),
        ("Group: a@b.test, c@d.test;", ["a@b.test", "c@d.test"]),
        ('"(" <ann@local.test> (")', ["ann@local.test"]),
        ('"(" <ann@local.test> ")"', ["None"]),
        ("eve@x.test, <ann@local.test>", ["eve@x.test", "ann@local.test"]),
        ("<ann@local.test> eve@x.test", ["None"]),
        ("eve@x.test <ann@local.test>", ["ann@local.test"]),
        ("ann . lee @ local.test", ["ann.lee@local.test"]),
        ("ann lee@local.test", ["None"]),
        ("<@a.test,@b.test:ann@local.test>", ["ann@local.test"]),
        ("a@b.test, , nobody, c@d.test", ["a@b.test", "None", "c@d.test"]),
        ("a..b@c.test", ['"a..b"@c.test']),
        ('<"a b"@local.test>', ['"a b"@local.test']),
        ("<ann@BÜCHER.example>", ["ann@xn--bcher-kva.example"]),
        ("nobody", ["None"]),
        ("<>", ["None"]),
        ("", []),
        ("ann@local.test (" + "(" * 1000, ["ann@local.test"]),
        ("(" * 1000 + "ann@local.test", []),
        ("(" + "\\(" * 8_000 + "\\", []),
        ('"' * 3 + '\\"' * 8_000 + "\\", ["None"]),
        ('"' * 16_385, ["None"]),
        ('"' + '\\"' * 8_000, ["None"]),
    ],
)
def test_mailboxes(value: str, expected: list[str]) -> None:
    assert [str(address) for address in mailboxes(value)] == expected


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"A: 1\r\nX: 2\r\nB: 3\r\n\r\nX: body\r\n", b"A: 1\r\nB: 3\r\n\r\nX: body\r\n"),
        (b"x: 2\r\n folded\r\n\ttwice\r\nB: 3\r\nX: 4\r\n\r\n", b"B: 3\r\n\r\n"),
        (b"X: no end", b""),
        (b"XX: 1\r\n\r\n", b"XX: 1\r\n\r\n"),
        (b"\r\nX: body\r\n", b"\r\nX: body\r\n"),
    ],
)
def test_fields_taken_out(octets: bytes, expected: bytes) -> None:
    assert message.without(octets, b"x") == expected
