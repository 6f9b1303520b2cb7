"""The message on standard input: line ends, the dot that ends it, its size."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from postroad.sendmail import message
from postroad.sendmail.exits import DATAERR, IOERR, End


def _pieces(octets: bytes, size: int) -> Callable[[int, int], bytes]:
    """What `read` gives, at most `size` octets at a time."""
    given = [octets[at : at + size] for at in range(0, len(octets), size)]
    return lambda descriptor, most: given.pop(0) if given else b""


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize(
    ("octets", "dots", "expected"),
    [
        (b"a\nb\n", False, b"a\r\nb\r\n"),
        (b"a\r\nb", False, b"a\r\nb\r\n"),
        (b"a\n.\nb\n", False, b"a\r\n"),
        (b"a\r\n.\r\nb\n", False, b"a\r\n"),
        (b".\nb\n", False, b""),
        (b"a\n..\n.b\n", False, b"a\r\n..\r\n.b\r\n"),
        (b"a\n.\nb\n", True, b"a\r\n.\r\nb\r\n"),
        (b"a\n.", False, b"a\r\n.\r\n"),
        (b"10%\r100%\n", False, b"10% 100%\r\n"),
        (b"From ann Mon Dec  1\n>From x\nSubject: y\n\nz", False, b"Subject: y\r\n\r\nz\r\n"),
        (b"", False, b""),
    ],
)
def test_line_ends_and_the_dot(octets: bytes, dots: bool, expected: bytes, size: int) -> None:
    assert message.read(0, 1000, dots=dots, read=_pieces(octets, size)) == expected


def test_a_message_that_is_too_large_is_not_read_to_its_end() -> None:
    asked = []

    def read(descriptor: int, most: int) -> bytes:
        asked.append(most)
        return b"x" * 100

    with pytest.raises(End) as caught:
        message.read(0, 1000, dots=True, read=read)
    assert caught.value.code == DATAERR and len(asked) == 11


def test_crlf_counts_for_the_size() -> None:
    with pytest.raises(End) as caught:
        message.prepared(b"\n" * 600, 1000)
    assert caught.value.code == DATAERR


def test_an_input_that_cannot_be_read_is_an_error() -> None:
    def read(descriptor: int, most: int) -> bytes:
        raise OSError(5, "Input/output error")

    with pytest.raises(End) as caught:
        message.read(0, 1000, dots=True, read=read)
    assert caught.value.code == IOERR


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"To: x\r\n\r\n", True), (b"Subject: a\r\nBCC : x\r\n\r\n", True), (b"Resent-To: x\r\n", True),
        (b"Subject: to: x\r\n\r\nTo: x\r\n", False), (b"", False),
    ],
)  # fmt: skip
def test_whether_it_may_name_recipients(octets: bytes, expected: bool) -> None:
    assert message.names_recipients(octets) is expected
