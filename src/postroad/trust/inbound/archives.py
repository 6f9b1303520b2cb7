"""Files of reports, taken out of their archives: gzip (RFC 1952), zip, or as they are.

What a file is is told by its first octets, never by its name or media type, because senders are wrong in both. What
always holds: no more is expanded than `room` says, however much an archive claims to hold; archives within archives
are opened NESTED_MAX deep. How it fails: `UnreadableReport`.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Final

from postroad.trust.inbound.limits import UnreadableReport

NESTED_MAX: Final = 2
FILES_MAX: Final = 50  # in one zip archive
MEMBERS_MAX: Final = 20  # of one gzip file; for each the rest is copied
_DIRECTORY_MAX: Final = 65_536  # octets of its list of files
_PIECE: Final = 262_144
_GZIP: Final = b"\x1f\x8b"
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_END: Final = b"PK\x05\x06"  # begins the end record of a zip archive, which has 22 octets and a comment
_END_SIZE: Final = 22
_COMMENT_MAX: Final = 65_535
_ZIP64: Final = b"PK\x06\x07"
_ENCRYPTED: Final = 0x1
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Room:
    """How many octets may still be expanded. `all`: of how many."""

    __slots__ = ("all", "left")

    def __init__(self, octets: int) -> None:
        self.all = self.left = octets

    def take(self, octets: int) -> None:
        self.left -= octets
        if self.left < 0:
            raise UnreadableReport(f"its archive expands to more than {self.all} octets (expanded_max)")


def is_archive(octets: bytes) -> bool:
    return octets.startswith((_GZIP, *_ZIP))


def files(octets: bytes, room: Room, depth: int = 0) -> Iterator[bytes]:
    """The files in an archive, or the octets themselves. They count in `room` as far as they were expanded."""
    if not is_archive(octets):
        yield octets
        return
    if depth > NESTED_MAX:
        raise UnreadableReport(f"it has archives in archives, more than {NESTED_MAX} deep")
    found = (_gunzip(octets, room),) if octets.startswith(_GZIP) else _unzip(octets, room)
    for file in found:
        yield from files(file, room, depth + 1)


def _gunzip(octets: bytes, room: Room) -> bytes:
    """All members of a gzip file (RFC 1952 §2.2). What is behind the last one and begins no other is passed over."""
    expanded: list[bytes] = []
    rest, members = octets, 0
    while rest.startswith(_GZIP):
        members += 1
        if members > MEMBERS_MAX:
            raise UnreadableReport(f"its gzip file has more than {MEMBERS_MAX} members")
        inflater = zlib.decompressobj(wbits=31)
        try:
            piece = inflater.decompress(rest, _PIECE)
            while True:
                room.take(len(piece))
                expanded.append(piece)
                if inflater.eof:
                    break
                if not piece and not inflater.unconsumed_tail:
                    raise UnreadableReport("its gzip data end too early")
                piece = inflater.decompress(inflater.unconsumed_tail, _PIECE)
        except zlib.error as error:
            if expanded and rest is not octets:
                break  # octets behind the first member that only look like another one
            raise UnreadableReport(f"its gzip data are damaged ({error})") from None
        rest = inflater.unused_data
    return b"".join(expanded)


def _unzip(octets: bytes, room: Room) -> Iterator[bytes]:
    _check_directory(octets)
    try:
        with zipfile.ZipFile(io.BytesIO(octets)) as archive:
            listed = [each for each in archive.infolist() if not each.is_dir() and not _is_litter(each.filename)]
            if not listed:
                raise UnreadableReport("its zip archive holds no file")
            if len(listed) > FILES_MAX:
                raise UnreadableReport(f"its zip archive holds more than {FILES_MAX} files")
            for each in listed:
                yield _file(archive, each, room)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError, struct.error) as error:
        raise UnreadableReport(f"its zip archive is damaged ({error})"[:200]) from None


def _file(archive: zipfile.ZipFile, listed: zipfile.ZipInfo, room: Room) -> bytes:
    if listed.flag_bits & _ENCRYPTED:
        raise UnreadableReport("its zip archive is encrypted")
    if listed.compress_type not in _METHODS:
        raise UnreadableReport(f"its zip archive uses method {listed.compress_type}, not 0 or 8 (deflate)")
    pieces: list[bytes] = []
    with archive.open(listed) as opened:
        while piece := opened.read(min(_PIECE, max(room.left, 0) + 1)):
            room.take(len(piece))
            pieces.append(piece)
    return b"".join(pieces)


def _is_litter(name: str) -> bool:
    """What macOS puts into archives beside the files."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith("._")


def _check_directory(octets: bytes) -> None:
    """Refuses a list of files that is too long, before anything makes objects of it."""
    at = octets.rfind(_END, max(0, len(octets) - _END_SIZE - _COMMENT_MAX))
    if at < 0 or at + _END_SIZE > len(octets):
        raise UnreadableReport("its zip archive is damaged (it has no end record)")
    count, size = struct.unpack_from("<HL", octets, at + 10)
    if octets.find(_ZIP64, max(0, at - 20), at) >= 0 or count == 0xFFFF or size > _DIRECTORY_MAX:
        raise UnreadableReport(f"its zip archive has a list of files of more than {_DIRECTORY_MAX} octets")
