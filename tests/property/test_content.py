"""Content: what our client sends our server takes as the same octets, by DATA and by BDAT, in any pieces and cuts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.protocol.data import ChunkReader, DataReader, Scrutiny
from postroad.protocol.limits import ProtocolLimits
from postroad.protocol.stuffing import Stuffer, stuffed

starts = st.sampled_from([b"", b".", b"..", b".\r\n.", b"a: b"])
lines = st.lists(st.one_of(starts, st.binary(max_size=30)), max_size=12)
# As it is stored: lines that end with CRLF, neither CR nor LF nor NUL within one
contents = lines.map(lambda parts: b"".join(part.translate(None, b"\r\n\0") + b"\r\n" for part in parts))
pieces = st.sampled_from([1, 7, 40, 65_536])


def cut(octets: bytes, stride: int) -> list[bytes]:
    return [octets[at : at + stride] for at in range(0, len(octets), stride)]


def taken(wire: bytes, piece_size: int, stride: int) -> tuple[bytes, bytes]:
    """The content, and what stood behind its end."""
    reader = DataReader(Scrutiny(ProtocolLimits(), binary=False), piece_size)
    content = b""
    parts = cut(wire, stride)
    for number, part in enumerate(parts):
        at, piece, ended = reader.read(part, 0)
        content += piece
        if ended:
            assert reader.scrutiny.fault is None
            return content, part[at:] + b"".join(parts[number + 1 :])
    raise AssertionError("no end")


@settings(max_examples=200, deadline=None)
@given(contents, st.integers(1, 60), st.integers(1, 60), pieces)
def test_data(content: bytes, sent: int, received: int, piece_size: int) -> None:
    stuffer = Stuffer()
    wire = b"".join(stuffer.piece(part) for part in cut(content, sent))
    end = stuffer.end()
    assert end is not None and not stuffer.broken
    whole = stuffed(content)
    assert whole is not None and b"".join(whole) == wire + end
    assert (b"\r\n" + wire + end).index(b"\r\n.\r\n") == len(wire)  # no end of data before the end (RFC 5321 §4.5.2)
    assert taken(wire + end + b"QUIT\r\n", piece_size, received) == (content, b"QUIT\r\n")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(1, 60))
def test_what_is_not_clean_is_not_sent(content: bytes, sent: int) -> None:
    stray = content.replace(b"\r\n", b"")
    dirty = b"\r" in stray or b"\n" in stray
    assert (stuffed(content) is None) == dirty
    stuffer = Stuffer()
    wire = b"".join(stuffer.piece(part) for part in cut(content, sent))
    assert (stuffer.end() is None) == dirty
    left = wire.replace(b"\r\n", b"")
    assert b"\r" not in left and b"\n" not in left


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(0, 60), max_size=8), st.integers(1, 60), pieces)
def test_chunks(content: bytes, sizes: list[int], received: int, piece_size: int) -> None:
    reader = ChunkReader(Scrutiny(ProtocolLimits(), binary=True), piece_size)
    read, rest = b"", content
    for number, size in enumerate([*sizes, len(content)]):
        last = number == len(sizes)
        chunk, rest = (rest, b"") if last else (rest[:size], rest[size:])
        reader.begin(len(chunk), last=last)
        for part in cut(chunk, received) or [b""]:
            behind = b"RSET\r\n" if len(part) == len(chunk) else b""
            at, piece, ended = reader.read(part + behind, 0)
            assert at == len(part)  # what stands behind the chunk is not its own
            read += piece
        assert ended
    assert reader.scrutiny.fault is None and read == content
