"""A message from a file, in pieces: line ends, what stands on top, limits."""

from __future__ import annotations

import io

import pytest

from postroad.mail.message import HEADER_MAX
from postroad.operate import message_file
from postroad.operate.message_file import MessageFile, UnfitFileError

MESSAGE = b"From: a@b.example\r\nSubject: x\r\n\r\none\r\n\r\ntwo\r\n"


def read(octets: bytes) -> tuple[bytes, bytes, list[str]]:
    file = MessageFile(io.BytesIO(octets).read)
    body = b"".join(file.body())
    return file.section, body, file.notes


def test_crlf_is_taken_as_it_is() -> None:
    assert read(MESSAGE) == (b"From: a@b.example\r\nSubject: x\r\n", b"one\r\n\r\ntwo\r\n", [])


@pytest.mark.parametrize("piece", [1, 2, 3, 65_536])
def test_lf_is_read_as_crlf_wherever_it_is_cut(monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    """A piece must hold the first line; the rest may be cut anywhere."""
    octets = MESSAGE.replace(b"\r\n", b"\n")
    pieces = [octets[:18], *(octets[at : at + piece] for at in range(18, len(octets), piece))]
    file = MessageFile(lambda size: pieces.pop(0) if pieces else b"")
    assert (file.section, b"".join(file.body())) == read(MESSAGE)[:2]
    assert file.notes == ["The file has LF at the end of lines. It was read as if they were CRLF."]


@pytest.mark.parametrize("piece", [1, 2, 3])
def test_crlf_may_be_cut(piece: int) -> None:
    pieces = [MESSAGE[:19], *(MESSAGE[at : at + piece] for at in range(19, len(MESSAGE), piece))]
    file = MessageFile(lambda size: pieces.pop(0) if pieces else b"")
    assert (file.section, b"".join(file.body()), file.notes) == read(MESSAGE)


def test_lf_among_crlf_stays() -> None:
    _, body, notes = read(MESSAGE + b"three\nfour\r\n")
    assert body.endswith(b"three\nfour\r\n")
    assert len(notes) == 1 and notes[0].startswith("1 lines end with LF alone")


def test_what_stands_on_top_and_where_the_body_begins() -> None:
    section, body, notes = read(b"From ada Mon Jan  1 00:00:00 2026\n" + MESSAGE.replace(b"\r\n", b"\n"))
    assert (section, body) == read(MESSAGE)[:2]
    assert any("mbox" in each for each in notes)
    section, body, notes = read(b"From: a@b.example\r\nno field\r\nx: y\r\n\r\nbody\r\n")
    assert (section, body) == (b"From: a@b.example\r\n", b"no field\r\nx: y\r\n\r\nbody\r\n")
    assert notes == ["Line 2 is neither a header field nor empty: the body begins with it."]


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"", "empty"),
        (b"\r\nbody\r\n", "no message"),
        (b"\x89PNG\r\n\x1a\n\0\0", "no message"),
        (b"\xef\xbb\xbfFrom: a@b.example\r\n", "byte order mark"),
        (b"X: y\r\n" * (HEADER_MAX // 6 + 2), "header section"),
    ],
)
def test_no_message(octets: bytes, text: str) -> None:
    with pytest.raises(UnfitFileError, match=text):
        read(octets)


def test_a_file_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_file, "SIZE_MAX", 100_000)
    file = MessageFile(io.BytesIO(MESSAGE + b"x" * 100_000).read)
    with pytest.raises(UnfitFileError, match="more than 100000 octets"):
        list(file.body())
