"""Archives of strangers: what they hold, and what they cannot do to us."""

from __future__ import annotations

import gzip
import struct
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.trust.inbound import archives
from postroad.trust.inbound.limits import UnreadableReport
from tests.unit.trust.inbound.samples import packed, zipped

ROOM = 1_000_000


def files(octets: bytes, room: int = ROOM) -> list[bytes]:
    return list(archives.files(octets, archives.Room(room)))


def test_what_is_no_archive_is_itself() -> None:
    assert files(b"<feedback/>") == [b"<feedback/>"]
    assert files(b"") == [b""]


@given(st.binary(max_size=2000))
def test_gzip_and_zip_give_back_what_was_put_in(octets: bytes) -> None:
    octets = b"<" + octets
    assert files(packed(octets)) == [octets]
    assert files(zipped({"a.xml": octets})) == [octets]
    assert files(zipped({"a.xml": octets}, zipfile.ZIP_STORED)) == [octets]


def test_several_files_members_and_archives_in_archives() -> None:
    assert files(zipped({"a": b"1", "b/": b"", "__MACOSX/a": b"x", "c/._b": b"x", "c/b": b"2"})) == [b"1", b"2"]
    assert files(packed(b"a") + packed(b"b")) == [b"ab"]
    assert files(packed(b"a") + b"\0" * 512) == [b"a"]
    assert files(packed(b"a") + b"\x1f\x8b rubbish") == [b"a"]
    assert files(zipped({"a.xml.gz": packed(b"<a/>")})) == [b"<a/>"]
    assert files(packed(packed(packed(b"<a/>")))) == [b"<a/>"]


@pytest.mark.parametrize(
    ("octets", "wrong"),
    [
        (packed(b"x" * 2000)[:-9], "end too early"),
        (packed(b"x")[:5], "end too early"),
        (b"\x1f\x8b\x08" + b"\xff" * 50, "damaged"),
        (packed(b"x")[:-8] + b"\0" * 8, "damaged"),
        (zipped({"a": b"x" * 2000})[:-30], "no end record"),
        (zipped({"a": b"x" * 2000}).replace(b"PK\x01\x02", b"PK\x01\x03"), "damaged"),
        (zipped({}), "holds no file"),
        (zipped({f"{number}": b"" for number in range(60)}), "more than 50 files"),
        (zipped({f"{number:0>100}": b"" for number in range(700)}), "list of files of more than"),
        (packed(packed(packed(packed(b"x")))), "archives in archives"),
        (packed(b"") * 200_000, "more than 20 members"),
        (zipped({"a": b"x"}, zipfile.ZIP_BZIP2), "method 12"),
    ],
)
def test_what_cannot_be_opened_says_why(octets: bytes, wrong: str) -> None:
    with pytest.raises(UnreadableReport, match=wrong):
        files(octets)


def test_an_encrypted_archive() -> None:
    octets = bytearray(zipped({"a": b"secret"}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = octets.index(mark) + offset
        octets[at] |= 1
    with pytest.raises(UnreadableReport, match="encrypted"):
        files(bytes(octets))


def test_bombs_stop_at_the_limit() -> None:
    bomb = b"\0" * 50_000_000
    for octets in (packed(bomb), zipped({"a": bomb}), packed(packed(bomb)), packed(b"x") + packed(bomb)):
        with pytest.raises(UnreadableReport, match=r"expands to more than 1000000 octets \(expanded_max\)"):
            files(octets)
    with pytest.raises(UnreadableReport, match="expands"):
        files(zipped({f"{number}": b"\0" * 100_000 for number in range(20)}))


def test_a_zip_that_lies_about_its_sizes() -> None:
    """The sizes in its list are those of a small file; what comes out counts."""
    octets = bytearray(zipped({"a": b"\0" * 5_000_000}))
    at = octets.index(b"PK\x01\x02") + 24
    octets[at : at + 4] = struct.pack("<L", 10)
    with pytest.raises(UnreadableReport):
        for file in files(bytes(octets)):
            assert len(file) <= ROOM


@given(st.binary(max_size=200), st.integers(0, 200), st.booleans())
def test_damaged_archives_are_read_or_refused(octets: bytes, at: int, is_zip: bool) -> None:
    whole = zipped({"a": b"<a/>" * 20}) if is_zip else packed(b"<a/>" * 20)
    damaged = whole[:at] + octets + whole[at + len(octets) :]
    try:
        assert sum(map(len, files(damaged))) <= ROOM
    except UnreadableReport as error:
        assert str(error)


def test_the_room_is_shared() -> None:
    room = archives.Room(1500)
    octets = gzip.compress(b"x" * 1000)
    assert list(archives.files(octets, room)) == [b"x" * 1000]
    with pytest.raises(UnreadableReport):
        list(archives.files(octets, room))
