"""Dots, ends of data, and what must never leave."""

from __future__ import annotations

import pytest

from postroad.protocol.stuffing import Stuffer, stuffed

GOOD = [
    (b"", b".\r\n"),
    (b"a\r\n", b"a\r\n.\r\n"),
    (b"a", b"a\r\n.\r\n"),
    (b".", b"..\r\n.\r\n"),
    (b".\r\n", b"..\r\n.\r\n"),
    (b"..\r\n.a\r\nb.\r\n", b"...\r\n..a\r\nb.\r\n.\r\n"),
    (b"\r\n.\r\n", b"\r\n..\r\n.\r\n"),
    (b"\r\n.\r\n.\r\n.", b"\r\n..\r\n..\r\n..\r\n.\r\n"),
    (b"a\r\n.b\r\n\r\n..c", b"a\r\n..b\r\n\r\n...c\r\n.\r\n"),
    (b"\x00\xff.\r\n.\x00", b"\x00\xff.\r\n..\x00\r\n.\r\n"),
]

BAD = [
    b"\r", b"\n", b"a\rb\r\n", b"a\nb\r\n", b"\r\r\n", b"\r\n\n", b"\n\r",
    b"a\n.\r\n", b"a\r.\r\n", b"a\n.\n", b"a\r\n.\r",
]


def in_pieces(*pieces: bytes) -> bytes | None:
    stuffer = Stuffer()
    sent = b"".join(stuffer.piece(piece) for piece in pieces)
    end = stuffer.end()
    assert (end is None) == stuffer.broken
    return None if end is None else sent + end


@pytest.mark.parametrize(("content", "sent"), GOOD)
def test_in_every_cut(content: bytes, sent: bytes) -> None:
    whole = stuffed(content)
    assert whole is not None and b"".join(whole) == sent
    assert in_pieces(content) == sent
    assert in_pieces(*(content[at : at + 1] for at in range(len(content)))) == sent
    for first in range(len(content) + 1):
        for second in range(first, len(content) + 1):
            assert in_pieces(content[:first], content[first:second], content[second:]) == sent


@pytest.mark.parametrize("content", BAD)
def test_a_stray_cr_or_lf_never_leaves(content: bytes) -> None:
    assert stuffed(content) is None
    for at in range(len(content) + 1):
        assert in_pieces(content[:at], content[at:]) is None
    assert in_pieces(*(content[at : at + 1] for at in range(len(content)))) is None


@pytest.mark.parametrize("content", BAD)
def test_and_nothing_of_the_piece_that_holds_it(content: bytes) -> None:
    stuffer = Stuffer()
    sent = b"".join(stuffer.piece(content[at : at + 1]) for at in range(len(content)))
    sent += stuffer.end() or b""
    assert sent.count(b"\n") == sent.count(b"\r\n") == sent.count(b"\r")
    assert b"\r\n.\r\n" not in b"\r\n" + sent
