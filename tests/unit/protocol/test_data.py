"""Content on its way in: the end of data and its look-alikes over every split, dots, limits, chunks."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import msgspec
import pytest

from postroad.mail.message import only_crlf
from postroad.mail.reply import Reply
from postroad.protocol.data import (
    LINE_HELD_MAX,
    NUL,
    STRAY,
    ChunkReader,
    DataReader,
    RefusedChunk,
    Scrutiny,
    header_too_large,
    line_too_long,
    too_big,
    too_many_fields,
)
from postroad.protocol.limits import ProtocolLimits
from tests.unit.protocol.host import every_octet

LIMITS = ProtocolLimits()


def read(
    parts: list[bytes], limits: ProtocolLimits = LIMITS, *, repairs: bool = False
) -> tuple[bytes, Reply | None, bytes | None]:
    """Content, fault, and what stood behind the end of data (None: the end has not come)."""
    reader = DataReader(Scrutiny(limits, binary=False, repairs=repairs), limits.piece_size)
    content = b""
    for number, part in enumerate(parts):
        at, piece, ended = reader.read(part, 0)
        content += piece
        if ended:
            return content, reader.scrutiny.fault, part[at:] + b"".join(parts[number + 1 :])
        assert at == len(part)
    return content, reader.scrutiny.fault, None


def halves(octets: bytes) -> list[list[bytes]]:
    """Whole, split at each place into two, and octet by octet."""
    return [[octets], every_octet(octets), *([octets[:at], octets[at:]] for at in range(1, len(octets)))]


@pytest.mark.parametrize(
    ("wire", "content"),
    [
        (b".\r\n", b""),
        (b"a\r\n.\r\n", b"a\r\n"),
        (b"\r\n.\r\n", b"\r\n"),
        (b"..\r\n.\r\n", b".\r\n"),
        (b".a\r\n.\r\n", b"a\r\n"),
        (b"...\r\n..\r\n.\r\n", b"..\r\n.\r\n"),
        (b"a\r\n..b\r\n...\r\n.c\r\n.\r\n", b"a\r\n.b\r\n..\r\nc\r\n"),
        (b"a.\r\n.\r\n", b"a.\r\n"),
        (b"\r\n..\r\n\r\n.\r\n", b"\r\n.\r\n\r\n"),
        (b"Subject: x\r\n\r\nbody\r\n.\r\n", b"Subject: x\r\n\r\nbody\r\n"),
    ],
)
@pytest.mark.parametrize("behind", [b"", b"QUIT\r\n", b".\r\n", b"\r\n.\r\n", b"\n"])
@pytest.mark.parametrize("piece_size", [65_536, 1])
def test_data_to_its_end(wire: bytes, content: bytes, behind: bytes, piece_size: int) -> None:
    limits = msgspec.structs.replace(LIMITS, piece_size=piece_size)
    for parts in halves(wire + behind):
        assert read(parts, limits) == (content, None, behind), parts


# Everything that servers have taken for the end of data (CVE-2023-51764, -51765, -51766, CVE-2024-27305 and others).
ENDS = [b"\r\n", b"\n", b"\r", b"\r\r\n", b"\r\n\n", b"\n\r", b"\r\0\n", b"\0", b"\0\r\n", b"\r\n\0", b""]


@pytest.mark.parametrize(("before", "after"), list(itertools.product(ENDS, ENDS)))
@pytest.mark.parametrize("dots", [b".", b"..", b"\0.", b".\0"])
def test_look_alikes_of_the_end(before: bytes, after: bytes, dots: bytes) -> None:
    smuggled = b"Subject: x\r\n\r\na" + before + dots + after
    wire = smuggled + b"MAIL FROM:<evil@example.org>\r\nDATA\r\n.\r\nQUIT\r\n"
    # What the rule itself says, without any cleverness: the first CRLF "." CRLF ends it.
    end = wire.index(b"\r\n.\r\n") + 2
    inside, behind = wire[:end], wire[end + 3 :]
    strays = inside.replace(b"\r\n", b"")
    bad = b"\r" in strays or b"\n" in strays
    for piece_size in (65_536, 1, 16):
        limits = msgspec.structs.replace(LIMITS, piece_size=piece_size)
        for parts in halves(wire):
            content, fault, rest = read(parts, limits)
            assert rest == behind, parts
            if bad or b"\0" in inside:
                assert fault in (STRAY, NUL), parts
            else:
                assert fault is None
                assert content == inside.replace(b"\r\n.", b"\r\n")


@pytest.mark.parametrize(
    "look_alike", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b".\n", b".\r"]
)
def test_a_look_alike_alone_is_no_end(look_alike: bytes) -> None:
    for parts in halves(look_alike):
        assert read(parts)[2] is None


@pytest.mark.parametrize(
    ("wire", "content"),
    [
        (b"a\nb\r\n.\r\n", b"a\r\nb\r\n"),
        (b"a\rb\r\n.\r\n", b"a b\r\n"),  # as Postfix 3.9 does
        (b"\n.\r\n\r\n.\r\n", b"\r\n.\r\n\r\n"),
        # Line ends that were translated twice: one line end each, as Postfix reads them.
        (b"a\r\r\nb\r\r\r\n\r\r\nc\r\n.\r\n", b"a\r\nb\r\n\r\nc\r\n"),
        (b"a\r\r\n\n.\r\n.\r\n", b"a\r\n\r\n.\r\n.\r\n"[:-3]),
        (b"a\r\r\n.\r\n", b"a\r\n"),  # CRLF . CRLF is in it
        (b"\ra\r\rb\n\r\n.\r\n", b" a  b\r\n\r\n"),
    ],
)
def test_repair(wire: bytes, content: bytes) -> None:
    for piece_size in (65_536, 1):
        limits = msgspec.structs.replace(LIMITS, piece_size=piece_size)
        for parts in halves(wire):
            assert read(parts, limits, repairs=True) == (content, None, b""), parts


@pytest.mark.parametrize(
    "look_alike",
    [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r.\r\n", b"\r\n.\n", b"\r\n.\r", b"\r\n.\r\r\n", b"\r\n\r.\r\n"],
)
def test_repair_makes_no_end_of_data(look_alike: bytes) -> None:
    """What looks alike to others is content, and what comes behind it, too."""
    wire = b"Subject: x\r\n\r\na" + look_alike + b"MAIL FROM:<eve@example.net>\r\n.\r\nQUIT\r\n"
    for piece_size in (65_536, 1):
        limits = msgspec.structs.replace(LIMITS, piece_size=piece_size)
        for parts in halves(wire):
            content, fault, behind = read(parts, limits, repairs=True)
            assert (fault, behind) == (None, b"QUIT\r\n"), parts
            assert content.endswith(b"MAIL FROM:<eve@example.net>\r\n")
            assert only_crlf(content)


def test_repair_does_not_unstuff_behind_a_bare_line_end() -> None:
    limits = msgspec.structs.replace(LIMITS, piece_size=1)
    for parts in halves(b"a\n.b\r\n..c\r\n.\r\n"):
        assert read(parts, limits, repairs=True) == (b"a\r\n.b\r\n.c\r\n", None, b"")


@pytest.mark.parametrize("strays", [1, 2, 7, 3 * LINE_HELD_MAX])
@pytest.mark.parametrize("behind", [b"\n", b"x\r\n"])
def test_repair_of_a_long_line_is_the_same_wherever_it_is_cut(strays: int, behind: bytes) -> None:
    line = b"x" * (2 * LINE_HELD_MAX) + b"\r" * strays + behind
    wire = line + b"end\r\n.\r\n"
    expected = b"x" * (2 * LINE_HELD_MAX) + (b"" if behind == b"\n" else b" " * strays + b"x") + b"\r\nend\r\n"
    limits = msgspec.structs.replace(LIMITS, piece_size=4_096)
    for size in (len(wire), 4_000, LINE_HELD_MAX, LINE_HELD_MAX + 1, 3):
        parts = [wire[at : at + size] for at in range(0, len(wire), size)]
        assert read(parts, limits, repairs=True) == (expected, None, b""), size
    reader = ChunkReader(Scrutiny(limits, binary=False, repairs=True), limits.piece_size)
    chunked = line[:-1] if behind == b"\n" else line  # content that ends with CRs
    reader.begin(len(chunked), last=True)
    _, piece, ended = reader.read(chunked, 0)
    assert ended and piece == b"x" * (2 * LINE_HELD_MAX) + b" " * strays + (b"" if behind == b"\n" else b"x\r\n")


def test_a_line_of_a_mebibyte_is_taken_in_pieces() -> None:
    longest = b".." + b"x" * (LIMITS.text_line_max - 3) + b"\r\n"
    for size in (1_460, 65_536, 3_000_000):
        wire = b"a\r\n" + longest + b"b\r\n.\r\n"
        reader = DataReader(Scrutiny(LIMITS, binary=False), LIMITS.piece_size)
        content = []
        for at in range(0, len(wire), size):
            _, piece, ended = reader.read(wire[at : at + size], 0)
            assert len(reader._held) <= LIMITS.piece_size + size, "no buffer depends on the length of a line"
            content.append(piece)
        assert (b"".join(content), ended) == (b"a\r\n" + longest[1:] + b"b\r\n", True)
        longer = [b"x" + wire[4:][at : at + size] if not at else wire[4:][at : at + size]
                  for at in range(0, len(wire) - 4, size)]
        assert read(longer)[1] == line_too_long(LIMITS)
    assert "1048576 octets" in line_too_long(LIMITS).text


def test_a_line_of_a_mebibyte_comes_by_chunks_of_one_octet() -> None:
    reader = ChunkReader(Scrutiny(LIMITS, binary=False), LIMITS.piece_size)
    content = []
    for octets in (b"a: b\r\n", *[b"x"] * 30_000, b"\r", b"\n", b"c"):
        reader.begin(len(octets), last=octets == b"c")
        content.append(reader.read(octets, 0)[1])
        assert len(reader._held) <= LINE_HELD_MAX
    assert b"".join(content) == b"a: b\r\n" + b"x" * 30_000 + b"\r\nc"


def test_nul() -> None:
    wire = b"a\0b\r\n.\r\n"
    for parts in halves(wire):
        assert read(parts) == (b"", NUL, b"")
        assert read(parts, msgspec.structs.replace(LIMITS, nul_refused=False)) == (b"a\0b\r\n", None, b"")


@pytest.mark.parametrize(
    ("changes", "good", "bad", "fault"),
    [
        ({"size_max": 10}, b"x" * 8 + b"\r\n", b"x" * 9 + b"\r\n", too_big),
        ({"size_max": 10}, b".." + b"x" * 7 + b"\r\n", b".." + b"x" * 8 + b"\r\n", too_big),
        ({"text_line_max": 6}, b"abcd\r\nabcd\r\na\r\nabcd\r\n", b"abcd\r\nabcde\r\na\r\n", line_too_long),
        ({"text_line_max": 6}, b"..bcd\r\n", b"..bcde\r\n", line_too_long),
        ({"header_size_max": 8}, b"A: b\r\n\r\n" + b"x" * 20 + b"\r\n", b"A: bcde\r\n\r\n", header_too_large),
        ({"header_size_max": 8}, b"\r\n" + b"x" * 20 + b"\r\n", b"A: bcdef\r\n", header_too_large),
        ({"header_size_max": 8}, b" A: b\r\nX: field\r\n" + b"x\r\n" * 9, b"A : b\r\nB: c\r\n\r\n", header_too_large),
        ({"header_fields_max": 2}, b"From a\r\nA: b\r\n\r\n" + b"x: y\r\n" * 9,
         b">From a\r\nA : b\r\nC: d\r\n\r\n", too_many_fields),
        ({"header_fields_max": 1}, b">From a\r\n A: b\r\nA: b\r\nC: d\r\n", b"From a\r\nC: d\r\n", too_many_fields),
        ({"header_size_max": 8}, b"A: b\r\nno field\r\n" + b"x\r\n" * 9, b"A: b\r\nB: c\r\n\r\n", header_too_large),
        ({"header_fields_max": 2}, b"A: b\r\n c\r\n\td\r\nB: c\r\n\r\n" + b"x: y\r\n" * 9,
         b"A: b\r\nB: c\r\nC: d\r\n\r\n", too_many_fields),
    ],
)  # fmt: skip
@pytest.mark.parametrize("piece_size", [65_536, 1, 7])
def test_limits(
    changes: dict[str, int], good: bytes, bad: bytes, fault: Callable[[ProtocolLimits], Reply], piece_size: int
) -> None:
    limits = msgspec.structs.replace(LIMITS, piece_size=piece_size, **changes)
    unstuffed = good.removeprefix(b".")
    for parts in halves(good + b".\r\n"):
        assert read(parts, limits) == (unstuffed, None, b""), parts
    for parts in halves(bad + b".\r\nQUIT"):
        content, found, rest = read(parts, limits)
        assert (found, rest) == (fault(limits), b"QUIT"), parts
        assert bad.removeprefix(b".").startswith(content)


def test_a_header_bomb() -> None:
    wire = b"X: y\r\n" * 10_000 + b"\r\n.\r\n"
    assert read([wire])[1] == too_many_fields(LIMITS)
    folded = b"X: y\r\n" + b" z\r\n" * 10_000 + b"\r\n.\r\n"
    assert read([folded])[1] is None
    no_header = b"no field at all\r\n" * 20_000 + b".\r\n"
    assert read([no_header])[1] is None
    assert read(every_octet(b"X: y\r\n" * 1001 + b"no: field\r\n.\r\n"))[1] == too_many_fields(LIMITS)
    huge = [b"X: " + b"y" * 900 + b"\r\n"] * 1000 + [b"\r\n.\r\n"]
    assert read(huge)[1] == header_too_large(LIMITS)


def test_a_line_without_end_is_not_kept() -> None:
    reader = DataReader(Scrutiny(LIMITS, binary=False), LIMITS.piece_size)
    handed_on = 0
    for _ in range(1000):
        at, piece, ended = reader.read(b"x" * 10_000, 0)
        handed_on += len(piece)
        assert (at, ended) == (10_000, False)
        assert len(reader._held) <= LIMITS.piece_size + 10_000
    assert handed_on <= LIMITS.text_line_max
    assert reader.scrutiny.fault == line_too_long(LIMITS)
    assert reader.swallowed > 8_500_000
    assert reader.read(b"\r\n.\r\nQUIT", 0) == (5, b"", True)


def test_small_content_is_one_piece_and_large_content_comes_in_large_ones() -> None:
    line = b"x" * 98 + b"\r\n"
    for size, feed in ((600, 1_460), (10_000, 1_460), (10_000, 262_144)):
        wire = line * size + b".\r\n"
        reader = DataReader(Scrutiny(LIMITS, binary=False), LIMITS.piece_size)
        pieces = []
        for at in range(0, len(wire), feed):
            _, piece, ended = reader.read(wire[at : at + feed], 0)
            if piece:
                pieces.append(piece)
        assert ended
        assert b"".join(pieces) == line * size
        assert all(len(piece) >= LIMITS.piece_size - 100 for piece in pieces[:-1])
        assert (len(pieces) == 1) == (size == 600)


@pytest.mark.parametrize("length", range(9))
def test_strays_are_found_in_every_combination(length: int) -> None:
    for octets in itertools.product((b"\r", b"\n", b"a"), repeat=length):
        piece = b"".join(octets)
        rest = piece.replace(b"\r\n", b"")
        assert only_crlf(piece) == (b"\r" not in rest and b"\n" not in rest), piece


# ---- BDAT


def chunks(
    sizes: list[bytes], split: int, limits: ProtocolLimits = LIMITS, binary: bool = False
) -> tuple[bytes, Reply | None]:
    """Feed each as a chunk, in parts of `split` octets with octets of the next command behind; the last has LAST."""
    reader = ChunkReader(Scrutiny(limits, binary=binary), limits.piece_size)
    content = b""
    for number, chunk in enumerate(sizes):
        reader.begin(len(chunk), last=number == len(sizes) - 1)
        wire = chunk + b"RSET\r\n"
        start, ended = 0, False
        while not ended:
            at, piece, ended = reader.read(wire[start : start + split], 0)
            start += at
            content += piece
        assert start == len(chunk)
    return content, reader.scrutiny.fault


@pytest.mark.parametrize(
    "parts",
    [
        [b""], [b"", b""], [b"a\r\n"], [b"a\r", b"\nb\r\n"], [b"a\r\n", b"", b"b\r\n", b""], [b"no line end"],
        [b".\r\n"], [b"a\r\n.\r\nb\r\n"], [b"x" * 100 + b"\r\n", b"y" * 100, b"\r\n"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("piece_size", [65_536, 1, 16])
def test_chunks(parts: list[bytes], piece_size: int) -> None:
    limits = msgspec.structs.replace(LIMITS, piece_size=piece_size)
    for split in (1, 2, 7, 1000):
        assert chunks(parts, split, limits) == (b"".join(parts), None)


@pytest.mark.parametrize(
    ("parts", "fault"),
    [
        ([b"a\nb\r\n"], STRAY), ([b"a\r", b"b\r\n"], STRAY), ([b"a\r\n\r"], STRAY), ([b"a\r\n", b"\n"], STRAY),
        ([b"a\0\r\n"], NUL), ([b"a\n.\r\n", b"more\r\n"], STRAY),
    ],
)  # fmt: skip
@pytest.mark.parametrize("piece_size", [65_536, 1])
def test_chunks_of_text_are_held_to_line_ends(parts: list[bytes], fault: Reply, piece_size: int) -> None:
    limits = msgspec.structs.replace(LIMITS, piece_size=piece_size)
    for split in (1, 3, 1000):
        assert chunks(parts, split, limits)[1] == fault
        assert chunks(parts, split, limits, binary=True) == (b"".join(parts), None)


@pytest.mark.parametrize("chunk", [b"a\nb\r\n", b"a\0b\r\n", b"x" * 30 + b"\r\n", b"x" * 30 + b"\t\r\n.\n"])
@pytest.mark.parametrize("split", [1, 2, 7, 1000])
@pytest.mark.parametrize("piece_size", [1, 16, 32, 65_536])
def test_a_fault_is_that_of_the_chunk_that_brought_it(chunk: bytes, split: int, piece_size: int) -> None:
    """RFC 3030 §2: the failed chunk is refused, and where the stream was cut does not choose which one that is."""
    limits = msgspec.structs.replace(LIMITS, text_line_max=20 if b"x" * 21 in chunk else 1_000)
    reader = ChunkReader(Scrutiny(limits, binary=False), piece_size)
    for octets, faulty in ((b"fine\r\n", False), (b"no end", False), (b"\r\n" + chunk, True), (b"more", True)):
        reader.begin(len(octets), last=False)
        for at in range(0, len(octets), split):
            reader.read(octets[at : at + split], 0)
        assert (reader.scrutiny.fault is not None) == faulty, octets


@pytest.mark.parametrize("piece_size", [8, 9, 10, 11, 12, 13, 65_536])
def test_fields_of_binary_content_are_counted_wherever_it_is_cut(piece_size: int) -> None:
    """A field that was divided between two pieces counted as the end of the header section."""
    limits = msgspec.structs.replace(LIMITS, header_fields_max=10, piece_size=piece_size)
    for split in (1, 5, 12, 13, 14, 15, 1000):
        assert chunks([b"A: b\r\n" * 11 + b"\r\n"], split, limits, binary=True)[1] == too_many_fields(limits)
        wire = b"A: b\r\n" * 10 + b"\r\n" + bytes(range(256)) + b"A: b\r\n" * 20
        assert chunks([wire], split, limits, binary=True) == (wire, None)


@pytest.mark.parametrize("length", [9_998, 20_000, 20_001])
def test_a_long_line_of_a_binary_header_does_not_end_it(length: int) -> None:
    """What went on with a line that was divided between two pieces was taken for the body: behind it fields had no
    limit, and whether they had depended on how the octets came."""
    limits = msgspec.structs.replace(LIMITS, header_fields_max=100, piece_size=10_000)
    long = b"X:" + b"a" * length + b"\r\n"
    for split in (1_000, 9_999, 10_001, 30_000):
        assert chunks([long + b"A: b\r\n" * 100 + b"\r\n"], split, limits, binary=True)[1] == too_many_fields(limits)
        for body in (b"A: b\r\n" * 200, b"\r\n" * 200):
            for wire in (long + b"A: b\r\n" * 99 + b"\r\n" + body, long + b"no field\r\n" + body):
                assert chunks([wire], split, limits, binary=True) == (wire, None)


def test_what_is_no_header_is_not_measured_as_one() -> None:
    """An empty line far behind a first line that is no field: in one piece all before it counted as header."""
    wire = b"no field\r\n" * 50 + b"\r\nbody\r\n.\r\n"
    limits = msgspec.structs.replace(LIMITS, header_size_max=100)
    for parts in ([wire], every_octet(wire)):
        content, fault, _ = read(parts, msgspec.structs.replace(limits, piece_size=16))
        assert (content, fault) == (wire[:-3], None)


def test_binary_content_is_handed_on_though_no_line_end_comes() -> None:
    """A read that held lines and more than a piece behind them was kept, however large it was."""
    reader = ChunkReader(Scrutiny(LIMITS, binary=True), 16)
    reader.begin(1_000, last=True)
    for octets in (b"x\r\n" + b"\0" * 300, b"\0" * 300):
        at, _, ended = reader.read(octets, 0)
        assert at == len(octets) and not ended
        assert len(reader._held) < 16 and len(reader._passed) < 16


def test_chunks_have_limits() -> None:
    limits = msgspec.structs.replace(LIMITS, size_max=10, text_line_max=6, piece_size=4)
    assert chunks([b"abcd\r\n", b"abc\r\n"], 3, limits)[1] == too_big(limits)
    assert chunks([b"abcdefg\r\n"], 3, limits)[1] == line_too_long(limits)
    assert chunks([b"abcdefg", b"x"], 3, limits)[1] == line_too_long(limits)
    assert chunks([b"abcdefghi"], 3, limits, binary=True) == (b"abcdefghi", None)


def test_a_refused_chunk_is_swallowed() -> None:
    refused = RefusedChunk(5, STRAY)
    assert refused.read(b"xxabc", 2) == (5, b"", False)
    assert refused.read(b"deRSET", 0) == (2, b"", True)
    assert RefusedChunk(0, STRAY).read(b"", 0) == (0, b"", True)
