"""Replies as octets: one code on all lines, the status on each, 512 octets at most, nothing that breaks a line."""

from __future__ import annotations

import pytest

from postroad.mail.reply import Reply, encode, said


@pytest.mark.parametrize(
    ("reply", "octets"),
    [
        (Reply(250, "2.0.0", ("Ok",)), b"250 2.0.0 Ok\r\n"),
        (Reply(250, "", ("a", "b", "c")), b"250-a\r\n250-b\r\n250 c\r\n"),
        (Reply(550, "5.7.1", ("a", "")), b"550-5.7.1 a\r\n550 5.7.1\r\n"),
        (Reply(354, "", ("",)), b"354 \r\n"),
        (Reply(354, "", (" ",)), b"354 \r\n"),  # msmtp 1.8.23 and esmtp 1.2 know no code without the space
        (Reply(220, "", ("a", " ")), b"220-a\r\n220 \r\n"),
        (Reply(550, "5.1.1", ("<a\r\n250 b\0>",)), b"550 5.1.1 <a??250 b?>\r\n"),
    ],
)
def test_lines(reply: Reply, octets: bytes) -> None:
    assert encode(reply) == octets


@pytest.mark.parametrize("text", ["x" * 600, "\u00fc" * 300, "a" + "\u00fc" * 300, "\U0001f4ec" * 200])
def test_a_line_has_512_octets_at_most_and_no_character_is_divided(text: str) -> None:
    """RFC 5321 §4.5.3.1.5 counts octets, not characters."""
    octets = encode(Reply(550, "5.1.1", (text, text)))
    for line in octets.splitlines(keepends=True):
        assert 508 <= len(line) <= 512 and line.endswith(b"\r\n")
        assert text.startswith(line.decode()[len("550 5.1.1 ") : -2])


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(250, "2.0.0", ("Ok",)), "250 2.0.0 Ok"),
        (Reply(220, "", ("mx ESMTP",)), "220 mx ESMTP"),
        (Reply(550, "5.7.1", ("a", "b")), "550 5.7.1 a b"),
        (Reply(550, "5.7.1", ("",)), "550 5.7.1"),
        (Reply(550, "5.1.1", ("<a\r\n250 b\0>",)), "550 5.1.1 <a??250 b?>"),
        (Reply(550, "5.1.1", ("x" * 600,)), "550 5.1.1 " + "x" * 500),
    ],
)
def test_what_is_told_of_a_reply_is_what_was_sent(reply: Reply, text: str) -> None:
    assert said(reply) == text
